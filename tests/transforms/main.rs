//! Transformed functions, one module a family of operators.

mod required;
#[path = "../runner/mod.rs"]
mod runner;
#[path = "../windows/mod.rs"]
mod windows;

mod ann;
mod auto_vmap;
mod control;
mod custom_call;
mod elementwise;
mod index;
mod jax;
mod movement;
mod reduce;
mod search;
mod sort;
mod window;
