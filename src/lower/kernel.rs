//! The kernel form: a custom call of a kernel of this crate's.

use crate::graph::{Function, Tensor};
use crate::kernels::{FUSED_SEARCH, SELECT_K};
use crate::lower::approx_top_k::sort_prepared;
use crate::lower::fused::Search;
use crate::lower::nearest::{Nearest, Stored};
use crate::lower::policy::Reduction;
use crate::lower::precision::Reduced;
use crate::ops::approx_top_k::Direction;
use crate::{CustomCall, DType, Result, Shape};

/// The best of rows, `[b, n]`, exactly.
pub(super) fn select_k(
    rows: &Tensor,
    count: usize,
    direction: Direction,
    threads: Option<usize>,
) -> Result<Vec<Tensor>> {
    let values = rows.shape().with_dims([rows.dims()[0], count]);
    let indices = values.with_dtype(DType::S32);
    let reference = Function::trace("select_k", std::slice::from_ref(rows.shape()), |x| {
        sort_prepared(&x[0], &[], count, direction)
    })?;
    let least = ("least", (direction == Direction::Min).to_string());
    let call = CustomCall::new(SELECT_K, [values, indices])
        .backend_config(&attributes([Some(least), threads.map(thread_count)]))
        .reference(reference);
    rows.builder().custom_call(call, &[rows])
}

/// The best rows of the databases of a search: exactly, but for the rounding of the scores, or with the recall of a
/// reduction.
pub(super) fn fused_search(
    search: &Search,
    k: usize,
    reduction: Option<Reduction>,
    threads: Option<usize>,
) -> Result<Vec<Tensor>> {
    let Search { queries, database, half_norms, scales, .. } = search;
    let [batch, count] = [queries.dims()[0], queries.dims()[1]];
    let values = Shape::new(DType::F32, [batch, count, k]);
    let indices = values.with_dtype(DType::S32);
    let reduced = match (reduction, &search.reduced) {
        (None, _) => None,
        (Some(_), Some(reduced)) => Some(reduced.clone()),
        (Some(reduction), None) => Some(Reduced::of(database, reduction.dtype)?),
    };
    // What the best rows are found in, then what they are scored anew by.
    let operands: Vec<&Tensor> = match &reduced {
        None => [queries, database].into_iter().chain(scales).chain(half_norms).collect(),
        Some(Reduced { rows, scales, errors }) => {
            [queries, rows].into_iter().chain(scales).chain(half_norms).chain([database, errors]).collect()
        }
    };
    let shapes: Vec<Shape> = operands.iter().map(|operand| operand.shape().clone()).collect();
    let place = |tensor: &Tensor| operands.iter().position(|operand| std::ptr::eq(*operand, tensor));
    let [exact, norms, weights] =
        [place(database), half_norms.as_ref().and_then(place), scales.as_ref().and_then(place)];
    let reference = Function::trace("fused_search", &shapes, |x| {
        let database = &x[exact.unwrap_or(1)];
        let [queries, database] = [x[0].convert(DType::F32)?, database.convert(DType::F32)?];
        let products = queries.dot_general(&database, (&[2], &[2]), (&[0], &[0]))?;
        let products = match weights {
            Some(weights) => (products * x[weights].expand_dims(1)?)?,
            None => products,
        };
        let (scores, direction) = match norms {
            Some(norms) => ((x[norms].expand_dims(1)? - products)?, Direction::Min),
            None => (products, Direction::Max),
        };
        let rows = scores.reshape(&[batch * count, database.dims()[1]])?;
        let results = sort_prepared(&rows, &[], k, direction)?;
        results.iter().map(|result| result.reshape(&[batch, count, k])).collect::<Result<Vec<_>>>()
    })?;
    let metric = if norms.is_some() { "\"l2\"" } else { "\"inner_product\"" };
    let call = CustomCall::new(FUSED_SEARCH, [values, indices])
        .backend_config(&attributes([
            Some(("metric", metric.to_owned())),
            weights.map(|_| ("scaled", "true".to_owned())),
            reduction.map(|reduction| ("candidates", format!("{} : i64", reduction.candidates))),
            reduction.map(|reduction| ("certified_recall", float(reduction.recall_target))),
            threads.map(thread_count),
        ]))
        .reference(reference);
    let mut found = queries.builder().custom_call(call, &operands)?;
    if search.is_negated {
        // Not -0.0.
        found[0] = (found[0].full_like(0)? - &found[0])?;
    }
    if let Some(kept) = &search.kept {
        // Where a score is not finite, subtracted from infinity it may be NaN.
        let places = found[1].reshape(&[batch, count * k])?;
        let kept = kept.take_along_axis(&places, 1)?.reshape(&[batch, count, k])?;
        let last = if search.is_negated { f64::NEG_INFINITY } else { f64::INFINITY };
        found[0] = kept.select(&found[0], last)?;
    }
    found.iter().map(|found| search.restore(found)).collect()
}

