//! Host arrays.

use std::sync::Arc;

use half::{bf16, f16};

use crate::dtype::with_element;
use crate::{DType, Element, Error, Result, Shape};

/// The unit of allocation: arrays start at a cache line, which XLA:CPU asks of memory that it reads in place.
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Block([u8; 64]);

/// A dense row-major array in host memory: what functions take and give, and what constants hold.
///
/// Cloning shares the elements.
///
/// ```
/// use xlann::Array;
/// let x = Array::new([2, 2], &[1f32, 2.0, 3.0, 4.0])?;
/// assert_eq!(x.to_string(), "f32[2,2] [[1, 2], [3, 4]]");
/// assert_eq!(x.to_vec::<f32>()?, [1.0, 2.0, 3.0, 4.0]);
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone)]
pub struct Array {
    shape: Shape,
    blocks: Arc<[Block]>,
}

impl Array {
    /// An array of the given dimensions, copied from its elements in row-major order.
    ///
    /// # Errors
    /// Where the number of elements is not the product of the dimensions.
    ///
    /// ```
    /// use xlann::Array;
    ///
    /// let x = Array::new([2, 1], &[1i64, 2])?;
    /// assert_eq!(x.shape().to_string(), "s64[2,1]");
    /// assert!(Array::new([2, 2], &[1i64, 2]).is_err());
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn new<T: Element>(dims: impl Into<Vec<usize>>, elements: &[T]) -> Result<Array> {
        Array::from_bytes(Shape::new(T::DTYPE, dims), bytemuck::cast_slice(elements))
    }

    /// An array of rank 0.
    ///
    /// ```
    /// use xlann::Array;
    /// assert_eq!(Array::scalar(true).to_string(), "pred[] true");
    /// ```
    pub fn scalar<T: Element>(value: T) -> Array {
        Array::filled(Shape::scalar(T::DTYPE), |bytes| bytes.copy_from_slice(bytemuck::bytes_of(&value)))
    }

