//! How many of the true neighbours approximate top-k is expected to find.
//!
//! Approximate top-k splits the operand into *buckets*, keeps the best of each and takes the top k of what was
//! kept; a true neighbour is lost where more of them fall into one bucket than the bucket keeps. Everything
//! here that speaks of an expectation takes the neighbours' positions for a random permutation. Neighbours in
//! another order come close to that only where their buckets do not depend on it, as those of the
//! [two-stage form](crate::lower::Form::TwoStage); those of a [TPU](crate::lower::Form::Native) do.

use crate::{Error, Result};

const OPERATOR: &str = "approx_top_k";

/// What the partial reduction of approximate top-k leaves of its reduction dimension.
///
/// ```
/// use xlann::ann::recall::{ReductionSize, reduction_output_size};
/// let reduced = reduction_output_size(1_000_000, 2, 10, 0.95, false, None)?;
/// assert_eq!(reduced, ReductionSize { size: 256, log2_reduction: 12 });
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReductionSize {
    /// The size of the result's reduction dimension.
    pub size: usize,
    /// The base-2 logarithm of the number of elements that are reduced to one; 0 where nothing is reduced.
    ///
    /// XLA has -1 here where the result is aggregated; this is the partial reduction's in both cases.
    pub log2_reduction: u32,
}

/// The size of the reduction dimension that approximate top-k gives for a recall target.
///
/// The formula is XLA's `ApproxTopKReductionOutputSize` (xla/hlo/builder/lib/approx_topk_shape.cc), so that
/// shapes agree with XLA's and JAX's. With `aggregate_to_topk` the size is k, or less where an override made
/// the reduction leave less than k. (jaxlib 0.10.2 still answers k there, and XLA then fails to compile.)
/// `reduction_input_size_override` stands in for `input_size` in the choice of the reduction: it is the size
/// of the whole where the operand is one shard of it.
///
/// ```
/// use xlann::ann::recall::reduction_output_size;
/// let reduced = reduction_output_size(100_000, 2, 10, 0.95, false, None)?;
/// assert_eq!((reduced.size, reduced.log2_reduction), (256, 9));
/// # Ok::<(), xlann::Error>(())
/// ```
///
/// # Errors
/// Where `rank` is 0, `k` is 0 or more than `input_size`, `recall_target` is outside (0, 1], or the override
/// is less than `input_size`. XLA accepts the last two where it happens not to read them.
pub fn reduction_output_size(
    input_size: usize,
    rank: usize,
    k: usize,
    recall_target: f32,
    aggregate_to_topk: bool,
    reduction_input_size_override: Option<usize>,
) -> Result<ReductionSize> {
    let refused = |argument: &str, expected: &str, got: &dyn std::fmt::Display| {
        Err(Error::argument(OPERATOR, argument, expected, got))
    };
    if rank == 0 {
        return refused("operand", "of rank 1 or more", &"rank 0");
    }
    if k == 0 {
        return refused("k", "1 or more", &k);
    }
    if k > input_size {
        return refused("k", &format!("at most the size of the reduction dimension ({input_size})"), &k);
    }
    if !(recall_target > 0.0 && recall_target <= 1.0) {
        return refused("recall_target", "in (0, 1]", &recall_target);
    }
    let logical_size = reduction_input_size_override.unwrap_or(input_size);
    if logical_size < input_size {
        let expected = format!("at least the size of the reduction dimension ({input_size})");
        return refused("reduction_input_size_override", &expected, &logical_size);
    }
    let ReductionSize { size, log2_reduction } =
        partial_reduction(input_size, rank, k, recall_target, logical_size);
    Ok(ReductionSize { size: if aggregate_to_topk { size.min(k) } else { size }, log2_reduction })
}

/// The reduction before aggregation, of checked arguments.
fn partial_reduction(
    input_size: usize,
    rank: usize,
    k: usize,
    recall_target: f32,
    logical_size: usize,
) -> ReductionSize {
    let tiling = tiling(rank);
    let unreduced = ReductionSize { size: input_size, log2_reduction: 0 };
    if input_size <= tiling {
        return unreduced;
    }
    if k == 1 {
        return ReductionSize { size: tiling, log2_reduction: ceil_log2(logical_size.div_ceil(tiling)) };
    }
    if recall_target == 1.0 {
        return unreduced;
    }
    // The windows that keep (1 - 1/M)^(k-1), about exp((1-k)/M), at the target. The cast saturates.
    let windows = (1.0 - k as f64) / f64::from(recall_target).ln();
    let windows = (windows as usize).max(tiling).min(logical_size);
    let log2_reduction = (logical_size / windows).ilog2();
    if log2_reduction == 0 {
        return unreduced;
    }
    reduced(input_size, rank, log2_reduction.min(ceil_log2(input_size / tiling)))
}

