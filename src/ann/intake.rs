//! What databases and queries need before they are searched, by what is in them: nothing becomes infinite, or another number,
//! on the way to the device.

use crate::ann::function::score_dtype;
use crate::ann::metric::Metric;
use crate::ann::options::SearchOptions;
use crate::data::MappedArray;
use crate::lower::Capabilities;
use crate::{Array, DType, Error, Result, Shape};

/// Rows from which the centre is taken.
const SAMPLE: usize = 255;

/// A database as it is searched.
pub(super) struct Intake {
    /// As it was given, or rows that were scaled.
    pub(super) database: MappedArray,
    /// The dtype that it is searched in.
    pub(super) dtype: DType,
    /// The power of two that rows were divided by.
    pub(super) exponent: i32,
}

/// What is known of numbers.
#[derive(Clone, Copy, Default)]
struct Extent {
    /// The largest finite magnitude, and a row that has it.
    largest: f64,
    row: usize,
    /// The first row of which f32 does not hold all.
    not_f32: Option<usize>,
    /// Whether there is a row whose largest magnitude is finite, not 0, and so large or small that squares may leave the range.
    extreme: bool,
}

/// The exponents between which the largest magnitude of a vector is safe: so are its squares and their sums.
pub(super) fn safe_exponent(dtype: DType) -> i32 {
    if dtype == DType::F64 { 400 } else { 40 }
}

impl Extent {
    fn of(first: usize, rows: impl Iterator<Item = impl Iterator<Item = f64>>, safe: i32) -> Extent {
        let mut extent = Extent::default();
        for (place, row) in rows.enumerate() {
            let (mut largest, mut is_f32) = (0f64, true);
            for value in row {
                let magnitude = value.abs();
                if magnitude > largest && magnitude < f64::INFINITY {
                    largest = magnitude;
                }
                is_f32 &= f64::from(value as f32) == value || value.is_nan();
            }
            if largest > extent.largest {
                (extent.largest, extent.row) = (largest, first + place);
            }
            if !is_f32 && extent.not_f32.is_none() {
                extent.not_f32 = Some(first + place);
            }
            extent.extreme |= largest > 0.0 && exponent(largest).abs() > safe;
        }
        extent
    }

    fn join(self, later: Extent) -> Extent {
        let largest = if later.largest > self.largest { later } else { self };
        Extent { not_f32: self.not_f32.or(later.not_f32), extreme: self.extreme || later.extreme, ..largest }
    }
}

/// The exponent of a power of two that is at most the number and more than half of it.
fn exponent(number: f64) -> i32 {
    libm::ilogb(number)
}

/// The numbers of rows, as f64; integers beyond 2^53 are rounded.
fn numbers(shape: &Shape, bytes: &[u8]) -> Result<Vec<f64>> {
    let row = shape.dims()[1] * shape.dtype().size();
    Ok(Array::from_bytes(shape.with_dims([bytes.len() / row, shape.dims()[1]]), bytes)?.to_f64())
}

/// The extent of a matrix, by several threads.
fn extent(matrix: &MappedArray, safe: i32) -> Result<Extent> {
    let shape = matrix.shape();
    let (rows, width) = (shape.dims()[0], shape.dims()[1]);
    let row = width * shape.dtype().size();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(rows).max(1);
    let part = rows.div_ceil(threads);
    let of_part = |first: usize, bytes: &[u8]| -> Result<Extent> {
        if shape.dtype() == DType::F32 {
            let float = |x: &[u8]| f64::from(f32::from_le_bytes([x[0], x[1], x[2], x[3]]));
            let rows = bytes.chunks_exact(row).map(|row| row.chunks_exact(4).map(float));
            return Ok(Extent::of(first, rows, safe));
        }
        let mut extent = Extent::default();
        // So many rows at once that their numbers stay in the cache.
        let count = (1 << 16) / width.max(1) + 1;
        for (at, bytes) in bytes.chunks(count * row).enumerate() {
            let numbers = numbers(shape, bytes)?;
            let rows = numbers.chunks(width).map(|row| row.iter().copied());
            extent = extent.join(Extent::of(first + at * count, rows, safe));
        }
        Ok(extent)
    };
    let bytes = matrix.as_bytes();
    std::thread::scope(|scope| {
        let of_part = &of_part;
        let parts = bytes.chunks(part * row).enumerate();
        let parts: Vec<_> = parts.map(|(at, bytes)| scope.spawn(move || of_part(at * part, bytes))).collect();
        parts.into_iter().try_fold(Extent::default(), |extent, part| {
            let part = part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(extent.join(part))
        })
    })
}

