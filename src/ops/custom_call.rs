//! Calls of functions that a target registers under a name.

use std::sync::Arc;

use crate::graph::{Builder, Convention, Function, Tensor};
use crate::hlo;
use crate::hlo::proto::ShapeProto;
use crate::ops::dynamic_slice::{row, with_row};
use crate::ops::{Operator, signature};
use crate::transform::{Batched, Dual, Jvp, Vmap, flatten, join, no_rule, push_jvp, vmap_body, zeros};
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

/// How [`vmap`](crate::vmap()) calls a custom call's function for a batch, as the `vmap_method` of JAX's
/// `jax.ffi.ffi_call`.
///
/// ```
/// use xlann::{CustomCall, DType, Shape, VmapMethod};
///
/// // A kernel that takes any number of leading dimensions.
/// let call = CustomCall::new("rms_norm", [Shape::new(DType::F32, [8])]).vmap_method(VmapMethod::BroadcastAll);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmapMethod {
    /// Once for each element of the batch, in a loop.
    Sequential,
    /// Once, with a dimension in front of every operand and result: of the batch's size, or of size 1 for
    /// operands that all of the batch share.
    ExpandDims,
    /// Once, with the batch dimension in front of every operand and result.
    BroadcastAll,
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
    any_layout: bool,
    computations: Vec<Arc<Function>>,
    reference: Option<Arc<Function>>,
    vmap_method: Option<VmapMethod>,
    derivative: Option<Arc<Function>>,
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
            any_layout: false,
            computations: Vec::new(),
            reference: None,
            vmap_method: None,
            derivative: None,
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

    /// With a side effect: the call is kept where its results are not used, and not made twice, but where a reverse
    /// derivative computes its results again. [`vmap`](crate::vmap()) refuses a branch or loop with one that some
    /// elements of the batch take and others do not.
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

    /// With operands and results in whatever layouts the compiler chooses: for calls that it knows itself, and can
    /// fuse where they are free of layouts.
    ///
    /// ```
    /// use xlann::{CustomCall, DType, Shape};
    ///
    /// let call = CustomCall::new("Sharding", [Shape::new(DType::F32, [8])]).any_layout();
    /// ```
    pub fn any_layout(self) -> CustomCall {
        CustomCall { any_layout: true, ..self }
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
    /// in the call's place. Where no [`derivative`](CustomCall::derivative) is given, the reference's is taken.
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

    /// Batched in this way; without, it cannot be.
    ///
    /// ```
    /// use xlann::{Array, CustomCall, DType, Function, Shape, VmapMethod, vmap};
    ///
    /// let shape = Shape::new(DType::F32, [2]);
    /// let double = Function::trace("double", std::slice::from_ref(&shape), |x| &x[0] * 2)?;
    /// let call = CustomCall::new("my_double", [shape.clone()])
    ///     .reference(double)
    ///     .vmap_method(VmapMethod::BroadcastAll);
    /// let f = Function::trace("f", &[shape], |x| x[0].builder().custom_call(call, &[&x[0]]))?;
    /// let batched = vmap(&f, 0, 0, 3)?;
    /// assert_eq!(batched.equations()[0].operator(), "custom_call");
    /// assert_eq!(batched.result_shapes(), [Shape::new(DType::F32, [3, 2])]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn vmap_method(self, method: VmapMethod) -> CustomCall {
        CustomCall { vmap_method: Some(method), ..self }
    }

    /// With a function of the operands, then of a tangent for each floating one, that gives a tangent for each
    /// floating result.
    ///
    /// It must be linear in the tangents and made of operators that have derivatives; a reverse derivative is its
    /// transpose. Without it, the [`reference`](CustomCall::reference) is differentiated.
    ///
    /// ```
    /// use xlann::{Array, CustomCall, DType, Function, Shape, grad};
    ///
    /// let scalar = Shape::scalar(DType::F32);
    /// let derivative = Function::trace("d_square", &[scalar.clone(), scalar.clone()], |x| (&x[0] * 2)? * &x[1])?;
    /// let call = CustomCall::new("my_square", [scalar.clone()]).derivative(derivative);
    /// let f = Function::trace("f", &[scalar], |x| x[0].builder().custom_call(call, &[&x[0]]))?;
    /// assert_eq!(grad(&f, &[0])?.eval(&[Array::scalar(3f32)])?, [Array::scalar(6f32)]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn derivative(self, function: Function) -> CustomCall {
        CustomCall { derivative: Some(Arc::new(function)), ..self }
    }
}

