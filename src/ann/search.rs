//! Searching a database on a device or several.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ann::function::{check_options, prepared_function, score_dtype, search_function_for, widened};
use crate::ann::metric::Metric;
use crate::ann::once::OncePerKey;
use crate::ann::options::{Aggregation, SearchOptions};
use crate::ann::sharding::Sharding;
use crate::data::MappedArray;
use crate::graph::{Function, Tensor};
use crate::lower::{self, Choice, Precision, recall_of_part};
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
    /// Distances, `[q, k]`, in the unit and sign that the [`Metric`] states; f64 where the database is searched
    /// in it, else f32.
    pub distances: Array,
    /// The database rows, s32 `[q, k]`.
    pub indices: Array,
}

/// A database on a device or several, ready to be searched by one metric.
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
    options: SearchOptions,
    /// As it is searched.
    database: Shape,
    sharding: Sharding,
    /// What every batch takes beside its queries, by device: its rows, then what is prepared of them, then the rows that
    /// all have.
    arguments: Vec<Vec<Buffer>>,
    /// By the number of queries that each takes, and the bits of its recall target.
    batches: OncePerKey<(usize, u32), Batch>,
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
    /// [capabilities](crate::lower::Capabilities::searched) say so; else they are converted to f32 on the device. A
    /// mapped file is read in place where the device is the CPU. Norms are computed once, on the device.
    ///
    /// # Errors
    /// Where the database is no matrix with at least one row and column and at most 2^31 - 1 rows, k is 0 or
    /// more than its rows, or another option is out of its range; where the device is known to have no room for the
    /// database, which is then not uploaded; and those of the device.
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
        let given = database.shape();
        check_options(given, &options)?;
        let shape = given.with_dtype(capabilities.search_dtype(given.dtype()));
        let options = options.resolved(capabilities, metric, &shape)?;
        let sharding = Sharding::new(given, devices)?;
        let there = session.client().devices();
        if devices > there.len() {
            let expected = format!("at most {}, as many as the session has", there.len());
            return Err(Error::argument("search", "devices", expected, devices));
        }
        let stored = options.stored(metric, &shape);
        let prepared = prepared_function(metric, &sharding.shapes(&stored)[0], &options)?;
        let mut searcher = Searcher {
            session: session.clone(),
            metric,
            options,
            sharding,
            arguments: Vec::new(),
            batches: OncePerKey::default(),
            database: shape,
        };
        searcher.check_room(given, prepared.as_ref())?;
        for (index, device) in there.iter().take(devices).enumerate() {
            let rows = match devices {
                1 => vec![database.clone()],
                _ => sharding.deal(&database, index)?.into_iter().map(MappedArray::from).collect(),
            };
            let upload = |rows: MappedArray| {
                let (shape, memory): (_, HostMemory) = (rows.shape().clone(), Arc::new(rows));
                session.client().buffer_from_host(shape, memory, device)
            };
            searcher.arguments.push(rows.into_iter().map(upload).collect::<Result<_>>()?);
        }
        if *given != stored {
            let convert = Function::trace("convert", &sharding.shapes(given), |x| {
                let convert = |rows: &Tensor| widened(&rows.convert(stored.dtype())?, stored.dims()[1]);
                x.iter().map(convert).collect::<Result<Vec<Tensor>>>()
            })?;
            searcher.arguments = searcher.run(&convert)?;
        }
        if let Some(prepared) = prepared {
            let prepared = searcher.run(&prepared)?;
            for (arguments, prepared) in searcher.arguments.iter_mut().zip(prepared) {
                arguments.splice(1..1, prepared);
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
        let batch = self.batch(queries)?;
        Ok((batch.choices.clone(), batch.compiled_in))
    }

    /// Compiles all that searches of 1 to `queries` queries take, so that none of them has to wait for a compilation.
    /// Gives the sizes of the batches that these queries are filled up to, ascending, and how long the compilations took
    /// in all.
    ///
    /// There are few: the powers of two up to [`SearchOptions::batch`], and that itself. At a precision below f32, a
    /// batch that is filled up takes a program of its own.
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
        while covered < largest {
            // Of the counts that a size answers, all but the last fill only a part of it.
            let first = covered + 1;
            let size = self.batch_size(first);
            let last = size.min(largest);
            let mut batches = vec![self.batch(first)?, self.batch(last)?];
            batches.dedup_by(|a, b| Arc::ptr_eq(a, b));
            compiled_in += batches.iter().map(|batch| batch.compiled_in).sum::<Duration>();
            sizes.push(size);
            covered = last;
        }
        Ok((sizes, compiled_in))
    }

    /// The neighbours of each of the queries `[q, d]`.
    ///
    /// Queries are cut into batches, which are converted to the database's dtype; the last is filled up with its first query
    /// to a power of two, so that few programs are compiled.
    ///
    /// # Errors
    /// Where the queries are no matrix of the database's width; and those of the device.
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
        let dtype = self.database_shape().dtype();
        let count = shape.dims()[0];
        let row = width * shape.dtype().size();
        let k = self.options.k;
        let (mut distances, mut indices) = (Vec::new(), Vec::new());
        for bytes in queries.as_bytes().chunks(self.batch_size(count) * row) {
            let filled = bytes.len() / row;
            let queries = convert(&Array::from_bytes(shape.with_dims([filled, width]), bytes)?, dtype)?;
            let queries = filled_up(&queries, self.batch_size(filled));
            let found = self.search_batch(&*self.batch(filled)?, &queries)?;
            for (result, bytes) in [(&found.distances, &mut distances), (&found.indices, &mut indices)] {
                bytes.extend_from_slice(&result.as_bytes()[..filled * k * result.shape().dtype().size()]);
            }
        }
        Ok(Neighbors {
            distances: Array::from_bytes(Shape::new(score_dtype(dtype), [count, k]), &distances)?,
            indices: Array::from_bytes(Shape::new(DType::S32, [count, k]), &indices)?,
        })
    }

    /// The neighbours of as many queries as the batch is for.
    fn search_batch(&self, batch: &Batch, queries: &Array) -> Result<Neighbors> {
        let client = self.session.client();
        let upload = |device| client.buffer_from_array(queries, device);
        let queries = batch.executable.devices().map(upload).collect::<Result<Vec<_>>>()?;
        let arguments: Vec<Vec<&Buffer>> = queries
            .iter()
            .zip(&self.arguments)
            .map(|(queries, arguments)| std::iter::once(queries).chain(arguments).collect())
            .collect();
        let results = batch.executable.run_replicas(&arguments)?;
        let found = |results: &Vec<Buffer>| {
            Ok(Neighbors { distances: results[0].to_array()?, indices: results[1].to_array()? })
        };
        if self.devices() == 1 || self.options.aggregation == Aggregation::Devices {
            return found(&results[0]);
        }
        let found = results.iter().map(found).collect::<Result<Vec<_>>>()?;
        self.sharding.aggregate(&found, self.metric, self.options.k)
    }

    /// The number of queries of the compiled search that answers `queries`: few, but not many different ones.
    fn batch_size(&self, queries: usize) -> usize {
        let batch = self.options.batch.unwrap_or(usize::MAX);
        queries.clamp(1, batch).checked_next_power_of_two().map_or(batch, |size| size.min(batch))
    }

    /// Runs a function of each device's first arguments on all devices.
    fn run(&self, function: &Function) -> Result<Vec<Vec<Buffer>>> {
        let options = lower::Options::default();
        let (executable, _) = self.session.compile_replicas(function, &options, self.devices())?;
        let count = function.parameters().len();
        let arguments = self.arguments.iter().map(|arguments| arguments.iter().take(count).collect());
        executable.run_replicas(&arguments.collect::<Vec<_>>())
    }

    /// Requires that the devices have room for the database, as it comes and as it is searched, and for what is
    /// prepared of it.
    fn check_room(&self, given: &Shape, prepared: Option<&Function>) -> Result<()> {
        let bytes = |shapes: Vec<Shape>| shapes.iter().map(|shape| shape.byte_count() as u64).sum::<u64>();
        let uploaded = bytes(self.sharding.shapes(given));
        let mut made = prepared.map_or(0, |prepared| bytes(prepared.result_shapes()));
        let stored = self.options.stored(self.metric, &self.database);
        if self.options.reduced_dtype(self.metric, &stored)?.is_some() {
            // What its rounding takes for a while.
            made += 2 * bytes(self.sharding.shapes(&stored));
        }
        if *given != stored {
            made += bytes(self.sharding.shapes(&stored));
        }
        let read_in_place = self.devices() == 1;
        self.session.client().check_room(&format!("{given}"), self.devices(), uploaded, made, read_in_place)
    }

    /// The compiled search that answers so many queries.
    fn batch(&self, queries: usize) -> Result<Arc<Batch>> {
        let size = self.batch_size(queries);
        // A recall that is proven of all is that of these: what fills up the batch may be all that is right.
        let fewest = match self.options.precision {
            Precision::Exact => size,
            _ if queries >= size => size,
            _ => size / 2 + 1,
        };
        let recall_target = recall_of_part(self.options.recall_target, fewest, size);
        let key = (size, recall_target.to_bits());
        self.batches.get(key, || {
            let start = Instant::now();
            let devices = self.devices();
            let capabilities = self.session.platform().capabilities;
            let options = SearchOptions { recall_target, ..self.options.clone() };
            let function =
                search_function_for(capabilities, self.metric, &self.database, size, devices, &options)?;
            let options = options.lowering();
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

fn convert(array: &Array, dtype: DType) -> Result<Array> {
    if array.shape().dtype() == dtype {
        return Ok(array.clone());
    }
    Array::from_f64(array.shape().with_dtype(dtype), &array.to_f64())
}
