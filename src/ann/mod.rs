//! Nearest-neighbour search.
//!
//! [`max_inner_product`], [`l2`] and [`cosine`] are graph functions, to be part of larger ones. A [`Searcher`]
//! holds a database on a device or several and answers batches of queries. [`recall()`] measures what was found.

mod function;
mod metric;
pub mod recall;
mod search;
mod sharding;

pub use function::{search_function, sharded_search_function};
pub use metric::{Metric, cosine, half_norms, inverse_norms, l2, max_inner_product, squared_distances};
pub use recall::recall;
pub use search::{Aggregation, Neighbors, SearchOptions, Searcher};
