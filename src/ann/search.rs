//! Searching a database on a device or several.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ann::function::{Request, check_options, prepared_function, score_dtype, widened};
use crate::ann::intake::{Intake, Queries, rows_of};
use crate::ann::metric::{Metric, unit_or_none};
use crate::ann::once::OncePerKey;
use crate::ann::options::{Aggregation, SearchOptions};
use crate::ann::order::Order;
use crate::ann::sharding::Sharding;
use crate::data::MappedArray;
use crate::graph::{Function, Tensor};
use crate::lower::{self, Choice, Form, Precision, recall_of_part};
use crate::pjrt::{Buffer, Executable, HostMemory};
use crate::{Array, DType, Error, Result, Session, Shape};

/// The neighbours of each query, best first.
///
/// ```
/// use xlann::Array;
/// use xlann::ann::Neighbors;
///
/// let found = Neighbors {
///     distances: Array::new([1, 2], &[0.5f32, 2.0])?,
///     indices: Array::new([1, 2], &[7, 3])?,
/// };
/// let nearest = found.indices.as_slice::<i32>()?[0];
/// assert_eq!(nearest, 7);
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbors {
    /// Distances, `[q, k]`, infinite or 0 where they are beyond the range of their dtype, in the unit and sign that the [`Metric`] states; f64 where the database is searched
    /// in it, else f32.
    pub distances: Array,
    /// The database rows, s32 `[q, k]`; -1, at the distance NaN, where there is no neighbour.
    pub indices: Array,
}

/// A database on a device or several, ready to be searched by one metric.
///
/// Exact forms find the neighbours that a computation in f64 finds. For L2, that is by true differences, but for rows whose
/// squared distances differ by less than 10^-6 of them: few candidates are found by half distances and scored anew, and a
/// bound on what was lost proves that no other row is nearer. Queries for which it does not are searched again by differences,
/// which takes about five times as long. For inner products and cosines, sums in f32 decide: of rows whose scores differ by
/// less than [`TOLERANCE`](crate::ann::recall::TOLERANCE) says, either may be found.
///
/// ```no_run
/// use xlann::ann::{Metric, SearchOptions, Searcher};
/// use xlann::{Array, Session};
///
/// let database = Array::new([3, 2], &[1f32, 0.0, 0.0, 1.0, 2.0, 2.0])?;
/// let searcher = Searcher::new(&Session::cpu()?, database, Metric::L2, SearchOptions::new(2))?;
/// let found = searcher.search(&Array::new([1, 2], &[0f32, 2.0])?)?;
/// assert_eq!(found.indices.to_vec::<i32>()?, [1, 2]);
/// assert_eq!(found.distances.to_vec::<f32>()?, [1.0, 4.0]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub struct Searcher {
    session: Session,
    metric: Metric,
    /// By which rows are searched: cosines at a precision below f32 as inner products of rows of norm 1.
    searched_by: Metric,
    options: SearchOptions,
    /// As it is searched.
    database: Shape,
    sharding: Sharding,
    /// In which rows are stored.
    order: Order,
    /// The power of two that rows were divided by.
    exponent: i32,
    /// By device.
    shares: Vec<Share>,
    batches: OncePerKey<BatchKey, Batch>,
}

/// What a device has of the database.
struct Share {
    /// Its rows, then those that all have, if there are any.
    rows: Vec<Buffer>,
    /// What is prepared of its rows.
    prepared: Vec<Buffer>,
    centre: Option<Buffer>,
}

impl Share {
    /// What a search takes beside its queries; one by differences takes rows alone.
    fn arguments(&self, by_differences: bool) -> impl Iterator<Item = &Buffer> {
        let prepared = if by_differences { &[] } else { &self.prepared[..] };
        let centre = self.centre.iter().filter(move |_| !by_differences);
        let (own, rest) = self.rows.split_at(1);
        own.iter().chain(prepared).chain(rest).chain(centre)
    }
}

/// What a batch is compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct BatchKey {
    queries: usize,
    query_dtype: DType,
    by_differences: bool,
    /// The bits of the recall target.
    recall_target: u32,
}

/// The search of a fixed number of queries.
struct Batch {
    executable: Executable,
    choices: Vec<Choice>,
    compiled_in: Duration,
}

