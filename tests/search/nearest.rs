//! Nearest neighbours by plain computation in f64, and what is searched for them.

use std::sync::LazyLock;

use xlann::ann::{Metric, Neighbors, SearchOptions, true_neighbors};
use xlann::{Array, DType, Function, Session, Shape};

use crate::runner::{self, random};

/// The rows of a matrix.
pub fn rows(array: &Array) -> Vec<Vec<f64>> {
    let width = array.shape().dims()[1];
    array.to_f64().chunks(width).map(<[f64]>::to_vec).collect()
}

/// The distance that the metric states.
pub fn distance(metric: Metric, query: &[f64], row: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    match metric {
        Metric::InnerProduct => dot(query, row),
        Metric::L2 => query.iter().zip(row).map(|(a, b)| (a - b) * (a - b)).sum(),
        Metric::Cosine => {
            let norms = (dot(query, query) * dot(row, row)).sqrt();
            if norms == 0.0 { 0.0 } else { dot(query, row) / norms }
        }
    }
}

/// The k best distances of each query, best first.
pub fn best(metric: Metric, queries: &Array, database: &Array, k: usize) -> Vec<Vec<f64>> {
    rows(&true_neighbors(metric, queries, database.clone(), k).unwrap().distances)
}

/// Requires that neighbours are the true ones but for near ties: distinct rows, each at the distance it states,
/// and the distances the best there are, in order.
pub fn assert_nearest(found: &Neighbors, metric: Metric, queries: &Array, database: &Array, context: &str) {
    let k = found.indices.shape().dims()[1];
    assert_eq!(found.indices.shape().dims(), [queries.shape().dims()[0], k], "{context}");
    assert_eq!(found.distances.shape().dims(), found.indices.shape().dims(), "{context}");
    let is_f64 = found.distances.shape().dtype() == DType::F64;
    let (rounding, tolerance) = if is_f64 { (0.0, 1e-10) } else { (product_rounding(), 1e-4) };
    let tolerance = f64::max(tolerance, rounding);
    let close = |a: f64, b: f64| (a - b).abs() <= tolerance * b.abs().max(1.0);
    let data = rows(database);
    let best = best(metric, queries, database, k);
    let distances = rows(&found.distances);
    for (index, query) in rows(queries).iter().enumerate() {
        let indices = &found.indices.to_vec::<i32>().unwrap()[index * k..][..k];
        let context = || format!("query {index}: {:?} at {indices:?}, {context}", distances[index]);
        let distinct: std::collections::HashSet<_> = indices.iter().collect();
        assert_eq!(distinct.len(), k, "a row comes twice: {}", context());
        for ((&row, &got), &wanted) in indices.iter().zip(&distances[index]).zip(&best[index]) {
            let stated = distance(metric, query, &data[row as usize]);
            assert!(close(got, stated), "row {row} is at {stated}: {}", context());
            assert!(close(got, wanted), "there is a {wanted}: {}", context());
        }
        let in_order = |pair: &[f64]| match metric {
            Metric::L2 => pair[0] <= pair[1] + rounding,
            _ => pair[0] >= pair[1] - rounding,
        };
        assert!(distances[index].windows(2).all(in_order), "best first: {}", context());
        assert!(metric != Metric::L2 || distances[index].iter().all(|&d| d >= 0.0), "{}", context());
    }
}

/// By how much products of f32 are off on the platform that is tested, for each that is summed: nothing where it
/// multiplies them as f32, but GPUs and TPUs by default round them for their matrix units.
fn product_rounding() -> f64 {
    static ROUNDING: LazyLock<f64> = LazyLock::new(|| {
        let Some(session) = runner::session() else { return 0.0 };
        let operands = [1, 2].map(|seed| random(Shape::new(DType::F32, [64, 64]), seed));
        let shapes = operands.each_ref().map(|operand| operand.shape().clone());
        let product = Function::trace("product", &shapes, |x| x[0].dot(&x[1])).unwrap();
        let got = session.compile(&product).unwrap().run_arrays(&operands).unwrap()[0].to_f64();
        let expected = product.eval(&operands).unwrap()[0].to_f64();
        let off = got.iter().zip(&expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f64::max);
        if off < 1e-5 { 0.0 } else { off }
    });
    *ROUNDING
}

/// The dtype that a database of another is searched in on the platform, and the dtype of its scores.
pub fn searched(session: &Session, dtype: DType) -> (DType, DType) {
    let as_it_is = session.platform().capabilities.searched.contains(&dtype);
    let searched = if as_it_is { dtype } else { DType::F32 };
    (searched, if searched == DType::F64 { DType::F64 } else { DType::F32 })
}

/// An exact search.
pub fn exact(k: usize) -> SearchOptions {
    SearchOptions { recall_target: 1.0, ..SearchOptions::new(k) }
}

/// A matrix of pseudo-random numbers.
pub fn matrix(dtype: DType, dims: [usize; 2], seed: u64) -> Array {
    let noise = random(Shape::new(DType::F64, dims), seed);
    // Integers need more than -1..1, and unsigned ones no negative.
    let scale = if dtype.is_float() { 1.0 } else { 100.0 };
    let values: Vec<f64> = noise
        .to_f64()
        .iter()
        .map(|value| {
            let value = value * scale;
            if dtype.is_unsigned_integer() { value.abs() } else { value }
        })
        .collect();
    Array::from_f64(Shape::new(dtype, dims), &values).unwrap()
}
