//! Approximate top-k: the operator, and the plain forms that it is lowered to.
//!
//! The semantics are those of JAX's `approx_max_k` and `approx_min_k` and of XLA's ApproxTopK (arXiv
//! 2206.14286): the k best values along one dimension and their indices, of which an expected share, the recall
//! target, are among the true k best.

use crate::ann::recall::{ReductionSize, reduction_output_size};
use crate::graph::Tensor;
use crate::hlo;
use crate::ops::{Operator, arity};
use crate::{Array, DType, Error, Result, Shape};

/// Which end is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Max,
    Min,
}

/// The k largest or smallest values along a dimension, approximately.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApproxTopK {
    pub(crate) direction: Direction,
    pub(crate) k: usize,
    pub(crate) reduction_dimension: usize,
    pub(crate) recall_target: f32,
    pub(crate) reduction_input_size_override: Option<usize>,
    pub(crate) aggregate_to_topk: bool,
}

/// The options of [`Tensor::approx_max_k`] and [`Tensor::approx_min_k`], with JAX's names and defaults.
///
/// ```
/// use xlann::{ApproxTopKOptions, DType, Function, Shape};
///
/// // The ten largest along dimension 0 of a shard of a whole of 4 million, to be aggregated by the caller.
/// let options = ApproxTopKOptions {
///     reduction_dimension: 0,
///     reduction_input_size_override: Some(4_000_000),
///     aggregate_to_topk: false,
///     ..ApproxTopKOptions::default()
/// };
/// let f = Function::trace("shard", &[Shape::new(DType::F32, [1_000_000])], |x| {
///     x[0].approx_max_k(10, &options)
/// })?;
/// assert_eq!(f.result_shapes()[0].dims(), [1024]);
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ApproxTopKOptions {
    /// The dimension that is searched, counted from the end where negative. Default: the last.
    pub reduction_dimension: isize,
    /// The share of the true k best that is expected among the results, in (0, 1]. Default: 0.95.
    pub recall_target: f32,
    /// The size that the recall is planned for, where the operand is a part of a larger whole, such as one of
    /// several devices' shares. Default: the operand's own.
    pub reduction_input_size_override: Option<usize>,
    /// Whether the results are reduced to the k best, sorted; else they are as many as
    /// [`reduction_output_size`] says, or all where it says more, unsorted. Default: true.
    pub aggregate_to_topk: bool,
}

impl Default for ApproxTopKOptions {
    fn default() -> ApproxTopKOptions {
        ApproxTopKOptions {
            reduction_dimension: -1,
            recall_target: 0.95,
            reduction_input_size_override: None,
            aggregate_to_topk: true,
        }
    }
}

impl Tensor {
    /// The `k` largest values along a dimension and their s32 indices in it, approximately.
    ///
    /// The results have the operand's dimensions but for the reduction dimension, which is `k`, best first
    /// (see [`ApproxTopKOptions::aggregate_to_topk`] for the other form). Values are the operand's own, in its
    /// dtype: f16, bf16, f32 or f64.
    ///
    /// A NaN is below every other value: none is returned while k other values exist. Equal values may be
    /// returned in any order, and -0.0 may or may not be below 0.0.
    ///
    /// # Errors
    /// Where the operand is a scalar or not of floats, `k` is 0 or more than the dimension's size, the recall
    /// target is outside (0, 1], or the override is less than the dimension's size.
    ///
    /// ```
    /// use xlann::{ApproxTopKOptions, Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("best", &[Shape::new(DType::F32, [5])], |x| {
    ///     x[0].approx_max_k(2, &ApproxTopKOptions::default())
    /// })?;
    /// let results = f.eval(&[Array::new([5], &[3f32, 9.0, f32::NAN, 7.0, 1.0])?])?;
    /// assert_eq!(results, [Array::new([2], &[9f32, 7.0])?, Array::new([2], &[1i32, 3])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn approx_max_k(&self, k: usize, options: &ApproxTopKOptions) -> Result<(Tensor, Tensor)> {
        self.approx_top_k(Direction::Max, k, options)
    }

    /// The `k` smallest values along a dimension and their s32 indices in it, approximately.
    ///
    /// As [`approx_max_k`](Tensor::approx_max_k), but a NaN is above every other value.
    ///
    /// # Errors
    /// As [`approx_max_k`](Tensor::approx_max_k).
    ///
    /// ```
    /// use xlann::{ApproxTopKOptions, Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("nearest", &[Shape::new(DType::F32, [2, 3])], |x| {
    ///     x[0].approx_min_k(1, &ApproxTopKOptions::default())
    /// })?;
    /// let distances = Array::new([2, 3], &[3f32, 9.0, 7.0, 4.0, 8.0, 2.0])?;
    /// let results = f.eval(&[distances])?;
    /// assert_eq!(results, [Array::new([2, 1], &[3f32, 2.0])?, Array::new([2, 1], &[0, 2])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn approx_min_k(&self, k: usize, options: &ApproxTopKOptions) -> Result<(Tensor, Tensor)> {
        self.approx_top_k(Direction::Min, k, options)
    }

    fn approx_top_k(
        &self,
        direction: Direction,
        k: usize,
        options: &ApproxTopKOptions,
    ) -> Result<(Tensor, Tensor)> {
        let name = direction.name();
        let op = ApproxTopK {
            direction,
            k,
            reduction_dimension: self.shape().axis(
                name,
                "reduction_dimension",
                options.reduction_dimension,
            )?,
            recall_target: options.recall_target,
            reduction_input_size_override: options.reduction_input_size_override,
            aggregate_to_topk: options.aggregate_to_topk,
        };
        pair(name, self.builder().push(op, &[self])?)
    }
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Direction::Max => "approx_max_k",
            Direction::Min => "approx_min_k",
        }
    }
}

