//! The search of a batch of queries as a function.

use crate::ann::metric::{self, Metric};
use crate::ann::options::{Aggregation, SearchOptions};
use crate::ann::sharding::Sharding;
use crate::graph::{Builder, Function, Tensor};
use crate::lower::{self, Capabilities, Reduced, best_with};
use crate::ops::approx_top_k::Direction;
use crate::{ApproxTopKOptions, DType, Error, Result, Shape};

/// The search of `queries` queries as a function: of queries `[queries, d]`, the database and, for L2 and
/// cosine, its norms ([`half_norms`](crate::ann::half_norms), [`inverse_norms`](crate::ann::inverse_norms));
/// to distances and s32 indices, `[queries, k]`.
///
/// At a precision below f32 ([`SearchOptions::precision`]), the parameters that [`prepared_function`] gives follow the
/// database.
///
/// The database parameter is padded where the options say so ([`SearchOptions::width_multiple`]), with zeros.
///
/// Queries are of the database's dtype. Distances and norms are too, but f32 for f16 and bf16, whose scores are
/// computed and compared in f32.
///
/// Where the scores of all vectors pass the budget, the database is searched in a loop over equal blocks, each with
/// the recall target for its own neighbours, and the blocks' neighbours are aggregated.
///
/// # Errors
/// As [`Searcher::new`](crate::ann::Searcher::new).
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
    sharded_search_function(metric, database, queries, 1, options)
}

/// The search of `queries` queries in a database over several devices, as the function of each of as many replicas
/// ([`Session::compile_replicas`](crate::Session::compile_replicas)).
///
/// Row i of the n rows is replica i mod `devices`' row i / `devices`. Its `database` parameter is its rows,
/// `[n / devices, d]`, or padded as that of [`search_function`], and its norms are those of these rows. Where n mod
/// `devices` rows are left over at the end, they are a last parameter, padded likewise, which is the same for all
/// replicas, and all of them are candidates.
///
/// Each replica searches its rows with the recall planned for all n, of whose neighbours it then has its share. By
/// [`SearchOptions::aggregation`], the results are then those of [`search_function`], the same for every
/// replica; or each replica's own: the min(k, n / `devices`) nearest of its rows, in any order, and behind them
/// the rows that are left over. Indices are those of the whole database in either case.
///
/// # Errors
/// As [`Searcher::over`](crate::ann::Searcher::over).
///
/// ```
/// use xlann::{Array, DType, Shape};
/// use xlann::ann::{Metric, SearchOptions, sharded_search_function};
///
/// let database = Shape::new(DType::F32, [5, 1]);
/// let search = sharded_search_function(Metric::InnerProduct, &database, 1, 2, &SearchOptions::new(2))?;
/// let query = Array::new([1, 1], &[1f32])?;
/// // Rows 0 and 2, rows 1 and 3, and row 4.
/// let shards = [Array::new([2, 1], &[0f32, 2.0])?, Array::new([2, 1], &[9f32, 3.0])?];
/// let rest = Array::new([1, 1], &[4f32])?;
/// let found = search.eval_replicas(&shards.map(|shard| vec![query.clone(), shard, rest.clone()]))?;
/// assert_eq!(found[0], [Array::new([1, 2], &[9f32, 4.0])?, Array::new([1, 2], &[1, 4])?]);
/// assert_eq!(found[1], found[0]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn sharded_search_function(
    metric: Metric,
    database: &Shape,
    queries: usize,
    devices: usize,
    options: &SearchOptions,
) -> Result<Function> {
    check_options(database, options)?;
    let sharding = Sharding::new(database, devices)?;
    let [whole, width] = [database.dims()[0], database.dims()[1]];
    let builder = Builder::new("search");
    let queries = builder.parameter("queries", database.with_dims([queries, width]))?;
    let stored = options.stored(metric, database);
    let mut shapes = sharding.shapes(&stored).into_iter();
    let mut rows = |name| shapes.next().map(|shape| builder.parameter(name, shape)).transpose();
    let Some(shard) = rows("database")? else {
        return Err(Error::argument("search", "database", "of one row at least", database));
    };
    let queries = widened(&queries, stored.dims()[1])?;
    let reduced = match options.reduced_dtype(metric, shard.shape())? {
        None => None,
        Some(dtype) => {
            let parameters = Reduced::signature(shard.shape(), dtype).into_iter();
            let parameters = parameters.map(|(name, shape)| builder.parameter(name, shape));
            Reduced::from_tensors(&parameters.collect::<Result<Vec<_>>>()?)
        }
    };
    let norms = Shape::new(score_dtype(database.dtype()), [sharding.rows]);
    let norms = match metric {
        Metric::InnerProduct => None,
        Metric::L2 => Some(builder.parameter("half_norms", norms)?),
        Metric::Cosine => Some(builder.parameter("inverse_norms", norms)?),
    };
    let k = options.k.min(sharding.rows);
    let search = Search { metric, options, k, whole, queries, database: shard, reduced, norms };
    let (mut distances, mut indices) = search.blocks()?;
    if options.refines(metric) {
        distances = search.squared_distances(&indices)?;
    }
    if devices == 1 {
        if options.refines(metric) {
            // Rounding can have put neighbours of nearly equal distance in another order.
            (distances, indices) = search.aggregate(&distances, &indices)?;
        }
        return builder.finish((distances, indices));
    }
    indices = ((indices * devices as i32)? + builder.replica_id(devices)?)?;
    let gathers = options.aggregation == Aggregation::Devices;
    if gathers {
        (distances, indices) = (distances.all_gather(1, devices)?, indices.all_gather(1, devices)?);
    }
    if let Some(rest) = rows("rest")? {
        let norms = norms_of(metric, &rest)?;
        let rest = Search { database: rest, reduced: None, norms, ..search.clone() };
        let (rest_distances, rest_indices) = rest.all()?;
        let rest_indices = (rest_indices + (whole - sharding.rest) as i32)?;
        distances = Tensor::concatenate(&[&distances, &rest_distances], 1)?;
        indices = Tensor::concatenate(&[&indices, &rest_indices], 1)?;
    }
    if gathers {
        let whole = Search { k: options.k, ..search };
        (distances, indices) = whole.aggregate(&distances, &indices)?;
    }
    builder.finish((distances, indices))
}

