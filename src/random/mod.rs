//! Random numbers by a key: equal to those of `jax.random`, on every target.
//!
//! A *key* is a `u32[2]` tensor: a parameter, a constant, a row of a batch. The numbers are a function of it and of
//! nothing else, so the same key gives the same numbers. For others, [`split`] it or [`fold_in`] a number, and use
//! each key once.
//!
//! ```
//! use xlann::{DType, Function, Shape, random, vmap};
//!
//! let key = Shape::new(DType::U32, [2]);
//! let f = Function::trace("f", &[key], |x| {
//!     let [noise, order] = random::split(&x[0])?;
//!     let points = random::normal(&noise, Shape::new(DType::F32, [4, 2]))?;
//!     random::permutation(&order, &points, 0)
//! })?;
//! let points = f.eval(&[random::key(7)])?;
//! assert_eq!(f.eval(&[random::key(7)])?, points);
//! assert_ne!(f.eval(&[random::key(8)])?, points);
//! // For a batch of keys, what each key gives.
//! let batch = vmap(&f, 0, 0, 3)?;
//! # Ok::<(), xlann::Error>(())
//! ```
//!
//! # How far they are equal
//!
//! Keys, bits, integers, permutations and [`uniform`] numbers between 0 and 1 are made of integer operators and of
//! one exact subtraction. They are the same bits on every target, on the host, and in JAX (with
//! `jax_threefry_partitionable`, as it is by default); so are those of [`bernoulli`]. Between other bounds, `uniform`
//! multiplies and adds, and [`normal`], [`gumbel`] and [`categorical`] take logarithms: by the same operators in the
//! same order as JAX. They are the same bits where the same version of XLA compiles them for the same device, and
//! differ by a few roundings elsewhere: a compiler may add a product without rounding it first, and logarithms differ.
//!
//! The bits are those of Threefry-2x32 with 20 rounds (Salmon et al., *Parallel Random Numbers: As Easy as 1, 2, 3*,
//! 2011): a cipher of the two words of the key, applied to the position of each element.

mod floats;

pub use floats::{bernoulli, categorical, gumbel, normal, uniform};

use std::ops::Range;

use crate::transform::{add_some, zeros};
use crate::{Array, Builder, DType, Error, Function, Operand, Result, Shape, Tensor};

/// By how many bits the rounds rotate, in turns of four.
const ROTATIONS: [[i32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];

/// What the third word of the key schedule is the parity with.
const PARITY: u32 = 0x1bd1_1bda;

/// The key of a seed: its upper and its lower 32 bits, as a `u32[2]` to be passed or made a
/// [constant](Builder::constant).
///
/// It is `jax.random.PRNGKey(seed)` of a 64-bit JAX (`jax_enable_x64`). A 32-bit one drops the upper half, which
/// makes no difference to seeds below 2^32; its key of a negative seed is that of `seed as u32`.
///
/// ```
/// use xlann::{Array, random};
///
/// assert_eq!(random::key(1 << 32 | 7), Array::new([2], &[1u32, 7])?);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn key(seed: u64) -> Array {
    let words = [(seed >> 32) as u32, seed as u32];
    Array::filled(Shape::new(DType::U32, [2]), |bytes| bytes.copy_from_slice(bytemuck::cast_slice(&words)))
}

/// As [`key`], of a seed in the graph: an integer scalar, of which one with less than 64 bits has no upper half.
///
/// # Errors
/// Where the seed is not an integer scalar.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, random};
///
/// let f = Function::trace("f", &[Shape::scalar(DType::S64)], |x| random::key_of(&x[0]))?;
/// assert_eq!(f.eval(&[Array::scalar(-2i64)])?, [random::key(-2i64 as u64)]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn key_of(seed: &Tensor) -> Result<Tensor> {
    check_integer("key_of", "seed", seed)?;
    let high = match seed.dtype().size() {
        8 => seed.shift_right_logical(32)?.convert(DType::U32)?,
        _ => seed.builder().scalar(0u32)?,
    };
    pair([high, seed.convert(DType::U32)?])
}

