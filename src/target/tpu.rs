//! Cloud TPUs, through libtpu.

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
    },
    wheels: &[LIBTPU],
    companions: &[],
    client_options: &[],
    xla_options: &[],
    folder_options: &[],
    describe: Some(|name| Ok(TopologySpec { name: name.to_owned(), options: Vec::new() })),
    capabilities: &CAPABILITIES,
};

/// What is lowered for TPUs.
pub const CAPABILITIES: Capabilities = Capabilities {
    target: "tpu",
    forms: &[Form::Sort],
    blocks_over_two_stage: usize::MAX,
    blocks_over_sort: usize::MAX,
    two_stage_over_sort: usize::MAX,
    fast_top_k: &[],
};

/// libtpu, API 0.116: `libtpu/libtpu.so`. There is a wheel for each CPython, all with the same library.
const LIBTPU: Wheel = Wheel {
    package: "libtpu",
    version: "0.0.51",
    python: "cp311",
    platform: "manylinux_2_31_x86_64",
    sha256: "ba67ddbfdbac61c8da1fafc26cd51b93e9fe4d298016e2882eb986b1718cba34",
};
