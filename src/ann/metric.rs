//! Search as graph functions: scores by a metric, then approximate top-k.

use crate::graph::Tensor;
use crate::{ApproxTopKOptions, DType, Error, Result};

/// What makes a database vector near to a query.
///
/// ```
/// use xlann::ann::Metric;
/// assert_eq!(Metric::ALL.map(Metric::name), ["ip", "l2", "cosine"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// A large inner product; distances are inner products, largest first.
    InnerProduct,
    /// A small Euclidean distance; distances are squared (but see
    /// [`SearchOptions::squared_distances`](crate::ann::SearchOptions::squared_distances)), smallest first.
    L2,
    /// A large cosine of the angle between them; distances are cosines, largest first. A vector of zeros has
    /// the cosine 0 with every other.
    Cosine,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Metric; 3] = [Metric::InnerProduct, Metric::L2, Metric::Cosine];

    /// The name, as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Metric::InnerProduct => "ip",
            Metric::L2 => "l2",
            Metric::Cosine => "cosine",
        }
    }
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The `k` database vectors of the largest inner product with each query: values `[q, k]` and s32 indices.
///
/// `queries` is `[q, d]` and `database` `[n, d]`, of one floating dtype.
///
/// ```
/// use xlann::{ApproxTopKOptions, Array, DType, Function, Shape, ann};
///
/// let shapes = [Shape::new(DType::F32, [1, 2]), Shape::new(DType::F32, [3, 2])];
/// let mips = Function::trace("mips", &shapes, |x| {
///     ann::max_inner_product(&x[0], &x[1], 2, &ApproxTopKOptions::default())
/// })?;
/// let database = Array::new([3, 2], &[1f32, 0.0, 0.0, 1.0, 2.0, 2.0])?;
/// let found = mips.eval(&[Array::new([1, 2], &[0f32, 1.0])?, database])?;
/// assert_eq!(found, [Array::new([1, 2], &[2f32, 1.0])?, Array::new([1, 2], &[2, 1])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
///
/// # Errors
/// Where the operands are not matrices of equal width, and those of
/// [`approx_max_k`](Tensor::approx_max_k).
pub fn max_inner_product(
    queries: &Tensor,
    database: &Tensor,
    k: usize,
    options: &ApproxTopKOptions,
) -> Result<(Tensor, Tensor)> {
    inner_products("max_inner_product", queries, database)?.approx_max_k(k, options)
}

/// The `k` database vectors of the smallest Euclidean distance to each query: s32 indices `[q, k]`, and values
/// `|database|^2 / 2 - queries . database`, which is half the squared distance less `|query|^2 / 2`.
///
/// `queries` is `[q, d]`, `database` `[n, d]` and `half_norms` `[n]`, made by [`half_norms`].
///
/// # Errors
/// Where the operands are not matrices of equal width and a vector of the database's length, and those of
/// [`approx_min_k`](Tensor::approx_min_k).
///
/// ```
/// use xlann::{ApproxTopKOptions, Array, DType, Function, Shape, ann};
///
/// let shapes = [Shape::new(DType::F32, [1, 2]), Shape::new(DType::F32, [3, 2])];
/// let nearest = Function::trace("nearest", &shapes, |x| {
///     let half_norms = ann::half_norms(&x[1])?;
///     ann::l2(&x[0], &x[1], &half_norms, 2, &ApproxTopKOptions::default())
/// })?;
/// let database = Array::new([3, 2], &[1f32, 0.0, 0.0, 1.0, 2.0, 2.0])?;
/// let found = nearest.eval(&[Array::new([1, 2], &[0f32, 2.0])?, database])?;
/// assert_eq!(found, [Array::new([1, 2], &[-1.5f32, 0.0])?, Array::new([1, 2], &[1, 2])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn l2(
    queries: &Tensor,
    database: &Tensor,
    half_norms: &Tensor,
    k: usize,
    options: &ApproxTopKOptions,
) -> Result<(Tensor, Tensor)> {
    half_distances(queries, database, half_norms)?.approx_min_k(k, options)
}

