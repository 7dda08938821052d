//! Searching a database on a device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ann::metric::{self, Metric};
use crate::data::MappedArray;
use crate::graph::{Builder, Function, Tensor};
use crate::lower::{self, Choice, Form};
use crate::pjrt::{Buffer, Executable};
use crate::{ApproxTopKOptions, Array, DType, Error, Operand, Result, Session, Shape};

/// How a [`Searcher`] searches.
///
/// ```
/// use xlann::ann::SearchOptions;
///
/// let options = SearchOptions { recall_target: 0.99, batch: 32, ..SearchOptions::new(10) };
/// assert_eq!((options.k, options.form), (10, None));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SearchOptions {
    /// The number of neighbours for each query.
    pub k: usize,
    /// The share of the true neighbours that is expected among those found, in (0, 1]. Default: 0.95.
    pub recall_target: f32,
    /// How many queries are answered at once, at most. Default: 128.
    pub batch: usize,
    /// How many bytes the scores of a batch may take: the database is searched in blocks for which they do. The
    /// rows of a block, of which the device makes a copy, may take as many again. A block has `k` rows at
    /// least; and true squared distances take the vectors of a batch's neighbours beside it. Default: 16 MiB, which stay in a processor's cache.
    pub score_budget: usize,
    /// Whether L2 distances are computed anew, as squared distances, for the neighbours found; else they are
    /// what was compared, `|database|^2 / 2 - query . database`. Default: true.
    pub squared_distances: bool,
    /// The form of the approximate top-k; by default, the target's policy chooses.
    pub form: Option<Form>,
}

impl SearchOptions {
    /// The defaults for `k` neighbours.
    ///
    /// ```
    /// use xlann::ann::SearchOptions;
    /// let options = SearchOptions::new(10);
    /// assert_eq!((options.k, options.batch, options.recall_target), (10, 128, 0.95));
    /// ```
    pub fn new(k: usize) -> SearchOptions {
        SearchOptions {
            k,
            recall_target: 0.95,
            batch: 128,
            score_budget: 16 << 20,
            squared_distances: true,
            form: None,
        }
    }
}

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
    /// Distances, `[q, k]`, in the unit and sign that the [`Metric`] states and the database's dtype, or f32
    /// where that is none that is searched.
    pub distances: Array,
    /// The database rows, s32 `[q, k]`.
    pub indices: Array,
}

