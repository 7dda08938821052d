//! What a user decides of a search.

use std::num::NonZeroUsize;

use crate::ann::function::{check_options, score_dtype};
use crate::ann::metric::Metric;
use crate::lower::{self, Capabilities, Form, Precision, Reduced};
use crate::{DType, Error, Result, Shape};

/// How a [`Searcher`](crate::ann::Searcher) searches.
///
/// ```
/// use xlann::ann::SearchOptions;
///
/// let options = SearchOptions { recall_target: 0.99, batch: Some(32), ..SearchOptions::new(10) };
/// assert_eq!((options.k, options.form), (10, None));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SearchOptions {
    /// The number of neighbours for each query.
    pub k: usize,
    /// The share of the true neighbours that is expected among those found, in (0, 1]. Default: 0.95.
    ///
    /// A [`Searcher`](crate::ann::Searcher) stores rows in a pseudo-random order for the native forms of TPUs, so that it holds
    /// for rows in any order. A function searches them as they are given: see [`Form::Native`].
    pub recall_target: f32,
    /// How many queries are answered at once, at most. Default: what suits the target
    /// ([`Capabilities::batch`](crate::lower::Capabilities::batch)).
    pub batch: Option<usize>,
    /// How many bytes the scores of a batch may take: the database is searched in blocks for which they do. The
    /// rows of a block, of which the device makes a copy, may take as many again. A block has `k` rows at
    /// least; and true squared distances take the vectors of a batch's neighbours beside it. Default: what suits the
    /// target ([`Capabilities::score_budget`](crate::lower::Capabilities::score_budget)); a function that is made
    /// for no target searches the whole at once.
    pub score_budget: Option<usize>,
    /// What the width of the database is padded to a multiple of, with zeros, where true squared distances are
    /// computed, for which rows are gathered. Default: what suits the target
    /// ([`Capabilities::width_multiple`](crate::lower::Capabilities::width_multiple)); for no target, nothing is padded.
    pub width_multiple: Option<usize>,
    /// Whether L2 distances are computed anew, as squared distances, for the neighbours found; else they are
    /// what was compared, `|database|^2 / 2 - query . database`. Default: true.
    pub squared_distances: bool,
    /// Where the neighbours that several devices found are put together. Default: on the devices.
    pub aggregation: Aggregation,
    /// The form of the approximate top-k; by default, the target's policy chooses.
    pub form: Option<Form>,
    /// The precision of the scores by which candidates are found in an f32 database, where the target has
    /// [kernels](Form::Kernel). Below [`Exact`](Precision::Exact) the database is kept in bf16 or int8, too,
    /// which takes half or a quarter of its memory more, and twice its memory while that is made; distances are those of
    /// the f32 vectors. Default: exact.
    ///
    /// The recall of all queries of a batch, the mean of theirs, is then proven to be at the target, for L2 by true distances;
    /// where that fails, the queries of which least is proven are searched again, at last exactly, which takes longer than an
    /// exact search from the start. So it is for all queries where a vector is much larger than most, or, for inner products,
    /// not finite: the error that is reckoned with is the largest of any vector. What is found of a query depends on the
    /// others of its batch; with a recall target of 1, each is exact.
    /// [`Auto`](Precision::Auto) is exact where there is no such search, which others refuse.
    ///
    /// For cosines, a [`Searcher`](crate::ann::Searcher) keeps the rows divided by their norms instead, in a copy of the
    /// database, and searches these by inner product. Functions have no such search.
    pub precision: Precision,
    /// Whether L2 candidates are found among the vectors less a centre, in a copy of the database that has its memory again.
    /// Far from the origin, half distances lose what tells neighbours apart. By default a
    /// [`Searcher`](crate::ann::Searcher) does so where most rows are much further from the origin than from their median, which
    /// is the centre; functions do not. At a precision below f32, it costs no more memory.
    pub centred: Option<bool>,
    /// How many threads the target's kernels take, at most; by default all that XLA has.
    pub threads: Option<NonZeroUsize>,
}

