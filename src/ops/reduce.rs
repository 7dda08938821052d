//! Reductions of one operand by a fixed operator, with its identity where there is nothing to reduce.

use crate::graph::Tensor;
use crate::hlo;
use crate::ops::binary::Binary;
use crate::ops::{Operator, arity, i64s, increasing, others};
use crate::shape::{Dims, offsets};
use crate::transform::{Batched, Dual, Jvp, Part, Transposition, Vmap, no_rule};
use crate::{Array, DType, Error, Result, Shape};

/// Combines the elements along some dimensions, which the output lacks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reduce {
    pub(crate) kind: Kind,
    /// Increasing.
    pub(crate) dimensions: Vec<usize>,
}

variants! {
    /// How elements are combined.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Kind {
        Sum,
        Prod,
        Max,
        Min,
        And,
        Or,
    }
}

impl Kind {
    /// The name, and the operator that combines two elements.
    fn facts(self) -> (&'static str, Binary) {
        match self {
            Kind::Sum => ("reduce_sum", Binary::Add),
            Kind::Prod => ("reduce_prod", Binary::Mul),
            Kind::Max => ("reduce_max", Binary::Max),
            Kind::Min => ("reduce_min", Binary::Min),
            Kind::And => ("reduce_all", Binary::And),
            Kind::Or => ("reduce_any", Binary::Or),
        }
    }

    /// What combining with changes nothing, as a scalar.
    pub(crate) fn identity(self, dtype: DType) -> Result<Array> {
        let shape = Shape::scalar(dtype);
        match self {
            Kind::Sum | Kind::Or => Array::zeros(shape),
            Kind::Prod | Kind::And => Array::from_f64(shape, &[1.0]),
            // Integers saturate: these are their least and their greatest value.
            Kind::Max if dtype != DType::Pred => Array::from_f64(shape, &[f64::NEG_INFINITY]),
            Kind::Max => Array::zeros(shape),
            Kind::Min => Array::from_f64(shape, &[f64::INFINITY]),
        }
    }
}

