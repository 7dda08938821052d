//! Slicing between bounds that the graph knows.

use crate::graph::Tensor;
use crate::hlo;
use crate::hlo::proto::SliceDimensions;
use crate::ops::{Operator, arity};
use crate::shape::Dims;
use crate::transform::{Batched, Dual, Jvp, Part, Transposition, Vmap};
use crate::{Array, Error, Result, Shape};

/// The elements from `start` below `limit`, each `stride`-th, in every dimension.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slice {
    pub(crate) start: Vec<usize>,
    pub(crate) limit: Vec<usize>,
    pub(crate) stride: Vec<usize>,
}

impl Tensor {
    /// The elements from `start[i]` below `limit[i]` of each dimension i, every `stride[i]`-th of them.
    ///
    /// # Errors
    /// Where there is not one number for each dimension, a start is above its limit, a limit is above the
    /// dimension's size, or a stride is 0.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::S32, [2, 5])], |x| {
    ///     x[0].slice(&[1, 0], &[2, 5], &[1, 2])
    /// })?;
    /// let results = f.eval(&[Array::new([2, 5], &[0, 1, 2, 3, 4, 10, 11, 12, 13, 14])?])?;
    /// assert_eq!(results, [Array::new([1, 3], &[10, 12, 14])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn slice(&self, start: &[usize], limit: &[usize], stride: &[usize]) -> Result<Tensor> {
        let op = Slice { start: start.to_vec(), limit: limit.to_vec(), stride: stride.to_vec() };
        self.builder().push_one(op, &[self])
    }

    /// As [`slice`](Tensor::slice), with all of every dimension but `axis` (negative: from the end).
    ///
    /// # Errors
    /// Those of [`slice`](Tensor::slice), and where there is no such dimension.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::S32, [2, 3])], |x| x[0].slice_in_dim(1, 3, 1, -1))?;
    /// let results = f.eval(&[Array::new([2, 3], &[0, 1, 2, 10, 11, 12])?])?;
    /// assert_eq!(results, [Array::new([2, 2], &[1, 2, 11, 12])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias = "narrow")]
    pub fn slice_in_dim(&self, start: usize, limit: usize, stride: usize, axis: isize) -> Result<Tensor> {
        let axis = self.shape().axis("slice_in_dim", "axis", axis)?;
        let rank = self.rank();
        let mut op = Slice { start: vec![0; rank], limit: self.dims().to_vec(), stride: vec![1; rank] };
        (op.start[axis], op.limit[axis], op.stride[axis]) = (start, limit, stride);
        self.builder().push_one(op, &[self])
    }
}

impl Slice {
    fn dims(&self) -> Vec<usize> {
        let bounds = self.start.iter().zip(&self.limit).zip(&self.stride);
        bounds.map(|((start, limit), stride)| (limit - start).div_ceil(*stride)).collect()
    }
}

impl Operator for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![
            ("start", Dims(&self.start).to_string()),
            ("limit", Dims(&self.limit).to_string()),
            ("stride", Dims(&self.stride).to_string()),
        ]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [operand] = arity(self.name(), inputs)?;
        for (argument, numbers) in [("start", &self.start), ("limit", &self.limit), ("stride", &self.stride)]
        {
            if numbers.len() != operand.rank() {
                let expected = format!("a number for each dimension of {operand}");
                return Err(Error::argument(self.name(), argument, expected, Dims(numbers)));
            }
        }
        for (axis, &size) in operand.dims().iter().enumerate() {
            let (start, limit, stride) = (self.start[axis], self.limit[axis], self.stride[axis]);
            if limit > size {
                let expected = format!("at most the size of dimension {axis} ({size})");
                return Err(Error::argument(self.name(), "limit", expected, limit));
            }
            if start > limit {
                let expected = format!("at most the limit of dimension {axis} ({limit})");
                return Err(Error::argument(self.name(), "start", expected, start));
            }
            if stride == 0 {
                return Err(Error::argument(self.name(), "stride", "at least 1", stride));
            }
        }
        Ok(vec![operand.with_dims(self.dims())])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let output = inputs[0].shape().with_dims(self.dims());
        let (from, to) = (inputs[0].shape().strides(), output.strides());
        let source = |position: usize| {
            let terms = (0..output.rank()).map(|axis| {
                let index = position / to[axis] % output.dims()[axis];
                (self.start[axis] + index * self.stride[axis]) * from[axis]
            });
            Some(terms.sum())
        };
        Ok(vec![inputs[0].rearranged(output.dims(), None, source)])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let output = inputs[0].shape().with_dims(self.dims());
        let slice = module.add_with("slice", &output, &[&inputs[0]], |instruction| {
            instruction.slice_dimensions = (0..output.rank())
                .map(|axis| SliceDimensions {
                    start: self.start[axis] as i64,
                    limit: self.limit[axis] as i64,
                    // A stride past the limit takes one element, whatever it is; i64 holds this one.
                    stride: self.stride[axis].min(self.limit[axis].max(1)) as i64,
                })
                .collect();
        });
        Ok(vec![slice])
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let axis = inputs[0].axis.unwrap_or(0);
        let mut op = self.clone();
        op.start.insert(axis, 0);
        op.limit.insert(axis, rule.size);
        op.stride.insert(axis, 1);
        rule.push(op, &[&inputs[0].tensor], axis)
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        rule.linear(inputs)
    }

    /// Zeros around and between the elements that were taken.
    fn transpose(
        &self,
        _: &Transposition,
        inputs: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(cotangent) = &cotangents[0] else { return Ok(vec![None]) };
        let operand = inputs[0].shape().dims();
        let taken = cotangent.dims().iter().zip(&self.stride);
        let extents = taken.map(|(&count, stride)| if count == 0 { 0 } else { 1 + (count - 1) * stride });
        let low: Vec<isize> = self.start.iter().map(|&start| start as isize).collect();
        let high =
            extents.enumerate().map(|(axis, extent)| (operand[axis] - self.start[axis] - extent) as isize);
        let interior: Vec<usize> = self.stride.iter().map(|stride| stride - 1).collect();
        Ok(vec![Some(cotangent.pad(0, &low, &high.collect::<Vec<_>>(), &interior)?)])
    }
}
