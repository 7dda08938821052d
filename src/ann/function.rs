//! The search of a batch of queries as a function.

use crate::ann::metric::{self, Metric};
use crate::ann::options::{Aggregation, SearchOptions};
use crate::ann::rows::{Plan, Rows, Search};
use crate::ann::sharding::Sharding;
use crate::graph::{Builder, Function, Tensor};
use crate::lower::{self, Capabilities, Reduced};
use crate::{DType, Error, Result, Shape};

/// All that decides the search of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) metric: Metric,
    /// As it is searched.
    pub(super) database: &'a Shape,
    /// How many queries, and of what dtype.
    pub(super) queries: usize,
    pub(super) query_dtype: DType,
    pub(super) devices: usize,
    pub(super) options: &'a SearchOptions,
    /// The dtype of differences, and how far off a product of two floats may be, relative to it.
    pub(super) wide: DType,
    pub(super) product_rounding: f64,
    /// Whether queries of cosines come with the norm 1, or 0.
    pub(super) unit_queries: bool,
}

/// The search of `queries` queries as a function of queries `[queries, d]`, the database `[n, d]` and what
/// [`prepared_function`] makes of it. It gives distances and s32 indices, `[queries, k]`.
///
/// Queries and norms are of the database's dtype, or f32 for f16 and bf16.
///
/// For L2, distances are f64, and a third result says of each query whether its neighbours are proven to be right
/// (pred `[queries]`): see [`Searcher`](crate::ann::Searcher), which searches the others again. With
/// [`SearchOptions::centred`], the last parameter is the centre `[d]`. Without
/// [`SearchOptions::squared_distances`], there are two results, and distances are those of [`l2`](crate::ann::l2).
///
/// The database parameter is padded where the options say so ([`SearchOptions::width_multiple`]), with zeros.
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
    let query_dtype = score_dtype(database.dtype());
    let (wide, product_rounding, unit_queries) = (DType::F64, 0.0, false);
    Request { metric, database, queries, query_dtype, devices, options, wide, product_rounding, unit_queries }
        .function(false)
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
    let query_dtype = score_dtype(database.dtype());
    let (wide, product_rounding, unit_queries) = (target.wide, target.product_rounding, false);
    Request { metric, database, queries, query_dtype, devices, options, wide, product_rounding, unit_queries }
        .function_for(target)
}

impl Request<'_> {
    /// As [`search_function_for`].
    pub(super) fn function_for(&self, target: &Capabilities) -> Result<Function> {
        let options = self.options.resolved(target, self.metric, self.database)?;
        let request = Request { options: &options, ..*self };
        let whole = request.function(false)?;
        if options.score_budget.is_some() {
            return Ok(whole);
        }
        match lower::explain(&whole, target, &options.lowering())?.first() {
            Some(search) if !search.keeps_scores => Ok(whole),
            _ => {
                let options = SearchOptions { score_budget: Some(target.score_budget), ..options };
                Request { options: &options, ..*self }.function(false)
            }
        }
    }

    /// The search by the differences to all rows, which needs no proof and takes nothing that is prepared: distances and
    /// indices.
    pub(super) fn by_differences(&self, target: &Capabilities) -> Result<Function> {
        let options = self.options.resolved(target, self.metric, self.database)?;
        let score_budget = options.score_budget.or(Some(target.score_budget));
        let precision = lower::Precision::Exact;
        let options =
            SearchOptions { score_budget, precision, centred: Some(false), recall_target: 1.0, ..options };
        Request { options: &options, ..*self }.function(true)
    }

    /// The search as a function of each replica.
    fn function(&self, by_differences: bool) -> Result<Function> {
        let Request { metric, database, devices, options, .. } = *self;
        check_options(database, options)?;
        if !database.dtype().is_float() {
            return Err(Error::argument("search", "database", "of floats", database));
        }
        let sharding = Sharding::new(database, devices)?;
        let [whole, width] = [database.dims()[0], database.dims()[1]];
        let builder = Builder::new("search");
        let queries = Shape::new(self.query_dtype, [self.queries, width]);
        let queries = builder.parameter("queries", queries)?;
        let (stored, scored) = (options.stored(metric, database), score_dtype(database.dtype()));
        let mut shapes = sharding.shapes(&stored).into_iter();
        let Some(shape) = shapes.next() else {
            return Err(Error::argument("search", "database", "of one row at least", database));
        };
        let signature =
            if by_differences { Vec::new() } else { options.prepared_signature(metric, &shape)? };
        let database = builder.parameter("database", shape)?;
        let prepared = signature.into_iter().map(|(name, shape)| builder.parameter(name, shape));
        let rows = Rows::of(database, prepared.collect::<Result<Vec<_>>>()?, options.refines(metric));
        let rest = shapes.next().map(|shape| builder.parameter("rest", shape)).transpose()?;
        let rows = Rows {
            centre: match options.centres(metric) && !by_differences {
                true => Some(builder.parameter("centre", Shape::new(scored, [stored.dims()[1]]))?),
                false => None,
            },
            ..rows
        };
        let queries = widened(&queries, stored.dims()[1])?;
        let plan = Plan {
            metric,
            options,
            k: options.k.min(sharding.rows),
            whole,
            wide: self.wide,
            product_rounding: self.product_rounding,
            unit_queries: self.unit_queries,
            by_differences,
        };
        let search = Search { plan, queries, rows };
        let mut found = search.blocks()?;
        if devices == 1 {
            return builder.finish(found.tensors());
        }
        found.indices = ((&found.indices * devices as i32)? + builder.replica_id(devices)?)?;
        let gathers = options.aggregation == Aggregation::Devices;
        if gathers {
            found = found.gathered(devices)?;
        }
        if let Some(rest) = rest {
            let rest = Rows { norms: norms_of(metric, &rest)?, ..Rows::alone(rest) };
            let (distances, indices) = Search { rows: rest, ..search.clone() }.all()?;
            let indices = (indices + (whole - sharding.rest) as i32)?;
            found.distances = Tensor::concatenate(&[&found.distances, &distances], 1)?;
            found.indices = Tensor::concatenate(&[&found.indices, &indices], 1)?;
        }
        if gathers {
            let whole = Search { plan: Plan { k: options.k, ..plan }, ..search };
            found = whole.aggregate(found)?;
        }
        builder.finish(found.tensors())
    }
}

