//! Search as graph functions: scores by a metric, then approximate top-k.

use crate::graph::Tensor;
use crate::{ApproxTopKOptions, Array, DType, Error, Result};

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
/// The derivative is that of the products with the rows that were found, whatever
/// [`ApproxTopKOptions::tangent`] says. The other rows have no part in it, whatever they hold: of an infinite row that was
/// not found, the gradient is 0. So it is for [`l2`] and [`cosine`], too.
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
/// Where the operands are not matrices of equal width, the reduction dimension is not that of the rows, and those of
/// [`approx_max_k`](Tensor::approx_max_k).
pub fn max_inner_product(
    queries: &Tensor,
    database: &Tensor,
    k: usize,
    options: &ApproxTopKOptions,
) -> Result<(Tensor, Tensor)> {
    let operator = "max_inner_product";
    let products = inner_products(operator, queries, database)?;
    check_along_rows(operator, &products, options)?;
    let (values, indices) = products.approx_max_k(k, options)?;
    let found = products_with(queries, &database.take(&indices, 0)?)?;
    Ok((values.with_derivative_of(&found)?, indices))
}

/// The `k` database vectors of the smallest Euclidean distance to each query: s32 indices `[q, k]`, and values
/// `|database|^2 / 2 - queries . database`, which is half the squared distance less `|query|^2 / 2`.
///
/// `queries` is `[q, d]`, `database` `[n, d]` and `half_norms` `[n]`, made by [`half_norms`].
///
/// The values round where norms are large against distances: far from the origin, |database|^2 / 2 and the product cancel.
/// In f32, squared distances that differ by less than about 1e-7 of |database|^2 can so come in any order. A
/// [`Searcher`](crate::ann::Searcher) computes the distances of what it finds anew, from differences
/// ([`squared_distances`]).
///
/// # Errors
/// Where the operands are not matrices of equal width and a vector of the database's length, the reduction dimension is not
/// that of the rows, and those of [`approx_min_k`](Tensor::approx_min_k).
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
    let distances = half_distances(queries, database, half_norms)?;
    check_along_rows("l2", &distances, options)?;
    let (values, indices) = distances.approx_min_k(k, options)?;
    let products = products_with(queries, &database.take(&indices, 0)?)?;
    let found = (half_norms.take(&indices, 0)? - products)?;
    Ok((values.with_derivative_of(&found)?, indices))
}

/// The `k` database vectors of the largest cosine with each query: cosines `[q, k]` and s32 indices.
///
/// `queries` is `[q, d]`, `database` `[n, d]` and `inverse_norms` `[n]`, made by [`inverse_norms`].
///
/// The cosines are within -1 and 1. They hold for queries of any finite elements, and for database vectors whose inverse
/// norms, and the products with a vector of norm 1, are in the dtype's range: in f32, those of norms from about 1e-36 to
/// 8e37. A vector of zeros has the cosine 0 with every other, and no derivative.
///
/// # Errors
/// Where the operands are not matrices of equal width and a vector of the database's length, the reduction dimension is not
/// that of the rows, and those of [`approx_max_k`](Tensor::approx_max_k).
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
    check_matrix("cosine", "queries", queries)?;
    let unit = unit(queries)?;
    let cosines = cosines(&unit, database, inverse_norms)?;
    check_along_rows("cosine", &cosines, options)?;
    let (values, indices) = cosines.approx_max_k(k, options)?;
    let products = products_with(&unit, &database.take(&indices, 0)?)?;
    let found = (products * inverse_norms.take(&indices, 0)?)?;
    // Rounding can put them beyond.
    Ok((values.clamp(-1, 1)?.with_derivative_of(&found)?, indices))
}

/// Half the squared norm of each row of a matrix: `[n, d]` gives `[n]`.
///
/// It is infinite where a square is beyond the dtype: in f32, of elements from about 2e19 on. Elements that are not finite
/// have no derivative.
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
    let half_norms = |rows: &Tensor| (rows * rows)?.reduce_sum(&[1])? * 0.5;
    // Else a cotangent of 0 times an infinite element would be NaN.
    let finite = database.is_finite()?.select(database, 0)?;
    half_norms(database)?.with_derivative_of(&half_norms(&finite)?)
}

/// The inverse of the norm of each row of a matrix, 0 for rows of zeros: `[n, d]` gives `[n]`.
///
/// It holds for all norms whose inverse is in the dtype's range, as rows are scaled by a power of two before their elements
/// are squared. It is 0 for infinite rows, too, and NaN for those with a NaN. None of these, nor rows of zeros, has a
/// derivative.
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
    let Scaled { scale, inverse_norms, usable, otherwise, .. } = Scaled::of(database)?;
    usable.select((inverse_norms / scale)?, otherwise)
}

