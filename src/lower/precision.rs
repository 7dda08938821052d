//! Searches whose scores are first computed from a database of fewer digits.
//!
//! The best candidates by such scores are scored anew in f32. A bound on the error of the scores proves how many of a
//! query's results are among its true neighbours. Where these are too few of all queries' results, those queries of which
//! the fewest are proven are searched again, with more candidates or in f32. So the recall target holds for every batch of
//! queries, whatever the data, and what the data decides is the time.

use crate::graph::{Equation, Function, Tensor};
use crate::ops::Op;
use crate::{CustomCall, DType, Result, Shape, VmapMethod, kernels};

/// The precision of the scores by which a search of f32 vectors finds its candidates.
///
/// Below [`Exact`](Precision::Exact), the best candidates are scored anew in f32, and a bound on the error proves the
/// recall of all queries that are searched at once, which is the mean of theirs, to be at the target; where that fails,
/// queries are searched again, at last exactly. What is found of one so depends on the others. With a target of 1 each of
/// them is exact.
///
/// ```
/// use xlann::lower::Precision;
/// assert_eq!(Precision::ALL.map(Precision::name), ["exact", "auto", "bf16", "int8"]);
/// assert_eq!(Precision::default(), Precision::Exact);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// That of the vectors.
    #[default]
    Exact,
    /// The one that this machine's processor searches fastest, as measured: int8 on x86-64 with AVX2 or later, and exact on
    /// others. It takes a recall target below 1, a target with kernels, and so many rows that it pays; else it is exact.
    Auto,
    /// bf16: the vectors rounded to 8 digits.
    Bf16,
    /// int8: of each vector, whole numbers up to 127 in size times a scale.
    Int8,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Precision; 4] = [Precision::Exact, Precision::Auto, Precision::Bf16, Precision::Int8];

    /// The name, as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::Exact => "exact",
            Precision::Auto => "auto",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        }
    }

    /// The dtype that a database `[rows, width]` is rounded to, for the `k` best; `None` for an exact search.
    pub(crate) fn dtype(self, recall_target: f32, k: usize, [rows, width]: [usize; 2]) -> Option<DType> {
        let dtype = match self {
            Precision::Exact => return None,
            Precision::Bf16 => DType::BF16,
            Precision::Int8 => DType::S8,
            Precision::Auto if recall_target >= 1.0 => return None,
            Precision::Auto => kernels::fastest_below_f32()?,
        };
        // For whatever target, so that each part of a database and of a batch takes the same.
        let candidates = candidates(dtype, 1.0, k, width, rows);
        let pays = self != Precision::Auto || candidates <= rows / ROWS_FOR_A_CANDIDATE;
        (pays && candidates < rows).then_some(dtype)
    }
}

/// How many rows there must be for each candidate, that to find it pays, and to look at more (cpp/kernels/search.cc).
const ROWS_FOR_A_CANDIDATE: usize = 64;

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How many candidates are scored anew, of the `k` best rows: the wider, the closer lie the scores, relative to their
/// error.
///
/// Of a hundred thousand to a million normally distributed vectors of any width, or word vectors, they prove the recall
/// that is asked for, or so nearly that few queries are searched again (cpp/bench/certificates.cc). For a target above
/// 0.99 more candidates would not pay: of few queries more are looked at then.
pub(crate) fn candidates(dtype: DType, recall_target: f32, k: usize, width: usize, rows: usize) -> usize {
    let (per_width, more) = match dtype {
        DType::BF16 => (1024.0, 8.0),
        DType::S8 if kernels::rounds_queries_as_rows() => (64.0, 16.0),
        // Queries lose more, beside what rows lose.
        DType::S8 => (64.0, 16.0 + width as f64 / 12.0 + k as f64 / 4.0),
        // Sums in f32 or wider lose so little that the next few are always further away.
        _ => return k.saturating_add(6 + k / 16).min(rows),
    };
    let beyond = k as f64 * width as f64 / per_width + more;
    let miss = 1.0 - f64::from(recall_target.min(0.99));
    k.saturating_add((beyond * (1.0 - miss.ln()) / 4.0).ceil() as usize).min(rows)
}