/// The `k` database vectors of the largest cosine with each query: cosines `[q, k]` and s32 indices.
///
/// `queries` is `[q, d]`, `database` `[n, d]` and `inverse_norms` `[n]`, made by [`inverse_norms`].
///
/// # Errors
/// Where the operands are not matrices of equal width and a vector of the database's length, and those of
/// [`approx_max_k`](Tensor::approx_max_k).
///
/// ```
/// use xlann::{ApproxTopKOptions, Array, DType, Function, Shape, ann};
///
/// let shapes = [Shape::new(DType::F32, [1, 2]), Shape::new(DType::F32, [3, 2])];
/// let similar = Function::trace("similar", &shapes, |x| {
///     let inverse_norms = ann::inverse_norms(&x[1])?;
///     ann::cosine(&x[0], &x[1], &inverse_norms, 2, &ApproxTopKOptions::default())
/// })?;
/// let database = Array::new([3, 2], &[2f32, 0.0, 0.0, 0.25, 0.0, 0.0])?;
/// let found = similar.eval(&[Array::new([1, 2], &[0f32, 4.0])?, database])?;
/// assert_eq!(found[0], Array::new([1, 2], &[1f32, 0.0])?);
/// assert_eq!(found[1].to_vec::<i32>()?[0], 1);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn cosine(
    queries: &Tensor,
    database: &Tensor,
    inverse_norms: &Tensor,
    k: usize,
    options: &ApproxTopKOptions,
) -> Result<(Tensor, Tensor)> {
    cosines(queries, database, inverse_norms)?.approx_max_k(k, options)
}

/// Half the squared norm of each row of a matrix: `[n, d]` gives `[n]`.
///
/// # Errors
/// Where the operand is not a matrix.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, ann};
///
/// let norms = Function::trace("norms", &[Shape::new(DType::F32, [2, 2])], |x| ann::half_norms(&x[0]))?;
/// let database = Array::new([2, 2], &[3f32, 4.0, 0.0, 0.0])?;
/// assert_eq!(norms.eval(&[database])?, [Array::new([2], &[12.5f32, 0.0])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn half_norms(database: &Tensor) -> Result<Tensor> {
    check_matrix("half_norms", "database", database)?;
    (database * database)?.reduce_sum(&[1])? * 0.5
}

/// The inverse of the norm of each row of a matrix, 0 for rows of zeros: `[n, d]` gives `[n]`.
///
/// The squares must be in the dtype's range: in f32, norms from about 1e-19 to 1e19 are.
///
/// # Errors
/// Where the operand is not a matrix.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, ann};
///
/// let norms = Function::trace("norms", &[Shape::new(DType::F32, [2, 2])], |x| ann::inverse_norms(&x[0]))?;
/// let database = Array::new([2, 2], &[3f32, 4.0, 0.0, 0.0])?;
/// assert_eq!(norms.eval(&[database])?, [Array::new([2], &[0.2f32, 0.0])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn inverse_norms(database: &Tensor) -> Result<Tensor> {
    check_matrix("inverse_norms", "database", database)?;
    let squares = (database * database)?.reduce_sum(&[1])?;
    squares.equal(0)?.select(&squares, squares.rsqrt()?)
}

