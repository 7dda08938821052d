//! Means, variances and norms.

use super::{floating, in_f32, repeated};
use crate::{Result, Tensor};

impl Tensor {
    /// The mean of floats over `dimensions` (negative: from the end); NaN where there are none.
    ///
    /// # Errors
    /// Where a dimension is out of range or named twice, or the dtype is not a float's.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [2, 3])], |x| x[0].mean(&[-1]))?;
    /// let rows = Array::new([2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    /// assert_eq!(f.eval(&[rows])?, [Array::new([2], &[2f32, 5.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias = "average")]
    pub fn mean(&self, dimensions: &[isize]) -> Result<Tensor> {
        let axes = self.shape().axes("mean", "dimensions", dimensions)?;
        floating("mean", self)?;
        in_f32(self, |x| x.reduce_sum(dimensions)? / count(x, &axes))
    }

    /// The variance of floats over `dimensions` (negative: from the end): the sum of the squared differences from the
    /// mean, divided by the number of elements less `ddof`, the delta degrees of freedom.
    ///
    /// With a `ddof` of 0 it is the variance of these elements, NumPy's and JAX's default; with 1 it estimates that of
    /// what they are a sample of, torch's default. It is NaN where there are no more elements than `ddof`. The
    /// standard deviation is its square root.
    ///
    /// # Errors
    /// Where a dimension is out of range or named twice, or the dtype is not a float's.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [4])], |x| {
    ///     Ok((x[0].var(&[0], 0)?, x[0].var(&[0], 1)?))
    /// })?;
    /// let results = f.eval(&[Array::new([4], &[1f32, 2.0, 4.0, 5.0])?])?;
    /// assert_eq!(results, [Array::scalar(2.5f32), Array::scalar(10f32 / 3.0)]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("variance", "std"))]
    pub fn var(&self, dimensions: &[isize], ddof: usize) -> Result<Tensor> {
        let axes = self.shape().axes("var", "dimensions", dimensions)?;
        floating("var", self)?;
        in_f32(self, |x| {
            let count = count(x, &axes);
            let centred = (x - repeated(&(x.reduce_sum(dimensions)? / count)?, x, &axes)?)?;
            let divisor = if count > ddof as f64 { count - ddof as f64 } else { f64::NAN };
            (&centred * &centred)?.reduce_sum(dimensions)? / divisor
        })
    }

    /// The Euclidean norm of floats over `dimensions` (negative: from the end), the square root of the sum of squares;
    /// 0 where there are none.
    ///
    /// Over two dimensions, it is the Frobenius norm. The derivative at 0 is 0, the least of the subgradients, where
    /// JAX's is NaN. Squares that overflow give ∞, and those that underflow count as 0.
    ///
    /// # Errors
    /// Where a dimension is out of range or named twice, or the dtype is not a float's.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [2, 2])], |x| x[0].norm(&[1]))?;
    /// let results = f.eval(&[Array::new([2, 2], &[3f32, 4.0, 0.0, -2.0])?])?;
    /// assert_eq!(results, [Array::new([2], &[5f32, 2.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("linalg.norm", "vector_norm", "l2_norm"))]
    pub fn norm(&self, dimensions: &[isize]) -> Result<Tensor> {
        self.shape().axes("norm", "dimensions", dimensions)?;
        floating("norm", self)?;
        in_f32(self, |x| {
            let sum = (x * x)?.reduce_sum(dimensions)?;
            let zero = sum.equal(0)?;
            // The slope of the root is infinite at 0, and the derivative of the sum 0: their product is NaN.
            let root = zero.select(&sum.full_like(1)?, &sum)?.sqrt()?;
            zero.select(&sum.full_like(0)?, root)
        })
    }
}

/// How many elements there are along these dimensions.
fn count(x: &Tensor, axes: &[usize]) -> f64 {
    x.shape().part(axes).0.iter().map(|&dim| dim as f64).product()
}