/// Each row of a matrix divided by its norm; zeros and NaNs as by [`inverse_norms`].
pub(super) fn unit(rows: &Tensor) -> Result<Tensor> {
    let Scaled { rows: scaled, inverse_norms, usable, otherwise, .. } = Scaled::of(rows)?;
    let unit = (scaled * inverse_norms.expand_dims(1)?)?;
    usable.expand_dims(1)?.select(unit, otherwise.expand_dims(1)?)
}

/// As [`unit`], with NaN for rows that are not finite.
pub(super) fn unit_or_none(rows: &Tensor) -> Result<Tensor> {
    let is_finite = rows.abs()?.reduce_max(&[1])?.is_finite()?.expand_dims(1)?;
    is_finite.select(unit(rows)?, f64::NAN)
}

/// The rows of a matrix, divided by powers of two so that their squares are in range.
struct Scaled {
    /// `[n, d]`: the largest magnitude of a row is from 1 to 2, or to 4 at the end of the dtype's range.
    rows: Tensor,
    /// `[n]`: what they were divided by; a constant to derivatives.
    scale: Tensor,
    /// `[n]`: the inverse norms of the scaled rows.
    inverse_norms: Tensor,
    /// `[n]`: whether a row is finite and not zero. Others are of ones here, which derivatives do not see.
    usable: Tensor,
    /// `[n]`: what stands for the inverse norms of the others: 0, but NaN for rows with one.
    otherwise: Tensor,
}

impl Scaled {
    fn of(rows: &Tensor) -> Result<Scaled> {
        let largest = rows.abs()?.reduce_max(&[1])?;
        let scale = power_of_two(&largest)?;
        // Scaled, as a device may take subnormal numbers for zeros in some operators.
        let usable = ((&largest / &scale)?.greater(0)? & largest.is_finite()?)?;
        let scale = usable.select(scale, 1)?;
        // Both powers of two are normal. A quotient would be kept in memory, as compilers divide no number twice.
        let inverse = (scale.full_like(1)? / &scale)?;
        let rows = (usable.expand_dims(1)?.select(rows, 1)? * inverse.expand_dims(1)?)?;
        let inverse_norms = (&rows * &rows)?.reduce_sum(&[1])?.rsqrt()?;
        let otherwise = largest.equal(&largest)?.select(largest.full_like(0)?, f64::NAN)?;
        Ok(Scaled { rows, scale, inverse_norms, usable, otherwise })
    }
}

/// The greatest power of two that is not above each of some positive numbers, by their exponents alone; but one whose
/// inverse is normal, too, as a compiler may multiply by that instead of dividing.
fn power_of_two(numbers: &Tensor) -> Result<Tensor> {
    let builder = numbers.builder();
    let (exponent, least) = match numbers.dtype() {
        DType::F16 => (Array::scalar(0x7c00u16), f64::from(half::f16::MIN_POSITIVE)),
        DType::BF16 => (Array::scalar(0x7f80u16), f64::from(half::bf16::MIN_POSITIVE)),
        DType::F32 => (Array::scalar(0x7f80_0000u32), f64::from(f32::MIN_POSITIVE)),
        _ => (Array::scalar(0x7ff0_0000_0000_0000u64), f64::MIN_POSITIVE),
    };
    let exponent = builder.constant(exponent)?;
    let bits = (numbers.bitcast_convert(exponent.dtype())? & exponent)?;
    bits.bitcast_convert(numbers.dtype())?.clamp(least, 1.0 / least)
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

/// `unit` are the queries, of norm 1.
fn cosines(unit: &Tensor, database: &Tensor, inverse_norms: &Tensor) -> Result<Tensor> {
    let products = inner_products("cosine", unit, database)?;
    check_of_database("cosine", "inverse_norms", inverse_norms, database)?;
    products * inverse_norms
}

fn inner_products(operator: &'static str, queries: &Tensor, database: &Tensor) -> Result<Tensor> {
    check_width(operator, queries, database)?;
    queries.dot_general(database, (&[1], &[1]), (&[], &[]))
}

/// The products of each query with vectors of its own: `[q, d]` and `[q, k, d]` give `[q, k]`.
fn products_with(queries: &Tensor, vectors: &Tensor) -> Result<Tensor> {
    queries.dot_general(vectors, (&[1], &[2]), (&[0], &[0]))
}

/// Requires that the scores `[q, n]` are searched along the rows of the database.
fn check_along_rows(operator: &'static str, scores: &Tensor, options: &ApproxTopKOptions) -> Result<()> {
    let dimension = options.reduction_dimension;
    if scores.shape().axis(operator, "reduction_dimension", dimension)? == 1 {
        return Ok(());
    }
    Err(Error::argument(operator, "reduction_dimension", "1 or -1, along the database's rows", dimension))
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