impl CustomCall {
    /// The name that the target knows.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// What gives its results on the host.
    pub(crate) fn reference_function(&self) -> Option<&Function> {
        self.reference.as_deref()
    }
}

impl Builder {
    /// Calls a function that the target registers under a name.
    ///
    /// # Errors
    /// Where the reference does not take the operands or does not give the call's results, or the derivative not
    /// them and their tangents.
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
        if self.any_layout {
            params.push(("any_layout", "true".to_owned()));
        }
        if let Some(method) = self.vmap_method {
            params.push(("vmap_method", format!("{method:?}")));
        }
        params
    }

    fn functions(&self) -> Vec<(&'static str, &Arc<Function>)> {
        let computations = self.computations.iter().map(|function| ("computation", function));
        let reference = self.reference.iter().map(|function| ("reference", function));
        let derivative = self.derivative.iter().map(|function| ("derivative", function));
        computations.chain(reference).chain(derivative).collect()
    }

    fn has_side_effect(&self) -> bool {
        self.has_side_effect
    }

    fn functions_mut(&mut self) -> Vec<&mut Arc<Function>> {
        // The reference and the derivative are never lowered.
        self.computations.iter_mut().collect()
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let operands: Vec<Shape> = inputs.iter().map(|&shape| shape.clone()).collect();
        if let Some(reference) = &self.reference {
            signature(self.name(), "reference", reference, &operands, &self.results)?;
        }
        if let Some(derivative) = &self.derivative {
            let parameters = [operands.clone(), floats(&operands)].concat();
            signature(self.name(), "derivative", derivative, &parameters, &floats(&self.results))?;
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
            if !self.any_layout {
                instruction.constrain_layout = true;
                instruction.operand_shapes_with_layout =
                    operands.iter().map(|operand| ShapeProto::from(operand.shape())).collect();
            }
        }))
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let Some(method) = self.vmap_method else {
            let reason = format!("{:?} does not say how; CustomCall::vmap_method states it", self.target);
            return no_rule(self.name(), "vmap", reason);
        };
        let batched: Vec<bool> = inputs.iter().map(|input| input.axis.is_some()).collect();
        let operand = |input: &Batched| match (method, input.axis) {
            (VmapMethod::BroadcastAll, _) | (_, Some(_)) => rule.leading(input),
            (VmapMethod::ExpandDims, None) => input.tensor.expand_dims(0),
            (VmapMethod::Sequential, None) => Ok(input.tensor.clone()),
        };
        let operands = inputs.iter().map(operand).collect::<Result<Vec<_>>>()?;
        let operands: Vec<&Tensor> = operands.iter().collect();
        let outputs = match method {
            VmapMethod::Sequential => self.looped(rule, &operands, &batched)?,
            VmapMethod::ExpandDims => rule.builder.push(self.batched(rule.size, &batched)?, &operands)?,
            VmapMethod::BroadcastAll => {
                let batched = vec![true; inputs.len()];
                rule.builder.push(self.batched(rule.size, &batched)?, &operands)?
            }
        };
        Ok(outputs.into_iter().map(|tensor| Batched { tensor, axis: Some(0) }).collect())
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let primals = rule.primal(inputs)?;
        if let Some(derivative) = &self.derivative {
            let is_float: Vec<bool> = inputs.iter().map(|input| input.primal.dtype().is_float()).collect();
            let arguments = flatten(inputs, &is_float)?;
            let tangents = rule.builder.call(derivative, &arguments.iter().collect::<Vec<_>>())?;
            let is_float: Vec<bool> = self.results.iter().map(|shape| shape.dtype().is_float()).collect();
            return Ok(join(&[primals, tangents].concat(), &is_float));
        }
        let Some(reference) = &self.reference else {
            let reason = format!("{:?} has no derivative; CustomCall::derivative states it", self.target);
            return no_rule(self.name(), "jvp", reason);
        };
        let results = push_jvp(rule.builder, reference, inputs.to_vec())?;
        let duals = primals.into_iter().zip(results);
        Ok(duals.map(|(primal, result)| Dual { primal, tangent: result.tangent }).collect())
    }
}