/// The smallest partial reduction whose [`reduction_recall`] meets the target: about half of what
/// [`reduction_output_size`] gives, whose bound on the recall is a lower one.
///
/// It leaves `k` or more, so that they can be aggregated.
///
/// ```
/// use xlann::ann::recall::{reduction_output_size, reduction_recall, tight_reduction_output_size};
///
/// let xla = reduction_output_size(1_000_000, 2, 100, 0.99, false, None)?;
/// let tight = tight_reduction_output_size(1_000_000, 2, 100, 0.99, None)?;
/// assert_eq!((xla.size, tight.size), (15744, 7936));
/// assert!(reduction_recall(1_000_000, 2, 100, tight, None)? >= 0.99);
/// # Ok::<(), xlann::Error>(())
/// ```
///
/// # Errors
/// As [`reduction_output_size`].
pub fn tight_reduction_output_size(
    input_size: usize,
    rank: usize,
    k: usize,
    recall_target: f32,
    reduction_input_size_override: Option<usize>,
) -> Result<ReductionSize> {
    reduction_output_size(input_size, rank, k, recall_target, false, reduction_input_size_override)?;
    let logical_size = reduction_input_size_override.unwrap_or(input_size);
    let most = ceil_log2(input_size.div_ceil(tiling(rank)));
    // The size grows with every step.
    let smallest =
        (1..=most).rev().map(|log2_reduction| reduced(input_size, rank, log2_reduction)).find(|to| {
            to.size >= k.min(input_size)
                && Recall::of_reduction(input_size, rank, k, *to, logical_size).meets(recall_target.into())
        });
    Ok(smallest
        .filter(|to| to.size < input_size)
        .unwrap_or(ReductionSize { size: input_size, log2_reduction: 0 }))
}

/// The expected recall of the top k after a partial reduction, from the number of elements that it reduces to each of
/// its results; as [`expected_recall`], it is exact where true neighbours are placed at random.
///
/// The operand is reduced by chunks as wide as a TPU's registers, 128 elements (1024 of a vector): of 2^log2_reduction
/// neighbouring chunks, the elements at the same place in their chunks become one. The last of these groups can be a
/// smaller one. With an override, the operand is a part of so large a whole, which is reduced like it.
///
/// ```
/// use xlann::ann::recall::{ReductionSize, reduction_recall};
///
/// let recall = |size, log2_reduction| {
///     reduction_recall(1_000_000, 2, 10, ReductionSize { size, log2_reduction }, None)
/// };
/// assert!((recall(256, 12)? - 0.9826).abs() < 1e-4);
/// assert!((recall(128, 13)? - 0.9656).abs() < 1e-4);
/// assert_eq!(recall(1_000_000, 0)?, 1.0);
/// # Ok::<(), xlann::Error>(())
/// ```
///
/// # Errors
/// Where `rank` or `k` is 0, `k` is more than `input_size`, or that is more than the override.
pub fn reduction_recall(
    input_size: usize,
    rank: usize,
    k: usize,
    reduction: ReductionSize,
    reduction_input_size_override: Option<usize>,
) -> Result<f64> {
    let override_ = reduction_input_size_override;
    // A target of 1 asks for what the size is not read from.
    reduction_output_size(input_size, rank, k, 1.0, false, override_)?;
    let logical_size = override_.unwrap_or(input_size);
    Ok(Recall::of_reduction(input_size, rank, k, reduction, logical_size).value())
}

/// What a reduction by 2^log2_reduction leaves.
fn reduced(input_size: usize, rank: usize, log2_reduction: u32) -> ReductionSize {
    let tiling = tiling(rank);
    // Past 30, XLA's own shift overflows; no operand of s32 indices comes near.
    let size = input_size.div_ceil(tiling).div_ceil(1 << log2_reduction) * tiling;
    ReductionSize { size, log2_reduction }
}

/// The size of the chunks: an operand of rank 1 is laid out in 8 x 128 on a TPU, others have 128 lanes.
pub(crate) fn tiling(rank: usize) -> usize {
    if rank == 1 { 1024 } else { 128 }
}

/// The least l with 2^l >= value, and 0 for 0.
fn ceil_log2(value: usize) -> u32 {
    match value {
        0 | 1 => 0,
        _ => (value - 1).ilog2() + 1,
    }
}

