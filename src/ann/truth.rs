//! The true neighbours, computed on the host: what a search is measured against.
//!
//! Nothing here is shared with a search. Vectors are read as they are stored and converted to f64, scores come from plain
//! sums in f64, and L2 distances come from differences, which do not cancel.

use std::cmp::Ordering;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering as Memory};

use crate::ann::{Metric, Neighbors};
use crate::data::MappedArray;
use crate::{Array, DType, Error, Result};

/// How many bytes of f64 a thread makes of the database at once.
const BLOCK: usize = 1 << 18;

/// How many queries go through the database together, at most.
const QUERIES: usize = 256;

/// How many bytes of candidates a thread keeps, at most, where there are several queries.
const KEPT: usize = 1 << 25;

/// How many queries are scored side by side, in registers.
const PANEL: usize = 16;

/// The `k` true neighbours of each query: f64 distances, best first, and s32 rows; equal distances in the order of the
/// rows.
///
/// `queries` is `[q, d]` and `database` `[n, d]`, each of any dtype. Their elements are converted to f64, which is exact
/// but for s64 and u64 beyond 2^53. Distances are what the [`Metric`] states: L2 distances are squared sums of
/// differences, and cosines hold for vectors of any length, as each is first scaled by a power of two.
///
/// A row that has no distance, as one with a NaN, is nobody's neighbour, and a query with a NaN has none. Where there are
/// fewer than `k`, the rest are rows -1 at a distance of NaN.
///
/// It takes all threads of the machine, and memory for the results and for a block of the database a thread: of a mapped
/// file there is no copy.
///
/// # Errors
/// Where the operands are not matrices of equal width, or k is not from 1 to the database's rows.
///
/// ```
/// use xlann::Array;
/// use xlann::ann::{Metric, true_neighbors};
///
/// let database = Array::new([3, 2], &[1u8, 0, 0, 1, 4, 4])?;
/// let truth = true_neighbors(Metric::L2, &Array::new([1, 2], &[0f32, 3.0])?, database, 2)?;
/// assert_eq!(truth.indices, Array::new([1, 2], &[1, 0])?);
/// assert_eq!(truth.distances, Array::new([1, 2], &[4f64, 10.0])?);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn true_neighbors(
    metric: Metric,
    queries: &Array,
    database: impl Into<MappedArray>,
    k: usize,
) -> Result<Neighbors> {
    let (operator, queries, database) =
        ("true_neighbors", MappedArray::from(queries.clone()), database.into());
    let [count, rows] = check(operator, &queries, &database)?;
    if !(1..=rows).contains(&k) {
        let expected = format!("from 1 to the database's {rows} rows");
        return Err(Error::argument(operator, "k", expected, k));
    }
    let (mut distances, mut indices) = (Vec::new(), Vec::new());
    let together = (KEPT / size_of::<Candidate>() / (2 * k)).clamp(1, QUERIES);
    for start in (0..count).step_by(together) {
        let queries = Vectors::read(metric, &queries, start..count.min(start + together))?;
        for found in best(metric, &queries, &database, k)? {
            let sign = if metric == Metric::L2 { 1.0 } else { -1.0 };
            let missing = std::iter::repeat_n((f64::NAN, -1), k - found.len());
            for (key, index) in found.into_iter().chain(missing) {
                distances.push(sign * key);
                indices.push(index);
            }
        }
    }
    Ok(Neighbors {
        distances: Array::new([count, k], &distances)?,
        indices: Array::new([count, k], &indices)?,
    })
}

/// The true distance of each query to the database rows at `indices`: `[q, d]`, `[n, d]` and s32 `[q, k]` give f64
/// `[q, k]`.
///
/// They are those of [`true_neighbors`], to the last bit. It is NaN for the index -1, which stands for no neighbour.
///
/// # Errors
/// Where the operands are not matrices of equal width, or the indices not s32 from -1 to the database's last row, for each
/// query.
///
/// ```
/// use xlann::Array;
/// use xlann::ann::{Metric, true_distances};
///
/// let [query, database] = [Array::new([1, 2], &[3f32, 4.0])?, Array::new([2, 2], &[0f32, 1.0, 2.0, 0.0])?];
/// let cosines = true_distances(Metric::Cosine, &query, database, &Array::new([1, 2], &[1, 0])?)?;
/// assert_eq!(cosines, Array::new([1, 2], &[0.6, 0.8])?);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn true_distances(
    metric: Metric,
    queries: &Array,
    database: impl Into<MappedArray>,
    indices: &Array,
) -> Result<Array> {
    let mut distances = Vec::new();
    each_distance(
        "true_distances",
        metric,
        queries,
        &database.into(),
        [("indices", indices)],
        |_, found| {
            distances.extend(found[0].iter().map(|found| found.distance));
        },
    )?;
    Array::from_f64(indices.shape().with_dtype(DType::F64), &distances)
}

/// A row of the database as a query finds it.
pub(super) struct Found {
    /// -1 for none.
    pub(super) index: i32,
    /// NaN for none.
    pub(super) distance: f64,
    /// The product of the query's norm and the row's.
    pub(super) norms: f64,
}