/// Keys that have nothing to do with one another, as many as the result is taken apart into:
/// `jax.random.split(key, N)`.
///
/// # Errors
/// Where the key is not a `u32[2]`.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, random};
///
/// let f = Function::trace("f", &[Shape::new(DType::U32, [2])], |x| {
///     let [first, second] = random::split(&x[0])?;
///     Ok([first, second])
/// })?;
/// let [first, second] = [[1_797_259_609u32, 2_579_123_966], [928_981_903, 3_453_687_069]];
/// assert_eq!(f.eval(&[random::key(0)])?, [Array::new([2], &first)?, Array::new([2], &second)?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn split<const N: usize>(key: &Tensor) -> Result<[Tensor; N]> {
    let keys = split_into(key, N)?;
    let row = |index| keys.slice_in_dim(index, index + 1, 1, 0)?.squeeze(&[0]);
    let rows = (0..N).map(row).collect::<Result<Vec<_>>>()?;
    rows.try_into().map_err(|_| Error::argument("split", "keys", N.to_string(), "another number"))
}

/// As [`split`], the keys in the rows of a `u32[count, 2]`: a batch, for [`vmap`](crate::vmap()).
///
/// # Errors
/// Where the key is not a `u32[2]`.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, random};
///
/// let f = Function::trace("f", &[Shape::new(DType::U32, [2])], |x| random::split_into(&x[0], 2))?;
/// let keys = [1_797_259_609u32, 2_579_123_966, 928_981_903, 3_453_687_069];
/// assert_eq!(f.eval(&[random::key(0)])?, [Array::new([2, 2], &keys)?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn split_into(key: &Tensor, count: usize) -> Result<Tensor> {
    let [high, low] = threefry("split", key, counters(key.builder(), &[count])?)?;
    pair([high, low])
}

/// A key made of this one and of a number, such as that of an iteration: `jax.random.fold_in(key, data)`.
///
/// `data` is an integer scalar, of which the lower 32 bits count.
///
/// # Errors
/// Where the key is not a `u32[2]` or `data` not an integer scalar; a negative Rust number is refused.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, random};
///
/// let f = Function::trace("f", &[Shape::new(DType::U32, [2])], |x| random::fold_in(&x[0], 1))?;
/// let expected = Array::new([2], &[928_981_903u32, 3_453_687_069])?;
/// assert_eq!(f.eval(&[random::key(0)])?, [expected]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn fold_in(key: &Tensor, data: impl Operand) -> Result<Tensor> {
    check_key("fold_in", key)?;
    let data = data.tensor(key)?;
    check_integer("fold_in", "data", &data)?;
    let high = key.builder().scalar(0u32)?;
    pair(threefry("fold_in", key, [high, data.convert(DType::U32)?])?)
}

/// Random bits: integers that have every value of an unsigned dtype with equal probability. `jax.random.bits`.
///
/// # Errors
/// Where the key is not a `u32[2]`, or the dtype is not u8, u16, u32 or u64.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, random};
///
/// let f = Function::trace("f", &[Shape::new(DType::U32, [2])], |x| {
///     random::bits(&x[0], Shape::new(DType::U8, [4]))
/// })?;
/// assert_eq!(f.eval(&[random::key(0)])?, [Array::new([4], &[167u8, 146, 40, 53])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn bits(key: &Tensor, shape: Shape) -> Result<Tensor> {
    let dtype = shape.dtype();
    if !dtype.is_unsigned_integer() {
        return Err(Error::argument("bits", "dtype", "u8, u16, u32 or u64", dtype));
    }
    shape.checked_byte_count("bits")?;
    let [high, low] = threefry("bits", key, counters(key.builder(), shape.dims())?)?;
    match dtype {
        DType::U64 => high.convert(dtype)?.shift_left(32)? | low.convert(dtype)?,
        _ => (high ^ low)?.convert(dtype),
    }
}

