//! How many of the true neighbours a search finds: planned beforehand, and measured afterwards.

pub use crate::recall::{
    ReductionSize, buckets_for_recall, expected_recall, expected_recall_limit, recall_lower_bound,
    reduction_output_size, reduction_recall, tight_reduction_output_size,
};

use std::collections::HashSet;

use crate::ann::Metric;
use crate::ann::truth::{Found, each_distance};
use crate::data::MappedArray;
use crate::shape::Dims;
use crate::{Array, Error, Result};

/// By how much the distance of a found row may be worse than that of the last true neighbour for the row to count as one
/// in [`recall()`], so that rounding of the scores that were compared, or of the ground truth's, makes no difference:
///
/// - for L2, by this share of the last true neighbour's squared distance;
/// - for inner products, by this share of |query| |row|, with the norms of the query and of the found row;
/// - for cosines, by this.
///
/// That is 8.4 times the epsilon of f32.
///
/// ```
/// assert_eq!(xlann::ann::recall::TOLERANCE, 1e-6);
/// ```
pub const TOLERANCE: f64 = 1e-6;

/// The recall of found neighbours by distance: the share of as many rows as there are true neighbours that are as near as
/// these, over all queries.
///
/// `queries` is `[q, d]` and `database` `[n, d]`; `found` and `truth` are s32 rows of the database, `[q, k']` and
/// `[q, k]`, such as [`true_neighbors`](crate::ann::true_neighbors) gives. A found row counts as right where its true
/// distance, in f64, is no worse than that of the last of the query's true neighbours, within [`TOLERANCE`]. So rows at
/// equal distances stand for each other, as duplicates do; [`recall_by_index`] tells them apart.
///
/// A row counts once for a query, however often it is found, and no more rows count than there are true neighbours. The
/// index -1, for no neighbour, counts in neither: the recall is a share of the true neighbours that there are. A query that
/// has none, as one with a NaN, is left out; where no query has one, the recall is 1. A row without a distance, as one with
/// a NaN, is never right, nor a true neighbour.
///
/// # Errors
/// Where the operands are not matrices of equal width, or the rows not s32 from -1 to the database's last, for each query.
///
/// ```
/// use xlann::Array;
/// use xlann::ann::{Metric, recall, true_neighbors};
///
/// // Rows 0 and 1 are equal, and so are rows 2 and 3.
/// let database = Array::new([5, 1], &[1f32, 1.0, 2.0, 2.0, 3.0])?;
/// let query = Array::new([1, 1], &[0f32])?;
/// let truth = true_neighbors(Metric::L2, &query, database.clone(), 3)?.indices;
/// assert_eq!(truth, Array::new([1, 3], &[0, 1, 2])?);
/// let found = Array::new([1, 3], &[3, 1, 4])?;
/// assert_eq!(recall(Metric::L2, &query, database, &found, &truth)?, 2.0 / 3.0);
/// assert_eq!(recall::recall_by_index(&found, &truth)?, 1.0 / 3.0);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn recall(
    metric: Metric,
    queries: &Array,
    database: impl Into<MappedArray>,
    found: &Array,
    truth: &Array,
) -> Result<f64> {
    let (mut hits, mut wanted) = (0, 0);
    let lists = [("found", found), ("truth", truth)];
    each_distance("recall", metric, queries, &database.into(), lists, |_, [found, truth]| {
        let distinct = |rows: Vec<Found>| {
            let mut seen = HashSet::new();
            rows.into_iter().filter(move |row| !row.distance.is_nan() && seen.insert(row.index))
        };
        let truth: Vec<f64> = distinct(truth).map(|row| row.distance).collect();
        let worst = match metric {
            Metric::L2 => truth.iter().copied().reduce(f64::max),
            Metric::InnerProduct | Metric::Cosine => truth.iter().copied().reduce(f64::min),
        };
        let Some(worst) = worst else { return };
        let right = distinct(found).filter(|row| match metric {
            Metric::L2 => row.distance <= worst + TOLERANCE * worst,
            // An infinite norm has no share.
            Metric::InnerProduct => row.distance >= worst || row.distance >= worst - TOLERANCE * row.norms,
            Metric::Cosine => row.distance >= worst - TOLERANCE,
        });
        hits += right.count().min(truth.len());
        wanted += truth.len();
    })?;
    Ok(if wanted == 0 { 1.0 } else { hits as f64 / wanted as f64 })
}