    /// An array copied from the bytes of its elements, in row-major order and this machine's byte order.
    ///
    /// # Errors
    /// Where the number of bytes is not the shape's, or a pred is neither 0 nor 1.
    ///
    /// ```
    /// use xlann::{Array, DType, Shape};
    ///
    /// let x = Array::from_bytes(Shape::scalar(DType::U32), &258u32.to_ne_bytes())?;
    /// assert_eq!(x.to_vec::<u32>()?, [258]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn from_bytes(shape: Shape, bytes: &[u8]) -> Result<Array> {
        let expected = shape.checked_byte_count("array")?;
        if bytes.len() != expected {
            let expected = format!("{} elements ({expected} bytes) for {shape}", shape.element_count());
            return Err(Error::argument("array", "elements", expected, format!("{} bytes", bytes.len())));
        }
        check_preds("array", &shape, bytes)?;
        Ok(Array::filled(shape, |target| target.copy_from_slice(bytes)))
    }

    /// An array of zeros (false for pred).
    ///
    /// # Errors
    /// Where its size in bytes passes the address space.
    ///
    /// ```
    /// use xlann::{Array, DType, Shape};
    ///
    /// assert_eq!(Array::zeros(Shape::new(DType::F32, [2]))?, Array::new([2], &[0f32, 0.0])?);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn zeros(shape: Shape) -> Result<Array> {
        shape.checked_byte_count("array")?;
        Ok(Array::filled(shape, |_| ()))
    }

    /// An array whose bytes `fill` writes over zeros; the shape's size must have been checked.
    pub(crate) fn filled(shape: Shape, fill: impl FnOnce(&mut [u8])) -> Array {
        match Array::try_filled(shape, |bytes| {
            fill(bytes);
            Ok::<(), std::convert::Infallible>(())
        }) {
            Ok(array) => array,
        }
    }

    /// As [`filled`](Array::filled), with a `fill` that can fail.
    pub(crate) fn try_filled<E>(
        shape: Shape,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Array, E> {
        let size = shape.byte_count();
        let mut blocks: Arc<[Block]> = std::iter::repeat_n(Block([0; 64]), size.div_ceil(64)).collect();
        if let Some(blocks) = Arc::get_mut(&mut blocks) {
            fill(&mut bytemuck::cast_slice_mut(blocks)[..size])?;
        }
        Ok(Array { shape, blocks })
    }

    /// Its dtype and dimensions.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The bytes of its elements, in row-major order and this machine's byte order, from a 64-byte boundary.
    ///
    /// ```
    /// use xlann::Array;
    ///
    /// assert_eq!(Array::new([3], &[1u8, 2, 3])?.as_bytes(), [1, 2, 3]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn as_bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.blocks)[..self.shape.byte_count()]
    }

    /// Its elements in row-major order.
    ///
    /// # Errors
    /// Where `T` is not the type of the array's dtype.
    ///
    /// ```
    /// use xlann::Array;
    ///
    /// let x = Array::new([2], &[1f32, 2.0])?;
    /// assert_eq!(x.as_slice::<f32>()?, [1.0, 2.0]);
    /// assert!(x.as_slice::<i32>().is_err());
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        if T::DTYPE != self.shape.dtype() {
            return Err(Error::argument("array", "dtype", T::DTYPE.name(), &self.shape));
        }
        bytemuck::checked::try_cast_slice(self.as_bytes())
            .map_err(|problem| Error::argument("array", "elements", T::DTYPE.name(), problem))
    }

    /// A copy of its elements in row-major order.
    ///
    /// # Errors
    /// Where `T` is not the type of the array's dtype.
    ///
    /// ```
    /// use xlann::Array;
    ///
    /// assert_eq!(Array::new([2], &[true, false])?.to_vec::<bool>()?, [true, false]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        Ok(self.as_slice::<T>()?.to_vec())
    }

    /// The same elements under other dimensions of the same product.
    ///
    /// # Errors
    /// Where the number of elements differs.
    ///
    /// ```
    /// use xlann::Array;
    ///
    /// let x = Array::new([2, 2], &[1, 2, 3, 4])?;
    /// assert_eq!(x.reshape([4])?, Array::new([4], &[1, 2, 3, 4])?);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn reshape(&self, dims: impl Into<Vec<usize>>) -> Result<Array> {
        let shape = self.shape.with_dims(dims);
        if shape.checked_byte_count("reshape")? != self.shape.byte_count() {
            let expected = format!("of {} elements", self.shape.element_count());
            return Err(Error::argument("reshape", "dims", expected, &shape));
        }
        Ok(Array { shape, blocks: Arc::clone(&self.blocks) })
    }

    /// Each element as an f64, which holds every dtype's values but the 64-bit integers' exactly.
    ///
    /// ```
    /// use xlann::Array;
    ///
    /// assert_eq!(Array::new([2], &[1i8, -2])?.to_f64(), [1.0, -2.0]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn to_f64(&self) -> Vec<f64> {
        let bytes = self.as_bytes();
        match self.shape.dtype() {
            DType::F16 => bytemuck::cast_slice::<_, f16>(bytes).iter().map(|x| x.to_f64()).collect(),
            DType::BF16 => bytemuck::cast_slice::<_, bf16>(bytes).iter().map(|x| x.to_f64()).collect(),
            DType::F32 => bytemuck::cast_slice::<_, f32>(bytes).iter().map(|&x| x.into()).collect(),
            DType::F64 => bytemuck::cast_slice::<_, f64>(bytes).to_vec(),
            _ => self.to_i128().into_iter().map(|x| x as f64).collect(),
        }
    }

    /// Each element as an i128; floats lose their fraction and saturate, NaN becomes 0.
    pub(crate) fn to_i128(&self) -> Vec<i128> {
        let bytes = self.as_bytes();
        macro_rules! widen {
            ($T:ty) => {
                bytemuck::cast_slice::<_, $T>(bytes).iter().map(|&x| x as i128).collect()
            };
        }
        match self.shape.dtype() {
            DType::Pred | DType::U8 => widen!(u8),
            DType::S8 => widen!(i8),
            DType::S16 => widen!(i16),
            DType::S32 => widen!(i32),
            DType::S64 => widen!(i64),
            DType::U16 => widen!(u16),
            DType::U32 => widen!(u32),
            DType::U64 => widen!(u64),
            _ => self.to_f64().into_iter().map(|x| x as i128).collect(),
        }
    }

    /// An array from f64 values, each rounded to the nearest value of the dtype: for f16 and bf16 to f32 first,
    /// as XLA does. Integers saturate, and NaN becomes 0.
    ///
    /// # Errors
    /// Where the number of values is not the product of the dimensions.
    ///
    /// ```
    /// use xlann::{Array, DType, Shape};
    ///
    /// let x = Array::from_f64(Shape::new(DType::S8, [3]), &[1.9, -300.0, f64::NAN])?;
    /// assert_eq!(x.to_vec::<i8>()?, [1, -128, 0]);
    /// let x = Array::from_f64(Shape::new(DType::BF16, [1]), &[1.001])?;
    /// assert_eq!(x.to_f64(), [1.0]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn from_f64(shape: Shape, values: &[f64]) -> Result<Array> {
        macro_rules! narrow {
            ($convert:expr) => {{
                let elements: Vec<_> = values.iter().map($convert).collect();
                Array::new(shape.dims(), &elements)
            }};
        }
        match shape.dtype() {
            DType::Pred => narrow!(|&x| x != 0.0),
            DType::S8 => narrow!(|&x| x as i8),
            DType::S16 => narrow!(|&x| x as i16),
            DType::S32 => narrow!(|&x| x as i32),
            DType::S64 => narrow!(|&x| x as i64),
            DType::U8 => narrow!(|&x| x as u8),
            DType::U16 => narrow!(|&x| x as u16),
            DType::U32 => narrow!(|&x| x as u32),
            DType::U64 => narrow!(|&x| x as u64),
            DType::F16 => narrow!(|&x| f16::from_f32(x as f32)),
            DType::BF16 => narrow!(|&x| bf16::from_f32(x as f32)),
            DType::F32 => narrow!(|&x| x as f32),
            DType::F64 => narrow!(|&x| x),
        }
    }

    /// An array from i128 values; integers wrap to their width, as XLA's do, and pred tests for non-zero.
    pub(crate) fn from_i128(shape: Shape, values: &[i128]) -> Result<Array> {
        macro_rules! narrow {
            ($T:ty) => {{
                let elements: Vec<_> = values.iter().map(|&x| x as $T).collect();
                Array::new(shape.dims(), &elements)
            }};
        }
        match shape.dtype() {
            DType::Pred => {
                let elements: Vec<_> = values.iter().map(|&x| x != 0).collect();
                Array::new(shape.dims(), &elements)
            }
            DType::S8 => narrow!(i8),
            DType::S16 => narrow!(i16),
            DType::S32 => narrow!(i32),
            DType::S64 => narrow!(i64),
            DType::U8 => narrow!(u8),
            DType::U16 => narrow!(u16),
            DType::U32 => narrow!(u32),
            DType::U64 => narrow!(u64),
            // An f64 on the way would round twice.
            DType::F32 => narrow!(f32),
            DType::F64 => narrow!(f64),
            DType::F16 | DType::BF16 => {
                let values: Vec<_> = values.iter().map(|&x| f64::from(x as f32)).collect();
                Array::from_f64(shape, &values)
            }
        }
    }

    /// An array of `dims` whose element at position p is this array's element at `source(p)`, or `fill`'s
    /// only element where `source(p)` is `None`: what every data movement on the host is made of.
    pub(crate) fn rearranged(
        &self,
        dims: &[usize],
        fill: Option<&Array>,
        mut source: impl FnMut(usize) -> Option<usize>,
    ) -> Array {
        let size = self.shape.dtype().size();
        let from = self.as_bytes();
        Array::filled(self.shape.with_dims(dims), |bytes| {
            for (position, target) in bytes.chunks_exact_mut(size).enumerate() {
                match (source(position), fill) {
                    (Some(index), _) => target.copy_from_slice(&from[index * size..][..size]),
                    (None, Some(fill)) => target.copy_from_slice(fill.as_bytes()),
                    (None, None) => (),
                }
            }
        })
    }
}