/// Integers of a range, of any integer dtype that holds them: `jax.random.randint`.
///
/// They are remainders of 64 random bits (128 for 64-bit dtypes), so where the size of the range is no power of 2,
/// some are more likely than others: by a factor of 1 + size / 2^64.
///
/// # Errors
/// Where the key is not a `u32[2]`, the dtype is not an integer, or the range is empty or has values that the dtype has
/// not.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, random};
///
/// let f = Function::trace("f", &[Shape::new(DType::U32, [2])], |x| {
///     random::randint(&x[0], Shape::new(DType::S32, [5]), -3..3)
/// })?;
/// assert_eq!(f.eval(&[random::key(0)])?, [Array::new([5], &[-2, -3, -1, -2, 2])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn randint(key: &Tensor, shape: Shape, range: Range<i64>) -> Result<Tensor> {
    let dtype = shape.dtype();
    let (start, end) = (i128::from(range.start), i128::from(range.end));
    let within = |value: i128| -> Result<bool> {
        Ok(Array::from_i128(Shape::scalar(dtype), &[value])?.to_i128() == [value])
    };
    if !dtype.is_integer() {
        return Err(Error::argument("randint", "dtype", "an integer", dtype));
    }
    if range.is_empty() || !within(start)? || !within(end - 1)? {
        let expected = format!("one of values of {dtype}, one at least");
        return Err(Error::argument("randint", "range", expected, format!("{range:?}")));
    }
    // Narrow ones are drawn in 32 bits.
    let drawn = if dtype.size() == 8 { DType::U64 } else { DType::U32 };
    let width = 8 * drawn.size();
    let constant = |value: i128| key.builder().constant(Array::from_i128(Shape::scalar(drawn), &[value])?);
    // The whole of the dtype is as 0, by which the remainder is the number itself.
    let size = (end - start) & ((1 << width) - 1);
    let remainder = |x: i128| if size == 0 { x } else { x % size };
    // 2^width modulo the size, by the square of its root, which wraps.
    let root = remainder(1 << (width / 2));
    let power = remainder((root * root) & ((1 << width) - 1));
    let [high, low] = split(key)?.map(|key| bits(&key, shape.with_dtype(drawn)));
    let (size, power) = (constant(size)?, constant(power)?);
    let sum = (((high? % &size)? * power)? + (low? % &size)?)?;
    ((sum % size)? + constant(start)?)?.convert(dtype)
}

/// The slices of a tensor along an axis (negative: from the end) in random order: `jax.random.permutation`. For
/// random indices, permute an [iota](Builder::iota).
///
/// The slices are sorted by random words of 32 bits. Equal words would keep their order, so n slices are sorted again
/// by other words until there are n^3 values of all their words together: every order is as likely, but for a chance
/// of about 1 / n.
///
/// # Errors
/// Where the key is not a `u32[2]`, or there is no such axis, or its size does not fit an s32.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, random};
///
/// let f = Function::trace("f", &[Shape::new(DType::U32, [2])], |x| {
///     random::permutation(&x[0], &x[0].builder().iota(Shape::new(DType::S32, [5]), 0)?, 0)
/// })?;
/// assert_eq!(f.eval(&[random::key(0)])?, [Array::new([5], &[0, 1, 4, 3, 2])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn permutation(key: &Tensor, operand: &Tensor, axis: isize) -> Result<Tensor> {
    check_key("permutation", key)?;
    let dimension = operand.shape().axis("permutation", "axis", axis)?;
    let size = operand.dims()[dimension];
    if operand.rank() == 1 {
        return shuffled(key, operand);
    }
    if i32::try_from(size).is_err() {
        let expected = format!("one of size {} at most", i32::MAX);
        return Err(Error::argument("permutation", "axis", expected, operand.shape()));
    }
    let indices = key.builder().iota(Shape::new(DType::S32, [size]), 0)?;
    operand.take(&shuffled(key, &indices)?, axis)
}