/// The recall of found neighbours by their row numbers: the share of the true ones among them, over all queries.
///
/// Unlike by [`recall()`], of rows at equal distances only the very ones in `truth` are right. Both are arrays of s32
/// indices, `found` of dimensions \[..., k'\] and `truth` of dimensions \[..., k\], a row to a query. The formula is that of JAX's tests, common neighbours / size of `truth`, but an index
/// counts once for a row however often it was found there, so that the recall is never above 1.
///
/// ```
/// use xlann::Array;
/// let truth = Array::new([2, 2], &[4, 7, 1, 0])?;
/// let found = Array::new([2, 3], &[7, 9, 4, 5, 1, -1])?;
/// assert_eq!(xlann::ann::recall::recall_by_index(&found, &truth)?, 0.75);
/// # Ok::<(), xlann::Error>(())
/// ```
///
/// # Errors
/// Where a dtype is not s32, a rank is 0, `truth` is empty, or the dimensions differ before the last.
pub fn recall_by_index(found: &Array, truth: &Array) -> Result<f64> {
    let operator = "recall_by_index";
    let (found_dims, truth_dims) = (found.shape().dims(), truth.shape().dims());
    let indices = |argument: &str, array: &Array| match array.shape().rank() {
        0 => Err(Error::argument(operator, argument, "of rank 1 or more", array.shape())),
        _ => array
            .to_vec::<i32>()
            .map_err(|_| Error::argument(operator, argument, "of dtype s32", array.shape())),
    };
    let (mut found_rows, mut truth_rows) = (indices("found", found)?, indices("truth", truth)?);
    let (Some((&found_k, queries)), Some((&truth_k, truth_queries))) =
        (found_dims.split_last(), truth_dims.split_last())
    else {
        return Err(Error::argument(operator, "found", "of rank 1 or more", found.shape()));
    };
    if queries != truth_queries {
        let expected = format!("of dimensions {} before the last, as truth", Dims(truth_queries));
        return Err(Error::argument(operator, "found", expected, found.shape()));
    }
    if truth_rows.is_empty() {
        return Err(Error::argument(operator, "truth", "of at least one element", truth.shape()));
    }
    if found_k == 0 {
        return Ok(0.0);
    }
    let mut hits = 0usize;
    for (found, truth) in found_rows.chunks_mut(found_k).zip(truth_rows.chunks_mut(truth_k)) {
        found.sort_unstable();
        truth.sort_unstable();
        hits += truth.chunk_by(|a, b| a == b).filter(|equal| found.binary_search(&equal[0]).is_ok()).count();
    }
    Ok(hits as f64 / truth_rows.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_by_index_counts_the_truth_found_in_each_row() {
        let truth = Array::new([2, 2], &[0, 1, 2, 3]).unwrap();
        let of = |dims: [usize; 2], found: &[i32]| recall_by_index(&Array::new(dims, found).unwrap(), &truth);
        assert_eq!(of([2, 2], &[1, 0, 3, 2]).unwrap(), 1.0);
        assert_eq!(of([2, 2], &[2, 3, 0, 1]).unwrap(), 0.0);
        assert_eq!(of([2, 3], &[1, 1, 1, 9, 3, -1]).unwrap(), 0.5);
        assert_eq!(of([2, 0], &[]).unwrap(), 0.0);
        let row = Array::new([2], &[5, 5]).unwrap();
        assert_eq!(recall_by_index(&Array::new([1], &[5]).unwrap(), &row).unwrap(), 0.5);
    }

    #[test]
    fn recall_by_index_refuses_what_does_not_match() {
        let truth = Array::new([2, 2], &[0, 1, 2, 3]).unwrap();
        let refusal = |found: Array, truth: &Array| recall_by_index(&found, truth).unwrap_err().to_string();
        assert_eq!(
            refusal(Array::new([1, 4], &[0; 4]).unwrap(), &truth),
            "recall_by_index: found must be of dimensions [2] before the last, as truth, got s32[1,4]"
        );
        assert_eq!(
            refusal(Array::new([2, 1], &[0f32; 2]).unwrap(), &truth),
            "recall_by_index: found must be of dtype s32, got f32[2,1]"
        );
        assert_eq!(
            refusal(Array::scalar(1), &truth),
            "recall_by_index: found must be of rank 1 or more, got s32[]"
        );
        assert_eq!(
            refusal(Array::new([2, 1], &[0; 2]).unwrap(), &Array::new([2, 0], &[0; 0]).unwrap()),
            "recall_by_index: truth must be of at least one element, got s32[2,0]"
        );
    }
}