/// A database on a device, ready to be searched by one metric.
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
    /// What every batch takes beside its queries: the database, then its norms where the metric needs them.
    arguments: Vec<Buffer>,
    /// By the number of queries that each takes.
    batches: Mutex<HashMap<usize, Arc<Batch>>>,
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
    /// f32 and f64 databases are searched in their dtype; others are converted to f32 on the device. A mapped
    /// file is read in place where the device is the CPU. Norms are computed once, on the device.
    ///
    /// # Errors
    /// Where the database is no matrix with at least one row and column and at most 2^31 - 1 rows, k is 0 or
    /// more than its rows, or another option is out of its range; and those of the device.
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
        let database = database.into();
        let mut shape = database.shape().clone();
        check_options(&shape, &options)?;
        let client = session.client();
        let device = &client.devices()[0];
        let mut arguments = vec![client.buffer_from_host(shape.clone(), Arc::new(database), device)?];
        if !matches!(shape.dtype(), DType::F32 | DType::F64) {
            let convert = Function::trace("convert", &[shape], |x| x[0].convert(DType::F32))?;
            arguments = session.compile(&convert)?.run(&[&arguments[0]])?;
            shape = arguments[0].shape().clone();
        }
        if let Some(norms) = norms_function(metric, &shape)? {
            let norms = session.compile(&norms)?.run(&[&arguments[0]])?;
            arguments.extend(norms);
        }
        Ok(Searcher { session: session.clone(), metric, options, arguments, batches: Mutex::default() })
    }

    /// The database's shape on the device.
    pub fn database_shape(&self) -> &Shape {
        self.arguments[0].shape()
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
        let batch = self.batch(self.batch_size(queries))?;
        Ok((batch.choices.clone(), batch.compiled_in))
    }

    /// The neighbours of each of the queries `[q, d]`.
    ///
    /// Queries are cut into batches, which are converted to the database's dtype; the last is filled up with
    /// zeros, so that it runs what was compiled for the others.
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
        let size = self.batch_size(count);
        let row = width * shape.dtype().size();
        let k = self.options.k;
        let (mut distances, mut indices) = (Vec::new(), Vec::new());
        for batch in queries.as_bytes().chunks(size * row) {
            let filled = batch.len() / row;
            let batch = convert(&Array::from_bytes(shape.with_dims([filled, width]), batch)?, dtype)?;
            let queries = Array::filled(Shape::new(dtype, [size, width]), |bytes| {
                bytes[..batch.as_bytes().len()].copy_from_slice(batch.as_bytes());
            });
            let device = self.arguments[0].device();
            let queries = self.session.client().buffer_from_array(&queries, device)?;
            let mut arguments = vec![&queries];
            arguments.extend(&self.arguments);
            let results = self.batch(size)?.executable.run(&arguments)?;
            for (result, bytes) in results.iter().zip([&mut distances, &mut indices]) {
                let result = result.to_array()?;
                bytes.extend_from_slice(&result.as_bytes()[..filled * k * result.shape().dtype().size()]);
            }
        }
        Ok(Neighbors {
            distances: Array::from_bytes(Shape::new(dtype, [count, k]), &distances)?,
            indices: Array::from_bytes(Shape::new(DType::S32, [count, k]), &indices)?,
        })
    }

    /// The number of queries of the compiled search that answers `queries`: few, but not many different ones.
    fn batch_size(&self, queries: usize) -> usize {
        let batch = self.options.batch;
        queries.clamp(1, batch).checked_next_power_of_two().map_or(batch, |size| size.min(batch))
    }

    fn batch(&self, size: usize) -> Result<Arc<Batch>> {
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(batch) = batches.get(&size) {
            return Ok(Arc::clone(batch));
        }
        let start = Instant::now();
        let function = search_function(self.metric, self.database_shape(), size, &self.options)?;
        let options = lower::Options { approx_top_k: self.options.form, ..lower::Options::default() };
        let (executable, choices) = self.session.compile_with(&function, &options)?;
        let batch = Arc::new(Batch { executable, choices, compiled_in: start.elapsed() });
        batches.insert(size, Arc::clone(&batch));
        Ok(batch)
    }
}

impl std::fmt::Debug for Searcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Searcher by {} of {}", self.metric, self.database_shape())
    }
}

fn convert(array: &Array, dtype: DType) -> Result<Array> {
    if array.shape().dtype() == dtype {
        return Ok(array.clone());
    }
    Array::from_f64(array.shape().with_dtype(dtype), &array.to_f64())
}

fn check_options(database: &Shape, options: &SearchOptions) -> Result<()> {
    let refused = |argument: &str, expected: String, got: &dyn std::fmt::Display| {
        Err(Error::argument("search", argument, expected, got))
    };
    if database.rank() != 2 || database.dims()[1] == 0 {
        return refused("database", "a matrix of vectors".to_owned(), database);
    }
    if database.dims()[0] > i32::MAX as usize {
        return refused("database", format!("of at most {} rows, as indices are s32", i32::MAX), database);
    }
    if options.k == 0 || options.k > database.dims()[0] {
        let expected = format!("from 1 to the database's {} rows", database.dims()[0]);
        return refused("k", expected, &options.k);
    }
    if options.batch == 0 {
        return refused("batch", "1 or more".to_owned(), &options.batch);
    }
    if !(options.recall_target > 0.0 && options.recall_target <= 1.0) {
        return refused("recall_target", "in (0, 1]".to_owned(), &options.recall_target);
    }
    Ok(())
}