impl Searcher {
    /// Puts a database `[n, d]` on the session's first device.
    ///
    /// f32 and f64 databases are searched in their dtype, and others where the target's
    /// [capabilities](crate::lower::Capabilities::searched) say so; else they are converted to f32 on the device, or to f64
    /// where they have integers beyond 2^24. A mapped file is read in place where the device is the CPU, but for inner
    /// products of a database whose largest number is beyond 2^40 or below 2^-40, for cosines of one with such a row, and for
    /// L2 of one of numbers below 2^-80: these are scaled by a power of two, in memory. For L2 far from the origin there is a
    /// copy on the device, too ([`SearchOptions::centred`]), and for cosines at a precision below f32
    /// ([`SearchOptions::precision`]). Norms are computed once, on the device.
    ///
    /// # Errors
    /// Where the database is no matrix with at least one row and column and at most 2^31 - 1 rows, k is 0 or
    /// more than its rows, or another option is out of its range; where it has integers of 2^53 and beyond, or numbers that
    /// the target has no dtype for; where the device is known to have no room for the database, which is then not uploaded;
    /// and those of the device.
    ///
    /// ```
    /// use xlann::ann::{Metric, SearchOptions, Searcher};
    /// use xlann::{Array, DType, Session};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let database = Array::new([2, 2], &[0u8, 1, 2, 3])?;
    ///     let searcher = Searcher::new(&session, database, Metric::L2, SearchOptions::new(1))?;
    ///     assert_eq!(searcher.database_shape().dtype(), DType::F32);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn new(
        session: &Session,
        database: impl Into<MappedArray>,
        metric: Metric,
        options: SearchOptions,
    ) -> Result<Searcher> {
        Searcher::over(session, 1, database, metric, options)
    }

    /// As [`new`](Searcher::new), over the session's first `devices` devices, each of which holds and searches a
    /// share of the rows, which need not be a multiple of the devices.
    ///
    /// The rows are dealt out to the devices in turn, for which they are copied, so that the recall target holds for
    /// a database whose neighbours are stored next to each other too.
    ///
    /// # Errors
    /// As [`new`](Searcher::new), and where there are fewer devices or rows.
    ///
    /// ```
    /// use xlann::ann::{Metric, SearchOptions, Searcher};
    /// use xlann::{Array, target};
    ///
    /// if let Ok(session) = target::cpu::PLATFORM.session_with_devices(2) {
    ///     let database = Array::new([3, 2], &[1f32, 0.0, 0.0, 1.0, 2.0, 2.0])?;
    ///     let searcher = Searcher::over(&session, 2, database, Metric::L2, SearchOptions::new(2))?;
    ///     let found = searcher.search(&Array::new([1, 2], &[0f32, 2.0])?)?;
    ///     assert_eq!(found.indices, Array::new([1, 2], &[1, 2])?);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn over(
        session: &Session,
        devices: usize,
        database: impl Into<MappedArray>,
        metric: Metric,
        options: SearchOptions,
    ) -> Result<Searcher> {
        let capabilities = session.platform().capabilities;
        let database = database.into();
        let given = database.shape().clone();
        check_options(&given, &options)?;
        let sharding = Sharding::new(&given, devices)?;
        let there = session.client().devices();
        if devices > there.len() {
            let expected = format!("at most {}, as many as the session has", there.len());
            return Err(Error::argument("search", "devices", expected, devices));
        }
        let shape = given.with_dtype(capabilities.search_dtype(given.dtype()));
        let searched_by = options.searched_by(capabilities, metric, &shape)?;
        let mut searcher = Searcher {
            session: session.clone(),
            metric,
            searched_by,
            options: options.resolved(capabilities, searched_by, &shape)?,
            sharding,
            order: Order::of(capabilities, &options, given.dims()[0]),
            exponent: 0,
            shares: Vec::new(),
            batches: OncePerKey::default(),
            database: shape,
        };
        // Before it is read, and again when it is known what it needs.
        searcher.check_room(&given)?;
        let intake = Intake::new(database, metric, capabilities)?;
        let given = intake.database.shape();
        let shape = given.with_dtype(intake.dtype);
        let centre = match options.may_centre(capabilities, metric, shape.dtype()) {
            true => intake.centre(options.centred == Some(true))?,
            false => None,
        };
        let searched_by = options.searched_by(capabilities, metric, &shape)?;
        let options = options.resolved(capabilities, searched_by, &shape)?;
        searcher.searched_by = searched_by;
        searcher.options = SearchOptions { centred: Some(centre.is_some()), ..options };
        searcher.exponent = intake.exponent;
        searcher.database = shape;
        searcher.check_room(given)?;
        let stored = searcher.options.stored(searched_by, &searcher.database);
        for (index, device) in there.iter().take(devices).enumerate() {
            let rows = match devices {
                1 if !searcher.order.shuffles() => vec![intake.database.clone()],
                _ => {
                    let rows = sharding.deal(&intake.database, searcher.order, index)?;
                    rows.into_iter().map(MappedArray::from).collect()
                }
            };
            let upload = |rows: MappedArray| {
                let (shape, memory): (_, HostMemory) = (rows.shape().clone(), Arc::new(rows));
                session.client().buffer_from_host(shape, memory, device)
            };
            let rows = rows.into_iter().map(upload).collect::<Result<_>>()?;
            let centre = centre.as_ref().map(|centre| {
                let mut centre = centre.clone();
                centre.resize(stored.dims()[1], 0.0);
                let centre =
                    Array::from_f64(Shape::new(score_dtype(stored.dtype()), [centre.len()]), &centre)?;
                session.client().buffer_from_array(&centre, device)
            });
            searcher.shares.push(Share { rows, prepared: Vec::new(), centre: centre.transpose()? });
        }
        if *given != stored || searcher.normalises() {
            let convert = Function::trace("convert", &sharding.shapes(given), |x| {
                let convert = |rows: &Tensor| {
                    let rows = rows.convert(stored.dtype())?;
                    let rows = if searcher.normalises() { unit_or_none(&rows)? } else { rows };
                    widened(&rows, stored.dims()[1])
                };
                x.iter().map(convert).collect::<Result<Vec<Tensor>>>()
            })?;
            let converted = searcher.run(&convert, |share| share.rows.iter().collect())?;
            for (share, rows) in searcher.shares.iter_mut().zip(converted) {
                share.rows = rows;
            }
        }
        if let Some(prepared) = searcher.prepared_function()? {
            let prepared =
                searcher.run(&prepared, |share| share.rows[..1].iter().chain(&share.centre).collect())?;
            for (share, prepared) in searcher.shares.iter_mut().zip(prepared) {
                share.prepared = prepared;
            }
        }
        Ok(searcher)
    }

    /// The database's shape on the device, or on all of several together.
    pub fn database_shape(&self) -> &Shape {
        &self.database
    }

    /// The number of devices.
    pub fn devices(&self) -> usize {
        self.sharding.devices
    }

    /// The metric.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The options.
    pub fn options(&self) -> &SearchOptions {
        &self.options
    }

    /// Compiles the search of `queries` queries where that has not been done, and gives the form that each of
    /// its approximate top-k takes, and how long the compilation took.
    ///
    /// Searches of sizes that are compiled go on meanwhile. Callers that need the same size wait for one compilation.
    ///
    /// # Errors
    /// Where the form that the options ask for is not the target's, or the plugin does not compile it.
    ///
    /// ```
    /// use xlann::{Array, Session};
    /// use xlann::ann::{Metric, SearchOptions, Searcher};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let database = Array::new([100, 2], &[0.5f32; 200])?;
    ///     let searcher = Searcher::new(&session, database, Metric::L2, SearchOptions::new(2))?;
    ///     let (choices, compiled_in) = searcher.prepare(128)?;
    ///     println!("{}, compiled in {compiled_in:?}", choices[0]);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn prepare(&self, queries: usize) -> Result<(Vec<Choice>, Duration)> {
        let batch = self.batch(queries, score_dtype(self.database.dtype()), false)?;
        Ok((batch.choices.clone(), batch.compiled_in))
    }

    /// Compiles all that searches of 1 to `queries` queries take, so that none of them has to wait for a compilation.
    /// Gives the sizes of the batches that these queries are filled up to, ascending, and how long the compilations took
    /// in all.
    ///
    /// There are few: the powers of two up to [`SearchOptions::batch`], and that itself. Some sizes take several programs:
    /// for each dtype that queries may be searched in (halves as they are; for L2, f64 that f32 does not hold), for batches
    /// that are filled up at a precision below f32, and for searches by differences where the form is no kernel.
    ///
    /// # Errors
    /// As [`prepare`](Searcher::prepare). What was compiled before the failure is kept.
    ///
    /// ```
    /// use xlann::{Array, Session};
    /// use xlann::ann::{Metric, SearchOptions, Searcher};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let database = Array::new([100, 2], &[0.5f32; 200])?;
    ///     let options = SearchOptions { batch: Some(6), ..SearchOptions::new(2) };
    ///     let searcher = Searcher::new(&session, database, Metric::L2, options)?;
    ///     let (sizes, compiled_in) = searcher.prepare_up_to(1000)?;
    ///     assert_eq!(sizes, [1, 2, 4, 6]);
    ///     println!("compiled in {compiled_in:?}");
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn prepare_up_to(&self, queries: usize) -> Result<(Vec<usize>, Duration)> {
        let largest = queries.min(self.options.batch.unwrap_or(usize::MAX));
        let (mut sizes, mut compiled_in) = (Vec::new(), Duration::ZERO);
        let mut covered = 0;
        let capabilities = self.session.platform().capabilities;
        let dtypes = Queries::dtypes(self.metric, &self.options, self.database.dtype(), capabilities);
        // A kernel does so by itself.
        let searches_again = self.options.refines(self.metric);
        while covered < largest {
            // Of the counts that a size answers, all but the last fill only a part of it.
            let first = covered + 1;
            let size = self.batch_size(first);
            let last = size.min(largest);
            let mut batches: Vec<Arc<Batch>> = Vec::new();
            for &dtype in &dtypes {
                for queries in [first, last] {
                    let batch = self.batch(queries, dtype, false)?;
                    if searches_again && batch.choices.iter().any(|choice| choice.form != Form::Kernel) {
                        batches.push(self.batch(queries, dtype, true)?);
                    }
                    batches.push(batch);
                }
            }
            batches.sort_unstable_by_key(Arc::as_ptr);
            batches.dedup_by(|a, b| Arc::ptr_eq(a, b));
            compiled_in += batches.iter().map(|batch| batch.compiled_in).sum::<Duration>();
            sizes.push(size);
            covered = last;
        }
        Ok((sizes, compiled_in))
    }

    /// The neighbours of each of the queries `[q, d]`.
    ///
    /// Queries are cut into batches; the last is filled up with its first query to a power of two, so that few programs are
    /// compiled. A query with a NaN has no neighbours, and a row with a NaN is nobody's: where there are fewer than k others,
    /// the last places have the index -1 and the distance NaN.
    ///
    /// Queries may be of any dtype. For inner products and cosines, f64 queries of an f32 database are rounded to f32, after
    /// the largest and smallest were scaled by powers of two; for L2 they are taken as they are.
    ///
    /// # Errors
    /// Where the queries are no matrix of the database's width, or have numbers that the search would have to take for
    /// others (integers of 2^53 and beyond; f64 where the target has none); and those of the device.
    ///
    /// ```
    /// use xlann::{Array, Session};
    /// use xlann::ann::{Metric, SearchOptions, Searcher};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let database = Array::new([3, 2], &[1f32, 0.0, 0.0, 1.0, 2.0, 2.0])?;
    ///     let searcher = Searcher::new(&session, database, Metric::InnerProduct, SearchOptions::new(1))?;
    ///     let found = searcher.search(&Array::new([2, 2], &[0f32, 1.0, -1.0, 0.0])?)?;
    ///     assert_eq!(found.indices, Array::new([2, 1], &[2, 1])?);
    ///     assert_eq!(found.distances, Array::new([2, 1], &[2f32, 0.0])?);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn search(&self, queries: &Array) -> Result<Neighbors> {
        let shape = queries.shape();
        let [rows, width] = [self.database_shape().dims()[0], self.database_shape().dims()[1]];
        if shape.rank() != 2 || shape.dims()[1] != width {
            let expected = format!("a matrix of width {width}, as the database of {rows} rows");
            return Err(Error::argument("search", "queries", expected, shape));
        }
        let (dtype, k) = (self.database_shape().dtype(), self.options.k);
        let capabilities = self.session.platform().capabilities;
        let queries = Queries::new(queries, self.metric, &self.options, dtype, self.exponent, capabilities)?;
        let mut found = self.search_batches(&queries.array, false)?;
        let unproven: Vec<usize> = (0..found.proven.len()).filter(|&query| !found.proven[query]).collect();
        if !unproven.is_empty() {
            let again = self.search_batches(&rows_of(&queries.array, &unproven)?, true)?;
            for (at, &query) in unproven.iter().enumerate() {
                found.distances[query * k..][..k].copy_from_slice(&again.distances[at * k..][..k]);
                found.indices[query * k..][..k].copy_from_slice(&again.indices[at * k..][..k]);
            }
        }
        let places = shape.dims()[0] * k;
        let (mut distances, mut indices) = (vec![f64::NAN; places], vec![-1; places]);
        for (place, (&distance, &index)) in found.distances.iter().zip(&found.indices).enumerate() {
            if distance.is_nan() || index < 0 {
                continue;
            }
            let query = queries.given[place / k];
            indices[query * k + place % k] = self.order.row(index as usize) as i32;
            distances[query * k + place % k] = match self.metric {
                Metric::Cosine => distance.clamp(-1.0, 1.0),
                metric => libm::ldexp(distance, queries.exponent(query, metric, self.exponent)),
            };
        }
        let shape = Shape::new(score_dtype(dtype), [shape.dims()[0], k]);
        Ok(Neighbors {
            indices: Array::new(shape.dims(), &indices)?,
            distances: Array::from_f64(shape, &distances)?,
        })
    }

    /// What the devices find for queries of any number.
    fn search_batches(&self, queries: &Array, by_differences: bool) -> Result<FoundRows> {
        let shape = queries.shape();
        let row = shape.dims()[1] * shape.dtype().size();
        let mut found = FoundRows::default();
        for bytes in queries.as_bytes().chunks(self.batch_size(shape.dims()[0]) * row) {
            let filled = bytes.len() / row;
            let queries = Array::from_bytes(shape.with_dims([filled, shape.dims()[1]]), bytes)?;
            let queries = filled_up(&queries, self.batch_size(filled));
            let batch = self.batch(filled, shape.dtype(), by_differences)?;
            let here = self.search_batch(&batch, &queries, by_differences)?;
            let places = filled * self.options.k;
            found.distances.extend_from_slice(&here.distances[..places]);
            found.indices.extend_from_slice(&here.indices[..places]);
            found.proven.extend(here.proven.iter().take(filled));
        }
        Ok(found)
    }

    /// What the devices find for as many queries as the batch is for.
    fn search_batch(&self, batch: &Batch, queries: &Array, by_differences: bool) -> Result<FoundRows> {
        let client = self.session.client();
        let upload = |device| client.buffer_from_array(queries, device);
        let queries = batch.executable.devices().map(upload).collect::<Result<Vec<_>>>()?;
        let arguments: Vec<Vec<&Buffer>> = queries
            .iter()
            .zip(&self.shares)
            .map(|(queries, share)| std::iter::once(queries).chain(share.arguments(by_differences)).collect())
            .collect();
        let results = batch.executable.run_replicas(&arguments)?;
        if self.devices() == 1 || self.options.aggregation == Aggregation::Devices {
            return FoundRows::read(&results[0]);
        }
        let found = results.iter().map(|results| FoundRows::read(results)).collect::<Result<Vec<_>>>()?;
        Ok(self.sharding.aggregate(&found, self.metric, self.options.k))
    }

    /// The number of queries of the compiled search that answers `queries`: few, but not many different ones.
    fn batch_size(&self, queries: usize) -> usize {
        let batch = self.options.batch.unwrap_or(usize::MAX);
        queries.clamp(1, batch).checked_next_power_of_two().map_or(batch, |size| size.min(batch))
    }

    /// Runs a function of something of each device's share on all devices.
    fn run<'a>(
        &'a self,
        function: &Function,
        arguments: impl Fn(&'a Share) -> Vec<&'a Buffer>,
    ) -> Result<Vec<Vec<Buffer>>> {
        let options = lower::Options::default();
        let (executable, _) = self.session.compile_replicas(function, &options, self.devices())?;
        executable.run_replicas(&self.shares.iter().map(arguments).collect::<Vec<_>>())
    }

    /// Whether rows are stored with the norm 1.
    fn normalises(&self) -> bool {
        self.searched_by != self.metric
    }

    /// What makes of a device's rows what its search takes beside them.
    fn prepared_function(&self) -> Result<Option<Function>> {
        let stored = self.options.stored(self.searched_by, &self.database);
        prepared_function(self.searched_by, &self.sharding.shapes(&stored)[0], &self.options)
    }

    /// Requires that the devices have room for the database, as it comes and as it is searched, and for what is
    /// prepared of it.
    fn check_room(&self, given: &Shape) -> Result<()> {
        let bytes = |shapes: Vec<Shape>| shapes.iter().map(|shape| shape.byte_count() as u64).sum::<u64>();
        let uploaded = bytes(self.sharding.shapes(given));
        let mut made = self.prepared_function()?.map_or(0, |prepared| bytes(prepared.result_shapes()));
        let stored = self.options.stored(self.searched_by, &self.database);
        if self.options.reduced_dtype(self.searched_by, &stored)?.is_some() {
            // What its rounding takes for a while.
            made += 2 * bytes(self.sharding.shapes(&stored));
        }
        if *given != stored || self.normalises() {
            made += bytes(self.sharding.shapes(&stored));
        }
        let read_in_place = self.devices() == 1;
        self.session.client().check_room(&format!("{given}"), self.devices(), uploaded, made, read_in_place)
    }

    /// The compiled search that answers so many queries.
    fn batch(&self, queries: usize, query_dtype: DType, by_differences: bool) -> Result<Arc<Batch>> {
        let size = self.batch_size(queries);
        // A recall that is proven of all is that of these: what fills up the batch may be all that is right.
        let fewest = match self.options.precision {
            Precision::Exact => size,
            _ if queries >= size => size,
            _ => size / 2 + 1,
        };
        let recall_target = recall_of_part(self.options.recall_target, fewest, size);
        let recall_bits = recall_target.to_bits();
        let key = BatchKey { queries: size, query_dtype, by_differences, recall_target: recall_bits };
        self.batches.get(key, || {
            let start = Instant::now();
            let devices = self.devices();
            let capabilities = self.session.platform().capabilities;
            let options = SearchOptions { recall_target, ..self.options.clone() };
            let request = Request {
                metric: self.searched_by,
                database: &self.database,
                queries: size,
                query_dtype,
                devices,
                options: &options,
                wide: capabilities.wide,
                product_rounding: capabilities.product_rounding,
                unit_queries: true,
            };
            let (function, options) = match by_differences {
                true => (request.by_differences(capabilities)?, lower::Options::default()),
                false => (request.function_for(capabilities)?, options.lowering()),
            };
            let (executable, choices) = self.session.compile_replicas(&function, &options, devices)?;
            Ok(Batch { executable, choices, compiled_in: start.elapsed() })
        })
    }
}