fn refused(argument: &str, expected: String, got: String) -> Error {
    Error::argument("search", argument, expected, got)
}

/// The largest integer of which f64 holds all that are smaller.
const LARGEST_INTEGER: f64 = (1u64 << 53) as f64;

impl Intake {
    /// Looks at a database, which has rows.
    pub(super) fn new(database: MappedArray, metric: Metric, target: &Capabilities) -> Result<Intake> {
        let given = database.shape().dtype();
        let mut dtype = target.search_dtype(given);
        // Of L2, the search itself finds out what is beyond its range, but for subnormal numbers, which compiled programs
        // may take for 0.
        let is_half = matches!(given, DType::F16 | DType::BF16);
        let converts = dtype != given && !is_half;
        let looks = metric != Metric::L2 || converts || dtype == DType::F64 || is_tiny(&database)?;
        if !looks {
            return Ok(Intake { database, dtype, exponent: 0 });
        }
        let safe = safe_exponent(dtype);
        let extent = extent(&database, safe)?;
        let has_f64 = target.searched.contains(&DType::F64);
        let row = extent.not_f32.unwrap_or(extent.row);
        if dtype == DType::F32 && extent.not_f32.is_some() && given != dtype {
            if given == DType::F64 || !has_f64 {
                let expected = format!(
                    "of numbers that f32 holds, as {} searches no {given} (convert them to have them rounded)",
                    target.target
                );
                return Err(refused("database", expected, format!("others in row {row}")));
            }
            dtype = DType::F64;
        }
        // Larger ones were rounded as they were looked at.
        if !given.is_float() && extent.largest >= LARGEST_INTEGER {
            let expected = "of integers below 2^53, which f64 holds".to_owned();
            return Err(refused("database", expected, format!("{} in row {}", extent.largest, extent.row)));
        }
        let stays = match metric {
            Metric::L2 if dtype == DType::F64 => {
                extent.largest == 0.0 || exponent(extent.largest).abs() <= safe
            }
            Metric::L2 => extent.largest == 0.0 || exponent(extent.largest) >= TINY,
            Metric::InnerProduct => extent.largest == 0.0 || exponent(extent.largest).abs() <= safe,
            Metric::Cosine => !extent.extreme,
        };
        if stays {
            return Ok(Intake { database, dtype, exponent: 0 });
        }
        // No further than it has to be, so that small rows are left as many digits as there are.
        let whole = match (metric, exponent(extent.largest)) {
            (Metric::Cosine, _) => 0,
            (Metric::InnerProduct, largest) if largest > 0 => largest - safe,
            (_, largest) => largest,
        };
        let scaled = scaled(&database, score_dtype(dtype), metric, whole)?;
        Ok(Intake { dtype: scaled.shape().dtype(), database: scaled.into(), exponent: whole })
    }

    /// The centre of an L2 search of candidates, where it is asked for or loses less than without: where most rows are further
    /// from the origin than from each other.
    pub(super) fn centre(&self, asked_for: bool) -> Result<Option<Vec<f64>>> {
        let (sample, width) = (sample(&self.database)?, self.database.shape().dims()[1]);
        let column = |at: usize| median(sample.iter().skip(at).step_by(width).copied());
        // As it reaches the device.
        let single = |x: f64| if self.dtype == DType::F64 { x } else { f64::from(x as f32) };
        let centre: Vec<f64> = (0..width).map(|at| single(column(at))).collect();
        let norms = |centre: &dyn Fn(usize) -> f64| {
            let norm = |row: &[f64]| row.iter().enumerate().map(|(at, x)| (x - centre(at)).powi(2)).sum();
            median(sample.chunks(width).map(norm))
        };
        let pays = norms(&|_| 0.0) > 16.0 * norms(&|at| centre[at]);
        Ok((asked_for || pays).then_some(centre))
    }
}