/// A vector sorted by random words, again and again.
fn shuffled(key: &Tensor, operand: &Tensor) -> Result<Tensor> {
    let size = operand.dims()[0].max(1) as f64;
    let rounds = (3.0 * size.ln() / f64::from(u32::MAX).ln()).ceil() as usize;
    let scalars = [DType::U32, DType::U32, operand.dtype(), operand.dtype()].map(Shape::scalar);
    let (mut key, mut operand) = (key.clone(), operand.clone());
    for _ in 0..rounds {
        let [next, this] = split(&key)?;
        let words = bits(&this, operand.shape().with_dtype(DType::U32))?;
        let less = Function::trace("less", &scalars, |x| x[0].less(&x[1]))?;
        operand = key.builder().sort_by(&[&words, &operand], 0, true, less)?.remove(1);
        key = next;
    }
    Ok(operand)
}

/// The halves of the 64-bit position of each element, in row-major order.
fn counters(builder: &Builder, dims: &[usize]) -> Result<[Tensor; 2]> {
    let shape = Shape::new(DType::U32, dims);
    shape.checked_byte_count("bits")?;
    let wide = shape.element_count() as u64 > 1 << 32;
    let shape = shape.with_dtype(if wide { DType::U64 } else { DType::U32 });
    let mut position = None;
    for (axis, &stride) in shape.strides().iter().enumerate() {
        let stride = Array::from_i128(shape.with_dims([]), &[stride as i128])?;
        let index = (builder.iota(shape.clone(), axis as isize)? * builder.constant(stride)?)?;
        position = add_some(position, Some(index))?;
    }
    let position = position.map_or_else(|| zeros(builder, &shape), Ok)?;
    let high = match wide {
        true => position.shift_right_logical(32)?.convert(DType::U32)?,
        false => position.full_like(0)?,
    };
    Ok([high, position.convert(DType::U32)?])
}

/// Both words of each counter, enciphered with the key.
fn threefry(operator: &'static str, key: &Tensor, [high, low]: [Tensor; 2]) -> Result<[Tensor; 2]> {
    check_key(operator, key)?;
    let word = |index| key.slice_in_dim(index, index + 1, 1, 0)?.squeeze(&[0]);
    let (first, second) = (word(0)?, word(1)?);
    let third = ((&first ^ &second)? ^ key.builder().scalar(PARITY)?)?;
    let words = [first, second, third];
    let mut rotations = [Vec::new(), Vec::new()];
    for (rotations, amounts) in rotations.iter_mut().zip(ROTATIONS) {
        for amount in amounts {
            rotations.push((low.full_like(amount)?, low.full_like(32 - amount)?));
        }
    }
    let (mut x, mut y) = ((high + &words[0])?, (low + &words[1])?);
    for turn in 0..5 {
        for (left, right) in &rotations[turn % 2] {
            x = (x + &y)?;
            y = (&x ^ (y.shift_left(left)? | y.shift_right_logical(right)))?;
        }
        x = (x + &words[(turn + 1) % 3])?;
        y = (y + (&words[(turn + 2) % 3] + (turn as i32 + 1)))?;
    }
    Ok([x, y])
}

/// The words of keys, side by side along a new last dimension.
fn pair(words: [Tensor; 2]) -> Result<Tensor> {
    let [high, low] = words.map(|word| word.expand_dims(-1));
    Tensor::concatenate(&[&high?, &low?], -1)
}

fn check_key(operator: &'static str, key: &Tensor) -> Result<()> {
    if *key.shape() != Shape::new(DType::U32, [2]) {
        return Err(Error::argument(operator, "key", "u32[2]", key.shape()));
    }
    Ok(())
}

fn check_integer(operator: &'static str, argument: &str, tensor: &Tensor) -> Result<()> {
    if tensor.rank() != 0 || !tensor.dtype().is_integer() {
        return Err(Error::argument(operator, argument, "an integer scalar", tensor.shape()));
    }
    Ok(())
}
