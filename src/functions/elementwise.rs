//! Activations and bounds.

use super::{floating, in_f32, number};
use crate::graph::Operand;
use crate::{Result, Tensor};

impl Tensor {
    /// Numbers, with 0 in place of negative ones. NaN stays NaN; the derivative at 0 is 0, as JAX's.
    ///
    /// # Errors
    /// Where the dtype is pred.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [3])], |x| x[0].relu())?;
    /// let results = f.eval(&[Array::new([3], &[-1f32, 0.0, 2.0])?])?;
    /// assert_eq!(results, [Array::new([3], &[0f32, 0.0, 2.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("rectified_linear_unit", "threshold"))]
    pub fn relu(&self) -> Result<Tensor> {
        number("relu", self)?;
        // Of the maximum itself, the derivative at 0 is one half.
        self.maximum(0)?.with_derivative_of(&self.greater(0)?.select(self, 0)?)
    }

    /// The Gaussian error linear unit of floats, `x / 2 * (1 + erf(x / sqrt(2)))`: `x` times the probability that a
    /// standard normal variable is below it.
    ///
    /// It is torch's default, and JAX's with `approximate=False`. Far below 0 its error is relative to `x` and not to
    /// the result, which is small there. -∞ gives NaN, as JAX's.
    ///
    /// # Errors
    /// Where the dtype is not a float's.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [3])], |x| x[0].gelu())?;
    /// let results = f.eval(&[Array::new([3], &[-1f32, 0.0, 1.0])?])?;
    /// assert_eq!(results, [Array::new([3], &[-0.15865526f32, 0.0, 0.8413447])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn gelu(&self) -> Result<Tensor> {
        floating("gelu", self)?;
        in_f32(self, |x| (x * 0.5)? * ((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1)?)
    }

    /// The approximation of [`gelu`](Tensor::gelu) by a hyperbolic tangent,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`, from <https://arxiv.org/abs/1606.08415>, section 2.
    ///
    /// It is JAX's default, and torch's with `approximate="tanh"`.
    ///
    /// # Errors
    /// Where the dtype is not a float's.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [3])], |x| x[0].gelu_tanh())?;
    /// let results = f.eval(&[Array::new([3], &[-1f32, 0.0, 1.0])?])?;
    /// assert_eq!(results, [Array::new([3], &[-0.158808f32, 0.0, 0.841192])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias = "gelu_new")]
    pub fn gelu_tanh(&self) -> Result<Tensor> {
        floating("gelu_tanh", self)?;
        in_f32(self, |x| {
            let cubed = ((x * x)? * x)?;
            // sqrt(2 / pi)
            let scale = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
            let tangent = ((x + cubed * 0.044715)? * scale)?.tanh()?;
            (x * 0.5)? * (tangent + 1)?
        })
    }

    /// This tensor with what is below `min` replaced by it, then what is above `max` by that, where the three
    /// broadcast: NumPy's. NaN where any of the three is.
    ///
    /// Where an element equals a bound, each has half of the derivative, as of [`maximum`](Tensor::maximum) and as in
    /// `jax.numpy`; [`clamp`](Tensor::clamp), which takes bounds of this tensor's shape only, has none there.
    ///
    /// # Errors
    /// Where a bound is of another dtype or does not broadcast.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// // Columns with upper bounds of their own.
    /// let shapes = [Shape::new(DType::S32, [2, 2]), Shape::new(DType::S32, [2])];
    /// let f = Function::trace("f", &shapes, |x| x[0].clip(0, &x[1]))?;
    /// let results = f.eval(&[Array::new([2, 2], &[-1, 5, 2, 30])?, Array::new([2], &[1, 20])?])?;
    /// assert_eq!(results, [Array::new([2, 2], &[0, 5, 1, 20])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn clip(&self, min: impl Operand, max: impl Operand) -> Result<Tensor> {
        number("clip", self)?;
        self.maximum(min.tensor(self)?)?.minimum(max.tensor(self)?)
    }
}