/// Some rows, evenly spread.
fn sample(database: &MappedArray) -> Result<Vec<f64>> {
    let shape = database.shape();
    let (rows, width) = (shape.dims()[0], shape.dims()[1]);
    let (row, count) = (width * shape.dtype().size(), rows.min(SAMPLE));
    let mut sample = Vec::with_capacity(count * width);
    for at in 0..count {
        let start = (at * (rows / count) + at * (rows % count) / count) * row;
        sample.extend(numbers(shape, &database.as_bytes()[start..start + row])?);
    }
    Ok(sample)
}

/// The middle one of numbers that are finite; 0 where there is none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    let middle = values.len() / 2;
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(middle, f64::total_cmp).1 }
}

/// Below this exponent of the largest number, an L2 database is scaled.
pub(super) const TINY: i32 = -80;

/// Whether most of the numbers are so small that squares of f32, or they themselves, may be subnormal.
fn is_tiny(database: &MappedArray) -> Result<bool> {
    let magnitudes = sample(database)?.into_iter().map(f64::abs).filter(|x| *x > 0.0);
    let middle = median(magnitudes);
    Ok(middle > 0.0 && exponent(middle) < TINY && database.shape().dtype() != DType::F64)
}

/// Rows divided by a power of two: all by that of the exponent or, for cosines, each by its own.
fn scaled(database: &MappedArray, dtype: DType, metric: Metric, whole: i32) -> Result<Array> {
    let shape = database.shape();
    let width = shape.dims()[1];
    let row = width * shape.dtype().size();
    let (bytes, size) = (database.as_bytes(), dtype.size());
    Array::try_filled(shape.with_dtype(dtype), |target| {
        for (target, bytes) in target.chunks_exact_mut(width * size).zip(bytes.chunks_exact(row)) {
            let mut row = numbers(shape, bytes)?;
            let by = if metric == Metric::Cosine { own_exponent(&row) } else { whole };
            row.iter_mut().for_each(|x| *x = libm::ldexp(*x, -by));
            target.copy_from_slice(Array::from_f64(Shape::new(dtype, [width]), &row)?.as_bytes());
        }
        Ok(())
    })
}

/// That of a vector's largest finite magnitude.
fn own_exponent(vector: &[f64]) -> i32 {
    let magnitudes = vector.iter().map(|x| x.abs()).filter(|x| x.is_finite());
    let largest = magnitudes.fold(0.0, f64::max);
    if largest > 0.0 { exponent(largest) } else { 0 }
}

/// Some rows of a matrix.
pub(super) fn rows_of(matrix: &Array, rows: &[usize]) -> Result<Array> {
    let shape = matrix.shape();
    let row = shape.dims()[1] * shape.dtype().size();
    let bytes = rows.iter().flat_map(|at| &matrix.as_bytes()[at * row..][..row]);
    Array::from_bytes(shape.with_dims([rows.len(), shape.dims()[1]]), &bytes.copied().collect::<Vec<u8>>())
}

/// Divides a vector by its norm, but one of zeros, or of what has none.
fn normalise(vector: &mut [f64]) {
    let by = own_exponent(vector);
    vector.iter_mut().for_each(|x| *x = libm::ldexp(*x, -by));
    let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    if norm > 0.0 && norm.is_finite() {
        vector.iter_mut().for_each(|x| *x /= norm);
    }
}

/// Queries as they are searched.
pub(super) struct Queries {
    /// `[q, d]`, those that can have neighbours: none with a NaN or, for cosines, with what is infinite.
    pub(super) array: Array,
    /// Which of the caller's queries each is.
    pub(super) given: Vec<usize>,
    /// The power of two that each of the caller's was divided by, where one was.
    exponents: Option<Vec<i32>>,
}