macro_rules! reduce_methods {
    ($($(#[$doc:meta])* $method:ident => $kind:ident, $dtype:ident: $from:tt => $to:tt;)*) => {
        impl Tensor {
            $($(#[$doc])*
            ///
            /// # Errors
            /// Where a dimension is out of range or named twice, or the operator does not take this dtype.
            ///
            /// ```
            /// use xlann::{Array, DType, Function, Shape};
            ///
            #[doc = concat!("let shape = Shape::new(DType::", stringify!($dtype), ", [2, 3]);")]
            #[doc = concat!(
                "let f = Function::trace(\"f\", &[shape], |x| x[0].", stringify!($method), "(&[1]))?;"
            )]
            #[doc = concat!("let rows = Array::new([2, 3], &", stringify!($from), ")?;")]
            #[doc = concat!("assert_eq!(f.eval(&[rows])?, [Array::new([2], &", stringify!($to), ")?]);")]
            /// # Ok::<(), xlann::Error>(())
            /// ```
            pub fn $method(&self, dimensions: &[isize]) -> Result<Tensor> {
                let dimensions = self.shape().axes(stringify!($method), "dimensions", dimensions)?;
                self.builder().push_one(Reduce { kind: Kind::$kind, dimensions }, &[self])
            })*
        }
    };
}

// Of each method, the elements of a matrix of 2 rows and what they give, for the example in its documentation.
reduce_methods! {
    /// The sum of numbers over `dimensions` (negative: from the end); 0 where there are none.
    ///
    /// XLA adds in any order, and f16 and bf16 as the target likes: rounded after each addition or once. The
    /// interpreter adds in f64 and rounds once. Integers wrap.
    #[doc(alias = "sum")]
    reduce_sum => Sum, F32: [1f32, 2.0, 3.0, 4.0, 5.0, 6.0] => [6f32, 15.0];
    /// The product of numbers over `dimensions` (negative: from the end); 1 where there are none. Of its
    /// rounding, see [`reduce_sum`](Tensor::reduce_sum).
    #[doc(alias = "prod")]
    reduce_prod => Prod, F32: [1f32, 2.0, 3.0, 4.0, 5.0, 6.0] => [6f32, 120.0];
    /// The greatest element over `dimensions` (negative: from the end), NaN where one is; -∞, the least
    /// integer or false where there are none.
    #[doc(alias("max", "amax"))]
    reduce_max => Max, F32: [1f32, 2.0, 3.0, 4.0, 5.0, 6.0] => [3f32, 6.0];
    /// The least element over `dimensions` (negative: from the end), NaN where one is; ∞, the greatest
    /// integer or true where there are none.
    #[doc(alias("min", "amin"))]
    reduce_min => Min, F32: [1f32, 2.0, 3.0, 4.0, 5.0, 6.0] => [1f32, 4.0];
    /// Whether all preds over `dimensions` (negative: from the end) are true; so they are where there are none.
    #[doc(alias("all", "reduce_and"))]
    reduce_all => And, Pred: [true, true, false, true, true, true] => [false, true];
    /// Whether any pred over `dimensions` (negative: from the end) is true.
    #[doc(alias("any", "reduce_or"))]
    reduce_any => Or, Pred: [false, true, false, false, false, false] => [true, false];
}

impl Operator for Reduce {
    fn name(&self) -> &'static str {
        self.kind.facts().0
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![("dimensions", Dims(&self.dimensions).to_string())]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [operand] = arity(self.name(), inputs)?;
        increasing(self.name(), "dimensions", &self.dimensions, operand.rank())?;
        let pred = operand.dtype() == DType::Pred;
        let (allowed, expected) = match self.kind {
            Kind::Sum | Kind::Prod => (!pred, "a number"),
            Kind::Max | Kind::Min => (true, ""),
            Kind::And | Kind::Or => (pred, "pred"),
        };
        if !allowed {
            return Err(Error::argument(self.name(), "operand's dtype", expected, operand.dtype()));
        }
        let kept = others(operand.rank(), &[&self.dimensions]);
        Ok(vec![operand.with_dims(operand.part(&kept).0)])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let operand = &inputs[0];
        let shape = operand.shape();
        let output = self.infer(&[shape])?.remove(0);
        let (kept, reduced) = walk(shape, &self.dimensions);
        let (_, combine) = self.kind.facts();
        let identity = self.kind.identity(shape.dtype())?;
        let array = if shape.dtype().is_float() {
            let (values, identity) = (operand.to_f64(), identity.to_f64()[0]);
            let fold = |start: &usize| {
                reduced.iter().fold(identity, |sum, offset| combine.float(sum, values[start + offset]))
            };
            Array::from_f64(output, &kept.iter().map(fold).collect::<Vec<_>>())?
        } else {
            let (values, identity) = (operand.to_i128(), identity.to_i128()[0]);
            let dtype = shape.dtype();
            let fold = |start: &usize| {
                reduced
                    .iter()
                    .fold(identity, |sum, offset| combine.integer(sum, values[start + offset], dtype))
            };
            Array::from_i128(output, &kept.iter().map(fold).collect::<Vec<_>>())?
        };
        Ok(vec![array])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let operand = &inputs[0];
        let output = self.infer(&[operand.shape()])?.remove(0);
        let scalar = operand.shape().with_dims([]);
        let (name, combine) = self.kind.facts();
        let reducer = module.computation(name, |module| {
            let operands = [module.parameter(0, "", &scalar), module.parameter(1, "", &scalar)];
            Ok(combine.hlo(module, &operands)?.remove(0).id())
        })?;
        let init = module.constant(&self.kind.identity(scalar.dtype())?);
        let reduce = module.add_with("reduce", &output, &[operand, &init], |instruction| {
            instruction.dimensions = i64s(&self.dimensions);
            instruction.called_computation_ids = vec![reducer.id()];
        });
        Ok(vec![reduce])
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let (operand, axis) = (&inputs[0], inputs[0].axis.unwrap_or(0));
        let dimensions: Vec<usize> = self.dimensions.iter().map(|&dim| operand.dimension(dim)).collect();
        let before = dimensions.iter().filter(|&&dim| dim < axis).count();
        rule.push(Reduce { kind: self.kind, dimensions }, &[&operand.tensor], axis - before)
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let primal = rule.primal(inputs)?.remove(0);
        let x = &inputs[0].primal;
        let Some(tangent) = inputs[0].tangent.as_ref().filter(|_| !self.is_empty(x.shape())) else {
            return Ok(vec![Dual { primal, tangent: None }]);
        };
        let tangent = match self.kind {
            Kind::Sum => rule.builder.push_one(self.clone(), &[tangent])?,
            Kind::Prod => self.product_tangent(x, tangent)?.reshape(primal.dims())?,
            Kind::Max | Kind::Min => self.extremum_tangent(x, &primal, tangent)?,
            Kind::And | Kind::Or => return no_rule(self.name(), "jvp", "its operand is not floating"),
        };
        Ok(vec![Dual { primal, tangent: Some(tangent) }])
    }

    fn transpose(
        &self,
        _: &Transposition,
        inputs: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(cotangent) = &cotangents[0] else { return Ok(vec![None]) };
        match self.kind {
            Kind::Sum => Ok(vec![Some(self.repeat(cotangent, inputs[0].shape().dims())?)]),
            _ => no_rule(self.name(), "vjp", "it is not linear"),
        }
    }
}

