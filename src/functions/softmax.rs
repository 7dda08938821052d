//! Sums of exponentials.

use super::{floating, in_f32, repeated};
use crate::{Result, Tensor};

impl Tensor {
    /// The exponentials of floats, divided by their sum along `axis` (negative: from the end).
    ///
    /// The greatest element is subtracted first, so that no exponential overflows. -∞ gives 0; where all elements are
    /// -∞, or one is ∞ or NaN, the results are NaN.
    ///
    /// # Errors
    /// Where there is no such axis, or the dtype is not a float's.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [2, 2])], |x| x[0].softmax(1))?;
    /// let results = f.eval(&[Array::new([2, 2], &[1000f32, 1000.0, 0.0, f32::NEG_INFINITY])?])?;
    /// assert_eq!(results, [Array::new([2, 2], &[0.5f32, 0.5, 1.0, 0.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn softmax(&self, axis: isize) -> Result<Tensor> {
        let dimension = self.shape().axis("softmax", "axis", axis)?;
        floating("softmax", self)?;
        in_f32(self, |x| {
            let exponentials = below_greatest(x, dimension)?.exp()?;
            &exponentials / repeated(&exponentials.reduce_sum(&[axis])?, x, &[dimension])?
        })
    }

    /// The logarithm of [`softmax`](Tensor::softmax) along `axis` (negative: from the end), finite where that rounds to
    /// 0: the elements minus their [`logsumexp`](Tensor::logsumexp).
    ///
    /// # Errors
    /// Where there is no such axis, or the dtype is not a float's.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [2])], |x| x[0].log_softmax(0))?;
    /// let results = f.eval(&[Array::new([2], &[0f32, -1000.0])?])?;
    /// assert_eq!(results, [Array::new([2], &[0f32, -1000.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn log_softmax(&self, axis: isize) -> Result<Tensor> {
        let dimension = self.shape().axis("log_softmax", "axis", axis)?;
        floating("log_softmax", self)?;
        in_f32(self, |x| {
            let shifted = below_greatest(x, dimension)?;
            &shifted - repeated(&shifted.exp()?.reduce_sum(&[axis])?.log()?, x, &[dimension])?
        })
    }

    /// The logarithm of the sum of the exponentials of floats over `dimensions` (negative: from the end).
    ///
    /// The greatest element is taken out of the sum, so that no exponential overflows. It is -∞ where all elements
    /// are, or where there are none, and ∞ where one is. Its derivative is [`softmax`](Tensor::softmax), and so NaN
    /// where all elements are -∞.
    ///
    /// # Errors
    /// Where a dimension is out of range or named twice, or the dtype is not a float's.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [2, 2])], |x| x[0].logsumexp(&[-1]))?;
    /// let results = f.eval(&[Array::new([2, 2], &[1000f32, -1000.0, f32::NEG_INFINITY, 3.0])?])?;
    /// assert_eq!(results, [Array::new([2], &[1000f32, 3.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn logsumexp(&self, dimensions: &[isize]) -> Result<Tensor> {
        let axes = self.shape().axes("logsumexp", "dimensions", dimensions)?;
        floating("logsumexp", self)?;
        in_f32(self, |x| {
            let greatest = x.stop_gradient()?.reduce_max(dimensions)?;
            // ∞ - ∞ would be NaN.
            let shift = greatest.is_finite()?.select(&greatest, 0)?;
            let sum = (x - repeated(&shift, x, &axes)?)?.exp()?.reduce_sum(dimensions)?;
            sum.log()? + shift
        })
    }
}

/// The elements minus the greatest one along an axis, which is no part of the derivative: it cancels.
fn below_greatest(x: &Tensor, axis: usize) -> Result<Tensor> {
    let greatest = x.stop_gradient()?.reduce_max(&[axis as isize])?;
    x - repeated(&greatest, x, &[axis])?
}
