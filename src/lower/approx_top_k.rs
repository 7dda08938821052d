//! The forms of approximate top-k in plain operators.
//!
//! All work on rows, `[b, n]`, and end in [`Tensor::top_k`], which is exact and sorts by a total order. In that
//! order a NaN whose sign bit is set is below everything, so NaNs are given one where they are in the way.

use crate::graph::{Function, Tensor};
use crate::lower::blocks;
use crate::lower::kernel::select_k;
use crate::lower::native::native;
use crate::lower::policy::{Capabilities, Plan};
use crate::lower::two_stage::two_stage;
use crate::ops::approx_top_k::{ApproxTopK, Direction};
use crate::{DType, Result, Shape};

/// Finds the best of rows with any NaNs exactly, and the elements of the carried operands there.
pub(super) type Exact = fn(&Tensor, &[Tensor], usize, Direction) -> Result<Vec<Tensor>>;

/// Values and indices of an approximate top-k as planned, and the elements of each carried operand.
pub(super) fn expand(
    op: &ApproxTopK,
    inputs: &[Tensor],
    plan: Plan,
    capabilities: &Capabilities,
) -> Result<Vec<Tensor>> {
    let count = op.output_size(inputs[0].shape())?;
    let dimension = op.reduction_dimension as isize;
    let mut batch = inputs[0].dims().to_vec();
    let size = batch.remove(op.reduction_dimension);
    let sizes = [batch.iter().product(), size];
    let rows = |input: &Tensor| input.move_axis(dimension, -1)?.reshape(&sizes);
    let rows = inputs.iter().map(rows).collect::<Result<Vec<_>>>()?;
    let (rows, carried) = (&rows[0], &rows[1..]);
    // What carries operands along does so, rather than gather them, in all its branches.
    let sorts = capabilities.fast_top_k.contains(&rows.dtype()) || !carried.is_empty();
    let again: Exact = if sorts { sort_prepared } else { strided_blocks };
    let as_they_are = rows.dtype() == DType::F32 && op.direction == Direction::Max && carried.is_empty();
    // Those of f16 are none in f32, in which it is computed with.
    let flushes = capabilities.flushes_denormals && rows.dtype() != DType::F16;
    let denormals = |results| match flushes {
        true => with_denormals(rows, carried, op.direction, results, again),
        false => Ok(results),
    };
    let results = match plan {
        Plan::Native(reduction) => return native(op, inputs, reduction),
        // Of no rows there are no windows either.
        _ if sizes[0] == 0 => none(rows, carried, count)?,
        Plan::Kernel { threads, .. } => select_k(rows, count, op.direction, threads)?,
        Plan::Blocks if capabilities.strided_blocks => strided_blocks(rows, carried, count, op.direction)?,
        Plan::Blocks => {
            let (values, indices) = blocks::adjacent(rows, count, op.direction)?;
            let results = without_nan(rows, carried, op.direction, vec![values, indices], again)?;
            denormals(results)?
        }
        Plan::TwoStage { buckets } => denormals(two_stage(rows, carried, count, op, buckets, again)?)?,
        // Preparing the rows would cost a pass, where they need no other.
        Plan::Sort if as_they_are && !capabilities.fuses_into_top_k => {
            let (values, indices) = rows.top_k(count)?;
            without_nan(rows, carried, op.direction, vec![values, indices], again)?
        }
        Plan::Sort => sort_prepared(rows, carried, count, op.direction)?,
    };
    let dims = [&batch[..], &[count]].concat();
    let restore = |tensor: &Tensor| tensor.reshape(&dims)?.move_axis(-1, dimension);
    results.iter().map(restore).collect()
}

/// The results of no rows.
fn none(rows: &Tensor, carried: &[Tensor], count: usize) -> Result<Vec<Tensor>> {
    let (values, indices) = rows.top_k(count)?;
    let carried = carried.iter().map(|carried| carried.slice_in_dim(0, count, 1, -1));
    [Ok(values), Ok(indices)].into_iter().chain(carried).collect()
}

/// The target's own top-k of whole rows with any NaNs.
pub(super) fn sort_prepared(
    rows: &Tensor,
    carried: &[Tensor],
    count: usize,
    direction: Direction,
) -> Result<Vec<Tensor>> {
    if carried.is_empty() {
        let (values, indices) = ascending(rows, direction)?.top_k(count)?;
        return Ok(vec![signed(&values, direction)?, indices]);
    }
    let indices = rows.builder().iota(rows.shape().with_dtype(DType::S32), 1)?;
    best_with(rows, &[&[indices], carried].concat(), count, direction)
}

/// The `count` best of rows with any NaNs, NaNs last, and the elements of others at their positions, by one sort of
/// all.
pub(crate) fn best_with(
    rows: &Tensor,
    others: &[Tensor],
    count: usize,
    direction: Direction,
) -> Result<Vec<Tensor>> {
    let mut results = top_k_with(&ascending(rows, direction)?, others, count)?;
    results[0] = signed(&results[0], direction)?;
    Ok(results)
}

/// The best of rows with any NaNs by strided blocks, and the elements of the carried operands gathered there.
fn strided_blocks(
    rows: &Tensor,
    carried: &[Tensor],
    count: usize,
    direction: Direction,
) -> Result<Vec<Tensor>> {
    let (values, indices) = blocks::strided(&ascending(rows, direction)?, count)?;
    let mut results = vec![signed(&values, direction)?, indices];
    for carried in carried {
        results.push(carried.take_along_axis(&results[1], 1)?);
    }
    Ok(results)
}

