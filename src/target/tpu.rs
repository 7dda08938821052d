//! Cloud TPUs, through libtpu.

use crate::DType;
use crate::data::Wheel;
use crate::lower::{Capabilities, Form};
use crate::pjrt::PluginSpec;
use crate::target::{Platform, TopologySpec};

/// Cloud TPUs: those of this machine, or of a topology such as `v5e:2x2`, for which libtpu compiles without any.
///
/// ```
/// use xlann::target::tpu;
/// assert_eq!(tpu::PLATFORM.name(), "tpu");
/// ```
pub const PLATFORM: Platform = Platform {
    plugin: PluginSpec {
        name: "tpu",
        // Else it asks a metadata server that only Cloud TPU machines have, again and again, and complains of what
        // it has not heard; and one process at a time may use the chips. What it compiles for does not depend on these.
        environment: &[
            ("TPU_SKIP_MDS_QUERY", "1"),
            ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
            ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),
            ("TPU_WORKER_HOSTNAMES", "localhost"),
            ("TPU_MIN_LOG_LEVEL", "3"),
            ("TPU_STDERR_LOG_LEVEL", "3"),
        ],
        device_files: &["/dev/accel0", "/dev/vfio/0"],
        members: &["libtpu/libtpu.so"],
        libraries: &[],
    },
    wheels: &[LIBTPU],
    companions: &[],
    client_options: &[],
    xla_options: &[],
    device_count_option: None,
    folder_options: &[],
    describe: Some(|name| Ok(TopologySpec { name: name.to_owned(), options: Vec::new() })),
    capabilities: &CAPABILITIES,
};

/// What is lowered for TPUs.
///
/// libtpu fuses `PartialReduce` into the matrix product that feeds it, so that the scores never leave the chip; it
/// refuses it for f64. Of sort-and-slice it makes a top-k that reads the rows once, for k up to some hundreds; by its
/// estimates (`optimal_seconds`), that is an order of magnitude faster than the blocks form, and twice as fast where it
/// does sort. The tighter reduction is never slower by the estimates: 0.1 to 27 % faster than XLA's for k from 10 to 100
/// of 10^6 elements.
pub const CAPABILITIES: Capabilities = Capabilities {
    target: "tpu",
    forms: &Form::ALL,
    sorted_at_once: 0,
    blocks_over_two_stage: usize::MAX,
    blocks_over_sort: usize::MAX,
    blocks_over_full_sort: usize::MAX,
    two_stage_over_sort: 2,
    bucket_multiple: 128,
    strided_blocks: true,
    fast_top_k: &[DType::F16, DType::BF16, DType::F32],
    fuses_into_top_k: true,
    native: &[DType::F16, DType::BF16, DType::F32],
    searched: &[DType::BF16, DType::F32],
    // The native forms keep none.
    score_budget: usize::MAX,
};

/// libtpu, API 0.116: `libtpu/libtpu.so`. There is a wheel for each CPython, all with the same library.
const LIBTPU: Wheel = Wheel {
    package: "libtpu",
    version: "0.0.51",
    python: "cp311",
    platform: "manylinux_2_31_x86_64",
    sha256: "ba67ddbfdbac61c8da1fafc26cd51b93e9fe4d298016e2882eb986b1718cba34",
};
