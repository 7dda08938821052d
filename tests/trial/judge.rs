//! Whether what a search found is right, against distances computed in f64.

use xlann::ann::{Metric, Neighbors};
use xlann::{Array, DType};

use crate::families::Data;

/// How much worse than the k-th true distance that of a neighbour may be: for L2, relative to the k-th squared distance;
/// for inner products, of the product of the norms; for cosines, absolute.
pub const TOLERANCE: f64 = 1e-6;

/// How far a stated distance may be from the true one: for L2, relative to it; else as [`TOLERANCE`].
pub const STATED_TOLERANCE: f64 = 1e-5;

/// The true neighbours of some queries.
///
/// Distances are those of the numbers as they are stored, by the formula that defines them: sums of squared differences,
/// sums of products, products of vectors of norm 1. A pair whose distance is NaN by that formula are no neighbours, as
/// where one has a NaN, or where infinities cancel.
pub struct Truth {
    metric: Metric,
    k: usize,
    width: usize,
    rows: Vec<f64>,
    queries: Vec<f64>,
    norms: Vec<f64>,
    query_norms: Vec<f64>,
    /// Of each query, the best rows with their distances, best first: k, or all that are neighbours.
    pub best: Vec<Vec<(usize, f64)>>,
}

/// What is wrong about a result, apart from a missing neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The results are not k for each query.
    Shape,
    /// An index is not a row's, or there is a distance without an index, or an index without a distance.
    Index,
    /// A row comes twice.
    Twice,
    /// A row is found that is no neighbour, or for a query that has none.
    Nan,
    /// A distance is not that of its row, or not 0 where L2 is.
    Distance,
    /// A distance is none of the metric: a negative one for L2, a cosine beyond 1.
    Range,
    /// The distances are not in order.
    Order,
}

/// The judgement of the results of all queries.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How many neighbours there are to be found.
    pub there: usize,
    /// How many of them were found.
    pub right: usize,
    /// By query, where fewer than all were found: the first of each.
    pub misses: Vec<usize>,
    /// What else is wrong, and of which query, in words.
    pub wrongs: Vec<(Wrong, usize, String)>,
    /// The greatest error of a stated distance, in the unit of [`STATED_TOLERANCE`].
    pub error: f64,
}

impl Verdict {
    /// The share of the neighbours that was found.
    pub fn recall(&self) -> f64 {
        if self.there == 0 { 1.0 } else { self.right as f64 / self.there as f64 }
    }
}

/// Each vector divided by its norm, without overflow; zeros stay.
fn unit_vectors(matrix: &[f64], width: usize) -> Vec<f64> {
    let unit = |row: &[f64]| {
        let greatest = row.iter().fold(0.0f64, |greatest, x| greatest.max(x.abs()));
        let scale = if greatest == 0.0 { 1.0 } else { greatest };
        let scaled: Vec<f64> = row.iter().map(|x| x / scale).collect();
        let norm = scaled.iter().map(|x| x * x).sum::<f64>().sqrt();
        scaled.into_iter().map(move |x| if norm == 0.0 { x } else { x / norm }).collect::<Vec<_>>()
    };
    matrix.chunks(width).flat_map(unit).collect()
}

impl Truth {
    pub fn of(metric: Metric, data: &Data) -> Truth {
        let width = data.rows.shape().dims()[1];
        let numbers = |array: &Array| match metric {
            Metric::Cosine => unit_vectors(&array.to_f64(), width),
            _ => array.to_f64(),
        };
        let norms = |matrix: &[f64]| -> Vec<f64> {
            matrix.chunks(width).map(|row| row.iter().map(|x| x * x).sum::<f64>().sqrt()).collect()
        };
        let (rows, queries) = (numbers(&data.rows), numbers(&data.queries));
        let (norms, query_norms) = (norms(&rows), norms(&queries));
        let best = Vec::new();
        let mut truth = Truth { metric, k: data.k, width, rows, queries, norms, query_norms, best };
        truth.best = (0..truth.query_norms.len()).map(|query| truth.best_of(query)).collect();
        truth
    }

    fn best_of(&self, query: usize) -> Vec<(usize, f64)> {
        let all = (0..self.norms.len()).map(|row| (row, self.distance(query, row)));
        let mut all: Vec<(usize, f64)> = all.filter(|(_, distance)| !distance.is_nan()).collect();
        let sign = if self.metric == Metric::L2 { 1.0 } else { -1.0 };
        let order = |a: &(usize, f64), b: &(usize, f64)| (a.1 * sign).total_cmp(&(b.1 * sign));
        if self.k < all.len() {
            all.select_nth_unstable_by(self.k - 1, order);
            all.truncate(self.k);
        }
        all.sort_unstable_by(order);
        all
    }

    pub fn distance(&self, query: usize, row: usize) -> f64 {
        let pairs = self.queries[query * self.width..][..self.width]
            .iter()
            .zip(&self.rows[row * self.width..][..self.width]);
        match self.metric {
            Metric::L2 => pairs.map(|(a, b)| (a - b) * (a - b)).sum(),
            _ => pairs.map(|(a, b)| a * b).sum(),
        }
    }