/// Gives for each query in turn its number and, for each of some lists of rows, named for errors, what they are to it.
pub(super) fn each_distance<const N: usize>(
    operator: &'static str,
    metric: Metric,
    queries: &Array,
    database: &MappedArray,
    lists: [(&str, &Array); N],
    mut each: impl FnMut(usize, [Vec<Found>; N]),
) -> Result<()> {
    let queries = MappedArray::from(queries.clone());
    let [count, rows] = check(operator, &queries, database)?;
    for (argument, indices) in lists {
        let shape = indices.shape();
        if shape.dtype() != DType::S32 || shape.rank() != 2 || shape.dims()[0] != count {
            let expected = format!("s32 of dimensions [{count}, k]");
            return Err(Error::argument(operator, argument, expected, shape));
        }
        let known = |index: &&i32| (-1..rows as i64).contains(&i64::from(**index));
        if let Some(index) = indices.as_slice::<i32>()?.iter().find(|index| !known(index)) {
            let expected = format!("rows of the database, 0 to {}, or -1 for none", rows as i64 - 1);
            return Err(Error::argument(operator, argument, expected, index));
        }
    }
    for number in 0..count {
        let query = Vectors::read(metric, &queries, number..number + 1)?;
        let mut found = [const { Vec::new() }; N];
        for (found, (_, indices)) in found.iter_mut().zip(lists) {
            let k = indices.shape().dims()[1];
            for &index in &indices.as_slice::<i32>()?[number * k..][..k] {
                found.push(query.to_row(metric, database, index)?);
            }
        }
        each(number, found);
    }
    Ok(())
}

/// The number of queries and of rows, where they are matrices of equal width.
fn check(operator: &'static str, queries: &MappedArray, database: &MappedArray) -> Result<[usize; 2]> {
    let shape = database.shape();
    if shape.rank() != 2 || shape.dims()[1] == 0 || i32::try_from(shape.dims()[0]).is_err() {
        let expected = format!("a matrix of at most {} vectors", i32::MAX);
        return Err(Error::argument(operator, "database", expected, shape));
    }
    let (width, got) = (shape.dims()[1], queries.shape());
    if got.rank() != 2 || got.dims()[1] != width {
        let expected = format!("a matrix of width {width}, as the database {shape}");
        return Err(Error::argument(operator, "queries", expected, got));
    }
    Ok([got.dims()[0], shape.dims()[0]])
}

/// Vectors in f64, as a metric compares them.
struct Vectors {
    width: usize,
    /// Row by row; for cosines, each row is scaled by a power of two so that its largest magnitude is from 1 to 2.
    elements: Vec<f64>,
    /// The norms of the rows, as they are scaled; NaN for a row that is not finite.
    norms: Vec<f64>,
}

impl Vectors {
    fn read(metric: Metric, array: &MappedArray, rows: Range<usize>) -> Result<Vectors> {
        let (shape, width) = (array.shape(), array.shape().dims()[1]);
        let row = width * shape.dtype().size();
        let bytes = &array.as_bytes()[rows.start * row..rows.end * row];
        let mut elements = Array::from_bytes(shape.with_dims([rows.len(), width]), bytes)?.to_f64();
        let mut norms = Vec::new();
        if metric == Metric::Cosine {
            elements.chunks_mut(width).for_each(scale);
            norms.extend(elements.chunks(width).map(norm));
        }
        Ok(Vectors { width, elements, norms })
    }

    fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.elements.chunks(self.width)
    }

    /// What a row of the database is to the only query.
    fn to_row(&self, metric: Metric, database: &MappedArray, index: i32) -> Result<Found> {
        let Ok(row) = usize::try_from(index) else {
            return Ok(Found { index, distance: f64::NAN, norms: f64::NAN });
        };
        let row = Vectors::read(metric, database, row..row + 1)?;
        let pairs = self.elements.iter().zip(&row.elements);
        let sum = match metric {
            // From 0.0, where `sum` starts from -0.0.
            Metric::L2 => pairs.fold(0.0, |sum, (a, b)| sum + squared_difference(*a, *b)),
            Metric::InnerProduct | Metric::Cosine => pairs.fold(0.0, |sum, (a, b)| sum + product(*a, *b)),
        };
        let distance = match metric {
            Metric::L2 | Metric::InnerProduct => sum,
            Metric::Cosine => cosine(sum, self.norms[0], row.norms[0]),
        };
        Ok(Found { index, distance, norms: norm(&self.elements) * norm(&row.elements) })
    }
}

