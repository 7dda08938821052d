//! Choosing between values: select and clamp.

use crate::graph::{Operand, Tensor, same_dtype};
use crate::hlo;
use crate::ops::binary::Binary;
use crate::ops::{Operator, arity};
use crate::shape::broadcast_dims;
use crate::transform::{Batched, Dual, Jvp, Part, Transposition, Vmap, no_rule};
use crate::{Array, DType, Error, Result, Shape};

/// Elements of one operand where a pred is true, of another where it is false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Select;

/// An operand kept between bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clamp;

impl Tensor {
    /// The elements of `on_true` where this pred is true, and those of `on_false` elsewhere; the three
    /// broadcast. A number can stand for `on_false`, and takes the dtype of `on_true`.
    ///
    /// # Errors
    /// Where this tensor is not a pred, or the others differ in dtype or do not broadcast.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("relu", &[Shape::new(DType::F32, [3])], |x| {
    ///     x[0].greater(0)?.select(&x[0], 0)
    /// })?;
    /// let results = f.eval(&[Array::new([3], &[-1f32, 2.0, -3.0])?])?;
    /// assert_eq!(results, [Array::new([3], &[0f32, 2.0, 0.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias = "where")]
    pub fn select(&self, on_true: impl Operand, on_false: impl Operand) -> Result<Tensor> {
        let on_true = on_true.tensor(self)?;
        let on_false = on_false.tensor(&on_true)?;
        let dims = broadcast_dims("select", on_true.dims(), on_false.dims())?;
        let dims = broadcast_dims("select", self.dims(), &dims)?;
        let operands =
            [self.broadcast_to(&dims)?, on_true.broadcast_to(&dims)?, on_false.broadcast_to(&dims)?];
        self.builder().push_one(Select, &operands.each_ref())
    }

    /// This tensor with what is below `min` replaced by it, then what is above `max` by that: where `min` is
    /// above `max`, the result is `max`. NaN where any of the three is. The bounds are scalars, or of this
    /// tensor's shape.
    ///
    /// # Errors
    /// Where the bounds are of another dtype or shape, or this tensor is a pred.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [3])], |x| x[0].clamp(0, 1))?;
    /// let results = f.eval(&[Array::new([3], &[-1f32, 0.5, 3.0])?])?;
    /// assert_eq!(results, [Array::new([3], &[0f32, 0.5, 1.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn clamp(&self, min: impl Operand, max: impl Operand) -> Result<Tensor> {
        let (min, max) = (min.tensor(self)?, max.tensor(self)?);
        self.builder().push_one(Clamp, &[&min, self, &max])
    }
}

impl Operator for Select {
    fn name(&self) -> &'static str {
        "select"
    }

    fn elementwise(&self) -> bool {
        true
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [pred, on_true, on_false] = arity(self.name(), inputs)?;
        if pred.dtype() != DType::Pred {
            return Err(Error::argument(self.name(), "pred's dtype", "pred", pred.dtype()));
        }
        same_dtype(self.name(), "on_false", &on_false, &on_true)?;
        if on_true.dims() != on_false.dims() {
            let expected = format!("of shape {on_true}, as on_true");
            return Err(Error::argument(self.name(), "on_false", expected, on_false));
        }
        if pred.dims() != on_true.dims() {
            let expected = format!("of the dimensions of on_true, {on_true}");
            return Err(Error::argument(self.name(), "pred", expected, pred));
        }
        Ok(vec![on_true])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let (pred, on_true, on_false) = (&inputs[0], &inputs[1], &inputs[2]);
        let (pred, size) = (pred.as_slice::<bool>()?, on_true.shape().dtype().size());
        let selected = Array::filled(on_true.shape().clone(), |bytes| {
            for (position, target) in bytes.chunks_exact_mut(size).enumerate() {
                let from = if pred[position] { on_true } else { on_false };
                target.copy_from_slice(&from.as_bytes()[position * size..][..size]);
            }
        });
        Ok(vec![selected])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        Ok(vec![module.add("select", inputs[1].shape(), &[&inputs[0], &inputs[1], &inputs[2]])])
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        rule.linear(inputs)
    }

    fn transpose(
        &self,
        _: &Transposition,
        inputs: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(pred) = inputs[0].known() else { return no_rule(self.name(), "vjp", "its pred is linear") };
        let Some(cotangent) = &cotangents[0] else { return Ok(vec![None; 3]) };
        let zeros = cotangent.full_like(0)?;
        let part = |on_true, on_false| pred.select(on_true, on_false);
        let of_true = inputs[1].is_linear().then(|| part(cotangent, &zeros)).transpose()?;
        let of_false = inputs[2].is_linear().then(|| part(&zeros, cotangent)).transpose()?;
        Ok(vec![None, of_true, of_false])
    }
}