impl ApproxTopK {
    /// The size of the results' reduction dimension.
    pub(crate) fn output_size(&self, operand: &Shape) -> Result<usize> {
        let planned = self.partial_reduction(operand)?.size;
        // With an override, XLA's formula rounds a small operand's size up past it, and XLA then leaves the
        // operand as it is.
        Ok(if self.aggregate_to_topk { self.k } else { planned.min(operand.dims()[self.reduction_dimension]) })
    }

    /// The partial reduction by XLA's formula; it refuses what the operator does not take.
    pub(crate) fn partial_reduction(&self, operand: &Shape) -> Result<ReductionSize> {
        let name = self.direction.name();
        let Some(&size) = operand.dims().get(self.reduction_dimension) else {
            let expected = format!("a dimension of {operand}");
            return Err(Error::argument(name, "reduction_dimension", expected, self.reduction_dimension));
        };
        if !operand.dtype().is_float() {
            return Err(Error::argument(name, "operand's dtype", "floating", operand.dtype()));
        }
        if i32::try_from(size).is_err() {
            let expected = format!("of at most {} elements, as indices are s32", i32::MAX);
            return Err(Error::argument(name, "reduction dimension", expected, size));
        }
        reduction_output_size(
            size,
            operand.rank(),
            self.k,
            self.recall_target,
            false,
            self.reduction_input_size_override,
        )
        .map_err(|problem| match problem {
            Error::Argument { argument, expected, got, .. } => Error::argument(name, argument, expected, got),
            other => other,
        })
    }
}

impl Operator for ApproxTopK {
    fn name(&self) -> &'static str {
        self.direction.name()
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        let mut params = vec![
            ("k", self.k.to_string()),
            ("reduction_dimension", self.reduction_dimension.to_string()),
            ("recall_target", self.recall_target.to_string()),
        ];
        if let Some(size) = self.reduction_input_size_override {
            params.push(("reduction_input_size_override", size.to_string()));
        }
        if !self.aggregate_to_topk {
            params.push(("aggregate_to_topk", "false".to_owned()));
        }
        params
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [operand] = arity(self.name(), inputs)?;
        let size = self.output_size(&operand)?;
        let mut dims = operand.dims().to_vec();
        dims[self.reduction_dimension] = size;
        let values = operand.with_dims(dims);
        let indices = values.with_dtype(DType::S32);
        Ok(vec![values, indices])
    }

    /// The exact answer, in a stable order.
    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let operand = inputs[0].shape();
        let size = operand.dims()[self.reduction_dimension];
        let stride = operand.strides()[self.reduction_dimension];
        let count = self.output_size(operand)?;
        let mut dims = operand.dims().to_vec();
        dims[self.reduction_dimension] = count;
        let numbers = inputs[0].to_f64();
        let output = operand.with_dims(dims.as_slice());
        let mut indices = vec![0i32; output.element_count()];
        // Rows start where the position along the reduction dimension is 0.
        let rows = (0..numbers.len()).filter(|position| (position / stride).is_multiple_of(size));
        for (row, start) in rows.enumerate() {
            let at = |index: usize| numbers[start + index * stride];
            let mut order: Vec<usize> = (0..size).collect();
            order.sort_by(|&a, &b| {
                let (a, b) = (at(a), at(b));
                let nan_last = a.is_nan().cmp(&b.is_nan());
                let best_first = match self.direction {
                    Direction::Max => b.partial_cmp(&a),
                    Direction::Min => a.partial_cmp(&b),
                };
                nan_last.then(best_first.unwrap_or(std::cmp::Ordering::Equal))
            });
            let target = row / stride * stride * count + row % stride;
            for (rank, &index) in order[..count].iter().enumerate() {
                indices[target + rank * stride] = index as i32;
            }
        }
        let values = inputs[0].rearranged(output.dims(), None, |position| {
            let start = position / (stride * count) * stride * size + position % stride;
            Some(start + indices[position] as usize * stride)
        });
        Ok(vec![values, Array::new(dims, &indices)?])
    }

    fn hlo(&self, _: &mut hlo::Builder, _: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        Err(Error::Unsupported {
            operator: self.name(),
            target: "hlo".to_owned(),
            reason: "it has no HLO of its own and is lowered to one of its forms first".to_owned(),
        })
    }
}

fn pair(operator: &'static str, tensors: Vec<Tensor>) -> Result<(Tensor, Tensor)> {
    let got = tensors.len();
    let pair: [Tensor; 2] =
        tensors.try_into().map_err(|_| Error::argument(operator, "results", "two", got))?;
    Ok(pair.into())
}
