//! The kernel form: a custom call of a kernel of this crate's.

use crate::graph::{Function, Tensor};
use crate::kernels::{FUSED_SEARCH, SELECT_K};
use crate::lower::approx_top_k::sort_prepared;
use crate::lower::fused::Search;
use crate::ops::approx_top_k::Direction;
use crate::{CustomCall, DType, Result, Shape};

/// The best of rows, `[b, n]`, exactly.
pub(super) fn select_k(rows: &Tensor, count: usize, direction: Direction) -> Result<Vec<Tensor>> {
    let values = rows.shape().with_dims([rows.dims()[0], count]);
    let indices = values.with_dtype(DType::S32);
    let reference = Function::trace("select_k", std::slice::from_ref(rows.shape()), |x| {
        sort_prepared(&x[0], &[], count, direction)
    })?;
    let least = direction == Direction::Min;
    let call = CustomCall::new(SELECT_K, [values, indices])
        .backend_config(&format!("{{least = {least}}}"))
        .reference(reference);
    rows.builder().custom_call(call, &[rows])
}

/// The best rows of the databases of a search, exactly but for the rounding of the scores.
pub(super) fn fused_search(search: &Search, k: usize) -> Result<Vec<Tensor>> {
    let Search { queries, database, half_norms, .. } = search;
    let [batch, count] = [queries.dims()[0], queries.dims()[1]];
    let values = Shape::new(DType::F32, [batch, count, k]);
    let indices = values.with_dtype(DType::S32);
    let operands: Vec<&Tensor> = [queries, database].into_iter().chain(half_norms).collect();
    let shapes: Vec<Shape> = operands.iter().map(|operand| operand.shape().clone()).collect();
    let reference = Function::trace("fused_search", &shapes, |x| {
        let [queries, database] = [x[0].convert(DType::F32)?, x[1].convert(DType::F32)?];
        let products = queries.dot_general(&database, (&[2], &[2]), (&[0], &[0]))?;
        let (scores, direction) = match x.get(2) {
            Some(half_norms) => ((half_norms.expand_dims(1)? - products)?, Direction::Min),
            None => (products, Direction::Max),
        };
        let rows = scores.reshape(&[batch * count, database.dims()[1]])?;
        let results = sort_prepared(&rows, &[], k, direction)?;
        results.iter().map(|result| result.reshape(&[batch, count, k])).collect::<Result<Vec<_>>>()
    })?;
    let metric = if half_norms.is_some() { "l2" } else { "inner_product" };
    let call = CustomCall::new(FUSED_SEARCH, [values, indices])
        .backend_config(&format!("{{metric = \"{metric}\"}}"))
        .reference(reference);
    let found = queries.builder().custom_call(call, &operands)?;
    found.iter().map(|found| search.restore(found)).collect()
}