/// The nearest rows by true squared distances, f64, and their indices: of some candidates, with so much recall proven; or of
/// all rows of f64.
pub(super) fn nearest(
    search: &Nearest,
    k: usize,
    candidates: usize,
    certified_recall: Option<f32>,
    threads: Option<usize>,
) -> Result<Vec<Tensor>> {
    let Nearest { queries, database, stored, errors, half_norms } = search;
    let (scales, centre) = match stored {
        Some(Stored { scales, centre, .. }) => (scales.as_ref(), centre.as_ref()),
        None => (None, None),
    };
    let operands: Vec<&Tensor> = match certified_recall {
        None => vec![queries, database],
        Some(_) => {
            let rows = stored.as_ref().map_or(database, |stored| &stored.rows);
            let others = [scales, Some(half_norms), Some(database), Some(errors), centre];
            [queries, rows].into_iter().chain(others.into_iter().flatten()).collect()
        }
    };
    let shapes: Vec<Shape> = operands.iter().map(|operand| operand.shape().clone()).collect();
    let exact = operands.iter().position(|operand| std::ptr::eq(*operand, database)).unwrap_or(1);
    let reference = Function::trace("nearest_rows", &shapes, |x| {
        let queries = x[0].convert(DType::F64)?.expand_dims(-2)?;
        let rows = x[exact].convert(DType::F64)?.expand_dims(-3)?;
        let differences = (queries - rows)?;
        let distances = (&differences * &differences)?.reduce_sum(&[-1])?;
        let dims = distances.dims().to_vec();
        let (leading, size) = (&dims[..dims.len() - 1], dims[dims.len() - 1]);
        let rows = distances.reshape(&[leading.iter().product(), size])?;
        let results = sort_prepared(&rows, &[], k, Direction::Min)?;
        let found = results[0].equal(&results[0])?;
        let results = [results[0].clone(), found.select(&results[1], -1)?];
        results.iter().map(|result| result.reshape(&[leading, &[k]].concat())).collect::<Result<Vec<_>>>()
    })?;
    let certified = |attribute| certified_recall.map(|_| attribute);
    let centred = certified(("centred", "true".to_owned())).filter(|_| centre.is_some());
    let call = CustomCall::new(FUSED_SEARCH, reference.result_shapes())
        .backend_config(&attributes([
            Some(("metric", "\"squared_distance\"".to_owned())),
            certified(("candidates", format!("{candidates} : i64"))),
            certified_recall.map(|recall| ("certified_recall", float(recall))),
            centred,
            threads.map(thread_count),
        ]))
        .reference(reference);
    queries.builder().custom_call(call, &operands)
}

fn thread_count(threads: usize) -> (&'static str, String) {
    ("threads", format!("{threads} : i64"))
}

/// A number as MLIR takes it, with a point and without an exponent.
fn float(number: f32) -> String {
    let point = if number.fract() == 0.0 { ".0" } else { "" };
    format!("{number}{point} : f64")
}

/// The attributes of a call, in MLIR's text.
fn attributes<const N: usize>(attributes: [Option<(&str, String)>; N]) -> String {
    let attributes = attributes.into_iter().flatten().map(|(name, value)| format!("{name} = {value}"));
    format!("{{{}}}", attributes.collect::<Vec<_>>().join(", "))
}
