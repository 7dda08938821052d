//! Nearest-neighbour search.
//!
//! [`max_inner_product`], [`l2`] and [`cosine`] are graph functions, to be part of larger ones. A [`Searcher`]
//! holds a database on a device or several and answers batches of queries; [`plan()`] tells
//! beforehand what that would take of a device or a pod. [`recall()`] measures what was found by what
//! [`true_neighbors`] computes on the host.

mod copies;
mod function;
mod intake;
mod metric;
mod once;
mod options;
mod order;
mod plan;
pub mod recall;
mod rows;
mod search;
mod sharding;
mod truth;

pub use copies::{DatabaseCopy, database_copies};
pub use function::{prepared_function, search_function, search_function_for, sharded_search_function};
pub use metric::{Metric, cosine, half_norms, inverse_norms, l2, max_inner_product, squared_distances};
pub use options::{Aggregation, SearchOptions};
pub use plan::{Plan, plan, smallest_fit};
pub use recall::recall;
pub use search::{Neighbors, Searcher};
pub use truth::{true_distances, true_neighbors};
