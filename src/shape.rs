//! Shapes: a dtype and the size of each dimension.

use crate::{DType, Error, Result};

/// The dtype and the static size of each dimension of a tensor, such as `f32[128,1000]`.
///
/// ```
/// use xlann::{DType, Shape};
///
/// let shape = Shape::new(DType::F32, [128, 1000]);
/// assert_eq!(shape.to_string(), "f32[128,1000]");
/// assert_eq!((shape.dtype(), shape.dims(), shape.rank()), (DType::F32, &[128, 1000][..], 2));
/// assert_eq!((shape.element_count(), shape.byte_count()), (128_000, 512_000));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    dtype: DType,
    dims: Vec<usize>,
}

impl Shape {
    /// A shape of the given dtype and dimension sizes; no dimensions make a scalar.
    ///
    /// ```
    /// use xlann::{DType, Shape};
    /// assert_eq!(Shape::new(DType::F32, [128, 1000]).to_string(), "f32[128,1000]");
    /// ```
    pub fn new(dtype: DType, dims: impl Into<Vec<usize>>) -> Shape {
        Shape { dtype, dims: dims.into() }
    }

    /// A shape of rank 0.
    ///
    /// ```
    /// use xlann::{DType, Shape};
    ///
    /// assert_eq!(Shape::scalar(DType::S32).to_string(), "s32[]");
    /// ```
    pub fn scalar(dtype: DType) -> Shape {
        Shape { dtype, dims: Vec::new() }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The size of each dimension.
    ///
    /// ```
    /// use xlann::{DType, Shape};
    /// let shape = Shape::new(DType::F32, [2, 3]);
    /// assert_eq!((shape.dims(), shape.rank()), (&[2, 3][..], 2));
    /// ```
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The number of elements; the largest `usize` where it is more.
    ///
    /// ```
    /// use xlann::{DType, Shape};
    /// let shape = Shape::new(DType::F32, [2, 3]);
    /// assert_eq!((shape.element_count(), shape.byte_count()), (6, 24));
    /// ```
    pub fn element_count(&self) -> usize {
        self.dims.iter().fold(1, |count: usize, &dim| count.saturating_mul(dim))
    }

    /// The number of bytes of the elements, densely packed; the largest `usize` where it is more.
    pub fn byte_count(&self) -> usize {
        self.element_count().saturating_mul(self.dtype.size())
    }

    /// The same dimensions with another dtype.
    ///
    /// ```
    /// use xlann::{DType, Shape};
    ///
    /// assert_eq!(Shape::new(DType::F32, [2, 3]).with_dtype(DType::Pred).to_string(), "pred[2,3]");
    /// ```
    pub fn with_dtype(&self, dtype: DType) -> Shape {
        Shape { dtype, dims: self.dims.clone() }
    }

    /// The same dtype with other dimensions.
    ///
    /// ```
    /// use xlann::{DType, Shape};
    ///
    /// assert_eq!(Shape::new(DType::F32, [2, 3]).with_dims([6]).to_string(), "f32[6]");
    /// ```
    pub fn with_dims(&self, dims: impl Into<Vec<usize>>) -> Shape {
        Shape { dtype: self.dtype, dims: dims.into() }
    }

    /// The number of bytes, or an error where that passes the address space.
    ///
    /// Every shape that enters a graph or an array goes through here once, so that
    /// [`element_count`](Shape::element_count) and [`byte_count`](Shape::byte_count) cannot overflow later.
    pub(crate) fn checked_byte_count(&self, operator: &'static str) -> Result<usize> {
        // Zero sizes are skipped: [0, huge, huge] has no elements, but products of its other sizes are taken.
        self.dims
            .iter()
            .filter(|&&dim| dim > 0)
            .try_fold(self.dtype.size(), |bytes, &dim| bytes.checked_mul(dim))
            .filter(|&bytes| bytes <= isize::MAX as usize)
            .map(|bytes| if self.dims.contains(&0) { 0 } else { bytes })
            .ok_or_else(|| {
                Error::argument(operator, "shape", format!("of at most {} bytes", isize::MAX), self)
            })
    }

    /// The dimension that `axis` names, counted from the end where it is negative.
    pub(crate) fn axis(&self, operator: &'static str, argument: &str, axis: isize) -> Result<usize> {
        let rank = self.rank() as isize;
        if (-rank..rank).contains(&axis) {
            Ok(axis.rem_euclid(rank) as usize)
        } else if rank == 0 {
            Err(Error::argument(operator, argument, "a dimension, and a scalar has none", axis))
        } else {
            let expected = format!("in {}..{rank} for {self}", -rank);
            Err(Error::argument(operator, argument, expected, axis))
        }
    }

    /// The dimensions that `axes` name, in increasing order; negative ones count from the end.
    pub(crate) fn axes(&self, operator: &'static str, argument: &str, axes: &[isize]) -> Result<Vec<usize>> {
        let mut named =
            axes.iter().map(|&axis| self.axis(operator, argument, axis)).collect::<Result<Vec<_>>>()?;
        named.sort_unstable();
        if let Some(pair) = named.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::argument(operator, argument, "each named once", format!("{} twice", pair[0])));
        }
        Ok(named)
    }

    /// The sizes and strides of some of its dimensions.
    pub(crate) fn part(&self, axes: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let strides = self.strides();
        axes.iter().map(|&axis| (self.dims[axis], strides[axis])).unzip()
    }

    /// Row-major strides, in elements.
    pub(crate) fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.rank()];
        for axis in (1..self.rank()).rev() {
            strides[axis - 1] = strides[axis] * self.dims[axis];
        }
        strides
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.dtype, Dims(&self.dims))
    }
}