/// The function of a database, or of a replica's share of one, that gives what its search takes beside it, in the order of
/// the parameters; if there is something. With [`SearchOptions::centred`], it takes the centre `[d]`, too.
///
/// At a precision below f32, or centred, that is the database in that form, and for int8 a scale for each row; then, for
/// these and for L2, the greatest norms of what a row has lost and of what is left of one; then, for L2 and cosine, the norms
/// of the rows. For cosines, squares of numbers must be in the range of the dtype. The options are to be [resolved](SearchOptions::resolved) for the target, as [`search_function_for`] does it.
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
    let centred = options.centres(metric);
    let dtype = options.reduced_dtype(metric, database)?;
    if metric == Metric::InnerProduct && dtype.is_none() {
        return Ok(None);
    }
    let centre = Shape::new(score_dtype(database.dtype()), [database.dims()[1]]);
    let shapes = if centred { vec![database.clone(), centre] } else { vec![database.clone()] };
    let prepared = Function::trace("prepared", &shapes, |x| {
        let mut rows = x[0].convert(score_dtype(database.dtype()))?;
        if let Some(centre) = x.get(1) {
            rows = (rows - centre.expand_dims(0)?)?;
        }
        let norms = norms_of(metric, &rows)?;
        let stored = match (dtype, &norms) {
            (Some(dtype), _) if options.refines(metric) => Reduced::near(&rows, dtype)?.tensors(),
            (Some(dtype), _) => Reduced::of(&rows, dtype)?.tensors(),
            (None, Some(half_norms)) if options.refines(metric) => {
                let errors = errors_of_nothing_lost(half_norms)?;
                if centred { vec![rows, errors] } else { vec![errors] }
            }
            (None, _) => Vec::new(),
        };
        Ok(stored.into_iter().chain(norms).collect::<Vec<_>>())
    });
    prepared.map(Some)
}

/// The greatest norms of what a row has lost, where rows are stored as they are, and of a row, of those whose half norms are
/// in range: there is no proof for others, whatever their norms.
fn errors_of_nothing_lost(half_norms: &Tensor) -> Result<Tensor> {
    let largest = if half_norms.dtype() == DType::F64 { 2f64.powi(1000) } else { 2f64.powi(124) };
    let greatest = half_norms.less_equal(largest)?.select(half_norms, 0.0)?.reduce_max(&[0])?;
    let norm = (greatest * 2.0)?.sqrt()?.expand_dims(0)?;
    Tensor::concatenate(&[&norm.full_like(0.0)?, &norm], 0)
}

fn norms_of(metric: Metric, database: &Tensor) -> Result<Option<Tensor>> {
    let database = database.convert(score_dtype(database.dtype()))?;
    match metric {
        Metric::InnerProduct => Ok(None),
        Metric::L2 => metric::half_norms(&database).map(Some),
        Metric::Cosine => {
            // In one read: of numbers whose squares are out of range, a searcher stores others.
            let squares = (&database * &database)?.reduce_sum(&[1])?;
            squares.equal(0)?.select(&squares, squares.rsqrt()?).map(Some)
        }
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