/// The `count` largest of rows that are short enough to sort; they are in the order of [`ascending`].
pub(super) fn top_k_of_few(rows: &Tensor, count: usize) -> Result<(Tensor, Tensor)> {
    let few = (16 * count).max(128);
    if rows.dtype() == DType::F64 && rows.dims()[1] > few {
        // No target partitions f64 rows: they are sorted, and had better be short.
        return blocks::strided(rows, count);
    }
    rows.top_k(count)
}

/// The `count` largest elements of rows, in the order of [`Tensor::top_k`], and the elements of others at their
/// positions.
pub(super) fn top_k_with(rows: &Tensor, others: &[Tensor], count: usize) -> Result<Vec<Tensor>> {
    let operands: Vec<&Tensor> = std::iter::once(rows).chain(others).collect();
    let scalars: Vec<Shape> =
        operands.iter().flat_map(|operand| std::iter::repeat_n(Shape::scalar(operand.dtype()), 2)).collect();
    let greater =
        Function::trace("greater", &scalars, |x| x[0].compare_total_order(crate::Direction::Gt, &x[1]))?;
    let sorted = rows.builder().sort_by(&operands, 1, true, greater)?;
    sorted.iter().map(|sorted| sorted.slice_in_dim(0, count, 1, 1)).collect()
}

/// The results, or where a NaN is among them, those of `again`: it is there for want of other values,
/// or because the form lost some.
pub(super) fn without_nan(
    rows: &Tensor,
    carried: &[Tensor],
    direction: Direction,
    results: Vec<Tensor>,
    again: Exact,
) -> Result<Vec<Tensor>> {
    let values = &results[0];
    let nan_found = values.not_equal(values)?.reduce_any(&[0, 1])?;
    unless_again(&nan_found, rows, carried, direction, results, again)
}

/// The results of a target that takes denormals for zeros as it compares floats, or where that may have made a
/// difference, those of `again`, which compares bits: where a result is as small and the rows have denormals at all.
fn with_denormals(
    rows: &Tensor,
    carried: &[Tensor],
    direction: Direction,
    results: Vec<Tensor>,
    again: Exact,
) -> Result<Vec<Tensor>> {
    let found = magnitude(&results[0])?.less(least_normal(rows.dtype()))?.reduce_any(&[0, 1])?;
    let inputs = 1 + carried.len();
    let operands: Vec<&Tensor> = std::iter::once(rows).chain(carried).chain(&results).collect();
    let shapes: Vec<Shape> = operands.iter().map(|tensor| tensor.shape().clone()).collect();
    let look = Function::trace("look", &shapes, |x| {
        let magnitude = magnitude(&x[0])?;
        let is_denormal = (magnitude.less(least_normal(x[0].dtype()))? & magnitude.not_equal(0)?)?;
        let any = is_denormal.reduce_any(&[0, 1])?;
        unless_again(&any, &x[0], &x[1..inputs], direction, x[inputs..].to_vec(), again)
    })?;
    let keep = Function::trace("keep", &shapes, |x| Ok(x[inputs..].to_vec()))?;
    found.cond(&operands, look, keep)
}

/// The bits of floats as an unsigned integer, without the sign: as they are shifted out, it is twice as large.
fn magnitude(values: &Tensor) -> Result<Tensor> {
    let bits = values.bitcast_convert(match values.dtype().size() {
        2 => DType::U16,
        4 => DType::U32,
        _ => DType::U64,
    })?;
    &bits + &bits
}

/// The [`magnitude`] of the least float of a dtype that is not denormal.
fn least_normal(dtype: DType) -> f64 {
    let fraction_bits = match dtype {
        DType::BF16 => 7,
        DType::F16 => 10,
        DType::F32 => 23,
        _ => 52,
    };
    (1_u64 << (fraction_bits + 1)) as f64
}

/// The results, or where that is so, those of `again`.
fn unless_again(
    needed: &Tensor,
    rows: &Tensor,
    carried: &[Tensor],
    direction: Direction,
    results: Vec<Tensor>,
    again: Exact,
) -> Result<Vec<Tensor>> {
    let (inputs, count) = (1 + carried.len(), results[0].dims()[1]);
    let operands: Vec<&Tensor> = std::iter::once(rows).chain(carried).chain(&results).collect();
    let shapes: Vec<Shape> = operands.iter().map(|tensor| tensor.shape().clone()).collect();
    let again = Function::trace("again", &shapes, |x| again(&x[0], &x[1..inputs], count, direction))?;
    let keep = Function::trace("keep", &shapes, |x| Ok(x[inputs..].to_vec()))?;
    needed.cond(&operands, again, keep)
}

/// Values whose total order is the direction's order of preference, worst first: negated for the minimum, and
/// every NaN with its sign bit set.
pub(super) fn ascending(values: &Tensor, direction: Direction) -> Result<Tensor> {
    values.equal(values)?.select(signed(values, direction)?, -f64::NAN)
}

/// The values, negated for the minimum; its own inverse.
pub(super) fn signed(values: &Tensor, direction: Direction) -> Result<Tensor> {
    match direction {
        Direction::Max => Ok(values.clone()),
        Direction::Min => -values,
    }
}