/// The function that computes what the metric needs to know of every database vector, if it does.
fn norms_function(metric: Metric, database: &Shape) -> Result<Option<Function>> {
    let norms = match metric {
        Metric::InnerProduct => return Ok(None),
        Metric::L2 => metric::half_norms,
        Metric::Cosine => metric::inverse_norms,
    };
    Function::trace("norms", std::slice::from_ref(database), |x| norms(&x[0])).map(Some)
}

/// The search of `queries` queries as a function: of queries `[queries, d]`, the database and, for L2 and
/// cosine, its norms ([`half_norms`](crate::ann::half_norms), [`inverse_norms`](crate::ann::inverse_norms));
/// to distances and s32 indices, `[queries, k]`.
///
/// Where the scores of all vectors pass the budget, the database is searched in a loop over equal blocks, and
/// the blocks' neighbours are aggregated.
///
/// # Errors
/// As [`Searcher::new`].
///
/// ```
/// use xlann::{Array, DType, Shape};
/// use xlann::ann::{Metric, SearchOptions, search_function};
///
/// let database = Shape::new(DType::F32, [3, 2]);
/// let search = search_function(Metric::InnerProduct, &database, 1, &SearchOptions::new(2))?;
/// let database = Array::new([3, 2], &[1f32, 0.0, 0.0, 1.0, 2.0, 2.0])?;
/// let found = search.eval(&[Array::new([1, 2], &[0f32, 1.0])?, database])?;
/// assert_eq!(found, [Array::new([1, 2], &[2f32, 1.0])?, Array::new([1, 2], &[2, 1])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn search_function(
    metric: Metric,
    database: &Shape,
    queries: usize,
    options: &SearchOptions,
) -> Result<Function> {
    check_options(database, options)?;
    let [rows, width] = [database.dims()[0], database.dims()[1]];
    let builder = Builder::new("search");
    let queries = builder.parameter("queries", database.with_dims([queries, width]))?;
    let database = builder.parameter("database", database.clone())?;
    let norms = match metric {
        Metric::InnerProduct => None,
        Metric::L2 => Some(builder.parameter("half_norms", database.shape().with_dims([rows]))?),
        Metric::Cosine => Some(builder.parameter("inverse_norms", database.shape().with_dims([rows]))?),
    };
    let search = Search { metric, options, queries, database, norms };
    let (mut distances, mut indices) = search.blocks()?;
    if metric == Metric::L2 && options.squared_distances {
        distances = metric::squared_distances(&search.queries, &search.database, &indices)?;
        // Rounding can have put neighbours of nearly equal distance in another order.
        (distances, indices) = search.aggregate(&distances, &indices)?;
    }
    builder.finish((distances, indices))
}

/// The tensors of one search.
struct Search<'a> {
    metric: Metric,
    options: &'a SearchOptions,
    queries: Tensor,
    database: Tensor,
    norms: Option<Tensor>,
}