impl SearchOptions {
    /// The defaults for `k` neighbours.
    ///
    /// ```
    /// use xlann::ann::SearchOptions;
    /// let options = SearchOptions::new(10);
    /// assert_eq!((options.k, options.batch, options.recall_target), (10, None, 0.95));
    /// ```
    pub fn new(k: usize) -> SearchOptions {
        SearchOptions {
            k,
            recall_target: 0.95,
            batch: None,
            score_budget: None,
            width_multiple: None,
            squared_distances: true,
            aggregation: Aggregation::default(),
            form: None,
            precision: Precision::default(),
            centred: None,
            threads: None,
        }
    }

    /// As they are taken for a database on a target: with its batch and width, and a precision that is not automatic.
    ///
    /// # Errors
    /// Where a precision is named that the target has no such search of.
    ///
    /// ```
    /// use xlann::ann::{Metric, SearchOptions};
    /// use xlann::lower::Precision;
    /// use xlann::target::tpu;
    /// use xlann::{DType, Shape};
    ///
    /// let options = SearchOptions { precision: Precision::Auto, ..SearchOptions::new(10) };
    /// let database = Shape::new(DType::F32, [1_000_000, 128]);
    /// let options = options.resolved(&tpu::CAPABILITIES, Metric::L2, &database)?;
    /// assert_eq!((options.precision, options.batch), (Precision::Exact, Some(128)));
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn resolved(&self, target: &Capabilities, metric: Metric, database: &Shape) -> Result<SearchOptions> {
        check_options(database, self)?;
        let why_exact = match self.form {
            _ if !target.forms.contains(&Form::Kernel) => Some(format!("{} has no kernels", target.target)),
            Some(form) if form != Form::Kernel => Some(format!("the form is {form}")),
            _ => self.why_exact(metric, database),
        };
        let precision = match (self.precision, why_exact) {
            (Precision::Auto, Some(_)) => Precision::Exact,
            (Precision::Auto, None) => {
                match self.precision.dtype(
                    self.recall_target,
                    self.k,
                    [database.dims()[0], database.dims()[1]],
                ) {
                    Some(DType::S8) => Precision::Int8,
                    Some(_) => Precision::Bf16,
                    None => Precision::Exact,
                }
            }
            (Precision::Bf16 | Precision::Int8, Some(why)) => return Err(self.refused_precision(&why)),
            (precision, _) => precision,
        };
        let width_multiple = self.width_multiple.or(Some(target.width_multiple));
        let batch = self.batch.or(Some(target.batch));
        Ok(SearchOptions { precision, width_multiple, batch, ..self.clone() })
    }

