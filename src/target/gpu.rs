//! NVIDIA GPUs, through JAX's CUDA plugin.

use std::collections::HashMap;

use crate::data::{Libraries, Wheel};
use crate::lower::{Capabilities, Form};
use crate::pjrt::{PluginSpec, Value};
use crate::target::{Platform, TopologySpec};
use crate::{DType, Error, Result};

/// NVIDIA GPUs: those of this machine, or one that is described, for which the plugin compiles without any.
///
/// A described GPU is one of [`MODELS`] by its name, such as `h100`, or a file with XLA's `GpuTargetConfigProto`
/// in text format, by its path.
///
/// ```
/// use xlann::target::gpu;
/// assert_eq!(gpu::PLATFORM.name(), "gpu");
/// ```
pub const PLATFORM: Platform = Platform {
    plugin: PluginSpec {
        name: "cuda13",
        // Warnings only: that there is no GPU is known.
        environment: &[("TF_CPP_MIN_LOG_LEVEL", "2")],
        device_files: &["/dev/nvidiactl"],
        members: &["jax_plugins/xla_cuda13/xla_cuda_plugin.so"],
        libraries: &LIBRARIES,
    },
    wheels: &[JAX_CUDA13_PJRT],
    companions: &[
        (NVIDIA_CUDA_NVCC, "nvidia/cu13/bin/ptxas"),
        (NVIDIA_NVVM, "nvidia/cu13/nvvm/libdevice/libdevice.10.bc"),
    ],
    // Else it takes most of each GPU's memory for itself.
    client_options: &[
        ("preallocate", Value::Bool(false)),
        ("memory_fraction", Value::Float(MEMORY_FRACTION)),
    ],
    xla_options: &[],
    device_count_option: None,
    // Where ptxas and libdevice are.
    folder_options: &[("xla_gpu_cuda_data_dir", "nvidia/cu13")],
    describe: Some(describe),
    capabilities: &CAPABILITIES,
    kernels: None,
};

/// How much of a GPU's memory a client may take: as much as XLA's own scheduling of a program counts on.
const MEMORY_FRACTION: f32 = 0.8;

/// What is lowered for GPUs.
///
/// XLA:GPU sorts rows of up to 2048 elements in one kernel, in shared memory; longer ones take a kernel for every few
/// steps of the sort, each of which reads and writes all. Only of f32 and k up to 16 it makes a top-k that does not
/// sort. The best of strided buckets and blocks are one reduction that reads the operand once, neighbouring elements by
/// neighbouring threads. That is what the compiler's output shows; nothing here was measured on a GPU.
pub const CAPABILITIES: Capabilities = Capabilities {
    target: "gpu",
    forms: &[Form::Sort, Form::TwoStage, Form::Blocks],
    sorted_at_once: 2048,
    blocks_over_two_stage: usize::MAX,
    blocks_over_sort: 8,
    blocks_over_full_sort: 8,
    two_stage_over_sort: 2,
    two_stage_of_many: 0,
    two_stage_of_one_row: 0,
    bucket_multiple: 128,
    strided_blocks: true,
    flushes_denormals: false,
    fast_top_k: &[],
    fuses_into_top_k: true,
    native: &[],
    kernel: &[],
    searched: &[DType::F16, DType::BF16, DType::F32, DType::F64],
    // A small part of the memory, and enough for the matrix product to take its time.
    keeps_no_scores: &[],
    score_budget: 1 << 30,
    batch: 128,
    wide: DType::F64,
    // TF32 has 11 digits, and both factors are rounded.
    product_rounding: 1.0 / 1024.0,
    width_multiple: 1,
};

/// A GPU as XLA's compiler sees it, in the fields of its `GpuDeviceInfoProto`.
///
/// ```
/// use xlann::target::gpu;
///
/// let h100 = gpu::MODELS.iter().find(|model| model.name == "h100").unwrap();
/// assert_eq!((h100.core_count, h100.compute_capability), (132, (9, 0)));
/// println!("{} GB", h100.device_memory_size / 1_000_000_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// The name, as in `gpu:h100`.
    pub name: &'static str,
    /// What CUDA calls it.
    pub description: &'static str,
    /// Major and minor.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub core_count: u32,
    /// Multiply-add units for f32 in each of them.
    pub fpus_per_core: u32,
    /// In GHz.
    pub clock_rate_ghz: f32,
    /// In bytes a second.
    pub memory_bandwidth: u64,
    /// In bytes.
    pub device_memory_size: u64,
    /// In bytes.
    pub l2_cache_size: u64,
    /// In bytes, of each multiprocessor.
    pub shared_memory_per_core: u32,
    /// In bytes, the most that one block of threads can ask for.
    pub shared_memory_per_block_optin: u32,
}

