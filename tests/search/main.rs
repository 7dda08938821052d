//! Approximate top-k in every form, the kernels for it, and searches.

mod nearest;
#[path = "../runner/mod.rs"]
mod runner;
mod searches;

mod ann;
mod ann_rows;
mod forms;
mod kernels;
mod kernels_table;
mod precision;
mod prepare;
mod searcher;
mod sharded;