impl Search<'_> {
    /// Distances and indices of the neighbours in the whole database, block by block.
    fn blocks(&self) -> Result<(Tensor, Tensor)> {
        let [queries, k] = [self.queries.dims()[0], self.options.k];
        let [rows, width] = [self.database.dims()[0], self.database.dims()[1]];
        let in_budget = self.options.score_budget / self.database.dtype().size();
        // A block has k rows at least, as many as it must yield.
        if rows <= in_budget / queries.max(1) || rows < 2 * k {
            return self.nearest(rows);
        }
        let blocks = rows.div_ceil((in_budget / queries.max(width)).max(1)).min(rows / k);
        let block = rows / blocks;
        let builder = self.queries.builder();
        // From the last block to the first, each block's neighbours in front: equal ones stay in the order of
        // their indices. A NaN is worse than every neighbour.
        let state = [
            &builder.scalar(blocks as i32)?,
            &f64::NAN.tensor(&self.queries)?.broadcast_to(&[queries, k])?,
            &builder.scalar(0i32)?.broadcast_to(&[queries, k])?,
            &self.queries,
            &self.database,
        ];
        let state: Vec<&Tensor> = state.into_iter().chain(&self.norms).collect();
        let shapes: Vec<Shape> = state.iter().map(|tensor| tensor.shape().clone()).collect();
        let condition = Function::trace("blocks_left", &shapes, |x| x[0].greater(0))?;
        let body = Function::trace("search_block", &shapes, |x| {
            let number = (&x[0] - 1)?;
            let start = (&number * block as i32)?;
            let (distances, indices) = self.of(&x[3], &x[4], x.get(5), &start, block)?.nearest(rows)?;
            let mut state = x.to_vec();
            (state[1], state[2]) = self.merge([&distances, &x[1]], [&(indices + start)?, &x[2]])?;
            state[0] = number;
            Ok(state)
        })?;
        let state = builder.while_loop(&state, condition, body)?;
        let (distances, indices) = (state[1].clone(), state[2].clone());
        // Fewer rows than there are blocks are left over: each is a candidate.
        let rest = rows - blocks * block;
        if rest == 0 {
            return Ok((distances, indices));
        }
        let start = builder.scalar((blocks * block) as i32)?;
        let rest = self.of(&self.queries, &self.database, self.norms.as_ref(), &start, rest)?.scores()?;
        let index = (builder.iota(rest.shape().with_dtype(DType::S32), 1)? + start)?;
        self.merge([&distances, &rest], [&indices, &index])
    }

    /// The search of `rows` rows of the database from `start` on, in the function of these tensors.
    fn of(
        &self,
        queries: &Tensor,
        database: &Tensor,
        norms: Option<&Tensor>,
        start: &Tensor,
        rows: usize,
    ) -> Result<Search<'_>> {
        let zero = start.builder().scalar(0i32)?;
        let width = database.dims()[1];
        Ok(Search {
            metric: self.metric,
            options: self.options,
            queries: queries.clone(),
            database: database.dynamic_slice(&[start, &zero], &[rows, width])?,
            norms: norms.map(|norms| norms.dynamic_slice(&[start], &[rows])).transpose()?,
        })
    }

    /// The score of every vector for each query.
    fn scores(&self) -> Result<Tensor> {
        metric::scores(self.metric, &self.queries, &self.database, self.norms.as_ref())
    }

    /// Distances and indices of the neighbours, with the recall planned for a database of `whole` rows.
    fn nearest(&self, whole: usize) -> Result<(Tensor, Tensor)> {
        self.best(
            &self.scores()?,
            &ApproxTopKOptions {
                recall_target: self.options.recall_target,
                reduction_input_size_override: Some(whole),
                ..ApproxTopKOptions::default()
            },
        )
    }

    /// The best of some distances by the metric, and their positions.
    fn best(&self, distances: &Tensor, options: &ApproxTopKOptions) -> Result<(Tensor, Tensor)> {
        match self.metric {
            Metric::L2 => distances.approx_min_k(self.options.k, options),
            Metric::InnerProduct | Metric::Cosine => distances.approx_max_k(self.options.k, options),
        }
    }

    /// The best of two lots of distances, exactly, and those of their indices.
    fn merge(&self, distances: [&Tensor; 2], indices: [&Tensor; 2]) -> Result<(Tensor, Tensor)> {
        self.aggregate(&Tensor::concatenate(&distances, 1)?, &Tensor::concatenate(&indices, 1)?)
    }

    /// The best of some distances, exactly, and those of their indices.
    fn aggregate(&self, distances: &Tensor, indices: &Tensor) -> Result<(Tensor, Tensor)> {
        let exact = ApproxTopKOptions { recall_target: 1.0, ..ApproxTopKOptions::default() };
        let (distances, position) = self.best(distances, &exact)?;
        Ok((distances, indices.take_along_axis(&position, 1)?))
    }
}
