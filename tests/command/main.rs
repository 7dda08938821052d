//! The command line.

#[path = "../common/mod.rs"]
mod common;
mod folder;

mod commands;
mod compile;
mod plan;
mod refusals;