/// The GPUs that are known by name.
///
/// ```
/// let names: Vec<_> = xlann::target::gpu::MODELS.iter().map(|model| model.name).collect();
/// assert_eq!(names, ["h100", "h200", "a100"]);
/// ```
pub const MODELS: [Model; 3] = [
    Model {
        name: "h100",
        description: "NVIDIA H100 80GB HBM3",
        compute_capability: (9, 0),
        core_count: 132,
        fpus_per_core: 128,
        clock_rate_ghz: 1.98,
        memory_bandwidth: 3_352_320_000_000,
        device_memory_size: 84_942_979_072,
        l2_cache_size: 52_428_800,
        shared_memory_per_core: 233_472,
        shared_memory_per_block_optin: 232_448,
    },
    Model {
        name: "h200",
        description: "NVIDIA H200",
        compute_capability: (9, 0),
        core_count: 132,
        fpus_per_core: 128,
        clock_rate_ghz: 1.98,
        memory_bandwidth: 4_800_000_000_000,
        device_memory_size: 150_000_000_000,
        l2_cache_size: 52_428_800,
        shared_memory_per_core: 233_472,
        shared_memory_per_block_optin: 232_448,
    },
    Model {
        name: "a100",
        description: "NVIDIA A100-SXM4-80GB",
        compute_capability: (8, 0),
        core_count: 108,
        fpus_per_core: 64,
        clock_rate_ghz: 1.41,
        memory_bandwidth: 2_039_000_000_000,
        device_memory_size: 84_974_370_816,
        l2_cache_size: 41_943_040,
        shared_memory_per_core: 167_936,
        shared_memory_per_block_optin: 166_912,
    },
];

impl Model {
    /// XLA's `GpuTargetConfigProto` in text format.
    ///
    /// ```
    /// assert!(xlann::target::gpu::MODELS[0].target_config().contains("core_count: 132\n"));
    /// ```
    pub fn target_config(&self) -> String {
        let Model { description, compute_capability: (major, minor), .. } = self;
        format!(
            "gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {}
  threads_per_core_limit: 2048
  core_count: {}
  fpus_per_core: {}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {}
  l2_cache_size: {}
  clock_rate_ghz: {}
  device_memory_size: {}
  shared_memory_per_block_optin: {}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: \"CUDA\"
dnn_version_info {{ major: 9 minor: 1 }}
device_description_str: \"{description}\"
",
            self.shared_memory_per_core,
            self.core_count,
            self.fpus_per_core,
            self.memory_bandwidth,
            self.l2_cache_size,
            self.clock_rate_ghz,
            self.device_memory_size,
            self.shared_memory_per_block_optin,
        )
    }
}

/// The fields without which XLA's compiler has nothing to go by: it takes what is absent to be zero.
const REQUIRED: [&str; 16] = [
    "threads_per_block_limit",
    "threads_per_warp",
    "shared_memory_per_block",
    "shared_memory_per_core",
    "threads_per_core_limit",
    "core_count",
    "fpus_per_core",
    "block_dim_limit_x",
    "block_dim_limit_y",
    "block_dim_limit_z",
    "memory_bandwidth",
    "l2_cache_size",
    "clock_rate_ghz",
    "device_memory_size",
    "registers_per_core_limit",
    "registers_per_block_limit",
];

/// A GPU by the name of a model, or by a file.
fn describe(name: &str) -> Result<TopologySpec> {
    let target_config = match MODELS.iter().find(|model| model.name == name) {
        Some(model) => model.target_config(),
        None => {
            let names: Vec<_> = MODELS.iter().map(|model| model.name).collect();
            let expected = format!("one of {}, or a file with a target config", names.join(", "));
            if !std::path::Path::new(name).exists() {
                return Err(Error::argument("target", "gpu", expected, format!("{name:?}")));
            }
            std::fs::read_to_string(name).map_err(Error::io(name))?
        }
    };
    let memory = check_target_config(name, &target_config)?;
    let options =
        vec![("target_config", Value::String(target_config)), ("topology", Value::String("1x1x1".into()))];
    Ok(TopologySpec {
        name: name.to_owned(),
        options,
        device_memory: Some((memory as f64 * f64::from(MEMORY_FRACTION)) as u64),
        devices_per_chip: 1,
        // More of them are no topology that is known by a name.
        sizes: Vec::new(),
    })
}