/// Prints dimensions as `[128,1000]`.
pub(crate) struct Dims<'a>(pub &'a [usize]);

impl std::fmt::Display for Dims<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[")?;
        for (position, dim) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

/// The offset of every position of an array of sizes `dims` under these strides, in row-major order; what
/// evaluation walks parts of an array with.
pub(crate) fn offsets(dims: &[usize], strides: &[usize]) -> Vec<usize> {
    if dims.contains(&0) {
        return Vec::new();
    }
    dims.iter().zip(strides).fold(vec![0], |offsets, (&dim, &stride)| {
        offsets.iter().flat_map(|&offset| (0..dim).map(move |index| offset + index * stride)).collect()
    })
}

/// The dimensions that NumPy's rule gives for operands of these dimensions: right-aligned, size 1 stretched.
pub(crate) fn broadcast_dims(operator: &'static str, lhs: &[usize], rhs: &[usize]) -> Result<Vec<usize>> {
    let rank = lhs.len().max(rhs.len());
    let at = |dims: &[usize], position: usize| {
        (position + dims.len()).checked_sub(rank).map_or(1, |position| dims[position])
    };
    (0..rank)
        .map(|position| match (at(lhs, position), at(rhs, position)) {
            (l, r) if l == r => Ok(l),
            (1, size) | (size, 1) => Ok(size),
            _ => Err(Error::argument(
                operator,
                "operands",
                "of sizes that are equal or 1, right-aligned",
                format!("{} and {}", Dims(lhs), Dims(rhs)),
            )),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_axes_count_from_the_end() {
        let shape = Shape::new(DType::F32, [2, 3]);
        assert_eq!(shape.axis("test", "axis", -1).unwrap(), 1);
        assert_eq!(shape.axis("test", "axis", -2).unwrap(), 0);
        assert_eq!(
            shape.axis("test", "axis", 2).unwrap_err().to_string(),
            "test: axis must be in -2..2 for f32[2,3], got 2"
        );
        assert_eq!(
            Shape::scalar(DType::F32).axis("test", "axis", 0).unwrap_err().to_string(),
            "test: axis must be a dimension, and a scalar has none, got 0"
        );
    }

    #[test]
    fn broadcasting_is_numpys() {
        assert_eq!(broadcast_dims("test", &[7, 1, 3], &[5, 1]).unwrap(), [7, 5, 3]);
        assert_eq!(broadcast_dims("test", &[], &[2, 0]).unwrap(), [2, 0]);
        assert_eq!(broadcast_dims("test", &[1], &[0]).unwrap(), [0]);
        assert_eq!(
            broadcast_dims("test", &[2, 3], &[2]).unwrap_err().to_string(),
            "test: operands must be of sizes that are equal or 1, right-aligned, got [2,3] and [2]"
        );
    }

    #[test]
    fn sizes_past_the_address_space_are_refused() {
        let huge = Shape::new(DType::F64, [usize::MAX / 2, 4]);
        assert!(huge.checked_byte_count("test").is_err());
        assert_eq!(Shape::new(DType::F64, [0, 4]).checked_byte_count("test").unwrap(), 0);
    }
}
