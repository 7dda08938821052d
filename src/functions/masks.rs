//! Ones among zeros: classes and triangles.

use crate::transform::zeros;
use crate::{Builder, DType, Error, Result, Shape, Tensor};

impl Tensor {
    /// For each integer of this tensor, a vector of `classes` elements along a new last dimension: 1 at that index, 0
    /// elsewhere. Of an index out of range, negative ones among them, all are 0.
    ///
    /// # Errors
    /// Where this tensor is not of integers.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::S32, [3])], |x| x[0].one_hot(2, DType::F32))?;
    /// let results = f.eval(&[Array::new([3], &[1, 0, 2])?])?;
    /// assert_eq!(results, [Array::new([3, 2], &[0f32, 1.0, 1.0, 0.0, 0.0, 0.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn one_hot(&self, classes: usize, dtype: DType) -> Result<Tensor> {
        if !self.dtype().is_integer() {
            return Err(Error::argument("one_hot", "operand's dtype", "an integer", self.dtype()));
        }
        // Counting to more than the dtype holds would begin anew.
        let bits = 8 * self.dtype().size() as u32 - u32::from(self.dtype().is_signed_integer());
        let wide = if (classes as u128) >> bits == 0 { self.dtype() } else { DType::S64 };
        let indices = self.convert(wide)?.expand_dims(-1)?;
        let dims = [self.dims(), &[classes]].concat();
        let counted = self.builder().iota(Shape::new(wide, dims), -1)?;
        counted.equal(&indices)?.convert(dtype)
    }

    /// Matrices, which are the last two dimensions, with zeros above a diagonal: that of number 0 begins at the first
    /// element, those of positive numbers are above it, those of negative ones below.
    ///
    /// # Errors
    /// Where there are less than two dimensions.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::S32, [2, 3])], |x| x[0].tril(0))?;
    /// let results = f.eval(&[Array::new([2, 3], &[1, 2, 3, 4, 5, 6])?])?;
    /// assert_eq!(results, [Array::new([2, 3], &[1, 0, 0, 4, 5, 0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("lower_triangle", "band_part"))]
    pub fn tril(&self, diagonal: isize) -> Result<Tensor> {
        let lower = matrix_mask("tril", self, diagonal)?;
        lower.select(self, zeros(self.builder(), self.shape())?)
    }

    /// Matrices, which are the last two dimensions, with zeros below a diagonal, numbered as of
    /// [`tril`](Tensor::tril).
    ///
    /// # Errors
    /// Where there are less than two dimensions.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::S32, [2, 3])], |x| x[0].triu(1))?;
    /// let results = f.eval(&[Array::new([2, 3], &[1, 2, 3, 4, 5, 6])?])?;
    /// assert_eq!(results, [Array::new([2, 3], &[0, 2, 3, 0, 0, 6])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("upper_triangle", "band_part"))]
    pub fn triu(&self, diagonal: isize) -> Result<Tensor> {
        let below = matrix_mask("triu", self, diagonal.saturating_sub(1))?;
        below.select(&zeros(self.builder(), self.shape())?, self)
    }
}

impl Builder {
    /// A pred of `rows` times `columns` that is true at and below a diagonal, numbered as of [`tril`](Tensor::tril).
    ///
    /// # Errors
    /// Where the size in bytes passes the address space.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// // Each row is a distribution over itself and those before it.
    /// let f = Function::trace("attention", &[Shape::new(DType::F32, [2, 2])], |x| {
    ///     let earlier = x[0].builder().tri(2, 2, 0)?;
    ///     earlier.select(&x[0], f32::NEG_INFINITY)?.softmax(1)
    /// })?;
    /// let results = f.eval(&[Array::new([2, 2], &[3f32, 9.0, 5.0, 5.0])?])?;
    /// assert_eq!(results, [Array::new([2, 2], &[1f32, 0.0, 0.5, 0.5])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("tril_indices", "causal_mask", "triangular"))]
    pub fn tri(&self, rows: usize, columns: usize, diagonal: isize) -> Result<Tensor> {
        let shape = Shape::new(DType::Pred, [rows, columns]);
        shape.checked_byte_count("tri")?;
        // What is further out than any element is no further out than these.
        let limit = |size: usize| isize::try_from(size).unwrap_or(isize::MAX);
        let diagonal = diagonal.clamp(-limit(rows), limit(columns)) as i64;
        let fits = rows.max(columns) < 1 << 30;
        let dtype = if fits { DType::S32 } else { DType::S64 };
        let index = |axis| self.iota(shape.with_dtype(dtype), axis);
        let diagonal = self.scalar(diagonal)?.convert(dtype)?;
        (index(0)? + diagonal)?.greater_equal(index(1)?)
    }
}

/// True at and below a diagonal of a tensor's last two dimensions.
fn matrix_mask(operator: &'static str, x: &Tensor, diagonal: isize) -> Result<Tensor> {
    match *x.dims() {
        [.., rows, columns] => x.builder().tri(rows, columns, diagonal),
        _ => Err(Error::argument(operator, "operand", "of rank 2 at least", x.shape())),
    }
}