/// The expected recall of the top k of `input_size` elements in random order, where each of `buckets` strided
/// buckets keeps its best `kept_per_bucket`.
///
/// It is exact: the number X of true neighbours in a bucket of s elements has the hypergeometric distribution,
/// and the recall is the sum over the buckets of E\[min(X, kept_per_bucket)\], divided by k. Where the buckets
/// do not divide the input, `input_size mod buckets` of them hold one element more. For equal buckets this is
/// the formula of arXiv 2506.04165; with one kept of each it tends to [`expected_recall_limit`] as the input
/// grows.
///
/// ```
/// use xlann::ann::recall::expected_recall;
/// // The best two of four elements, two buckets of two: both fall into one bucket once in three times.
/// assert!((expected_recall(4, 2, 2, 1)? - (1.0 - 1.0 / 6.0)).abs() < 1e-15);
/// # Ok::<(), xlann::Error>(())
/// ```
///
/// # Errors
/// Where `k` is 0 or more than `input_size`, or `buckets` or `kept_per_bucket` is 0.
pub fn expected_recall(input_size: usize, k: usize, buckets: usize, kept_per_bucket: usize) -> Result<f64> {
    check_top_k("expected_recall", input_size, k)?;
    check_positive("expected_recall", "buckets", buckets)?;
    check_positive("expected_recall", "kept_per_bucket", kept_per_bucket)?;
    Ok(Recall::of(input_size, k, buckets, kept_per_bucket).value())
}

/// The expected recall of approximate top-k that keeps the best of each of `buckets` buckets, as the input
/// grows without bound: `(L/k) (1 - (1 - 1/L)^k)`, about `1 - (k-1)/(2L)`.
///
/// ```
/// let recall = xlann::ann::recall::expected_recall_limit(100, 16384)?;
/// assert!((recall - 0.997).abs() < 1e-4);
/// # Ok::<(), xlann::Error>(())
/// ```
///
/// # Errors
/// Where `k` or `buckets` is 0.
pub fn expected_recall_limit(k: usize, buckets: usize) -> Result<f64> {
    check_positive("expected_recall_limit", "k", k)?;
    check_positive("expected_recall_limit", "buckets", buckets)?;
    let (k, buckets) = (k as f64, buckets as f64);
    // 1 - 1/L is rounded where L is large; its logarithm is not.
    Ok(-(k * (-1.0 / buckets).ln_1p()).exp_m1() * buckets / k)
}

/// The lower bound on the expected recall from which XLA chooses the reduction: `(1 - 1/L)^(k-1)`.
///
/// It is that of arXiv 2206.14286 and counts every true neighbour that shares its bucket as lost, where one of
/// them is in fact kept.
///
/// ```
/// let bound = xlann::ann::recall::recall_lower_bound(100, 16384)?;
/// assert!((bound - 0.994).abs() < 1e-4);
/// # Ok::<(), xlann::Error>(())
/// ```
///
/// # Errors
/// Where `k` or `buckets` is 0.
pub fn recall_lower_bound(k: usize, buckets: usize) -> Result<f64> {
    check_positive("recall_lower_bound", "k", k)?;
    check_positive("recall_lower_bound", "buckets", buckets)?;
    match (k, buckets) {
        (1, _) => Ok(1.0),
        (_, 1) => Ok(0.0),
        _ => Ok(((k - 1) as f64 * (-1.0 / buckets as f64).ln_1p()).exp()),
    }
}

/// The least number of buckets whose [`expected_recall`] is at or above `recall_target`.
///
/// More buckets never lower it, so it may be rounded up to what a kernel takes. A target of 1 asks that
/// nothing can be lost.
///
/// ```
/// use xlann::ann::recall::{buckets_for_recall, expected_recall};
/// let buckets = buckets_for_recall(1_000_000, 100, 1, 0.99)?;
/// assert!(expected_recall(1_000_000, 100, buckets, 1)? >= 0.99);
/// assert!(expected_recall(1_000_000, 100, buckets - 1, 1)? < 0.99);
/// # Ok::<(), xlann::Error>(())
/// ```
///
/// # Errors
/// Where `k` is 0 or more than `input_size`, `kept_per_bucket` is 0, or `recall_target` is outside (0, 1].
pub fn buckets_for_recall(
    input_size: usize,
    k: usize,
    kept_per_bucket: usize,
    recall_target: f64,
) -> Result<usize> {
    check_top_k("buckets_for_recall", input_size, k)?;
    check_positive("buckets_for_recall", "kept_per_bucket", kept_per_bucket)?;
    if !(recall_target > 0.0 && recall_target <= 1.0) {
        return Err(Error::argument("buckets_for_recall", "recall_target", "in (0, 1]", recall_target));
    }
    let met = |buckets| Recall::of(input_size, k, buckets, kept_per_bucket).meets(recall_target);
    // The loss of a bucket is convex in its size and 0 for an empty one, so balanced buckets lose no more
    // when there are more of them: bisection holds. At input_size buckets nothing is lost.
    let (mut short, mut enough) = (0, input_size);
    while enough - short > 1 {
        let middle = short + (enough - short) / 2;
        if met(middle) { enough = middle } else { short = middle }
    }
    Ok(enough)
}

