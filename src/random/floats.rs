//! Random floats.

use crate::random::{bits, check_key};
use crate::{Array, DType, Error, Operand, Result, Shape, Tensor};

/// How numbers of a dtype are made of random bits.
struct Format {
    /// The bits that are drawn.
    drawn: DType,
    /// The integer of the size of the float.
    unsigned: DType,
    /// How many bits the mantissa has.
    mantissa: i32,
    /// The bits of 1.
    one: i128,
    /// The exponent of the least normal number.
    least: i32,
}

impl Format {
    fn of(operator: &'static str, dtype: DType) -> Result<Format> {
        let (drawn, unsigned, mantissa, one, least) = match dtype {
            DType::F16 => (DType::U16, DType::U16, 10, 0x3c00, -14),
            DType::BF16 => (DType::U8, DType::U16, 7, 0x3f80, -126),
            DType::F32 => (DType::U32, DType::U32, 23, 0x3f80_0000, -126),
            DType::F64 => (DType::U64, DType::U64, 52, 0x3ff0 << 48, -1022),
            _ => return Err(Error::argument(operator, "dtype", "floating", dtype)),
        };
        Ok(Format { drawn, unsigned, mantissa, one, least })
    }
}

/// Numbers from `minval` on and below `maxval`, of a floating dtype: `jax.random.uniform`. Both bounds are numbers, or
/// tensors of that dtype that broadcast to the shape.
///
/// They are multiples of a power of 2, times the difference of the bounds: of 2^-23 for f32, 2^-52 for f64, 2^-10 for
/// f16 and 2^-7 for bf16. Rounding can give `maxval` itself, where the bounds are not 0 and 1.
///
/// # Errors
/// Where the key is not a `u32[2]`, the dtype is not floating, or a bound is of another dtype or does not broadcast.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, random};
///
/// let f = Function::trace("f", &[Shape::new(DType::U32, [2])], |x| {
///     random::uniform(&x[0], Shape::new(DType::F32, [3]), 0, 1)
/// })?;
/// let results = f.eval(&[random::key(0)])?;
/// assert_eq!(results, [Array::new([3], &[0.947667f32, 0.9785799, 0.33229148])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn uniform(key: &Tensor, shape: Shape, minval: impl Operand, maxval: impl Operand) -> Result<Tensor> {
    let format = Format::of("uniform", shape.dtype())?;
    check_key("uniform", key)?;
    let width = 8 * format.drawn.size() as i32;
    let random = bits(key, shape.with_dtype(format.drawn))?.convert(format.unsigned)?;
    let one = key.builder().constant(Array::from_i128(Shape::scalar(format.unsigned), &[format.one])?)?;
    // A random mantissa makes a number from 1 on and below 2.
    let mantissa = random.shift_right_logical(width - format.mantissa)?;
    let numbers = ((mantissa | one)?.bitcast_convert(shape.dtype())? - 1)?;
    let (minval, maxval) = (minval.tensor(&numbers)?, maxval.tensor(&numbers)?);
    let span = (maxval - &minval)?.broadcast_to(shape.dims())?;
    let minval = minval.broadcast_to(shape.dims())?;
    minval.maximum((numbers * span)? + &minval)
}

/// Numbers of the normal distribution of mean 0 and variance 1, of a floating dtype: `jax.random.normal`.
///
/// They are √2 erf⁻¹(u), of u [`uniform`] between -1 and 1.
///
/// # Errors
/// Where the key is not a `u32[2]`, or the dtype is not floating.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, random};
///
/// let f = Function::trace("f", &[Shape::new(DType::U32, [2])], |x| {
///     random::normal(&x[0], Shape::new(DType::F32, [3]))
/// })?;
/// let numbers = f.eval(&[random::key(0)])?[0].to_f64();
/// for (number, expected) in numbers.iter().zip([1.6226422, 2.0252647, -0.43359444]) {
///     assert!((number - expected).abs() < 1e-6);
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn normal(key: &Tensor, shape: Shape) -> Result<Tensor> {
    let format = Format::of("normal", shape.dtype())?;
    // The number above -1, where the inverse is infinite.
    let above = f64::powi(2.0, -format.mantissa - 1) - 1.0;
    uniform(key, shape, above, 1)?.erf_inv()? * std::f64::consts::SQRT_2
}

/// Truth values that are true with the probabilities `p`, a floating tensor that broadcasts to `dims`:
/// `jax.random.bernoulli`. Probabilities count to within 2^-23 for f32, as [`uniform`] numbers do.
///
/// # Errors
/// Where the key is not a `u32[2]`, or `p` is not floating or does not broadcast.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, random};
///
/// let f = Function::trace("f", &[Shape::new(DType::U32, [2])], |x| {
///     random::bernoulli(&x[0], &x[0].builder().scalar(0.5f32)?, &[4])
/// })?;
/// assert_eq!(f.eval(&[random::key(0)])?, [Array::new([4], &[false, false, true, true])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn bernoulli(key: &Tensor, p: &Tensor, dims: &[usize]) -> Result<Tensor> {
    Format::of("bernoulli", p.dtype())?;
    uniform(key, Shape::new(p.dtype(), dims), 0, 1)?.less(p.broadcast_to(dims)?)
}

/// Numbers of the standard Gumbel distribution, of a floating dtype: `jax.random.gumbel`. They are -ln(-ln(u)), of u
/// [`uniform`] between the least normal number and 1.
///
/// # Errors
/// Where the key is not a `u32[2]`, or the dtype is not floating.
///
/// ```
/// use xlann::{DType, Function, Shape, random};
///
/// let f = Function::trace("f", &[Shape::new(DType::U32, [2])], |x| {
///     random::gumbel(&x[0], Shape::new(DType::F32, [2]))
/// })?;
/// let numbers = f.eval(&[random::key(0)])?[0].to_f64();
/// assert!((numbers[0] - 2.92337).abs() < 1e-4 && (numbers[1] - 3.83262).abs() < 1e-4);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn gumbel(key: &Tensor, shape: Shape) -> Result<Tensor> {
    let format = Format::of("gumbel", shape.dtype())?;
    let least = f64::powi(2.0, format.least);
    let exponential = (-uniform(key, shape, least, 1)?.log()?)?;
    let gumbel = exponential.log()?;
    -gumbel
}

/// An index along the axis (negative: from the end) for each position along the others, an s32, with the
/// probabilities exp(`logits`) over their sum: `jax.random.categorical`. It is where the logits plus [`gumbel`] numbers
/// are largest.
///
/// # Errors
/// Where the key is not a `u32[2]`, the logits are not floating, or there is no such axis or its size is 0.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, random};
///
/// let shapes = [Shape::new(DType::U32, [2]), Shape::new(DType::F32, [2, 3])];
/// let f = Function::trace("f", &shapes, |x| random::categorical(&x[0], &x[1], 1))?;
/// let impossible = f32::NEG_INFINITY;
/// let logits = Array::new([2, 3], &[impossible, 0.0, impossible, 0.0, impossible, impossible])?;
/// assert_eq!(f.eval(&[random::key(0), logits])?, [Array::new([2], &[1, 0])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn categorical(key: &Tensor, logits: &Tensor, axis: isize) -> Result<Tensor> {
    Format::of("categorical", logits.dtype())?;
    (gumbel(key, logits.shape().clone())? + logits)?.argmax(axis)
}
