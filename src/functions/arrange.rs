//! Putting tensors together, apart and round.

use crate::shape::Dims;
use crate::{Error, Result, Tensor};

impl Tensor {
    /// Tensors of one shape along a new dimension of the result, `axis` (negative: from its end).
    ///
    /// # Errors
    /// Where there is no operand, one differs from the first in shape or dtype, or the result has no such dimension.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape, Tensor};
    ///
    /// let vector = Shape::new(DType::F32, [2]);
    /// let f = Function::trace("f", &[vector.clone(), vector], |x| Tensor::stack(&[&x[0], &x[1]], -1))?;
    /// let results = f.eval(&[Array::new([2], &[1f32, 2.0])?, Array::new([2], &[3f32, 4.0])?])?;
    /// assert_eq!(results, [Array::new([2, 2], &[1f32, 3.0, 2.0, 4.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("vstack", "hstack", "column_stack"))]
    pub fn stack(operands: &[&Tensor], axis: isize) -> Result<Tensor> {
        let Some(first) = operands.first() else {
            return Err(Error::argument("stack", "operands", "at least 1", 0));
        };
        let mut dims = first.dims().to_vec();
        dims.push(1);
        let dimension = first.shape().with_dims(dims).axis("stack", "axis", axis)?;
        let mut rows = Vec::with_capacity(operands.len());
        for (index, operand) in operands.iter().enumerate() {
            if operand.shape() != first.shape() {
                let expected = format!("of shape {}, as operand 0", first.shape());
                return Err(Error::argument("stack", format!("operand {index}"), expected, operand.shape()));
            }
            rows.push(operand.expand_dims(dimension as isize)?);
        }
        Tensor::concatenate(&rows.iter().collect::<Vec<_>>(), dimension as isize)
    }

    /// Consecutive parts of these sizes along `axis` (negative: from the end).
    ///
    /// # Errors
    /// Where there is no such axis, or the sizes do not add up to that of the axis.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::S32, [5])], |x| x[0].split(&[2, 3], 0))?;
    /// let results = f.eval(&[Array::new([5], &[0, 1, 2, 3, 4])?])?;
    /// assert_eq!(results, [Array::new([2], &[0, 1])?, Array::new([3], &[2, 3, 4])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("split_with_sizes", "array_split", "unbind", "unstack"))]
    pub fn split(&self, sizes: &[usize], axis: isize) -> Result<Vec<Tensor>> {
        let dimension = self.shape().axis("split", "axis", axis)?;
        let size = self.dims()[dimension];
        let sum = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size));
        if sum != Some(size) {
            let expected =
                format!("of the sum {size}, the size of dimension {dimension} of {}", self.shape());
            return Err(Error::argument("split", "sizes", expected, Dims(sizes)));
        }
        let mut start = 0;
        let part = |&size: &usize| {
            start += size;
            self.slice_in_dim(start - size, start, 1, dimension as isize)
        };
        sizes.iter().map(part).collect()
    }

    /// As many consecutive `parts` of equal size along `axis` (negative: from the end).
    ///
    /// # Errors
    /// Where there is no such axis, or its size is no multiple of the number of parts.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::S32, [4])], |x| x[0].split_evenly(2, 0))?;
    /// let results = f.eval(&[Array::new([4], &[0, 1, 2, 3])?])?;
    /// assert_eq!(results, [Array::new([2], &[0, 1])?, Array::new([2], &[2, 3])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("chunk", "split"))]
    pub fn split_evenly(&self, parts: usize, axis: isize) -> Result<Vec<Tensor>> {
        let dimension = self.shape().axis("split_evenly", "axis", axis)?;
        let size = self.dims()[dimension];
        if parts == 0 || !size.is_multiple_of(parts) {
            let expected =
                format!("a divisor of {size}, the size of dimension {dimension} of {}", self.shape());
            return Err(Error::argument("split_evenly", "parts", expected, parts));
        }
        self.split(&vec![size / parts; parts], axis)
    }

    /// This tensor with the elements moved on by `shifts[i]` along each of `axes` (negative: from the end), those that
    /// leave at one end coming in at the other. Negative shifts move towards index 0; an axis that is named twice is
    /// moved twice.
    ///
    /// # Errors
    /// Where there is not one shift for each axis, or there is no such axis.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::S32, [4])], |x| {
    ///     Ok((x[0].roll(&[1], &[0])?, x[0].roll(&[-5], &[0])?))
    /// })?;
    /// let results = f.eval(&[Array::new([4], &[0, 1, 2, 3])?])?;
    /// assert_eq!(results, [Array::new([4], &[3, 0, 1, 2])?, Array::new([4], &[1, 2, 3, 0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias = "rotate")]
    pub fn roll(&self, shifts: &[isize], axes: &[isize]) -> Result<Tensor> {
        if shifts.len() != axes.len() {
            let expected = format!("{}, one for each axis", axes.len());
            return Err(Error::argument("roll", "shifts", expected, shifts.len()));
        }
        let mut rolled = self.clone();
        for (&shift, &axis) in shifts.iter().zip(axes) {
            let dimension = self.shape().axis("roll", "axes", axis)?;
            let size = self.dims()[dimension];
            // No size passes an isize, for that of the shape in bytes does not, but for the shape of an empty tensor.
            let shift = match isize::try_from(size) {
                Ok(size) if size > 0 => shift.rem_euclid(size) as usize,
                _ => 0,
            };
            if shift > 0 {
                let part = |start, limit| rolled.slice_in_dim(start, limit, 1, dimension as isize);
                rolled = Tensor::concatenate(
                    &[&part(size - shift, size)?, &part(0, size - shift)?],
                    dimension as isize,
                )?;
            }
        }
        Ok(rolled)
    }
}