impl std::fmt::Debug for Searcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Searcher by {} of {}", self.metric, self.database_shape())
    }
}

/// What devices found, on the host.
#[derive(Default)]
pub(super) struct FoundRows {
    /// Distances and indices of k places for each query, or more where devices' are not put together.
    pub(super) distances: Vec<f64>,
    pub(super) indices: Vec<i32>,
    /// Of each query, where there is something to prove.
    pub(super) proven: Vec<bool>,
}

impl FoundRows {
    fn read(results: &[Buffer]) -> Result<FoundRows> {
        Ok(FoundRows {
            distances: results[0].to_array()?.to_f64(),
            indices: results[1].to_array()?.to_vec()?,
            proven: match results.get(2) {
                Some(proven) => proven.to_array()?.to_vec()?,
                None => Vec::new(),
            },
        })
    }
}

/// Queries with the first of them behind, so that they are `size`. Zeros would be searched twice at a precision below f32, as
/// nothing can be proven where all scores are equal.
fn filled_up(queries: &Array, size: usize) -> Array {
    let shape = queries.shape();
    let width = shape.dims()[1] * shape.dtype().size();
    Array::filled(shape.with_dims([size, shape.dims()[1]]), |bytes| {
        let (own, rest) = bytes.split_at_mut(queries.as_bytes().len());
        own.copy_from_slice(queries.as_bytes());
        rest.chunks_exact_mut(width).for_each(|query| query.copy_from_slice(&queries.as_bytes()[..width]));
    })
}

#[cfg(test)]
mod tests;