/// The numbers of a target config in text format, by the names of their fields and of the messages around those.
fn numbers(config: &str) -> HashMap<(String, String), f64> {
    let mut numbers = HashMap::new();
    // The names of the messages around, and of the field at hand.
    let (mut messages, mut field) = (Vec::new(), String::new());
    let mut rest = config;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "_.+-".contains(c);
        let end = match first {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '"' | '\'' => rest[1..].find(first).map_or(rest.len(), |length| length + 2),
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(end);
        rest = after;
        match first {
            '{' | '<' => messages.push(std::mem::take(&mut field)),
            '}' | '>' => drop(messages.pop()),
            _ if is_word(first) => match token.parse() {
                Ok(number) => {
                    let message = messages.last().cloned().unwrap_or_default();
                    numbers.insert((message, std::mem::take(&mut field)), number);
                }
                Err(_) => field = token.to_owned(),
            },
            _ => {}
        }
    }
    numbers
}

/// Requires that a target config has the fields that matter, and gives the memory of the device; the plugin checks the
/// rest.
fn check_target_config(name: &str, config: &str) -> Result<u64> {
    let numbers = numbers(config);
    let number = |(message, field): (&str, &str)| numbers.get(&(message.into(), field.into())).copied();
    let required = REQUIRED.into_iter().map(|field| ("gpu_device_info", field));
    let required = required.chain([("cuda_compute_capability", "major")]);
    let is_missing = |&field: &(&str, &str)| number(field).is_none_or(|number| number <= 0.0);
    let missing: Vec<_> =
        required.filter(is_missing).map(|(message, field)| format!("{message}.{field}")).collect();
    match number(("gpu_device_info", "device_memory_size")) {
        Some(memory) if missing.is_empty() => Ok(memory as u64),
        _ => {
            let expected =
                format!("a GpuTargetConfigProto in text format with positive {}", missing.join(", "));
            Err(Error::argument("target", format!("target config {name}"), expected, "none"))
        }
    }
}

/// JAX's CUDA plugin, API 0.112: `jax_plugins/xla_cuda13/xla_cuda_plugin.so`.
const JAX_CUDA13_PJRT: Wheel = Wheel {
    package: "jax-cuda13-pjrt",
    version: "0.10.2",
    python: "py3",
    platform: "manylinux_2_27_x86_64",
    sha256: "a97e9cabe0e21d8dbcc70bd909ca1c34cd546d3ce2d94b4cd907a8d4f6179f6a",
};

/// `nvidia/cu13/bin/ptxas`.
const NVIDIA_CUDA_NVCC: Wheel = Wheel {
    package: "nvidia-cuda-nvcc",
    version: "13.5.37",
    python: "py3",
    platform: "manylinux_2_17_x86_64",
    sha256: "f5c4f7ead5d964fb4af42bbf1e6d3ec3c1e6e9d83b53749f691d387e7fcaa3a7",
};

/// `nvidia/cu13/nvvm/libdevice/libdevice.10.bc`.
const NVIDIA_NVVM: Wheel = Wheel {
    package: "nvidia-nvvm",
    version: "13.5.37",
    python: "py3",
    platform: "manylinux_2_12_x86_64",
    sha256: "c41bfa362e407405163f103c2229f0765f8cc2ed7d148b754dc77f228bf7e070",
};