    /// The metric by which a searcher searches: at a precision below f32, cosines are inner products of rows of norm 1.
    ///
    /// # Errors
    /// As [`resolved`](SearchOptions::resolved).
    ///
    /// ```
    /// use xlann::ann::{Metric, SearchOptions};
    /// use xlann::lower::Precision;
    /// use xlann::target::cpu;
    /// use xlann::{DType, Shape};
    ///
    /// let options = SearchOptions { precision: Precision::Int8, ..SearchOptions::new(10) };
    /// let database = Shape::new(DType::F32, [1_000_000, 128]);
    /// assert_eq!(options.searched_by(&cpu::CAPABILITIES, Metric::Cosine, &database)?, Metric::InnerProduct);
    /// assert_eq!(options.searched_by(&cpu::CAPABILITIES, Metric::L2, &database)?, Metric::L2);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn searched_by(&self, target: &Capabilities, metric: Metric, database: &Shape) -> Result<Metric> {
        if metric != Metric::Cosine || self.precision == Precision::Exact {
            return Ok(metric);
        }
        let by = Metric::InnerProduct;
        Ok(if self.resolved(target, by, database)?.precision == Precision::Exact { metric } else { by })
    }

    /// Why there is no search at a precision below f32, if so.
    fn why_exact(&self, metric: Metric, database: &Shape) -> Option<String> {
        if database.dtype() != DType::F32 {
            return Some(format!("the database is searched in {}", database.dtype()));
        }
        if metric == Metric::Cosine {
            return Some("the metric is cosine, of which a Searcher alone has one".to_owned());
        }
        self.score_budget.map(|budget| format!("there is a score budget, of {budget} bytes"))
    }

    /// What the rows of a database, or of a share of one, are kept in beside f32, for their scores. An automatic precision
    /// is for a target to choose, and exact without one.
    ///
    /// # Errors
    /// Where a precision is named that there is no such search of.
    pub(super) fn reduced_dtype(&self, metric: Metric, rows: &Shape) -> Result<Option<DType>> {
        if matches!(self.precision, Precision::Exact | Precision::Auto) {
            return Ok(None);
        }
        match self.why_exact(metric, rows) {
            Some(why) => Err(self.refused_precision(&why)),
            None => Ok(self.precision.dtype(self.recall_target, self.k, [rows.dims()[0], rows.dims()[1]])),
        }
    }

    /// Whether a searcher may find candidates among the vectors less a centre: a kernel takes f64 as it is.
    pub(super) fn may_centre(&self, target: &Capabilities, metric: Metric, searched: DType) -> bool {
        let kernel =
            target.forms.contains(&Form::Kernel) && self.form.is_none_or(|form| form == Form::Kernel);
        self.refines(metric) && self.centred != Some(false) && !(kernel && searched == DType::F64)
    }

    /// Whether candidates are found among the vectors less a centre.
    pub(super) fn centres(&self, metric: Metric) -> bool {
        self.refines(metric) && self.centred == Some(true)
    }

    /// The names of what is prepared of a database, or of a share of one, and their shapes: what
    /// [`prepared_function`](crate::ann::prepared_function) gives.
    ///
    /// # Errors
    /// Where a precision is named that there is no such search of.
    pub(super) fn prepared_signature(
        &self,
        metric: Metric,
        rows: &Shape,
    ) -> Result<Vec<(&'static str, Shape)>> {
        let dtype = self.reduced_dtype(metric, rows)?;
        let scored = score_dtype(rows.dtype());
        let norms = Shape::new(scored, [rows.dims()[0]]);
        let mut signature = match dtype {
            Some(dtype) => Reduced::signature(rows, dtype),
            None if self.centres(metric) => Reduced::signature(&rows.with_dtype(scored), scored),
            None if self.refines(metric) => vec![("errors", Shape::new(scored, [2]))],
            None => Vec::new(),
        };
        match metric {
            Metric::InnerProduct => {}
            Metric::L2 => signature.push(("half_norms", norms)),
            Metric::Cosine => signature.push(("inverse_norms", norms)),
        }
        Ok(signature)
    }

    fn refused_precision(&self, why: &str) -> Error {
        Error::argument("search", "precision", format!("exact or auto, as {why}"), self.precision)
    }

    /// Those of the lowering of [`search_function_for`](crate::ann::search_function_for), for
    /// [`Session::compile_with`](crate::Session::compile_with) and the like.
    ///
    /// ```
    /// use xlann::ann::SearchOptions;
    /// use xlann::lower::Form;
    ///
    /// let options = SearchOptions { form: Some(Form::Kernel), ..SearchOptions::new(10) };
    /// assert_eq!(options.lowering().approx_top_k, Some(Form::Kernel));
    /// ```
    pub fn lowering(&self) -> lower::Options {
        lower::Options { approx_top_k: self.form, threads: self.threads, ..Default::default() }
    }

    /// Whether distances are computed anew for the neighbours found.
    pub(super) fn refines(&self, metric: Metric) -> bool {
        metric == Metric::L2 && self.squared_distances
    }

    /// The shape in which a database is searched.
    pub(super) fn stored(&self, metric: Metric, database: &Shape) -> Shape {
        let (rows, width) = (database.dims()[0], database.dims()[1]);
        match self.width_multiple {
            Some(multiple) if self.refines(metric) => {
                // What passes the address space is refused as a shape.
                database.with_dims([rows, width.checked_next_multiple_of(multiple).unwrap_or(usize::MAX)])
            }
            _ => database.clone(),
        }
    }
}

/// Where the neighbours that several devices found are put together.
///
/// ```
/// use xlann::ann::{Aggregation, SearchOptions};
///
/// let options = SearchOptions { aggregation: Aggregation::Host, ..SearchOptions::new(10) };
/// assert_ne!(options.aggregation, SearchOptions::new(10).aggregation);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Aggregation {
    /// On the devices: each gathers what all have found and takes the best of it; the host reads one's results.
    #[default]
    Devices,
    /// On the host, which reads what every device has found. The devices exchange nothing.
    Host,
}
