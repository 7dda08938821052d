//! Plugins, clients, executables and what is compiled for devices that are not there.

#[path = "../common/mod.rs"]
mod common;

mod aot;
mod device_table;
mod executables;
mod jax_kernels;
mod pjrt;
mod plugin;
mod targets;
