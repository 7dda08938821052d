//! How many of the true neighbours a search finds: planned beforehand, and measured afterwards.

pub use crate::recall::{
    ReductionSize, buckets_for_recall, expected_recall, expected_recall_limit, recall_lower_bound,
    reduction_output_size, reduction_recall, tight_reduction_output_size,
};

use crate::shape::Dims;
use crate::{Array, Error, Result};

/// The recall of found neighbours: the share of the true ones among them, over all queries.
///
/// Both are arrays of s32 indices, `found` of dimensions \[..., k'\] and `truth` of dimensions \[..., k\], a
/// row to a query. The formula is that of JAX's tests, common neighbours / size of `truth`, but an index
/// counts once for a row however often it was found there, so that the recall is never above 1.
///
/// ```
/// use xlann::Array;
/// let truth = Array::new([2, 2], &[4, 7, 1, 0])?;
/// let found = Array::new([2, 3], &[7, 9, 4, 5, 1, -1])?;
/// assert_eq!(xlann::ann::recall::recall(&found, &truth)?, 0.75);
/// # Ok::<(), xlann::Error>(())
/// ```
///
/// # Errors
/// Where a dtype is not s32, a rank is 0, `truth` is empty, or the dimensions differ before the last.
pub fn recall(found: &Array, truth: &Array) -> Result<f64> {
    let operator = "recall";
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
    fn recall_counts_the_truth_found_in_each_row() {
        let truth = Array::new([2, 2], &[0, 1, 2, 3]).unwrap();
        let of = |dims: [usize; 2], found: &[i32]| recall(&Array::new(dims, found).unwrap(), &truth);
        assert_eq!(of([2, 2], &[1, 0, 3, 2]).unwrap(), 1.0);
        assert_eq!(of([2, 2], &[2, 3, 0, 1]).unwrap(), 0.0);
        assert_eq!(of([2, 3], &[1, 1, 1, 9, 3, -1]).unwrap(), 0.5);
        assert_eq!(of([2, 0], &[]).unwrap(), 0.0);
        let row = Array::new([2], &[5, 5]).unwrap();
        assert_eq!(recall(&Array::new([1], &[5]).unwrap(), &row).unwrap(), 0.5);
    }

    #[test]
    fn recall_refuses_what_does_not_match() {
        let truth = Array::new([2, 2], &[0, 1, 2, 3]).unwrap();
        let refusal = |found: Array, truth: &Array| recall(&found, truth).unwrap_err().to_string();
        assert_eq!(
            refusal(Array::new([1, 4], &[0; 4]).unwrap(), &truth),
            "recall: found must be of dimensions [2] before the last, as truth, got s32[1,4]"
        );
        assert_eq!(
            refusal(Array::new([2, 1], &[0f32; 2]).unwrap(), &truth),
            "recall: found must be of dtype s32, got f32[2,1]"
        );
        assert_eq!(refusal(Array::scalar(1), &truth), "recall: found must be of rank 1 or more, got s32[]");
        assert_eq!(
            refusal(Array::new([2, 1], &[0; 2]).unwrap(), &Array::new([2, 0], &[0; 0]).unwrap()),
            "recall: truth must be of at least one element, got s32[2,0]"
        );
    }
}
