//! The CPU of this machine, through an XLA:CPU plugin.

use crate::DType;
use crate::data::wheel::{FASTATOMSTRUCT_XLA_CPU, LAMMPS_JAX_PJRT_CPU};
use crate::lower::{Capabilities, Form};
use crate::pjrt::PluginSpec;
use crate::target::Target;

/// This machine's CPU, as the plugin's default number of devices, each of which uses all processors.
///
/// ```
/// use xlann::target::cpu;
/// assert_eq!(cpu::TARGET.name(), "cpu");
/// ```
pub const TARGET: Target = Target {
    plugin: PluginSpec {
        name: "cpu",
        members: &["lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so", "fastatomstruct_xla_cpu/libpjrt_cpu.so"],
    },
    wheels: &[LAMMPS_JAX_PJRT_CPU, FASTATOMSTRUCT_XLA_CPU],
    client_options: &[],
    // On by default, and it has maxima and minima drop NaNs.
    xla_options: &[("xla_cpu_enable_fast_min_max", false)],
    capabilities: &CAPABILITIES,
};

/// What is lowered for XLA:CPU.
///
/// It turns sort-and-slice of f32 into a top-k that partially sorts each row, on one thread; other dtypes are
/// sorted whole, a hundred times slower. The blocks form reads the operand once, on all threads. The numbers are
/// from `cargo bench` and the like at 10^3 to 10^6 elements a row, k from 1 to 1000.
pub const CAPABILITIES: Capabilities = Capabilities {
    target: "cpu",
    forms: &[Form::Sort, Form::TwoStage, Form::Blocks],
    blocks_over_two_stage: 200,
    blocks_over_sort: 100,
    two_stage_over_sort: 2,
    fast_top_k: &[DType::F16, DType::BF16, DType::F32],
};