/// A matrix with columns of zeros behind its own, where it is narrower than `width`.
pub(super) fn widened(matrix: &Tensor, width: usize) -> Result<Tensor> {
    match width as isize - matrix.dims()[1] as isize {
        0 => Ok(matrix.clone()),
        missing => matrix.pad(0.0, &[0, 0], &[0, missing], &[0, 0]),
    }
}

/// As [`sharded_search_function`], with the target's score budget and width where the options have none; without a budget
/// where the target's form of approximate top-k keeps no scores.
///
/// # Errors
/// As [`sharded_search_function`], and where the target does not have the form that the options ask for.
///
/// ```
/// use xlann::ann::{Metric, SearchOptions, search_function_for};
/// use xlann::target::{cpu, tpu};
/// use xlann::{DType, Shape};
///
/// let database = Shape::new(DType::F32, [10_000_000, 128]);
/// let operators = |capabilities, metric, recall_target| {
///     let options = SearchOptions { recall_target, ..SearchOptions::new(10) };
///     let search = search_function_for(capabilities, metric, &database, 128, 1, &options)?;
///     xlann::Result::Ok(search.to_string())
/// };
/// // A TPU searches the scores as it computes them, but for what is to be exact: block by block.
/// assert!(!operators(&tpu::CAPABILITIES, Metric::Cosine, 0.95)?.contains("while"));
/// assert!(operators(&tpu::CAPABILITIES, Metric::Cosine, 1.0)?.contains("while"));
/// // So does the CPU's kernel, which is exact.
/// assert!(!operators(&cpu::CAPABILITIES, Metric::Cosine, 1.0)?.contains("while"));
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn search_function_for(
    target: &Capabilities,
    metric: Metric,
    database: &Shape,
    queries: usize,
    devices: usize,
    options: &SearchOptions,
) -> Result<Function> {
    let options = options.resolved(target, metric, database)?;
    let whole = sharded_search_function(metric, database, queries, devices, &options)?;
    if options.score_budget.is_some() {
        return Ok(whole);
    }
    match lower::explain(&whole, target, &options.lowering())?.first() {
        Some(search) if !search.keeps_scores => Ok(whole),
        _ => {
            let options = SearchOptions { score_budget: Some(target.score_budget), ..options };
            sharded_search_function(metric, database, queries, devices, &options)
        }
    }
}

