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
mod custom_derivative;
mod elementwise;
mod functions;
mod functions_jax;
mod index;
mod jax;
mod jax_cases;
mod movement;
mod optim;
mod random;
mod reduce;
mod search;
mod sort;
mod window;