/// The squared Euclidean distance of each query to the database vectors at `indices`, from the differences:
/// `[q, d]`, `[n, d]` and `[q, k]` give `[q, k]`. Unlike what [`l2`] compares, it does not cancel.
///
/// # Errors
/// Where the operands are not matrices of equal width and s32 indices for each query.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, ann};
///
/// let shapes =
///     [Shape::new(DType::F32, [1, 2]), Shape::new(DType::F32, [2, 2]), Shape::new(DType::S32, [1, 1])];
/// let f = Function::trace("f", &shapes, |x| ann::squared_distances(&x[0], &x[1], &x[2]))?;
/// let [query, database] = [Array::new([1, 2], &[0f32, 0.0])?, Array::new([2, 2], &[9f32, 9.0, 3.0, 4.0])?];
/// let results = f.eval(&[query, database, Array::new([1, 1], &[1])?])?;
/// assert_eq!(results, [Array::new([1, 1], &[25f32])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn squared_distances(queries: &Tensor, database: &Tensor, indices: &Tensor) -> Result<Tensor> {
    check_width("squared_distances", queries, database)?;
    let count = queries.dims()[0];
    if indices.dtype() != DType::S32 || indices.rank() != 2 || indices.dims()[0] != count {
        let expected = format!("s32 of dimensions [{count}, k]");
        return Err(Error::argument("squared_distances", "indices", expected, indices.shape()));
    }
    squared_distances_to(queries, &database.take(indices, 0)?)
}

/// The squared Euclidean distance of each query to vectors of its own: `[q, d]` and `[q, k, d]` give `[q, k]`.
pub(super) fn squared_distances_to(queries: &Tensor, vectors: &Tensor) -> Result<Tensor> {
    let differences = (vectors - queries.expand_dims(1)?)?;
    (&differences * &differences)?.reduce_sum(&[2])
}

/// The score of every database vector for each query, `[q, n]`; `norms` are those that the metric needs.
pub(super) fn scores(
    metric: Metric,
    queries: &Tensor,
    database: &Tensor,
    norms: Option<&Tensor>,
) -> Result<Tensor> {
    match (metric, norms) {
        (Metric::L2, Some(norms)) => half_distances(queries, database, norms),
        (Metric::Cosine, Some(norms)) => cosines(queries, database, norms),
        _ => inner_products("max_inner_product", queries, database),
    }
}

fn half_distances(queries: &Tensor, database: &Tensor, half_norms: &Tensor) -> Result<Tensor> {
    let products = inner_products("l2", queries, database)?;
    check_of_database("l2", "half_norms", half_norms, database)?;
    half_norms - products
}

fn cosines(queries: &Tensor, database: &Tensor, inverse_norms: &Tensor) -> Result<Tensor> {
    check_matrix("cosine", "queries", queries)?;
    let unit = (queries * self::inverse_norms(queries)?.expand_dims(1)?)?;
    let products = inner_products("cosine", &unit, database)?;
    check_of_database("cosine", "inverse_norms", inverse_norms, database)?;
    products * inverse_norms
}

fn inner_products(operator: &'static str, queries: &Tensor, database: &Tensor) -> Result<Tensor> {
    check_width(operator, queries, database)?;
    queries.dot_general(database, (&[1], &[1]), (&[], &[]))
}

fn check_matrix(operator: &'static str, argument: &str, tensor: &Tensor) -> Result<()> {
    if tensor.rank() == 2 && tensor.dtype().is_float() {
        return Ok(());
    }
    Err(Error::argument(operator, argument, "a matrix of floats", tensor.shape()))
}

fn check_width(operator: &'static str, queries: &Tensor, database: &Tensor) -> Result<()> {
    check_matrix(operator, "queries", queries)?;
    check_matrix(operator, "database", database)?;
    let (width, dtype) = (database.dims()[1], database.dtype());
    if queries.dims()[1] == width && queries.dtype() == dtype {
        return Ok(());
    }
    let expected = format!("of width {width} and dtype {dtype}, as the database {}", database.shape());
    Err(Error::argument(operator, "queries", expected, queries.shape()))
}

fn check_of_database(
    operator: &'static str,
    argument: &str,
    tensor: &Tensor,
    database: &Tensor,
) -> Result<()> {
    let expected = database.shape().with_dims([database.dims()[0]]);
    if *tensor.shape() == expected {
        return Ok(());
    }
    Err(Error::argument(operator, argument, expected.to_string(), tensor.shape()))
}