/// The recall that a part of all results needs, so that it may miss no more of them than all may.
pub(crate) fn recall_of_part(recall_target: f32, part: usize, whole: usize) -> f32 {
    if part >= whole {
        return recall_target;
    }
    let recall = 1.0 - (1.0 - f64::from(recall_target)) * part as f64 / whole as f64;
    let rounded = recall as f32;
    if f64::from(rounded) < recall { rounded.next_up() } else { rounded }
}

/// A matrix of f32, `[.., n, d]`, of fewer digits.
#[derive(Clone)]
pub(crate) struct Reduced {
    /// bf16 or s8, `[.., n, d]`.
    pub(crate) rows: Tensor,
    /// Of s8: what a row is multiplied by, f32 `[.., n]`.
    pub(crate) scales: Option<Tensor>,
    /// f32 `[.., 2]`: the greatest Euclidean norm of what a row has lost, and of what is left of one.
    pub(crate) errors: Tensor,
}

impl Reduced {
    /// The matrix in bf16 or s8.
    ///
    /// The norms are as f32 sums give them: what is proven of them takes their rounding into account.
    pub(crate) fn of(matrix: &Tensor, dtype: DType) -> Result<Reduced> {
        Reduced::counting(matrix, dtype, None)
    }

    /// As [`of`](Reduced::of), or as it is, but the norms are those of rows that may be near to something: not of such as are
    /// not finite, or beyond what half norms can be computed of.
    pub(crate) fn near(matrix: &Tensor, dtype: DType) -> Result<Reduced> {
        Reduced::counting(matrix, dtype, Some(2f64.powi(100)))
    }

    fn counting(matrix: &Tensor, dtype: DType, limit: Option<f64>) -> Result<Reduced> {
        let last = matrix.rank() as isize - 1;
        let own = matrix.abs()?.reduce_max(&[last])?;
        let counts = limit.map(|limit| own.less_equal(limit)).transpose()?;
        // Never 0, to be divided by.
        let positive = |greatest: Tensor| &greatest + greatest.equal(0)?.convert(matrix.dtype())?;
        let own = positive(own)?;
        let mut unit = own.clone();
        let (rows, scales, left) = match dtype {
            DType::S8 => {
                unit = positive(of_neighbours(&own)?)?;
                let column = unit.expand_dims(last)?;
                let steps = ((matrix / &column)? * 127.0)?.round_ties_even()?;
                let left = ((&steps / 127.0)? * column)?;
                (steps.convert(DType::S8)?, Some((&unit / 127.0)?), left)
            }
            _ => {
                let rounded = rounded_to_bf16(matrix)?;
                (rounded.convert(dtype)?, None, rounded)
            }
        };
        // Squares are of rows whose greatest number is 1 or about that, so that they do not overflow, nor vanish.
        let greatest_norm = |x: Tensor| -> Result<Tensor> {
            let x = (x / own.expand_dims(last)?)?;
            let norms = ((&x * &x)?.reduce_sum(&[last])?.sqrt()? * &own)?;
            let norms = match &counts {
                Some(counts) => counts.select(&norms, 0.0)?,
                None => norms,
            };
            norms.reduce_max(&[last - 1])?.expand_dims(last - 1)
        };
        let errors = [greatest_norm((matrix - &left)?)?, greatest_norm(left)?];
        let errors = Tensor::concatenate(&[&errors[0], &errors[1]], last - 1)?;
        if counts.is_some() {
            return Ok(Reduced { rows, scales, errors });
        }
        // A compiler may divide by multiplying with 1 / unit, which of larger ones is flushed to 0.
        let divisible = unit.less_equal(LARGEST_UNIT)?.reduce_all(&[last - 1])?.expand_dims(last - 1)?;
        let errors =
            divisible.broadcast_to(errors.dims())?.select(&errors, errors.full_like(f32::INFINITY)?)?;
        Ok(Reduced { rows, scales, errors })
    }

