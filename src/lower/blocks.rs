//! The blocks form: the best of each block, then the top-k of the elements of the k best blocks.

use crate::graph::{Function, Tensor};
use crate::lower::approx_top_k::{ascending, signed, top_k_of_few};
use crate::ops::approx_top_k::Direction;
use crate::{DType, GatherDims, Operand, Result, Shape};

/// Strided blocks (element j is in block j mod L) of rows whose total order is the order of preference.
///
/// It is exact with any NaNs, and reads the rows in one reduction whose neighbouring threads read neighbouring
/// elements.
pub(super) fn strided(rows: &Tensor, count: usize) -> Result<(Tensor, Tensor)> {
    let [batch, size] = [rows.dims()[0], rows.dims()[1]];
    let width = block_width(size, count);
    if width == 1 {
        return rows.top_k(count);
    }
    let blocks = size.div_ceil(width);
    let missing = (blocks * width - size) as isize;
    let worst = -f64::NAN;
    let padded = rows.pad(worst, &[0, 0], &[0, missing], &[0, 0])?.reshape(&[batch, width, blocks])?;
    let scalars = vec![Shape::scalar(rows.dtype()); 2];
    let greater = Function::trace("greater", &scalars, |x| {
        x[1].compare_total_order(crate::Direction::Gt, &x[0])?.select(&x[1], &x[0])
    })?;
    let init = worst.tensor(rows)?;
    let best = rows.builder().reduce(&[&padded], &[&init], &[1], greater)?;
    let (_, block) = top_k_of_few(&best[0], count)?;
    // In the order of their indices, so that equal values come out in that order too.
    let block = sorted(&block)?.expand_dims(1)?;
    let place = rows.builder().iota(Shape::new(DType::S32, [1, width, 1]), 1)?;
    let candidates = [batch, width * count];
    let index = (block + (place * blocks as i32)?)?.reshape(&candidates)?;
    let elements = rows.take_along_axis(&index.minimum((size - 1) as i32)?, 1)?;
    let elements = index.less(size as i32)?.select(&elements, worst)?;
    let (values, position) = top_k_of_few(&elements, count)?;
    Ok((values, index.take_along_axis(&position, 1)?))
}

/// Blocks of adjacent elements, of which XLA:CPU finds the best as fast as it can read them.
///
/// Where a row has fewer than `count` values above the worst, a NaN can be among its results although it has another
/// such value: the best of a block is no NaN even where all its elements are.
pub(super) fn adjacent(rows: &Tensor, count: usize, direction: Direction) -> Result<(Tensor, Tensor)> {
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
