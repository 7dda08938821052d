//! The native form: XLA's expansion of approximate top-k on a TPU.

use crate::graph::{Function, Tensor};
use crate::ops::approx_top_k::{ApproxTopK, Direction};
use crate::recall::{ReductionSize, tiling};
use crate::{ApiVersion, Array, CustomCall, DType, Operand, Result, Shape};

/// A partial reduction, where it reduces anything, and its aggregation: instruction by instruction what XLA's
/// `ApproxTopK` (xla/hlo/builder/lib/approx_topk.cc) gives.
pub(super) fn native(op: &ApproxTopK, inputs: &[Tensor], reduction: ReductionSize) -> Result<Vec<Tensor>> {
    let operand = &inputs[0];
    let mut results = with_indices(op, inputs)?;
    // With an override, the formula can round a small operand's size up past it.
    if reduction.log2_reduction > 0 && reduction.size < operand.dims()[op.reduction_dimension] {
        results = partial_reduce(op, &results, reduction)?;
    }
    match op.aggregate_to_topk {
        true => aggregate(op, &results),
        false => Ok(results),
    }
}

fn partial_reduce(op: &ApproxTopK, operands: &[Tensor], reduction: ReductionSize) -> Result<Vec<Tensor>> {
    let inputs = [operands, &initial(op, operands)?].concat();
    let shapes: Vec<Shape> = inputs.iter().map(|input| input.shape().clone()).collect();
    let results = shapes[..operands.len()].iter().map(|shape| {
        let mut dims = shape.dims().to_vec();
        dims[op.reduction_dimension] = reduction.size;
        shape.with_dims(dims)
    });
    let results: Vec<Shape> = results.collect();
    let config = format!(
        "{{\"log2_reduction\": {}, \"reduction_dim\": {}, \"to_apply_type\": \"comparator\", \"top_k\": {}, \
         \"recall_target\": {:.6}}}",
        reduction.log2_reduction, op.reduction_dimension, op.k, op.recall_target
    );
    let reference = Function::trace("partial_reduce", &shapes, |x| {
        let (operands, inits) = x.split_at(operands.len());
        reduce_groups(op, operands, inits, reduction)
    })?;
    let call = CustomCall::new("PartialReduce", results)
        .api_version(ApiVersion::Original)
        .any_layout()
        .backend_config(&config)
        .computation(comparator(op, operands)?)
        .reference(reference);
    operands[0].builder().custom_call(call, &inputs.iter().collect::<Vec<_>>())
}

/// What the partial reduction does, as far as its sizes tell: the dimension is cut into chunks as wide as a TPU's
/// registers, and of each group of neighbouring chunks the elements at the same place in their chunks become one.
fn reduce_groups(
    op: &ApproxTopK,
    operands: &[Tensor],
    inits: &[Tensor],
    reduction: ReductionSize,
) -> Result<Vec<Tensor>> {
    let dimension = op.reduction_dimension;
    let dims = operands[0].dims();
    let chunk = tiling(dims.len());
    let depth = dims[dimension].div_ceil(chunk).min(1 << reduction.log2_reduction);
    let groups = reduction.size / chunk;
    let zeros = vec![0; dims.len()];
    let mut high = zeros.clone();
    high[dimension] = (groups * depth * chunk - dims[dimension]) as isize;
    let mut grouped = dims.to_vec();
    grouped.splice(dimension..=dimension, [groups, depth, chunk]);
    let arrange = |(operand, init): (&Tensor, &Tensor)| {
        operand.pad(init, &zeros, &high, &vec![0; high.len()])?.reshape(&grouped)
    };
    let grouped = operands.iter().zip(inits).map(arrange).collect::<Result<Vec<_>>>()?;
    let reduced = reduce(op, &grouped, inits, dimension + 1)?;
    let mut dims = dims.to_vec();
    dims[dimension] = reduction.size;
    reduced.iter().map(|reduced| reduced.reshape(&dims)).collect()
}

/// The k best of what is left, sorted.
fn aggregate(op: &ApproxTopK, operands: &[Tensor]) -> Result<Vec<Tensor>> {
    let axis = op.reduction_dimension as isize;
    let dtypes = operands.iter().map(Tensor::dtype);
    // XLA reduces no floats of different dtypes together.
    let alike = dtypes.filter(|dtype| dtype.is_float()).all(|dtype| dtype == operands[0].dtype());
    if op.k == 1 && alike {
        let best = reduce(op, operands, &initial(op, operands)?, op.reduction_dimension)?;
        return best.iter().map(|best| best.expand_dims(axis)).collect();
    }
    let comparator = comparator(op, operands)?;
    let operands: Vec<&Tensor> = operands.iter().collect();
    let sorted = operands[0].builder().sort_by(&operands, axis, false, comparator)?;
    sorted.iter().map(|sorted| sorted.slice_in_dim(0, op.k, 1, axis)).collect()
}

/// The operand, the indices of its elements, and what is carried.
pub(super) fn with_indices(op: &ApproxTopK, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let operand = &inputs[0];
    let shape = operand.shape().with_dtype(DType::S32);
    let indices = operand.builder().iota(shape, op.reduction_dimension as isize)?;
    Ok([&[operand.clone(), indices], &inputs[1..]].concat())
}

/// A value that is worse than any other, the index of none, and zeros for what is carried.
pub(super) fn initial(op: &ApproxTopK, operands: &[Tensor]) -> Result<Vec<Tensor>> {
    let builder = operands[0].builder();
    let worst = match op.direction {
        Direction::Max => f64::NEG_INFINITY,
        Direction::Min => f64::INFINITY,
    };
    let zero = |carried: &Tensor| builder.constant(Array::zeros(Shape::scalar(carried.dtype()))?);
    let first = [worst.tensor(&operands[0]), builder.scalar(-1i32)];
    first.into_iter().chain(operands[2..].iter().map(zero)).collect()
}

/// Reduces values, their indices and what is carried along a dimension to the best.
fn reduce(op: &ApproxTopK, operands: &[Tensor], inits: &[Tensor], dimension: usize) -> Result<Vec<Tensor>> {
    let scalars: Vec<Shape> = inits.iter().map(|init| init.shape().clone()).collect();
    let reducer = Function::trace("best", &[&scalars[..], &scalars[..]].concat(), |x| {
        let (lhs, rhs) = x.split_at(scalars.len());
        let better = better(op, &lhs[0], &rhs[0])?;
        lhs.iter().zip(rhs).map(|(lhs, rhs)| better.select(lhs, rhs)).collect::<Result<Vec<_>>>()
    })?;
    let operands: Vec<&Tensor> = operands.iter().collect();
    let inits: Vec<&Tensor> = inits.iter().collect();
    operands[0].builder().reduce(&operands, &inits, &[dimension as isize], reducer)
}

/// Whether the first of two values is the better one, by the name that it has in JAX; both values, both indices and so on
/// are its parameters.
pub(super) fn comparator(op: &ApproxTopK, operands: &[Tensor]) -> Result<Function> {
    let order = match op.direction {
        Direction::Max => "gt",
        Direction::Min => "lt",
    };
    let name = format!("top_k_{order}_{}_comparator", operands[0].dtype());
    let scalars: Vec<Shape> =
        operands.iter().flat_map(|operand| vec![Shape::scalar(operand.dtype()); 2]).collect();
    Function::trace(&name, &scalars, |x| better(op, &x[0], &x[1]))
}

fn better(op: &ApproxTopK, lhs: &Tensor, rhs: &Tensor) -> Result<Tensor> {
    match op.direction {
        Direction::Max => lhs.greater(rhs),
        Direction::Min => lhs.less(rhs),
    }
}
