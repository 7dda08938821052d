//! The CPU of this machine, through an XLA:CPU plugin.

use crate::DType;
use crate::data::Wheel;
use crate::lower::{Capabilities, Form};
use crate::pjrt::PluginSpec;
use crate::target::{Kernels, Platform};

/// This machine's CPU, as the plugin's default number of devices, each of which uses all processors.
///
/// ```
/// use xlann::target::cpu;
/// assert_eq!(cpu::PLATFORM.name(), "cpu");
/// ```
pub const PLATFORM: Platform = Platform {
    plugin: PluginSpec {
        name: "cpu",
        // Else it logs the number of devices that it is created with.
        environment: &[("TF_CPP_MIN_LOG_LEVEL", "1")],
        device_files: &[],
        members: &["lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so", "fastatomstruct_xla_cpu/libpjrt_cpu.so"],
        libraries: &[],
    },
    wheels: &[LAMMPS_JAX_PJRT_CPU, FASTATOMSTRUCT_XLA_CPU],
    companions: &[],
    client_options: &[],
    device_count_option: Some("cpu_device_count"),
    folder_options: &[],
    describe: None,
    // On by default, and it has maxima and minima drop NaNs.
    xla_options: &[("xla_cpu_enable_fast_min_max", false)],
    capabilities: &CAPABILITIES,
    kernels: Some(Kernels { ffi_platform: "Host", capabilities_without: &PLAIN_CAPABILITIES }),
};

/// What is lowered for XLA:CPU.
///
/// It turns sort-and-slice of f32 into a top-k that partially sorts each row, on one thread; f16 and bf16 go
/// through f32, and f64 is sorted whole, a hundred times slower. The blocks form reads the operand once, on all threads. The numbers are
/// from `cargo bench` and the like at 10^3 to 10^6 elements a row, k from 1 to 1000.
///
/// Results that are not aggregated can be an eighth of the elements or more, which a kernel sorts: of f32\[16,100000\] with
/// 12544 results, that takes 24 ms and the two-stage form 1.7; with 6272, 11 and 15. So it is at 10^4 and 10^6 elements a
/// row. Other forms than the kernel are slower than the two-stage one from a result for each 60 elements on (16 ms and
/// 7.6), and faster at one for each 390 (3.5 ms and 9). A kernel shares out rows: of a single one of 10^6 elements with 15744 results,
/// it takes 4.4 ms and the two-stage form 2.3; with 3968, 1.8 and 2.0. With AVX2 alone, the crossovers are the same,
/// but that of a single row, which is at half as many results.
///
/// XLA:CPU's threads take denormals for zeros where they compute with floats, but its sorts compare bits.
pub const CAPABILITIES: Capabilities = Capabilities {
    target: "cpu",
    forms: &[Form::Sort, Form::TwoStage, Form::Blocks, Form::Kernel],
    sorted_at_once: 0,
    blocks_over_two_stage: 200,
    blocks_over_sort: 100,
    blocks_over_full_sort: 2,
    two_stage_over_sort: 2,
    two_stage_of_many: 8,
    two_stage_of_one_row: 128,
    bucket_multiple: 128,
    strided_blocks: false,
    flushes_denormals: true,
    fast_top_k: &[DType::F16, DType::BF16, DType::F32],
    fuses_into_top_k: false,
    native: &[],
    kernel: &[DType::F16, DType::BF16, DType::F32, DType::F64],
    searched: &[DType::F16, DType::BF16, DType::F32, DType::F64],
    keeps_no_scores: &[Form::Kernel],
    // They stay in the processor's cache.
    score_budget: 16 << 20,
    // Of a kernel, which keeps no scores.
    batch: 1024,
    wide: DType::F64,
    product_rounding: 0.0,
    width_multiple: 1,
};

/// What is lowered for XLA:CPU where a plugin cannot call kernels.
pub const PLAIN_CAPABILITIES: Capabilities = Capabilities {
    forms: &[Form::Sort, Form::TwoStage, Form::Blocks],
    two_stage_of_many: 64,
    two_stage_of_one_row: 64,
    kernel: &[],
    searched: &[DType::F32, DType::F64],
    batch: 128,
    ..CAPABILITIES
};

/// A PJRT plugin for CPUs, API 0.115, Apache-2.0: `lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so`.
const LAMMPS_JAX_PJRT_CPU: Wheel = Wheel {
    package: "lammps-jax-pjrt-cpu",
    version: "0.11.2",
    python: "py3",
    platform: "manylinux_2_27_x86_64",
    sha256: "1319390d948b39f69f7dade496b7c385149d9ca6097a6b62114da113216d9ad1",
};

/// A PJRT plugin for CPUs, API 0.106: `fastatomstruct_xla_cpu/libpjrt_cpu.so`.
const FASTATOMSTRUCT_XLA_CPU: Wheel = Wheel {
    package: "fastatomstruct-xla-cpu",
    version: "2026.6.23",
    python: "py3",
    platform: "manylinux_2_27_x86_64",
    sha256: "88b1c430b341b4bea40a37420311c9c75db6e22b46d2ff95b6986577bee6afe9",
};