    /// Whether a row at a distance may stand for a neighbour of a query. `missing` is the greatest norm of the true
    /// neighbours that were not found: the tolerance is for the rounding of their products, too.
    fn is_right(&self, query: usize, row: usize, distance: f64, missing: f64) -> bool {
        let Some(&(_, kth)) = self.best[query].last() else { return false };
        if distance == kth {
            return true;
        }
        let finite = distance.is_finite() && kth.is_finite();
        // Sums of many products in f32 lose more.
        let slack = |unit: f64| if finite { TOLERANCE * unit } else { 0.0 };
        match self.metric {
            Metric::L2 => distance <= kth + slack(kth),
            Metric::InnerProduct => {
                distance >= kth - slack(self.query_norms[query] * self.norms[row].max(missing))
            }
            Metric::Cosine => distance >= kth - slack(1.0),
        }
    }

    /// The error of a stated distance, in the unit of [`STATED_TOLERANCE`]; infinite where it must not be.
    fn error(&self, query: usize, row: usize, stated: f64, distance: f64, dtype: DType) -> f64 {
        let is_zero = self.metric == Metric::L2 && distance == 0.0;
        // What f32 cannot state is infinite, or in the range of its subnormal numbers, which devices take for 0.
        let (largest, least) = match dtype {
            DType::F64 => (f64::MAX, f64::MIN_POSITIVE),
            _ => (f32::MAX.into(), f32::MIN_POSITIVE.into()),
        };
        let beyond = stated == f64::INFINITY.copysign(distance) && distance.abs() >= largest * (1.0 - 1e-5);
        if stated.is_nan() || is_zero && stated != 0.0 {
            return f64::INFINITY;
        }
        if beyond || (stated - distance).abs() <= least {
            return 0.0;
        }
        let unit = match self.metric {
            Metric::L2 => distance,
            Metric::InnerProduct => self.query_norms[query] * self.norms[row],
            Metric::Cosine => 1.0,
        };
        let error = (stated - distance).abs() / unit;
        if error.is_nan() { f64::INFINITY } else { error }
    }

    /// Judges what was found.
    pub fn judge(&self, found: &Neighbors) -> Verdict {
        let mut verdict = Verdict::default();
        let dims = [self.best.len(), self.k];
        let shapes = [found.indices.shape(), found.distances.shape()];
        if shapes.iter().any(|shape| shape.dims() != dims) {
            let text = format!("{} and {} for {dims:?}", shapes[0], shapes[1]);
            verdict.wrongs.push((Wrong::Shape, 0, text));
            return verdict;
        }
        let dtype = found.distances.shape().dtype();
        let (indices, distances) = (found.indices.to_vec::<i32>().unwrap(), found.distances.to_f64());
        for (query, (indices, distances)) in indices.chunks(self.k).zip(distances.chunks(self.k)).enumerate()
        {
            self.judge_query(query, indices, distances, dtype, &mut verdict);
        }
        verdict
    }

    fn judge_query(
        &self,
        query: usize,
        indices: &[i32],
        distances: &[f64],
        dtype: DType,
        verdict: &mut Verdict,
    ) {
        let best = &self.best[query];
        let mut wrong = |what, text| verdict.wrongs.push((what, query, text));
        let mut found: Vec<(usize, f64)> = Vec::new();
        for (place, (&index, &stated)) in indices.iter().zip(distances).enumerate() {
            match usize::try_from(index) {
                Err(_) if index == -1 && stated.is_nan() => continue,
                Err(_) => wrong(Wrong::Index, format!("place {place}: row {index} at {stated}")),
                Ok(row) if row >= self.norms.len() => {
                    wrong(Wrong::Index, format!("place {place}: row {row} of {}", self.norms.len()));
                }
                Ok(row) if found.iter().any(|(other, _)| *other == row) => {
                    wrong(Wrong::Twice, format!("place {place}: row {row} again"));
                }
                Ok(row) => {
                    let distance = self.distance(query, row);
                    if distance.is_nan() {
                        wrong(Wrong::Nan, format!("place {place}: row {row}, whose distance is NaN"));
                        continue;
                    }
                    found.push((row, distance));
                    let error = self.error(query, row, stated, distance, dtype);
                    verdict.error = verdict.error.max(error);
                    if error > STATED_TOLERANCE {
                        let text = format!("place {place}: row {row} is at {distance:e}, not {stated:e}");
                        wrong(Wrong::Distance, text);
                    }
                    let in_range = match self.metric {
                        Metric::L2 => stated >= 0.0,
                        Metric::InnerProduct => true,
                        Metric::Cosine => stated.abs() <= 1.0,
                    };
                    if !in_range && !stated.is_nan() {
                        wrong(
                            Wrong::Range,
                            format!("place {place}: row {row} is at {distance:e}, not {stated:e}"),
                        );
                    }
                }
            }
        }
        let worse = |pair: &[f64]| match self.metric {
            // NaNs stand behind all others.
            _ if pair[0].is_nan() => !pair[1].is_nan(),
            Metric::L2 => pair[0] > pair[1],
            _ => pair[0] < pair[1],
        };
        if let Some(place) = distances.windows(2).position(worse) {
            let text = format!("place {place}: {:e}, then {:e}", distances[place], distances[place + 1]);
            wrong(Wrong::Order, text);
        }
        let is_missing = |(row, _): &&(usize, f64)| found.iter().all(|(other, _)| other != row);
        let missing = best.iter().filter(is_missing).map(|(row, _)| self.norms[*row]).fold(0.0, f64::max);
        let is_right = |(row, distance): &&(usize, f64)| self.is_right(query, *row, *distance, missing);
        let right = found.iter().filter(is_right).count().min(best.len());
        verdict.there += best.len();
        verdict.right += right;
        if right < best.len() {
            verdict.misses.push(query);
        }
    }
}