/// The function of a database, or of a replica's share of one, that gives what its search takes beside it, in the order of
/// the parameters; if there is something.
///
/// At a precision below f32 that is the database in it, for int8 a scale for each row, and the greatest norms of what a row
/// has lost and of what is left of one; then, for L2 and cosine, the norms of the rows. The options are to be
/// [resolved](SearchOptions::resolved) for the target, as [`search_function_for`] does it.
///
/// # Errors
/// Where the database is no matrix of 2^31 - 1 rows at most, or a precision is asked for that there is no such search of.
///
/// ```
/// use xlann::ann::{Metric, SearchOptions, prepared_function, search_function};
/// use xlann::lower::Precision;
/// use xlann::{Array, DType, Shape};
///
/// let options = SearchOptions { precision: Precision::Int8, ..SearchOptions::new(2) };
/// let numbers: Vec<f32> = (0..200).map(|i| i as f32).collect();
/// let database = Array::new([100, 2], &numbers)?;
/// let prepared = prepared_function(Metric::L2, database.shape(), &options)?.unwrap();
/// let prepared = prepared.eval(std::slice::from_ref(&database))?;
/// let shapes: Vec<String> = prepared.iter().map(|array| array.shape().to_string()).collect();
/// assert_eq!(shapes, ["s8[100,2]", "f32[100]", "f32[2]", "f32[100]"]);
///
/// let search = search_function(Metric::L2, database.shape(), 1, &options)?;
/// let query = Array::new([1, 2], &[10f32, 11.0])?;
/// let found = search.eval(&[vec![query, database], prepared].concat())?;
/// assert_eq!(found[1], Array::new([1, 2], &[5, 4])?);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn prepared_function(
    metric: Metric,
    database: &Shape,
    options: &SearchOptions,
) -> Result<Option<Function>> {
    check_database(database)?;
    let dtype = options.reduced_dtype(metric, database)?;
    if metric == Metric::InnerProduct && dtype.is_none() {
        return Ok(None);
    }
    let prepared = Function::trace("prepared", std::slice::from_ref(database), |x| {
        let reduced = dtype.map(|dtype| Reduced::of(&x[0], dtype)).transpose()?;
        let reduced = reduced.map_or_else(Vec::new, |reduced| reduced.tensors());
        Ok(reduced.into_iter().chain(norms_of(metric, &x[0])?).collect::<Vec<_>>())
    });
    prepared.map(Some)
}

fn norms_of(metric: Metric, database: &Tensor) -> Result<Option<Tensor>> {
    let database = database.convert(score_dtype(database.dtype()))?;
    match metric {
        Metric::InnerProduct => Ok(None),
        Metric::L2 => metric::half_norms(&database).map(Some),
        Metric::Cosine => metric::inverse_norms(&database).map(Some),
    }
}

/// The dtype of the scores of vectors: that of the vectors, but f32 for halves, of whose digits sums would lose
/// too many.
pub(super) fn score_dtype(dtype: DType) -> DType {
    if matches!(dtype, DType::F16 | DType::BF16) { DType::F32 } else { dtype }
}

fn check_database(database: &Shape) -> Result<()> {
    let refused = |expected: String| Err(Error::argument("search", "database", expected, database));
    if database.rank() != 2 || database.dims()[1] == 0 {
        return refused("a matrix of vectors".to_owned());
    }
    if database.dims()[0] > i32::MAX as usize {
        return refused(format!("of at most {} rows, as indices are s32", i32::MAX));
    }
    Ok(())
}

pub(super) fn check_options(database: &Shape, options: &SearchOptions) -> Result<()> {
    let refused = |argument: &str, expected: String, got: &dyn std::fmt::Display| {
        Err(Error::argument("search", argument, expected, got))
    };
    check_database(database)?;
    if options.k == 0 || options.k > database.dims()[0] {
        let expected = format!("from 1 to the database's {} rows", database.dims()[0]);
        return refused("k", expected, &options.k);
    }
    if options.width_multiple == Some(0) {
        return refused("width_multiple", "1 or more".to_owned(), &0);
    }
    if options.batch == Some(0) {
        return refused("batch", "1 or more".to_owned(), &0);
    }
    if !(options.recall_target > 0.0 && options.recall_target <= 1.0) {
        return refused("recall_target", "in (0, 1]".to_owned(), &options.recall_target);
    }
    Ok(())
}

/// The tensors of one search.
#[derive(Clone)]
struct Search<'a> {
    metric: Metric,
    options: &'a SearchOptions,
    /// How many neighbours are looked for among these rows.
    k: usize,
    /// The number of rows of the database that these are a share of.
    whole: usize,
    queries: Tensor,
    database: Tensor,
    /// The database of fewer digits, of which candidates are scored.
    reduced: Option<Reduced>,
    norms: Option<Tensor>,
}