/// Those that are floating.
fn floats(shapes: &[Shape]) -> Vec<Shape> {
    shapes.iter().filter(|shape| shape.dtype().is_float()).cloned().collect()
}

/// A function for a batch, which all results get in front. Parameters that are not `batched` get a dimension of
/// size 1 there.
fn expanded(function: &Function, size: usize, batched: &[bool]) -> Result<Function> {
    let (body, _) = vmap_body(function, size, batched, &vec![true; function.results().len()])?;
    let builder = Builder::new(function.name());
    let mut arguments = Vec::new();
    for ((name, shape), &batched) in body.parameters().zip(batched) {
        arguments.push(match batched {
            true => builder.parameter(name, shape.clone())?,
            false => {
                let dims = [&[1], shape.dims()].concat();
                builder.parameter(name, shape.with_dims(dims))?.reshape(shape.dims())?
            }
        });
    }
    builder.finish(builder.call(&body, &arguments.iter().collect::<Vec<_>>())?)
}

impl CustomCall {
    /// The call for a batch, with another dimension in front of all operands and results.
    fn batched(&self, size: usize, batched: &[bool]) -> Result<CustomCall> {
        let expand =
            |function: &Arc<Function>, batched: &[bool]| expanded(function, size, batched).map(Arc::new);
        let reference = self.reference.as_ref().map(|reference| expand(reference, batched)).transpose()?;
        let derivative = self.derivative.as_ref().map(|derivative| {
            let operands = derivative.parameters().zip(batched);
            let tangents = operands.filter(|((_, shape), _)| shape.dtype().is_float());
            let tangents: Vec<bool> = tangents.map(|(_, &batched)| batched).collect();
            expand(derivative, &[batched, &tangents].concat())
        });
        let derivative = derivative.transpose()?;
        let results = self.results.iter().map(|shape| shape.with_dims([&[size], shape.dims()].concat()));
        Ok(CustomCall { results: results.collect(), reference, derivative, ..self.clone() })
    }

    /// The call for one element of the batch after the other.
    fn looped(&self, rule: &Vmap, operands: &[&Tensor], batched: &[bool]) -> Result<Vec<Tensor>> {
        let results = self.results.iter().map(|shape| {
            let dims = [&[rule.size], shape.dims()].concat();
            zeros(rule.builder, &shape.with_dims(dims))
        });
        let results = results.collect::<Result<Vec<_>>>()?;
        let state: Vec<&Tensor> = operands.iter().copied().chain(&results).collect();
        let trip_count = i32::try_from(rule.size)
            .map_err(|_| Error::argument(self.name(), "batch", format!("at most {}", i32::MAX), rule.size))?;
        let mut last = rule.builder.fori_loop(trip_count, &state, |index, x| {
            let (operands, results) = x.split_at(operands.len());
            let arguments = operands.iter().zip(batched).map(|(operand, batched)| match batched {
                true => row(operand, index),
                false => Ok(operand.clone()),
            });
            let arguments = arguments.collect::<Result<Vec<_>>>()?;
            let values = index.builder().custom_call(self.clone(), &arguments.iter().collect::<Vec<_>>())?;
            let updated = results.iter().zip(&values).map(|(result, value)| with_row(result, index, value));
            operands.iter().cloned().map(Ok).chain(updated).collect::<Result<Vec<_>>>()
        })?;
        Ok(last.split_off(operands.len()))
    }
}
