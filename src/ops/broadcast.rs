//! Broadcasting.

use crate::graph::Tensor;
use crate::hlo;
use crate::ops::{Operator, arity};
use crate::shape::{Dims, broadcast_dims};
use crate::transform::{Batched, Dual, Jvp, Part, Transposition, Vmap};
use crate::{Array, Error, Result, Shape};

/// Places the operand's dimensions among those of the output and repeats it along the others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BroadcastInDim {
    /// The output's sizes.
    pub(crate) dims: Vec<usize>,
    /// For each dimension of the operand, that of the output; increasing. A size of 1 is stretched.
    pub(crate) broadcast_dimensions: Vec<usize>,
}

impl Tensor {
    /// Places this tensor's dimension i at `broadcast_dimensions[i]` of an output of sizes `dims`, repeating
    /// it along the output's other dimensions and along its own of size 1.
    ///
    /// # Errors
    /// Where `broadcast_dimensions` is not one increasing dimension of the output for each of this tensor's,
    /// or the sizes differ and this tensor's is not 1.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// // A vector becomes the columns of a matrix.
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [2])], |x| {
    ///     x[0].broadcast_in_dim(&[2, 3], &[0])
    /// })?;
    /// let results = f.eval(&[Array::new([2], &[1f32, 2.0])?])?;
    /// assert_eq!(results[0].to_string(), "f32[2,3] [[1, 1, 1], [2, 2, 2]]");
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn broadcast_in_dim(&self, dims: &[usize], broadcast_dimensions: &[usize]) -> Result<Tensor> {
        let op = BroadcastInDim { dims: dims.to_vec(), broadcast_dimensions: broadcast_dimensions.to_vec() };
        self.builder().push_one(op, &[self])
    }

    /// Broadcasts to `dims` as NumPy does: right-aligned, sizes of 1 stretched.
    ///
    /// # Errors
    /// Where this tensor has more dimensions, or one whose size is neither 1 nor that of `dims`.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [3])], |x| x[0].broadcast_to(&[2, 3]))?;
    /// let results = f.eval(&[Array::new([3], &[1f32, 2.0, 3.0])?])?;
    /// assert_eq!(results[0].to_string(), "f32[2,3] [[1, 2, 3], [1, 2, 3]]");
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias = "expand")]
    pub fn broadcast_to(&self, dims: &[usize]) -> Result<Tensor> {
        if self.dims() == dims {
            return Ok(self.clone());
        }
        let Some(leading) = dims.len().checked_sub(self.rank()) else {
            let expected = format!("of rank {} at least, that of {}", self.rank(), self.shape());
            return Err(Error::argument("broadcast_to", "dims", expected, Dims(dims)));
        };
        self.broadcast_in_dim(dims, &(leading..dims.len()).collect::<Vec<_>>())
    }

    /// Both operands at their common shape.
    pub(crate) fn broadcast_with(&self, operator: &'static str, other: &Tensor) -> Result<(Tensor, Tensor)> {
        let dims = broadcast_dims(operator, self.dims(), other.dims())?;
        Ok((self.broadcast_to(&dims)?, other.broadcast_to(&dims)?))
    }
}

impl Operator for BroadcastInDim {
    fn name(&self) -> &'static str {
        "broadcast_in_dim"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![
            ("dims", Dims(&self.dims).to_string()),
            ("broadcast_dimensions", Dims(&self.broadcast_dimensions).to_string()),
        ]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [operand] = arity(self.name(), inputs)?;
        let places = &self.broadcast_dimensions;
        if places.len() != operand.rank()
            || !places.is_sorted_by(|a, b| a < b)
            || places.last().is_some_and(|&last| last >= self.dims.len())
        {
            let expected = format!(
                "{} increasing dimensions of the output {}, one for each of the operand {operand}",
                operand.rank(),
                Dims(&self.dims)
            );
            return Err(Error::argument(self.name(), "broadcast_dimensions", expected, Dims(places)));
        }
        for (dim, &place) in operand.dims().iter().zip(places) {
            if *dim != 1 && *dim != self.dims[place] {
                let expected = format!("of size 1 or {dim} at dimension {place}, for operand {operand}");
                return Err(Error::argument(self.name(), "dims", expected, Dims(&self.dims)));
            }
        }
        Ok(vec![operand.with_dims(self.dims.as_slice())])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let operand = inputs[0].shape();
        let output = operand.with_dims(self.dims.as_slice());
        let (from, to) = (operand.strides(), output.strides());
        let source = |position: usize| {
            let terms = self.broadcast_dimensions.iter().enumerate().map(|(axis, &place)| {
                let index = position / to[place] % self.dims[place];
                if operand.dims()[axis] == 1 { 0 } else { index * from[axis] }
            });
            Some(terms.sum())
        };
        Ok(vec![inputs[0].rearranged(&self.dims, None, source)])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let operand = &inputs[0];
        // HLO's broadcast does not stretch: dimensions of size 1 are dropped first.
        let kept: Vec<usize> = (0..operand.shape().rank())
            .filter(|&axis| operand.shape().dims()[axis] == self.dims[self.broadcast_dimensions[axis]])
            .collect();
        let dims: Vec<usize> = kept.iter().map(|&axis| operand.shape().dims()[axis]).collect();
        let operand = if kept.len() == operand.shape().rank() {
            operand.clone()
        } else {
            module.add("reshape", &operand.shape().with_dims(dims), &[operand])
        };
        let shape = operand.shape().with_dims(self.dims.as_slice());
        let broadcast = module.add_with("broadcast", &shape, &[&operand], |instruction| {
            instruction.dimensions =
                kept.iter().map(|&axis| self.broadcast_dimensions[axis] as i64).collect();
        });
        Ok(vec![broadcast])
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let operand = rule.leading(&inputs[0])?;
        let dims = [&[rule.size], self.dims.as_slice()].concat();
        let places = self.broadcast_dimensions.iter().map(|place| place + 1);
        let broadcast_dimensions = std::iter::once(0).chain(places).collect();
        rule.push(BroadcastInDim { dims, broadcast_dimensions }, &[&operand], 0)
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        rule.linear(inputs)
    }

    /// The sum over what was repeated.
    fn transpose(
        &self,
        _: &Transposition,
        inputs: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(cotangent) = &cotangents[0] else { return Ok(vec![None]) };
        let operand = inputs[0].shape().dims();
        let kept = |axis: usize| {
            let place = self.broadcast_dimensions.iter().position(|&place| place == axis);
            place.is_some_and(|place| operand[place] == self.dims[axis])
        };
        let repeated: Vec<isize> =
            (0..self.dims.len()).filter(|&axis| !kept(axis)).map(|axis| axis as isize).collect();
        let sum = if repeated.is_empty() { cotangent.clone() } else { cotangent.reduce_sum(&repeated)? };
        // Stretched dimensions of size 1 come back.
        Ok(vec![Some(if sum.dims() == operand { sum } else { sum.reshape(operand)? })])
    }
}