impl Reduce {
    /// Whether there is nothing to reduce: the outputs, if any, are the identity.
    fn is_empty(&self, operand: &Shape) -> bool {
        operand.part(&self.dimensions).0.contains(&0)
    }

    /// Repeats what was reduced along the reduced dimensions of an operand of sizes `dims`.
    fn repeat(&self, reduced: &Tensor, dims: &[usize]) -> Result<Tensor> {
        reduced.broadcast_in_dim(dims, &others(dims.len(), &[&self.dimensions]))
    }

    /// The mean of the tangents of those elements that are the greatest or the least one, which is `out`.
    fn extremum_tangent(&self, x: &Tensor, out: &Tensor, tangent: &Tensor) -> Result<Tensor> {
        let sum = |terms: &Tensor| {
            x.builder().push_one(Reduce { kind: Kind::Sum, dimensions: self.dimensions.clone() }, &[terms])
        };
        let chosen = x.equal(self.repeat(out, x.dims())?)?;
        // Few floats count far.
        let count = sum(&chosen.convert(DType::S32)?)?.convert(x.dtype())?;
        sum(&chosen.select(tangent, 0)?)? / count
    }

    /// The tangent of a product, with dimensions of size 1 for those reduced. Halves are multiplied with each
    /// other until one element is left: nothing is divided by an element, which may be zero.
    fn product_tangent(&self, x: &Tensor, tangent: &Tensor) -> Result<Tensor> {
        let (mut x, mut tangent) = (x.clone(), tangent.clone());
        for &axis in &self.dimensions {
            while x.dims()[axis] > 1 {
                let half = x.dims()[axis].div_ceil(2);
                let halves = |tensor: &Tensor, padding: i32| {
                    let mut high = vec![0; tensor.rank()];
                    high[axis] = (2 * half - tensor.dims()[axis]) as isize;
                    let (edge, interior) = (vec![0; tensor.rank()], vec![0; tensor.rank()]);
                    let even = match high[axis] {
                        0 => tensor.clone(),
                        _ => tensor.pad(padding, &edge, &high, &interior)?,
                    };
                    let half_from = |start| even.slice_in_dim(start, start + half, 1, axis as isize);
                    Ok::<_, Error>((half_from(0)?, half_from(half)?))
                };
                let ((a, b), (of_a, of_b)) = (halves(&x, 1)?, halves(&tangent, 0)?);
                x = (&a * &b)?;
                tangent = ((of_a * b)? + (a * of_b))?;
            }
        }
        Ok(tangent)
    }
}

/// The offsets of the output's positions, and from each of them those of the elements that it combines.
pub(crate) fn walk(shape: &Shape, dimensions: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let (dims, strides) = shape.part(&others(shape.rank(), &[dimensions]));
    let kept = offsets(&dims, &strides);
    if kept.is_empty() {
        // The reduced sizes may be of any product then.
        return (kept, Vec::new());
    }
    let (dims, strides) = shape.part(dimensions);
    (kept, offsets(&dims, &strides))
}