    /// The tensors in the order of [`of`](Reduced::of)'s fields: of parameters, say.
    pub(crate) fn from_tensors(tensors: &[Tensor]) -> Option<Reduced> {
        match tensors {
            [rows, errors] => Some(Reduced { rows: rows.clone(), scales: None, errors: errors.clone() }),
            [rows, scales, errors] => {
                Some(Reduced { rows: rows.clone(), scales: Some(scales.clone()), errors: errors.clone() })
            }
            _ => None,
        }
    }

    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        [Some(&self.rows), self.scales.as_ref(), Some(&self.errors)].into_iter().flatten().cloned().collect()
    }

    /// The names of the tensors, and their shapes for a matrix of this one.
    pub(crate) fn signature(matrix: &Shape, dtype: DType) -> Vec<(&'static str, Shape)> {
        let leading = &matrix.dims()[..matrix.rank() - 2];
        let rows = matrix.dims()[matrix.rank() - 2];
        let scales = matrix.with_dims([leading, &[rows]].concat());
        let errors = matrix.with_dims([leading, &[2]].concat());
        let scales = (dtype == DType::S8).then_some(("scales", scales));
        [Some(("reduced", matrix.with_dtype(dtype))), scales, Some(("errors", errors))]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Whether tensors are those of a matrix of this shape, rather than of a call that somebody else named so.
    pub(super) fn fits(tensors: &[Tensor], matrix: &Shape) -> bool {
        let Some(dtype) =
            tensors.first().map(Tensor::dtype).filter(|dtype| [DType::BF16, DType::S8].contains(dtype))
        else {
            return false;
        };
        let expected = Reduced::signature(matrix, dtype);
        tensors.iter().map(Tensor::shape).eq(expected.iter().map(|(_, shape)| shape))
    }

    /// The matrix itself, which a search may take in this form instead.
    pub(crate) fn instead_of(&self, matrix: &Tensor) -> Result<Tensor> {
        let operands = [vec![matrix.clone()], self.tensors()].concat();
        let shapes: Vec<Shape> = operands.iter().map(|operand| operand.shape().clone()).collect();
        let reference = Function::trace("matrix", &shapes, |x| Ok(x[0].clone()))?;
        let call = CustomCall::new(REDUCED, [matrix.shape().clone()])
            .reference(reference)
            .vmap_method(VmapMethod::BroadcastAll);
        let matrix = matrix.builder().custom_call(call, &operands.iter().collect::<Vec<_>>())?;
        Ok(matrix[0].clone())
    }
}

/// The greatest of each 24 numbers, as often, and of those that are left over: rows with the same scale are less work to
/// compare (cpp/kernels/inner_tile.inc), and the most that a row may lose, which is what counts, grows by a few percent.
fn of_neighbours(numbers: &Tensor) -> Result<Tensor> {
    let last = numbers.rank() - 1;
    let (leading, count) = (&numbers.dims()[..last], numbers.dims()[last]);
    let groups = count.div_ceil(24);
    let (none, mut missing) = (vec![0; last + 1], vec![0; last + 1]);
    missing[last] = (24 * groups - count) as isize;
    let padded = numbers.pad(0.0, &none, &missing, &vec![0; last + 1])?;
    let grouped = padded.reshape(&[leading, &[groups, 24]].concat())?;
    let axis = last as isize + 1;
    let greatest = grouped.reduce_max(&[axis])?.expand_dims(axis)?.broadcast_to(grouped.dims())?;
    greatest.reshape(&[leading, &[24 * groups]].concat())?.slice_in_dim(0, count, 1, last as isize)
}

/// 2^120.
const LARGEST_UNIT: f32 = f32::from_bits(247 << 23);

/// f32 to the nearest bf16, ties to even, as f32. A conversion there and back may be left out by a compiler that keeps more
/// digits than it has to, and then nothing would seem lost.
fn rounded_to_bf16(x: &Tensor) -> Result<Tensor> {
    let bits = x.bitcast_convert(DType::U32)?;
    let odd = (bits.shift_right_logical(16)? & 1)?;
    let rounded = ((bits + odd)? + 0x7fff)?;
    rounded.shift_right_logical(16)?.shift_left(16)?.bitcast_convert(DType::F32)
}

/// A custom call that never reaches a target: lowering puts its first operand in its place, or searches the others.
const REDUCED: &str = "xlann_reduced";

/// Whether an equation gives a matrix that a search may take in a reduced form.
pub(super) fn is_reducible(equation: &Equation) -> bool {
    matches!(&equation.op, Op::CustomCall(call) if call.target() == REDUCED && !equation.inputs.is_empty())
}