impl Queries {
    /// Queries for a database that is searched in a dtype, after it was divided by a power of two.
    ///
    /// # Errors
    /// Where there is a number that the search would have to take for another one.
    pub(super) fn new(
        queries: &Array,
        metric: Metric,
        options: &SearchOptions,
        searched: DType,
        scaled: i32,
        target: &Capabilities,
    ) -> Result<Queries> {
        let (shape, given) = (queries.shape(), queries.shape().dtype());
        let (width, scored) = (shape.dims()[1], score_dtype(searched));
        let mut numbers = queries.to_f64();
        let safe = safe_exponent(scored);
        if metric == Metric::L2 && scaled != 0 {
            numbers.iter_mut().for_each(|x| *x = libm::ldexp(*x, -scaled));
        }
        let extent = Extent::of(0, numbers.chunks(width.max(1)).map(|row| row.iter().copied()), safe);
        if !given.is_float() && extent.largest >= LARGEST_INTEGER {
            let expected = "of integers below 2^53, which f64 holds".to_owned();
            return Err(refused("queries", expected, format!("{} in row {}", extent.largest, extent.row)));
        }
        // With what is infinite there is no angle.
        let is_none = |x: &f64| x.is_nan() || (metric == Metric::Cosine && x.is_infinite());
        let none: Vec<bool> = numbers.chunks(width.max(1)).map(|query| query.iter().any(is_none)).collect();
        if let (false, Some(row), DType::F32) = (given.is_float(), extent.not_f32, scored)
            && metric != Metric::L2
        {
            let expected = format!(
                "of integers that f32 holds, as the database is searched in {searched} (or of floats)"
            );
            return Err(refused("queries", expected, format!("others in row {row}")));
        }
        let mut exponents = None;
        if metric == Metric::Cosine {
            numbers.chunks_mut(width.max(1)).for_each(normalise);
        } else if extent.extreme && metric != Metric::L2 {
            let scale = |query: &mut [f64]| {
                let by = own_exponent(query);
                let by = if by.abs() > safe { by } else { 0 };
                query.iter_mut().for_each(|x| *x = libm::ldexp(*x, -by));
                by
            };
            exponents = Some(numbers.chunks_mut(width.max(1)).map(scale).collect());
        }
        let changed = match metric {
            Metric::InnerProduct => exponents.is_some(),
            Metric::L2 => scaled != 0,
            Metric::Cosine => true,
        };
        let dtype = match (scored, extent.not_f32) {
            (DType::F32, Some(row)) if metric == Metric::L2 => {
                if !options.refines(metric) || target.wide != DType::F64 {
                    let expected = "of numbers that f32 holds (convert them to have them rounded)".to_owned();
                    return Err(refused("queries", expected, format!("others in row {row}")));
                }
                DType::F64
            }
            // What is rounded as the rows are multiplies faster.
            _ if given == searched && !changed => given,
            (scored, _) => scored,
        };
        let array = match given == dtype && !changed {
            true => queries.clone(),
            false => Array::from_f64(shape.with_dtype(dtype), &numbers)?,
        };
        // A batch that others fill up would prove the recall of those.
        let given: Vec<usize> = (0..none.len()).filter(|&query| !none[query]).collect();
        let array = if given.len() == none.len() { array } else { rows_of(&array, &given)? };
        Ok(Queries { array, exponents, given })
    }

    /// The dtypes that queries may have as they are searched.
    pub(super) fn dtypes(
        metric: Metric,
        options: &SearchOptions,
        searched: DType,
        target: &Capabilities,
    ) -> Vec<DType> {
        let scored = score_dtype(searched);
        let wide = metric == Metric::L2 && options.refines(metric) && target.wide == DType::F64;
        let others =
            [(searched, metric != Metric::Cosine), (DType::F64, wide)].into_iter().filter(|(_, may)| *may);
        let others = others.map(|(dtype, _)| dtype).filter(|dtype| *dtype != scored);
        std::iter::once(scored).chain(others).collect()
    }

    /// What a distance of a query is to be multiplied by, the power of two of a database's inner products taken in.
    pub(super) fn exponent(&self, query: usize, metric: Metric, database: i32) -> i32 {
        match metric {
            Metric::InnerProduct => {
                database + self.exponents.as_ref().map_or(0, |exponents| exponents[query])
            }
            Metric::L2 => 2 * database,
            Metric::Cosine => 0,
        }
    }
}
