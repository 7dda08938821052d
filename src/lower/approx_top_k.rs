//! The forms of approximate top-k in plain operators.
//!
//! All work on rows, `[b, n]`, and end in [`Tensor::top_k`], which is exact and sorts by a total order. In that
//! order a NaN whose sign bit is set is below everything, so NaNs are given one where they are in the way.

use crate::graph::{Function, Tensor};
use crate::lower::Form;
use crate::ops::approx_top_k::{ApproxTopK, Direction};
use crate::recall::buckets_for_recall;
use crate::{Array, DType, GatherDims, Operand, Result, Shape};

/// Values and indices of an approximate top-k in the given form, and the elements of each carried operand.
pub(super) fn expand(op: &ApproxTopK, inputs: &[Tensor], form: Form) -> Result<Vec<Tensor>> {
    let count = op.output_size(inputs[0].shape())?;
    let dimension = op.reduction_dimension as isize;
    let mut batch = inputs[0].dims().to_vec();
    let size = batch.remove(op.reduction_dimension);
    let sizes = [batch.iter().product(), size];
    let rows = |input: &Tensor| input.move_axis(dimension, -1)?.reshape(&sizes);
    let rows = inputs.iter().map(rows).collect::<Result<Vec<_>>>()?;
    let (rows, carried) = (&rows[0], &rows[1..]);
    let results = match form {
        // Of no rows there are no windows either.
        _ if sizes[0] == 0 => none(rows, carried, count)?,
        Form::Sort => sort(rows, carried, count, op.direction)?,
        Form::Blocks => blocks(rows, count, op.direction)?,
        Form::TwoStage => two_stage(rows, carried, count, op)?,
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

/// The target's own top-k of whole rows.
fn sort(rows: &Tensor, carried: &[Tensor], count: usize, direction: Direction) -> Result<Vec<Tensor>> {
    if direction == Direction::Max && rows.dtype() == DType::F32 && carried.is_empty() {
        // Preparing the rows would cost a pass that their top-k does without unless there are NaNs.
        let (values, indices) = rows.top_k(count)?;
        return without_nan(rows, carried, direction, vec![values, indices]);
    }
    sort_prepared(rows, carried, count, direction)
}

/// As [`sort`], of rows with any NaNs.
fn sort_prepared(
    rows: &Tensor,
    carried: &[Tensor],
    count: usize,
    direction: Direction,
) -> Result<Vec<Tensor>> {
    let rows = ascending(rows, direction)?;
    let mut results = if carried.is_empty() {
        let (values, indices) = rows.top_k(count)?;
        vec![values, indices]
    } else {
        let indices = rows.builder().iota(rows.shape().with_dtype(DType::S32), 1)?;
        top_k_with(&rows, &[&[indices], carried].concat(), count)?
    };
    results[0] = signed(&results[0], direction)?;
    Ok(results)
}

/// The `count` largest elements of rows, in the order of [`Tensor::top_k`], and the elements of others at their
/// positions.
fn top_k_with(rows: &Tensor, others: &[Tensor], count: usize) -> Result<Vec<Tensor>> {
    let operands: Vec<&Tensor> = std::iter::once(rows).chain(others).collect();
    let scalars: Vec<Shape> =
        operands.iter().flat_map(|operand| std::iter::repeat_n(Shape::scalar(operand.dtype()), 2)).collect();
    let greater =
        Function::trace("greater", &scalars, |x| x[0].compare_total_order(crate::Direction::Gt, &x[1]))?;
    let sorted = rows.builder().sort_by(&operands, 1, true, greater)?;
    sorted.iter().map(|sorted| sorted.slice_in_dim(0, count, 1, 1)).collect()
}

/// The best of each block of adjacent elements, then the top-k of the elements of the k best blocks.
fn blocks(rows: &Tensor, count: usize, direction: Direction) -> Result<Vec<Tensor>> {
    let (values, indices) = blocks_but_nan(rows, count, direction)?;
    without_nan(rows, &[], direction, vec![values, indices])
}

/// As [`blocks`], but where a row has fewer than `count` values above the worst, a NaN can be among its results
/// although it has another such value: the best of a block is no NaN even where all its elements are.
fn blocks_but_nan(rows: &Tensor, count: usize, direction: Direction) -> Result<(Tensor, Tensor)> {
    let [batch, size] = [rows.dims()[0], rows.dims()[1]];
    let width = block_width(size, count);
    let best = signed(&block_best(rows, width, direction)?, direction)?;
    let (_, block) = top_k_of_few(&best, count)?;
    // In the order of their indices, so that equal values come out in that order too.
    let block = sorted(&block)?.reshape(&[batch, count, 1])?;
    let first = (&block * width as i32)?;
    // The last block is moved left where it would pass the end; what it shares with the one before is masked.
    let start = first.minimum((size - width) as i32)?;
    let index = (&start + start.builder().iota(Shape::new(DType::S32, [1, 1, width]), 2)?)?;
    let elements = ascending(&windows(rows, &start, width)?, direction)?;
    let elements = index.greater_equal(&first)?.select(&elements, -f64::NAN)?;
    let candidates = [batch, count * width];
    let (values, position) = top_k_of_few(&elements.reshape(&candidates)?, count)?;
    let indices = index.reshape(&candidates)?.take_along_axis(&position, 1)?;
    Ok((signed(&values, direction)?, indices))
}

/// A power of two near the square root of n / k, which balances the two stages of [`blocks`].
fn block_width(size: usize, count: usize) -> usize {
    let width = 1 << ((size / count).max(1) as f64).sqrt().log2().round() as u32;
    width.min(size)
}

/// Adjacent elements of rows: `[b, n]` at `start`, `[b, k, 1]`, gives `[b, k, width]`.
fn windows(rows: &Tensor, start: &Tensor, width: usize) -> Result<Tensor> {
    let row = start.builder().iota(start.shape().clone(), 0)?;
    let dims = GatherDims {
        offset_dims: vec![2],
        collapsed_slice_dims: vec![0],
        start_index_map: vec![0, 1],
        index_vector_dim: 2,
        ..GatherDims::default()
    };
    rows.gather(&Tensor::concatenate(&[&row, start], 2)?, dims, &[1, width])
}

/// Row by row in increasing order.
fn sorted(indices: &Tensor) -> Result<Tensor> {
    let scalar = indices.shape().with_dims([]);
    let less = Function::trace("less", &[scalar.clone(), scalar], |x| x[0].less(&x[1]))?;
    let mut sorted = indices.builder().sort_by(&[indices], -1, false, less)?;
    Ok(sorted.swap_remove(0))
}

/// The best of each block of `width` adjacent elements of rows, `[b, ceil(n / width)]`, NaNs left out.
fn block_best(rows: &Tensor, width: usize, direction: Direction) -> Result<Tensor> {
    // XLA:CPU unrolls the loop over a window, to good code up to about this width.
    const WINDOW: usize = 32;
    if width > WINDOW {
        let partial = block_best(rows, WINDOW, direction)?;
        return block_best(&partial, width / WINDOW, direction);
    }
    let blocks = rows.dims()[1].div_ceil(width);
    let padding = [(0, 0), (0, blocks * width - rows.dims()[1])];
    let scalar = Shape::scalar(rows.dtype());
    let reducer = Function::trace("better", &[scalar.clone(), scalar], |x| {
        // Of a NaN and another value neither is better, and then the first is kept, which is none.
        let better = match direction {
            Direction::Max => x[1].greater(&x[0])?,
            Direction::Min => x[1].less(&x[0])?,
        };
        better.select(&x[1], &x[0])
    })?;
    let worst = match direction {
        Direction::Max => f64::NEG_INFINITY,
        Direction::Min => f64::INFINITY,
    };
    rows.reduce_window(worst, &[1, width], &[1, width], &padding, reducer)
}

/// The `count` largest of rows short enough to sort; the values are in [`ascending`] order.
fn top_k_of_few(rows: &Tensor, count: usize) -> Result<(Tensor, Tensor)> {
    let few = (16 * count).max(128);
    if rows.dtype() == DType::F64 && rows.dims()[1] > few {
        // No target partitions f64 rows: they are sorted, and had better be short.
        return blocks_but_nan(rows, count, Direction::Max);
    }
    rows.top_k(count)
}

/// The best of each of strided buckets (element j goes to bucket j mod L), then the top-k of the winners.
fn two_stage(rows: &Tensor, carried: &[Tensor], count: usize, op: &ApproxTopK) -> Result<Vec<Tensor>> {
    let [batch, size] = [rows.dims()[0], rows.dims()[1]];
    let builder = rows.builder();
    let buckets = two_stage_buckets(op, size, count)?;
    let depth = size.div_ceil(buckets);
    let missing = (depth * buckets - size) as isize;
    let arrange = |rows: &Tensor, filler: &Tensor| {
        rows.pad(filler, &[0, 0], &[0, missing], &[0, 0])?.reshape(&[batch, depth, buckets])
    };
    // XLA reduces no floats of different dtypes together; a wider one holds them as they are.
    let has_f64 = std::iter::once(rows).chain(carried).any(|rows| rows.dtype() == DType::F64);
    let widest = if has_f64 { DType::F64 } else { DType::F32 };
    let widen = |rows: &Tensor| if rows.dtype().is_float() { rows.convert(widest) } else { Ok(rows.clone()) };
    let wide = signed(&widen(rows)?, op.direction)?;
    let values = arrange(&wide, &f64::NAN.tensor(&wide)?)?;
    let counter = values.shape().with_dtype(DType::S32);
    let indices = ((builder.iota(counter.clone(), 1)? * buckets as i32)? + builder.iota(counter, 2)?)?;
    let mut operands = vec![values, indices];
    let mut inits = vec![f64::NEG_INFINITY.tensor(&wide)?, builder.scalar(-1i32)?];
    for carried in carried {
        let carried = widen(carried)?;
        let zero = builder.constant(Array::zeros(Shape::scalar(carried.dtype()))?)?;
        operands.push(arrange(&carried, &zero)?);
        inits.push(zero);
    }
    let mut winners = builder.reduce(
        &operands.iter().collect::<Vec<_>>(),
        &inits.iter().collect::<Vec<_>>(),
        &[1],
        better(&inits)?,
    )?;
    for (winner, carried) in winners[2..].iter_mut().zip(carried) {
        *winner = winner.convert(carried.dtype())?;
    }
    let found = winners[1].greater_equal(0)?;
    winners[0] = found.select(&winners[0], -f64::NAN)?;
    let restore = |values: &Tensor| signed(values, op.direction)?.convert(rows.dtype());
    if !op.aggregate_to_topk {
        // A bucket of NaNs yields its first.
        winners[0] = restore(&winners[0])?;
        winners[1] = found.select(&winners[1], builder.iota(winners[1].shape().clone(), 1)?)?;
        for (winner, carried) in winners[2..].iter_mut().zip(carried) {
            *winner = found.select(&*winner, carried.slice_in_dim(0, buckets, 1, 1)?)?;
        }
        return Ok(winners);
    }
    let mut results = if carried.is_empty() {
        let (values, position) = top_k_of_few(&winners[0], count)?;
        vec![values, winners[1].take_along_axis(&position, 1)?]
    } else {
        top_k_with(&winners[0], &winners[1..], count)?
    };
    results[0] = restore(&results[0])?;
    without_nan(rows, carried, op.direction, results)
}

/// The reducer that keeps the greater of two values and what comes with it: its index, which is negative where it is
/// the initial one, and what is carried.
fn better(inits: &[Tensor]) -> Result<Function> {
    let scalars: Vec<Shape> = inits.iter().map(|init| init.shape().clone()).collect();
    Function::trace("better", &[&scalars[..], &scalars[..]].concat(), |x| {
        let (old, new) = x.split_at(scalars.len());
        // The first value that is no NaN replaces the initial one, which it may equal.
        let first = (old[1].less(0)? & new[0].equal(&new[0])?)?;
        let better = (new[0].greater(&old[0])? | first)?;
        new.iter().zip(old).map(|(new, old)| better.select(new, old)).collect::<Result<Vec<_>>>()
    })
}

/// The number of buckets of the two-stage form: the least that meets the recall target, or up to twice that
/// where it then divides the size, so that the rows need no padding, which is a pass over them. Where the winners
/// are not aggregated, there is one for each of the `count` results.
pub(super) fn two_stage_buckets(op: &ApproxTopK, size: usize, count: usize) -> Result<usize> {
    if !op.aggregate_to_topk {
        return Ok(count);
    }
    let whole = op.reduction_input_size_override.unwrap_or(size);
    let buckets = buckets_for_recall(whole, op.k, 1, op.recall_target.into())?;
    // Of the buckets of the whole, this part gets its share.
    let least = (buckets as f64 * size as f64 / whole as f64).ceil() as usize;
    let least = least.clamp(op.k, size);
    Ok((least..=size.min(2 * least)).find(|&buckets| size.is_multiple_of(buckets)).unwrap_or(least))
}

/// The results, or where a NaN is among them, those of [`sort_prepared`]: it is there for want of other values,
/// or because the form lost some.
fn without_nan(
    rows: &Tensor,
    carried: &[Tensor],
    direction: Direction,
    results: Vec<Tensor>,
) -> Result<Vec<Tensor>> {
    let values = &results[0];
    let count = values.dims()[1];
    let nan_found = values.not_equal(values)?.reduce_any(&[0, 1])?;
    let inputs = 1 + carried.len();
    let operands: Vec<&Tensor> = std::iter::once(rows).chain(carried).chain(&results).collect();
    let shapes: Vec<Shape> = operands.iter().map(|tensor| tensor.shape().clone()).collect();
    let again =
        Function::trace("sort_prepared", &shapes, |x| sort_prepared(&x[0], &x[1..inputs], count, direction))?;
    let keep = Function::trace("keep", &shapes, |x| Ok(x[inputs..].to_vec()))?;
    nan_found.cond(&operands, again, keep)
}

/// Values whose total order is the direction's order of preference, worst first: negated for the minimum, and
/// every NaN with its sign bit set.
fn ascending(values: &Tensor, direction: Direction) -> Result<Tensor> {
    values.equal(values)?.select(signed(values, direction)?, -f64::NAN)
}

/// The values, negated for the minimum; its own inverse.
fn signed(values: &Tensor, direction: Direction) -> Result<Tensor> {
    match direction {
        Direction::Max => Ok(values.clone()),
        Direction::Min => -values,
    }
}