impl Search<'_> {
    /// Distances and indices of the neighbours in the whole database, block by block.
    fn blocks(&self) -> Result<(Tensor, Tensor)> {
        let [queries, k] = [self.queries.dims()[0], self.k];
        let [rows, width] = [self.database.dims()[0], self.database.dims()[1]];
        let dtype = score_dtype(self.database.dtype());
        let in_budget = self.options.score_budget.unwrap_or(usize::MAX) / dtype.size();
        // A block has k rows at least, as many as it must yield.
        if rows <= in_budget / queries.max(1) || rows < 2 * k {
            return self.nearest(self.whole);
        }
        let blocks = rows.div_ceil((in_budget / queries.max(width)).max(1)).min(rows / k);
        let block = rows / blocks;
        let builder = self.queries.builder();
        // From the last block to the first, each block's neighbours in front: equal ones stay in the order of
        // their indices.
        let last = builder.scalar(((blocks - 1) * block) as i32)?;
        let (distances, indices) =
            self.of(&self.queries, &self.database, self.norms.as_ref(), &last, block)?.nearest(block)?;
        let left = builder.scalar(blocks as i32 - 1)?;
        let indices = (indices + last)?;
        let state = [&left, &distances, &indices, &self.queries, &self.database];
        let state: Vec<&Tensor> = state.into_iter().chain(&self.norms).collect();
        let shapes: Vec<Shape> = state.iter().map(|tensor| tensor.shape().clone()).collect();
        let condition = Function::trace("blocks_left", &shapes, |x| x[0].greater(0))?;
        let body = Function::trace("search_block", &shapes, |x| {
            let number = (&x[0] - 1)?;
            let start = (&number * block as i32)?;
            // A block can hold all neighbours of a query, where they are stored next to each other.
            let (distances, indices) = self.of(&x[3], &x[4], x.get(5), &start, block)?.nearest(block)?;
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
            queries: queries.clone(),
            database: database.dynamic_slice(&[start, &zero], &[rows, width])?,
            reduced: None,
            norms: norms.map(|norms| norms.dynamic_slice(&[start], &[rows])).transpose()?,
            ..self.clone()
        })
    }

    /// The score of every vector for each query.
    fn scores(&self) -> Result<Tensor> {
        let dtype = score_dtype(self.database.dtype());
        let [queries, mut database] = [self.queries.convert(dtype)?, self.database.convert(dtype)?];
        if let Some(reduced) = &self.reduced {
            database = reduced.instead_of(&database)?;
        }
        metric::scores(self.metric, &queries, &database, self.norms.as_ref())
    }

    /// The squared distances of the vectors at some indices.
    fn squared_distances(&self, indices: &Tensor) -> Result<Tensor> {
        let dtype = score_dtype(self.database.dtype());
        let vectors = self.database.take(indices, 0)?.convert(dtype)?;
        metric::squared_distances_to(&self.queries.convert(dtype)?, &vectors)
    }

    /// Distances and indices of all rows, in their order.
    fn all(&self) -> Result<(Tensor, Tensor)> {
        let sizes = [self.queries.dims()[0], self.database.dims()[0]];
        let indices = self.queries.builder().iota(Shape::new(DType::S32, sizes), 1)?;
        let distances = if self.options.refines(self.metric) {
            self.squared_distances(&indices)?
        } else {
            self.scores()?
        };
        Ok((distances, indices))
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
            Metric::L2 => distances.approx_min_k(self.k, options),
            Metric::InnerProduct | Metric::Cosine => distances.approx_max_k(self.k, options),
        }
    }

    /// The best of two lots of distances, exactly, and those of their indices.
    fn merge(&self, distances: [&Tensor; 2], indices: [&Tensor; 2]) -> Result<(Tensor, Tensor)> {
        let exact = ApproxTopKOptions { recall_target: 1.0, ..ApproxTopKOptions::default() };
        let (distances, position) = self.best(&Tensor::concatenate(&distances, 1)?, &exact)?;
        Ok((distances, Tensor::concatenate(&indices, 1)?.take_along_axis(&position, 1)?))
    }

    /// The best of a few distances, exactly, and those of their indices. They are sorted together, as a TPU takes
    /// longer to gather as many elements.
    fn aggregate(&self, distances: &Tensor, indices: &Tensor) -> Result<(Tensor, Tensor)> {
        let direction = match self.metric {
            Metric::L2 => Direction::Min,
            Metric::InnerProduct | Metric::Cosine => Direction::Max,
        };
        let best = best_with(distances, std::slice::from_ref(indices), self.k, direction)?;
        Ok((best[0].clone(), best[1].clone()))
    }
}
