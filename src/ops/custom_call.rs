//! Calls of functions that a target registers under a name.

use std::sync::Arc;

use crate::graph::{Builder, Convention, Function, Tensor};
use crate::hlo;
use crate::hlo::proto::ShapeProto;
use crate::ops::{Operator, signature};
use crate::{Array, Error, Result, Shape};

/// How a custom call's function is called, as XLA's `CustomCallApiVersion`.
///
/// ```
/// use xlann::{ApiVersion, CustomCall, DType, Shape};
///
/// let call = CustomCall::new("legacy_kernel", [Shape::new(DType::F32, [8])])
///     .api_version(ApiVersion::Original)
///     .backend_config("any text that the kernel reads");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiVersion {
    /// `void(void* out, const void** in)`.
    Original,
    /// XLA's typed foreign function interface; `backend_config` is a dictionary of attributes in MLIR's text
    /// form, such as `{k = 10 : i64}`.
    TypedFfi,
}

/// A call of a function that the target knows under a name.
///
/// ```
/// use xlann::{Builder, CustomCall, DType, Shape};
///
/// let builder = Builder::new("search");
/// let scores = builder.parameter("scores", Shape::new(DType::F32, [8, 100]))?;
/// let call = CustomCall::new("my_kernel", [Shape::new(DType::F32, [8, 10])]).backend_config("{k = 10 : i64}");
/// let outputs = builder.custom_call(call, &[&scores])?;
/// assert_eq!(outputs[0].dims(), [8, 10]);
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CustomCall {
    target: String,
    results: Vec<Shape>,
    backend_config: String,
    api_version: ApiVersion,
    has_side_effect: bool,
    computations: Vec<Arc<Function>>,
    reference: Option<Arc<Function>>,
}

impl CustomCall {
    /// A call of `target` that gives arrays of these shapes, row-major as its operands are; through the typed
    /// FFI, without attributes and side effects.
    pub fn new(target: &str, results: impl Into<Vec<Shape>>) -> CustomCall {
        CustomCall {
            target: target.to_owned(),
            results: results.into(),
            backend_config: String::new(),
            api_version: ApiVersion::TypedFfi,
            has_side_effect: false,
            computations: Vec::new(),
            reference: None,
        }
    }

    /// With this text handed to the target.
    pub fn backend_config(self, text: &str) -> CustomCall {
        CustomCall { backend_config: text.to_owned(), ..self }
    }

    /// Called in this way.
    pub fn api_version(self, api_version: ApiVersion) -> CustomCall {
        CustomCall { api_version, ..self }
    }

    /// With a side effect: the call is kept where its results are not used, and not made twice.
    ///
    /// ```
    /// use xlann::{Builder, CustomCall, DType, Shape};
    ///
    /// let log = CustomCall::new("log_tensor", []).side_effect();
    /// let builder = Builder::new("traced");
    /// let x = builder.parameter("x", Shape::new(DType::F32, [8]))?;
    /// assert!(builder.custom_call(log, &[&x])?.is_empty());
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn side_effect(self) -> CustomCall {
        CustomCall { has_side_effect: true, ..self }
    }

    /// With one more function in the module that the target's reads, such as a comparator.
    ///
    /// ```
    /// use xlann::{CustomCall, DType, Function, Shape};
    ///
    /// let scalar = Shape::scalar(DType::F32);
    /// let greater = Function::trace("greater", &[scalar.clone(), scalar], |x| x[0].greater(&x[1]))?;
    /// let call = CustomCall::new("my_sort", [Shape::new(DType::F32, [8])]).computation(greater);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn computation(mut self, function: Function) -> CustomCall {
        self.computations.push(Arc::new(function));
        self
    }

    /// With a function of the same operands and results that gives what the call gives: the host evaluates it
    /// in the call's place.
    ///
    /// ```
    /// use xlann::{Array, CustomCall, DType, Function, Shape};
    ///
    /// let shape = Shape::new(DType::F32, [2]);
    /// let double = Function::trace("double", std::slice::from_ref(&shape), |x| &x[0] * 2)?;
    /// let call = CustomCall::new("my_double", [shape.clone()]).reference(double);
    /// let f = Function::trace("f", &[shape], |x| x[0].builder().custom_call(call, &[&x[0]]))?;
    /// assert_eq!(f.eval(&[Array::new([2], &[1f32, 2.0])?])?, [Array::new([2], &[2f32, 4.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn reference(self, function: Function) -> CustomCall {
        CustomCall { reference: Some(Arc::new(function)), ..self }
    }
}

