//! What a searcher keeps of a database beside the database itself.

use std::fmt;

use crate::ann::function::score_dtype;
use crate::ann::intake::{TINY, safe_exponent};
use crate::ann::metric::Metric;
use crate::ann::options::SearchOptions;
use crate::ann::order::Order;
use crate::ann::sharding::Sharding;
use crate::lower::Capabilities;
use crate::{DType, Result, Shape};

/// A copy of a database that a [`Searcher`](crate::ann::Searcher) keeps or, for a while, makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseCopy {
    /// What is in it.
    pub what: String,
    /// Its size, over all devices.
    pub bytes: u64,
    /// For which data it is made; `None` where for all.
    pub when: Option<String>,
}

impl fmt::Display for DatabaseCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a copy of {} bytes, {}", self.bytes, self.what)?;
        match &self.when {
            Some(when) => write!(f, ", only where {when}"),
            None => Ok(()),
        }
    }
}

/// The copies of a database `[n, d]` that a [`Searcher`](crate::ann::Searcher) makes on a target: those that it always makes,
/// and those that some data needs. Without any, a mapped file is read in place where the device is the CPU.
///
/// # Errors
/// As [`Searcher::over`](crate::ann::Searcher::over) for the shape and the options.
///
/// ```
/// use xlann::ann::{Metric, SearchOptions, database_copies};
/// use xlann::target::cpu;
/// use xlann::{DType, Shape};
///
/// let copies = |metric, dtype| {
///     database_copies(&cpu::CAPABILITIES, metric, &Shape::new(dtype, [1000, 128]), 1, &SearchOptions::new(10))
/// };
/// let l2 = copies(Metric::L2, DType::F32)?;
/// assert_eq!(
///     l2[1].to_string(),
///     "a copy of 512000 bytes, of the rows less a centre, only where most rows are much further from the origin than from \
///      their median",
/// );
/// // Bytes are always searched in f32.
/// let always = |copies: Vec<xlann::ann::DatabaseCopy>| copies.into_iter().find(|copy| copy.when.is_none());
/// assert_eq!(always(l2), None);
/// assert_eq!(always(copies(Metric::L2, DType::U8)?).unwrap().to_string(), "a copy of 512000 bytes, in f32");
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn database_copies(
    target: &Capabilities,
    metric: Metric,
    database: &Shape,
    devices: usize,
    options: &SearchOptions,
) -> Result<Vec<DatabaseCopy>> {
    let sharding = Sharding::new(database, devices)?;
    let searched = database.with_dtype(target.search_dtype(database.dtype()));
    let searched_by = options.searched_by(target, metric, &searched)?;
    let resolved = options.resolved(target, searched_by, &searched)?;
    let (scored, stored) = (score_dtype(searched.dtype()), resolved.stored(searched_by, &searched));
    let mut copies = Vec::new();
    let mut copy = |what: String, shape: Shape, when: Option<String>| {
        copies.push(DatabaseCopy { what, bytes: shape.byte_count() as u64, when });
    };
    let safe = safe_exponent(scored);
    let needs_scale = match metric {
        Metric::L2 if scored == DType::F64 => {
            format!("the largest number is beyond 2^{safe} or below 2^-{safe}")
        }
        Metric::L2 => format!("numbers are below 2^{TINY}"),
        Metric::InnerProduct => format!("the largest number is beyond 2^{safe} or below 2^-{safe}"),
        Metric::Cosine => format!("the largest number of a row is beyond 2^{safe} or below 2^-{safe}"),
    };
    copy("scaled by powers of two".to_owned(), database.with_dtype(scored), Some(needs_scale));
    if devices > 1 || Order::of(target, options, database.dims()[0]).shuffles() {
        copy("of the rows in the order in which devices search them".to_owned(), database.clone(), None);
    }
    if *database != stored {
        let columns = match stored.dims()[1] {
            width if width == database.dims()[1] => String::new(),
            width => format!(", with zeros up to {width} columns"),
        };
        let divided = if searched_by == metric { "" } else { ", divided by their norms" };
        copy(format!("in {}{columns}{divided}", stored.dtype()), stored.clone(), None);
        if !database.dtype().is_float() && target.searched.contains(&DType::F64) && scored == DType::F32 {
            let when = "integers are beyond 2^24".to_owned();
            copy("in f64 instead".to_owned(), stored.with_dtype(DType::F64), Some(when));
        }
    }
    if searched_by != metric && *database == stored {
        copy("of the rows divided by their norms".to_owned(), stored.clone(), None);
    }
    if let Some(reduced) = resolved.reduced_dtype(searched_by, &sharding.shapes(&stored)[0])? {
        copy(format!("in {reduced}, in which candidates are found"), stored.with_dtype(reduced), None);
    } else if options.may_centre(target, metric, scored) {
        let far = "most rows are much further from the origin than from their median".to_owned();
        let when = if options.centred == Some(true) { None } else { Some(far) };
        copy("of the rows less a centre".to_owned(), stored.with_dtype(scored), when);
    }
    Ok(copies)
}