/// Requires that the elements of a shape of pred are 0 or 1.
pub(crate) fn check_preds(operator: &'static str, shape: &Shape, bytes: &[u8]) -> Result<()> {
    if shape.dtype() == DType::Pred
        && let Some(byte) = bytes.iter().find(|&&byte| byte > 1)
    {
        return Err(Error::argument(operator, "elements", "0 or 1 for a pred", byte));
    }
    Ok(())
}

impl PartialEq for Array {
    /// Whether shapes and bytes are equal: a NaN equals the same NaN, and -0.0 is not 0.0.
    fn eq(&self, other: &Array) -> bool {
        self.shape == other.shape && self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Array {}

impl std::hash::Hash for Array {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.shape.hash(state);
        self.as_bytes().hash(state);
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// How many elements are printed before the rest is left out.
const PRINTED: usize = 32;

impl std::fmt::Display for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.shape)?;
        let count = self.shape.element_count().min(PRINTED);
        let size = self.shape.dtype().size();
        let bytes = &self.as_bytes()[..count * size];
        let texts: Vec<String> = with_element!(self.shape.dtype(), T => {
            match bytemuck::checked::try_cast_slice::<u8, T>(bytes) {
                Ok(elements) => elements.iter().map(|element| element.to_string()).collect(),
                // A device can be given a pred that is neither 0 nor 1.
                Err(_) => bytes.iter().map(|byte| byte.to_string()).collect(),
            }
        });
        if self.shape.element_count() > PRINTED {
            return write!(f, "{{{}, ...}}", texts.join(", "));
        }
        let strides = self.shape.strides();
        for _ in 0..self.shape.rank() {
            if texts.is_empty() {
                return f.write_str("[]");
            }
            f.write_str("[")?;
        }
        for (position, text) in texts.iter().enumerate() {
            if position > 0 {
                // A row of dimension d ends wherever its stride times its size divides the position.
                let ended = (0..self.shape.rank())
                    .filter(|&axis| position % (strides[axis] * self.shape.dims()[axis]) == 0)
                    .count();
                write!(f, "{}, {}", "]".repeat(ended), "[".repeat(ended))?;
            }
            f.write_str(text)?;
        }
        f.write_str(&"]".repeat(self.shape.rank()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_number_of_elements_is_refused() {
        assert_eq!(
            Array::new([2, 2], &[1f32; 3]).unwrap_err().to_string(),
            "array: elements must be 4 elements (16 bytes) for f32[2,2], got 12 bytes"
        );
    }

    #[test]
    fn reading_as_another_dtype_is_refused() {
        let array = Array::scalar(1i32);
        assert_eq!(array.as_slice::<f32>().unwrap_err().to_string(), "array: dtype must be f32, got s32[]");
    }

    #[test]
    fn a_pred_is_0_or_1() {
        assert!(Array::from_bytes(Shape::new(DType::Pred, [2]), &[1, 2]).is_err());
        assert_eq!(Array::new([2], &[true, false]).unwrap().to_vec::<bool>().unwrap(), [true, false]);
    }

    #[test]
    fn elements_start_at_a_cache_line() {
        for count in [1, 7, 100] {
            let array = Array::new([count], &vec![1u8; count]).unwrap();
            assert_eq!(array.as_bytes().as_ptr() as usize % 64, 0);
        }
    }

    #[test]
    fn printing_shows_the_nesting() {
        assert_eq!(
            Array::new([2, 1, 2], &[1, 2, 3, 4]).unwrap().to_string(),
            "s32[2,1,2] [[[1, 2]], [[3, 4]]]"
        );
        assert_eq!(Array::new([0, 2], &[0f32; 0]).unwrap().to_string(), "f32[0,2] []");
        assert_eq!(Array::scalar(true).to_string(), "pred[] true");
        assert!(Array::new([40], &[0u8; 40]).unwrap().to_string().ends_with(", ...}"));
    }
}