impl Builder {
    /// Calls a function that the target registers under a name.
    ///
    /// # Errors
    /// Where the reference does not take the operands or does not give the call's results.
    ///
    /// ```
    /// use xlann::{Array, CustomCall, DType, Function, Shape};
    ///
    /// // Of a call without a reference, the host knows nothing but the shapes.
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [2])], |x| {
    ///     let call = CustomCall::new("my_kernel", [x[0].shape().clone()]);
    ///     x[0].builder().custom_call(call, &[&x[0]])
    /// })?;
    /// assert_eq!(f.result_shapes(), [Shape::new(DType::F32, [2])]);
    /// assert!(f.eval(&[Array::new([2], &[1f32, 2.0])?]).is_err());
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn custom_call(&self, call: CustomCall, operands: &[&Tensor]) -> Result<Vec<Tensor>> {
        self.push(call, operands)
    }
}

impl Operator for CustomCall {
    fn name(&self) -> &'static str {
        "custom_call"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        let mut params = vec![("target", format!("{:?}", self.target))];
        if !self.backend_config.is_empty() {
            params.push(("backend_config", format!("{:?}", self.backend_config)));
        }
        if self.api_version != ApiVersion::TypedFfi {
            params.push(("api_version", format!("{:?}", self.api_version)));
        }
        if self.has_side_effect {
            params.push(("has_side_effect", "true".to_owned()));
        }
        params
    }

    fn functions(&self) -> Vec<(&'static str, &Arc<Function>)> {
        let computations = self.computations.iter().map(|function| ("computation", function));
        computations.chain(self.reference.iter().map(|function| ("reference", function))).collect()
    }

    fn has_side_effect(&self) -> bool {
        self.has_side_effect
    }

    fn functions_mut(&mut self) -> Vec<&mut Arc<Function>> {
        // The reference is evaluated, never lowered.
        self.computations.iter_mut().collect()
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        if let Some(reference) = &self.reference {
            let operands: Vec<Shape> = inputs.iter().map(|&shape| shape.clone()).collect();
            signature(self.name(), "reference", reference, &operands, &self.results)?;
        }
        Ok(self.results.clone())
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        match &self.reference {
            Some(reference) => reference.eval(inputs),
            None => Err(Error::Unsupported {
                operator: self.name(),
                target: "host".to_owned(),
                reason: format!("{} has no reference function", self.target),
            }),
        }
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let computations = self
            .computations
            .iter()
            .map(|function| Ok(function.emit(module, Convention::Flat)?.id()))
            .collect::<Result<Vec<_>>>()?;
        let operands: Vec<&hlo::Value> = inputs.iter().collect();
        Ok(module.add_variadic("custom-call", &self.results, &operands, |instruction| {
            instruction.custom_call_target = self.target.clone();
            instruction.backend_config = self.backend_config.as_bytes().to_vec();
            instruction.custom_call_has_side_effect = self.has_side_effect;
            instruction.custom_call_api_version = match self.api_version {
                ApiVersion::Original => 1,
                ApiVersion::TypedFfi => 4,
            };
            instruction.called_computation_ids = computations;
            // Without, XLA may choose another layout than row-major.
            instruction.constrain_layout = true;
            instruction.operand_shapes_with_layout =
                operands.iter().map(|operand| ShapeProto::from(operand.shape())).collect();
        }))
    }
}
