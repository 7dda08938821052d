//! What operators compute, one module a family, and their StableHLO.

#[path = "../runner/mod.rs"]
mod runner;
#[path = "../windows/mod.rs"]
mod windows;

mod collective;
mod contract;
mod control;
mod elementwise;
mod index;
mod movement;
mod sort;
mod stablehlo;
mod window;