/// What JAX loads before the plugin, in its order; it refuses to start without those that are required here. The plugin
/// finds them itself where they stand to it as in Python's packages, by its run path; some of them do not find each other.
/// All are of CUDA 13.5, as ptxas, and 2.0 GB to fetch. What JAX loads beside is nvshmem, for several machines.
const LIBRARIES: [Libraries; 10] = [
    Libraries {
        wheel: nvidia(
            "nvidia-cuda-runtime",
            "13.5.37",
            "manylinux_2_17_x86_64",
            "df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d",
        ),
        folder: "nvidia/cu13/lib",
        files: &["libcudart.so.13"],
        required: true,
    },
    Libraries {
        wheel: nvidia(
            "nvidia-cuda-nvrtc",
            "13.5.37",
            "manylinux_2_12_x86_64",
            "86b4d68058807988b7d9af5b44917a0601e9c337f35ccd657bfb3c759ff8d8bc",
        ),
        folder: "nvidia/cu13/lib",
        files: &["libnvrtc.so.13"],
        required: false,
    },
    Libraries {
        wheel: nvidia(
            "nvidia-nvjitlink",
            "13.5.37",
            "manylinux_2_12_x86_64",
            "280d7cb9649704145f074b8dbde500de04ce02d0872e066e20a83c17bcaa93eb",
        ),
        folder: "nvidia/cu13/lib",
        files: &["libnvJitLink.so.13"],
        required: false,
    },
    Libraries {
        wheel: nvidia(
            "nvidia-cublas",
            "13.10.0.20",
            "manylinux_2_5_x86_64",
            "dcc6d63884c53d07e267ce7e6feac17b2538cebaafec5db865736c3e28e4dc84",
        ),
        folder: "nvidia/cu13/lib",
        files: &["libcublasLt.so.13", "libcublas.so.13"],
        required: true,
    },
    Libraries {
        wheel: nvidia(
            "nvidia-nccl-cu13",
            "2.32.3",
            "manylinux_2_27_x86_64",
            "1459723080ac889d73a26edfa3e04383a7928ab31ac8f0ec43b3ea9548b04ff3",
        ),
        folder: "nvidia/nccl/lib",
        files: &["libnccl.so.2"],
        required: false,
    },
    Libraries {
        wheel: nvidia(
            "nvidia-cuda-cupti",
            "13.5.25",
            "manylinux_2_25_x86_64",
            "9dcca41c12a734192b14e7128ae116bc9ce1b9da686e2ebf48ae7a4415f76650",
        ),
        folder: "nvidia/cu13/lib",
        files: &["libcupti.so.13"],
        required: true,
    },
    Libraries {
        wheel: nvidia(
            "nvidia-cusparse",
            "12.9.4.2",
            "manylinux_2_17_x86_64",
            "072667e58c851a318738f5527a12eb225cbf058803f2ea451c722d8cf8edddec",
        ),
        folder: "nvidia/cu13/lib",
        files: &["libcusparse.so.12"],
        required: true,
    },
    Libraries {
        wheel: nvidia(
            "nvidia-cusolver",
            "12.4.1.2",
            "manylinux_2_27_x86_64",
            "b3b8e02fd2f2df869369af075dc3a179d43f6f7b85e94632a7dce556697be044",
        ),
        folder: "nvidia/cu13/lib",
        files: &["libcusolver.so.12"],
        required: false,
    },
    Libraries {
        wheel: nvidia(
            "nvidia-cufft",
            "12.5.0.14",
            "manylinux_2_17_x86_64",
            "b8be26837a5abad2b5b74f3e92dd29f622a42934b355be0961a48712cbba23ad",
        ),
        folder: "nvidia/cu13/lib",
        files: &["libcufft.so.12"],
        required: true,
    },
    Libraries {
        wheel: nvidia(
            "nvidia-cudnn-cu13",
            "9.28.0.42",
            "manylinux_2_27_x86_64",
            "7358353c75bb121a58e5f7712fe6d588883dc1df8ba00f428237e44e97543c4d",
        ),
        folder: "nvidia/cudnn/lib",
        files: &["libcudnn.so.9"],
        required: true,
    },
];

/// A wheel of NVIDIA's, for any Python.
const fn nvidia(
    package: &'static str,
    version: &'static str,
    platform: &'static str,
    sha256: &'static str,
) -> Wheel {
    Wheel { package, version, python: "py3", platform, sha256 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_every_field() {
        for model in MODELS {
            check_target_config(model.name, &model.target_config()).unwrap();
        }
    }

    #[test]
    fn fields_that_are_missing_are_named() {
        let whole = MODELS[0].target_config();
        for (line, instead) in [
            ("  core_count: 132\n", ""),
            ("core_count: 132", "# core_count: 132"),
            ("core_count: 132", "core_count: 0"),
            ("core_count: 132", "core_count: -132"),
            ("core_count: 132", "core_count: many"),
            ("core_count: 132", "\"core_count: 132\""),
            ("core_count: 132", "other { core_count: 132 }"),
            ("threads_per_warp: 32", "threads_per_warp: 0"),
            ("major: 9 minor: 0", ""),
        ] {
            assert!(whole.contains(line), "{line}");
            let error =
                check_target_config("mine.txt", &whole.replace(line, instead)).unwrap_err().to_string();
            let field = line.trim().split(':').next().unwrap();
            assert!(error.contains("mine.txt") && error.contains(field), "{error}");
        }
        let commented = whole.replace("core_count", "# device_memory_size is bytes\n  core_count");
        assert_eq!(check_target_config("mine.txt", &commented).unwrap(), MODELS[0].device_memory_size);
        let packed = whole.replace(": ", ":").replace('\n', " ");
        assert_eq!(check_target_config("mine.txt", &packed).unwrap(), MODELS[0].device_memory_size);
    }

    #[test]
    fn unknown_models_are_refused() {
        let error = describe("h1000").unwrap_err().to_string();
        assert!(error.contains("h100, h200, a100") && error.contains("h1000"), "{error}");
        let a100 = describe("a100").unwrap();
        assert_eq!(a100.options[1].1, Value::String("1x1x1".into()));
        assert_eq!(a100.device_memory, Some(67_979_497_665));
    }
}