fn check_positive(function: &'static str, argument: &str, value: usize) -> Result<()> {
    if value == 0 {
        return Err(Error::argument(function, argument, "1 or more", value));
    }
    Ok(())
}

fn check_top_k(function: &'static str, input_size: usize, k: usize) -> Result<()> {
    check_positive(function, "k", k)?;
    if k > input_size {
        return Err(Error::argument(function, "k", format!("at most input_size ({input_size})"), k));
    }
    Ok(())
}

/// The expected shares of the true neighbours that buckets keep and lose; each is accurate where it is small.
struct Recall {
    kept: f64,
    lost: f64,
}

impl Recall {
    fn of(input_size: usize, k: usize, buckets: usize, kept_per_bucket: usize) -> Recall {
        let (size, larger) = (input_size / buckets, input_size % buckets);
        let buckets = [(size, (buckets - larger) as f64), (size + 1, larger as f64)];
        Recall::of_buckets(input_size, k, &buckets, kept_per_bucket)
    }

    fn of_reduction(
        input_size: usize,
        rank: usize,
        k: usize,
        reduction: ReductionSize,
        logical_size: usize,
    ) -> Recall {
        if reduction.log2_reduction == 0 {
            return Recall { kept: 1.0, lost: 0.0 };
        }
        let (tiling, group) = (tiling(rank), 1 << reduction.log2_reduction);
        // Of the last chunk, the first places only may be filled; of the last group, the first chunks.
        let (chunks, longer) = (input_size.div_ceil(tiling), (input_size - 1) % tiling + 1);
        let (groups, last) = ((chunks - 1) / group, (chunks - 1) % group + 1);
        // The whole consists of so many such parts.
        let parts = logical_size as f64 / input_size as f64;
        let buckets = [(group, groups * tiling), (last, longer), (last - 1, tiling - longer)];
        let buckets = buckets.map(|(size, count)| (size, count as f64 * parts));
        Recall::of_buckets(logical_size, k, &buckets, 1)
    }

    /// Of buckets by their sizes and how many there are of each.
    fn of_buckets(input_size: usize, k: usize, buckets: &[(usize, f64)], kept_per_bucket: usize) -> Recall {
        let mut sum = Recall { kept: 0.0, lost: 0.0 };
        for &(size, count) in buckets {
            if count > 0.0 && size > 0 {
                let bucket = Recall::of_bucket(input_size, k, size, kept_per_bucket);
                sum.kept += bucket.kept * count / k as f64;
                sum.lost += bucket.lost * count / k as f64;
            }
        }
        sum
    }

    /// E[min(X, kept)] and E[max(X - kept, 0)] of one bucket, where X counts the k marked of n elements among
    /// the bucket's `size`.
    ///
    /// The probabilities come from the ratio of neighbouring ones, outwards from the mode, and are normalised
    /// by their sum: factorials of 1e9 would cost half the digits.
    fn of_bucket(n: usize, k: usize, size: usize, kept: usize) -> Recall {
        let (lowest, highest) = (k.saturating_sub(n - size), size.min(k));
        let mode = (size as f64 + 1.0) * (k as f64 + 1.0) / (n as f64 + 2.0);
        let mode = (mode as usize).clamp(lowest, highest);
        let (n, size, marked) = (n as f64, size as f64, k as f64);
        // P(x + 1) / P(x)
        let ratio = |x: f64| (size - x) * (marked - x) / ((x + 1.0) * (n - size - marked + x + 1.0));
        let mut sum = Recall { kept: 0.0, lost: 0.0 };
        let mut total = 0.0;
        let mut add = |x: usize, weight: f64| {
            total += weight;
            sum.kept += weight * x.min(kept) as f64;
            sum.lost += weight * x.saturating_sub(kept) as f64;
        };
        let mut weight = 1.0;
        add(mode, weight);
        for x in mode..highest {
            weight *= ratio(x as f64);
            if weight < f64::MIN_POSITIVE {
                break;
            }
            add(x + 1, weight);
        }
        weight = 1.0;
        for x in (lowest..mode).rev() {
            weight /= ratio(x as f64);
            if weight < f64::MIN_POSITIVE {
                break;
            }
            add(x, weight);
        }
        Recall { kept: sum.kept / total, lost: sum.lost / total }
    }

    fn meets(&self, target: f64) -> bool {
        // Where the loss is below the precision of a float near 1, only the loss tells 1 from less.
        if target == 1.0 { self.lost == 0.0 } else { self.value() >= target }
    }

    fn value(&self) -> f64 {
        if self.lost < 0.5 { 1.0 - self.lost } else { self.kept }
    }
}

#[cfg(test)]
mod tests;