fn norm(row: &[f64]) -> f64 {
    row.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn squared_difference(a: f64, b: f64) -> f64 {
    (a - b) * (a - b)
}

fn product(a: f64, b: f64) -> f64 {
    a * b
}

/// Multiplies a row by the power of two that brings its largest magnitude into 1 to 2, so that no square over- or
/// underflows. A row that is not finite becomes NaN.
fn scale(row: &mut [f64]) {
    let largest = row.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    if row.iter().any(|x| !x.is_finite()) {
        row.fill(f64::NAN);
    } else if largest > 0.0 {
        let exponent = |x: f64| (x.to_bits() >> 52) as i32 - 1023;
        // A subnormal number has no exponent of its own.
        let exponent = if largest < f64::MIN_POSITIVE {
            exponent(largest * 2f64.powi(52)) - 52
        } else {
            exponent(largest)
        };
        // Two steps: 2^1074 is beyond f64.
        let first = -exponent / 2;
        let (first, second) = (2f64.powi(first), 2f64.powi(-exponent - first));
        row.iter_mut().for_each(|x| *x = *x * first * second);
    }
}

/// The cosine of vectors of this product and these norms; 0 where one is of zeros.
fn cosine(product: f64, a: f64, b: f64) -> f64 {
    let norms = a * b;
    if norms == 0.0 { 0.0 } else { (product / norms).clamp(-1.0, 1.0) }
}

/// A row by how good it is, the least the best, and its index.
type Candidate = (f64, i32);

fn best_first(a: &Candidate, b: &Candidate) -> Ordering {
    // No key is NaN.
    a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1))
}

/// The best rows for one query, of those that have been offered in the order of their indices.
#[derive(Clone)]
struct Best {
    k: usize,
    /// Up to twice as many as are wanted.
    kept: Vec<Candidate>,
    /// No key that is not below it is among the best.
    bound: f64,
}

impl Best {
    fn new(k: usize) -> Best {
        Best { k, kept: Vec::new(), bound: f64::INFINITY }
    }

    #[inline]
    fn offer(&mut self, key: f64, index: usize) {
        if key < self.bound || self.kept.len() < self.k && !key.is_nan() {
            self.kept.push((key, index as i32));
            if self.kept.len() == 2 * self.k {
                let (_, last, _) = self.kept.select_nth_unstable_by(self.k - 1, best_first);
                self.bound = last.0;
                self.kept.truncate(self.k);
            }
        }
    }
}

/// The best rows for each query, best first.
fn best(metric: Metric, queries: &Vectors, database: &MappedArray, k: usize) -> Result<Vec<Vec<Candidate>>> {
    let (rows, width) = (database.shape().dims()[0], queries.width);
    let size = (BLOCK / size_of::<f64>() / width).clamp(1, rows);
    let blocks = rows.div_ceil(size);
    let panels = panels(queries);
    let next = AtomicUsize::new(0);
    let search = || -> Result<Vec<Best>> {
        let mut best = vec![Best::new(k); queries.rows().count()];
        loop {
            let block = next.fetch_add(1, Memory::Relaxed);
            if block >= blocks {
                return Ok(best);
            }
            let first = block * size;
            let vectors = Vectors::read(metric, database, first..rows.min(first + size))?;
            for (number, (panel, best)) in panels.iter().zip(best.chunks_mut(PANEL)).enumerate() {
                for (index, row) in vectors.rows().enumerate() {
                    let sums = match metric {
                        Metric::L2 => sums(row, panel, squared_difference),
                        Metric::InnerProduct | Metric::Cosine => sums(row, panel, product),
                    };
                    for (lane, best) in best.iter_mut().enumerate() {
                        let key = match metric {
                            Metric::L2 => sums[lane],
                            Metric::InnerProduct => -sums[lane],
                            Metric::Cosine => -cosine(
                                sums[lane],
                                queries.norms[number * PANEL + lane],
                                vectors.norms[index],
                            ),
                        };
                        best.offer(key, first + index);
                    }
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(blocks);
    let parts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<Best>>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let merge = |query: usize| {
        let mut all: Vec<Candidate> =
            parts.iter().flat_map(|part| part[query].kept.iter().copied()).collect();
        all.sort_unstable_by(best_first);
        all.truncate(k);
        all
    };
    Ok((0..queries.rows().count()).map(merge).collect())
}

/// The queries in groups, in which the elements of a dimension stand side by side; the last is filled up with zeros.
fn panels(queries: &Vectors) -> Vec<Vec<[f64; PANEL]>> {
    let interleave = |group: &[f64]| {
        let mut panel = vec![[0.0; PANEL]; queries.width];
        for (lane, query) in group.chunks(queries.width).enumerate() {
            for (elements, x) in panel.iter_mut().zip(query) {
                elements[lane] = *x;
            }
        }
        panel
    };
    queries.elements.chunks(PANEL * queries.width).map(interleave).collect()
}

/// The sum over the dimensions of a term of the row's element and each query's.
#[inline]
fn sums(row: &[f64], panel: &[[f64; PANEL]], term: impl Fn(f64, f64) -> f64) -> [f64; PANEL] {
    let mut sums = [0.0; PANEL];
    for (x, elements) in row.iter().zip(panel) {
        for (sum, y) in sums.iter_mut().zip(elements) {
            *sum += term(*y, *x);
        }
    }
    sums
}

#[cfg(test)]
mod tests;
