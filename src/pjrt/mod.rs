//! PJRT: loading plugins, compiling programs with them and running the programs on their devices.
//!
//! ```no_run
//! use xlann::pjrt::{Client, CompileOptions, Plugin, Program, Signature};
//! use xlann::{Array, DType, Shape};
//!
//! let plugin = Plugin::load("pjrt_c_api_cpu_plugin.so")?;
//! let client = Client::new(plugin, &[])?;
//! let program = Program::StableHlo(
//!     "func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
//!        %y = stablehlo.add %x, %x : tensor<2xf32>
//!        return %y : tensor<2xf32>
//!      }",
//! );
//! let shape = Shape::new(DType::F32, [2]);
//! let signature = Signature { name: "twice".into(), parameters: vec![shape.clone()], results: vec![shape] };
//! let twice = client.compile(program, signature, &CompileOptions::default())?;
//! let results = twice.run_arrays(&[Array::new([2], &[1f32, 2.0])?])?;
//! assert_eq!(results[0].to_vec::<f32>()?, [2.0, 4.0]);
//! # Ok::<(), xlann::Error>(())
//! ```

pub use api::Value;
pub use buffer::Buffer;
pub use client::{Client, Device, HostMemory, MemoryStats};
pub use compile::{CompileOptions, Program};
pub use compiled::{Compiled, CompiledMemory, OptimizedProgram};
pub use event::Event;
pub use executable::{Executable, Signature};
pub use libraries::Library;
pub use plugin::Plugin;
pub(crate) use search::package_folders;
pub use search::{Candidate, PluginSpec, cache_directory, search_order};
pub use topology::Topology;

#[cfg(feature = "check-abi")]
#[doc(hidden)]
pub mod abi;
#[cfg(not(feature = "check-abi"))]
mod abi;
mod api;
mod buffer;
mod client;
mod compile;
mod compiled;
mod elf;
mod event;
mod executable;
mod ffi;
mod libraries;
mod memory;
mod plugin;
mod search;
mod topology;
