//! The value of one tensor with the derivative of another.

use crate::graph::Tensor;
use crate::hlo;
use crate::ops::{Operator, arity};
use crate::transform::{Dual, Jvp, Part, Partial, Transposition, zeros};
use crate::{Array, Error, Result, Shape};

/// The first operand, whose derivative is the second's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WithDerivativeOf;

impl Tensor {
    /// This tensor, with the derivative of another one of its shape, of any order: what
    /// `other + stop_gradient(self - other)` is in JAX, without the rounding.
    ///
    /// It is for a value that is computed in one way and differentiated in another. Where nothing is differentiated, the
    /// other one is not computed.
    ///
    /// # Errors
    /// Where the other is of another shape or dtype.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape, grad};
    ///
    /// // A rounding that lets derivatives through.
    /// let f = Function::trace("f", &[Shape::scalar(DType::F32)], |x| {
    ///     let x = (&x[0] * 3)?;
    ///     x.round()?.with_derivative_of(&x)
    /// })?;
    /// let argument = [Array::scalar(1.1f32)];
    /// assert_eq!(f.eval(&argument)?, [Array::scalar(3f32)]);
    /// assert_eq!(grad(&f, &[0])?.eval(&argument)?, [Array::scalar(3f32)]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn with_derivative_of(&self, other: &Tensor) -> Result<Tensor> {
        self.builder().push_one(WithDerivativeOf, &[self, other])
    }

    /// This tensor, without a derivative: whatever it depends on counts as constant.
    ///
    /// # Errors
    /// None of its own.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape, grad};
    ///
    /// let f = Function::trace("f", &[Shape::scalar(DType::F32)], |x| &x[0] * x[0].stop_gradient()?)?;
    /// let argument = [Array::scalar(3f32)];
    /// assert_eq!(f.eval(&argument)?, [Array::scalar(9f32)]);
    /// assert_eq!(grad(&f, &[0])?.eval(&argument)?, [Array::scalar(3f32)]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("detach", "no_grad"))]
    pub fn stop_gradient(&self) -> Result<Tensor> {
        match self.dtype().is_float() {
            true => self.with_derivative_of(&zeros(self.builder(), self.shape())?),
            false => Ok(self.clone()),
        }
    }
}

impl Operator for WithDerivativeOf {
    fn name(&self) -> &'static str {
        "with_derivative_of"
    }

    fn elementwise(&self) -> bool {
        true
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [value, other] = arity(self.name(), inputs)?;
        if value != other {
            return Err(Error::argument(self.name(), "other", format!("of shape {value}"), other));
        }
        Ok(vec![value])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        Ok(inputs[..1].to_vec())
    }

    fn hlo(&self, _: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        Ok(inputs[..1].to_vec())
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let primal = rule.primal(inputs)?.remove(0);
        Ok(vec![Dual { primal, tangent: inputs[1].tangent.clone() }])
    }

    fn partial(&self, rule: &Transposition, inputs: &[Part]) -> Result<Partial> {
        let output = match &inputs[0] {
            Part::Known(value) => Part::Known(value.clone()),
            Part::Linear(_) => Part::Linear(rule.outputs[0].clone()),
        };
        Ok(Partial { outputs: vec![output], residuals: Vec::new() })
    }

    fn transpose(
        &self,
        _: &Transposition,
        _: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![cotangents[0].clone(), None])
    }
}
