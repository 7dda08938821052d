//! The two-stage form: the best of each bucket, then the top-k of these winners.

use crate::graph::{Function, Tensor};
use crate::lower::approx_top_k::{Exact, signed, top_k_of_few, top_k_with, without_nan};
use crate::lower::buckets::Buckets;
use crate::ops::approx_top_k::ApproxTopK;
use crate::recall::buckets_for_recall;
use crate::{Array, DType, Operand, Result, Shape};

/// The best of each of the [`Buckets`], then the top-k of the winners.
pub(super) fn two_stage(
    rows: &Tensor,
    carried: &[Tensor],
    count: usize,
    op: &ApproxTopK,
    buckets: usize,
    again: Exact,
) -> Result<Vec<Tensor>> {
    let [batch, size] = [rows.dims()[0], rows.dims()[1]];
    let builder = rows.builder();
    let elements = Buckets::new(size, buckets, op.k).elements(builder, batch)?;
    let flat = elements.reshape(&[batch, elements.dims()[1] * buckets])?;
    // As unsigned ones, as the number of an element past the end can be past those of s32.
    let there = elements.bitcast_convert(DType::U32)?.less(builder.scalar(size as u32)?)?;
    let arrange = |rows: &Tensor, filler: &Tensor| {
        if size == buckets {
            return rows.reshape(elements.dims());
        }
        let taken = rows.take_along_axis(&flat, 1)?.reshape(elements.dims())?;
        if size.is_multiple_of(buckets) { Ok(taken) } else { there.select(taken, filler) }
    };
    // XLA reduces no floats of different dtypes together; a wider one holds them as they are.
    let has_f64 = std::iter::once(rows).chain(carried).any(|rows| rows.dtype() == DType::F64);
    let widest = if has_f64 { DType::F64 } else { DType::F32 };
    let widen = |rows: &Tensor| if rows.dtype().is_float() { rows.convert(widest) } else { Ok(rows.clone()) };
    let wide = signed(&widen(rows)?, op.direction)?;
    let values = arrange(&wide, &f64::NAN.tensor(&wide)?)?;
    let mut operands = vec![values, elements.clone()];
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
    without_nan(rows, carried, op.direction, results, again)
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

/// The number of buckets of the two-stage form: the least that meets the recall target, rounded up to a multiple, or
/// up to twice that where it then divides the size, so that the rows need no padding, which is a pass over them.
/// Where the winners are not aggregated, there is one for each of the `count` results.
pub(super) fn two_stage_buckets(
    op: &ApproxTopK,
    size: usize,
    count: usize,
    multiple: usize,
) -> Result<usize> {
    if !op.aggregate_to_topk {
        return Ok(count);
    }
    let whole = op.reduction_input_size_override.unwrap_or(size);
    let buckets = buckets_for_recall(whole, op.k, 1, op.recall_target.into())?;
    // Of the buckets of the whole, this part gets its share.
    let least = (buckets as f64 * size as f64 / whole as f64).ceil() as usize;
    let least = least.clamp(op.k, size).next_multiple_of(multiple).min(size);
    let mut larger = (least..=size.min(2 * least)).step_by(multiple);
    Ok(larger.find(|&buckets| size.is_multiple_of(buckets)).unwrap_or(least))
}