impl Operator for Clamp {
    fn name(&self) -> &'static str {
        "clamp"
    }

    fn elementwise(&self) -> bool {
        true
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [min, operand, max] = arity(self.name(), inputs)?;
        if operand.dtype() == DType::Pred {
            return Err(Error::argument(self.name(), "operand's dtype", "a number", operand.dtype()));
        }
        for (argument, bound) in [("min", min), ("max", max)] {
            same_dtype(self.name(), argument, &bound, &operand)?;
            if bound.rank() > 0 && bound.dims() != operand.dims() {
                let expected = format!("a scalar or of shape {operand}, as the operand");
                return Err(Error::argument(self.name(), argument, expected, bound));
            }
        }
        Ok(vec![operand])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let (min, operand, max) = (&inputs[0], &inputs[1], &inputs[2]);
        let shape = operand.shape();
        // A scalar bound has one element for all positions.
        let at = |bound: &Array, position| if bound.shape().rank() == 0 { 0 } else { position };
        let output = if shape.dtype().is_float() {
            let (lower, upper) = (min.to_f64(), max.to_f64());
            let clamped = operand.to_f64().into_iter().enumerate().map(|(position, x)| {
                let raised = Binary::Max.float(lower[at(min, position)], x);
                Binary::Min.float(upper[at(max, position)], raised)
            });
            Array::from_f64(shape.clone(), &clamped.collect::<Vec<_>>())?
        } else {
            let (lower, upper) = (min.to_i128(), max.to_i128());
            let clamped = operand
                .to_i128()
                .into_iter()
                .enumerate()
                .map(|(position, x)| x.max(lower[at(min, position)]).min(upper[at(max, position)]));
            Array::from_i128(shape.clone(), &clamped.collect::<Vec<_>>())?
        };
        Ok(vec![output])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let shape = inputs[1].shape();
        // HLO takes scalar bounds, but XLA:CPU fails to compile them for some dtypes.
        let mut whole = |bound: &hlo::Value| match bound.shape() == shape {
            true => bound.clone(),
            false => module.add("broadcast", shape, &[bound]),
        };
        let (min, max) = (whole(&inputs[0]), whole(&inputs[2]));
        Ok(vec![module.add("clamp", shape, &[&min, &inputs[1], &max])])
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let axis = inputs[1].axis.or(inputs.iter().find_map(|input| input.axis)).unwrap_or(0);
        let operand = rule.at(&inputs[1], axis)?;
        let bound = |bound: &Batched| match (bound.inner().rank(), bound.axis) {
            (0, None) => Ok(bound.tensor.clone()),
            (0, Some(_)) if operand.rank() > 1 => bound.tensor.broadcast_in_dim(operand.dims(), &[axis]),
            _ => rule.at(bound, axis),
        };
        rule.push(Clamp, &[&bound(&inputs[0])?, &operand, &bound(&inputs[2])?], axis)
    }

    /// The tangent of what the output is; zero where the operand equals a bound.
    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let primal = rule.primal(inputs)?.remove(0);
        let [min, x, max] = [&inputs[0].primal, &inputs[1].primal, &inputs[2].primal];
        let chosen = [
            (min.greater(x)? & min.less(max))?,
            (x.greater(min)? & x.less(max))?,
            (max.less(x)? | max.less(min))?,
        ];
        let mut tangent = x.full_like(0)?;
        for (input, chosen) in inputs.iter().zip(chosen) {
            if let Some(of_input) = &input.tangent {
                tangent = chosen.select(of_input, tangent)?;
            }
        }
        Ok(vec![Dual { primal, tangent: Some(tangent) }])
    }
}
