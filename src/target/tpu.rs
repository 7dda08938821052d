//! Cloud TPUs, through libtpu.
//!
//! # Beside JAX
//!
//! libtpu's estimates (`optimal_seconds`, in microseconds) for searches of the 10 nearest of 1,000,000 vectors of width
//! 128 on one chip, recall target 0.95: JAX 0.10.2's `approx_max_k` of the inner products and `approx_min_k` of half
//! distances, and [`search_function`](crate::ann::search_function)'s, whose scores are in f32. Nothing was run; both
//! programs were compiled by libtpu 0.0.51 with no TPU attached, by `scripts/compare-estimates.py`.
//!
//! For the same work, which is scores in f32 and half distances
//! ([`squared_distances: false`](crate::ann::SearchOptions::squared_distances)), ours is no more than JAX's, as a test
//! requires. Of bf16 vectors JAX's scores are in bf16 by default, which is less work, and has fewer digits: for L2 of
//! 128 queries its estimate is then 0.6 % below ours, as it reads half norms of half the size; elsewhere it is
//! above. The last column is what a search by L2 does by default: true squared distances of the neighbours found.
//!
//! | TPU | dtype | queries | inner product: JAX | JAX, scores in bf16 | xlann | L2: JAX | JAX, scores in bf16 | xlann | xlann, true squared distances |
//! |---|---|---|---|---|---|---|---|---|---|
//! | v4 | f32 | 128 | 1046.4 |  | 1044.6 | 1054.6 |  | 1052.7 | 1078.3 |
//! | v4 | f32 | 1024 | 1941.5 |  | 1928.7 | 1949.0 |  | 1936.2 | 2140.9 |
//! | v4 | bf16 | 128 | 525.0 | 524.1 | 523.1 | 533.1 | 528.2 | 531.3 | 546.7 |
//! | v4 | bf16 | 1024 | 1939.4 | 1933.4 | 1926.5 | 1946.8 | 1963.3 | 1934.0 | 2057.7 |
//! | v5e | f32 | 128 | 696.9 |  | 695.6 | 702.3 |  | 701.1 | 718.1 |
//! | v5e | f32 | 1024 | 1349.3 |  | 1340.8 | 1354.5 |  | 1346.0 | 1482.4 |
//! | v5e | bf16 | 128 | 349.6 | 349.0 | 348.4 | 355.0 | 351.7 | 353.8 | 364.1 |
//! | v5e | bf16 | 1024 | 1347.9 | 1344.0 | 1339.4 | 1353.1 | 1364.8 | 1344.6 | 1426.9 |
//! | v5p | f32 | 128 | 218.7 |  | 218.3 | 220.4 |  | 220.0 | 657.7 |
//! | v5p | f32 | 1024 | 671.2 |  | 668.5 | 673.8 |  | 671.1 | 1122.6 |
//! | v5p | bf16 | 128 | 109.7 | 109.5 | 109.3 | 111.4 | 110.4 | 111.0 | 330.5 |
//! | v5p | bf16 | 1024 | 670.8 | 669.5 | 668.1 | 673.4 | 679.9 | 670.7 | 901.3 |
//! | v6e | f32 | 128 | 313.8 |  | 313.3 | 316.3 |  | 315.7 | 943.6 |
//! | v6e | f32 | 1024 | 322.6 |  | 318.1 | 325.0 |  | 320.5 | 967.0 |
//! | v6e | bf16 | 128 | 157.4 | 157.2 | 156.9 | 159.9 | 158.4 | 159.3 | 474.1 |
//! | v6e | bf16 | 1024 | 293.3 | 291.5 | 289.5 | 294.4 | 296.0 | 290.6 | 620.2 |
//!
//! True squared distances gather the neighbours' rows. A v5p and a v6e leave that to their sparse cores, for which the
//! estimate counts the whole database twice more, as if it were read and written, although only these rows are, and no
//! copy is made: it is too high there.
//!
//! libtpu keeps a matrix whose width is no multiple of 128 by columns, as that leaves less room unused, and would copy
//! all of it by rows for every batch of queries. So where rows are gathered, the database is padded once, to a multiple
//! of 128 ([`Capabilities::width_multiple`]). By the estimates for a v5e and 128 queries in 1,000,000 f32 vectors of
//! width 96, that takes 0.72 ms and 492 MiB, in place of 1.76 ms, 370 MiB and 488 MiB for the copy. Inner products and
//! half distances (0.52 ms) need no padding.

use crate::data::Wheel;
use crate::lower::{Capabilities, Form};
use crate::pjrt::PluginSpec;
use crate::target::{Platform, TopologySpec};
use crate::{DType, Error, Result};

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
    describe: Some(describe),
    capabilities: &CAPABILITIES,
    kernels: None,
};

/// What is lowered for TPUs.
///
/// libtpu fuses `PartialReduce` into the matrix product that feeds it, so that the scores never leave the chip; it
/// refuses it for f64. Of sort-and-slice it makes a top-k that reads the rows once, for k up to some hundreds; by its
/// estimates (`optimal_seconds`) for a v5e, of f32\[128,100000\] and f32\[16,1000000\], that is 10 to 44 times faster
/// than the blocks form for k of 10 and 100, and 5 times where it does sort, for k = 1000 of the former. (What the
/// estimate leaves out, by counting -1 s for it, is in neither.) So it is exact and faster than the two-stage form would
/// be, which gathers, at 80 ms for the first of these; and of f64, which is sorted, the blocks form is taken.
/// TPUs take denormals for zeros: no form promises to tell one from 0 there.
/// The tighter reduction is nowhere slower by the estimates: up to 27 % faster than XLA's, and less than 0.1 % for few
/// queries and small k; tried for k from 10 to 1000 of 10^5 to 10^7 elements.
pub const CAPABILITIES: Capabilities = Capabilities {
    target: "tpu",
    forms: &[Form::Sort, Form::Blocks, Form::Native, Form::NativeTight],
    sorted_at_once: 0,
    blocks_over_two_stage: usize::MAX,
    blocks_over_sort: usize::MAX,
    blocks_over_full_sort: 8,
    two_stage_over_sort: 2,
    two_stage_of_many: 0,
    two_stage_of_one_row: 0,
    bucket_multiple: 128,
    strided_blocks: true,
    flushes_denormals: false,
    fast_top_k: &[DType::F16, DType::BF16, DType::F32],
    fuses_into_top_k: true,
    native: &[DType::F16, DType::BF16, DType::F32],
    kernel: &[],
    searched: &[DType::BF16, DType::F32],
    keeps_no_scores: &[Form::Native, Form::NativeTight],
    // A small part of the memory.
    score_budget: 1 << 30,
    // libtpu stores a matrix of another width by columns, which wastes less, and gathers rows of one stored by rows.
    batch: 128,
    wide: DType::F32,
    // Both factors are rounded to bf16, of 8 digits.
    product_rounding: 1.0 / 127.0,
    width_multiple: 128,
};

/// A generation of TPUs, as libtpu sees it.
///
/// ```
/// use xlann::target::tpu;
///
/// let v4 = tpu::GENERATIONS.iter().find(|generation| generation.name == "v4").unwrap();
/// assert_eq!(v4.devices_per_chip as u64 * v4.device_memory, 32 << 30);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Generation {
    /// The name, as in `v5e:2x2`.
    pub name: &'static str,
    /// The memory of each device in bytes, of which libtpu keeps some hundred MiB for itself.
    pub device_memory: u64,
    /// How many devices a chip is.
    pub devices_per_chip: usize,
    /// What Cloud TPU puts chips together to, the smallest first.
    pub topologies: &'static [&'static str],
    /// The chips of a whole pod in each dimension.
    pub pod: [usize; 3],
}

/// The generations of which more is known than that libtpu compiles for them.
///
/// The memory is the least number of GiB that has room for what libtpu calls available where a program needs more, in
/// GiB 15.25 of a v4's device, 15.75 of a v5e's, 95.73 of a v5p's, 31.24 of a v6e's and 94.74 of a 7x's.
///
/// ```
/// let names: Vec<_> = xlann::target::tpu::GENERATIONS.iter().map(|generation| generation.name).collect();
/// assert_eq!(names, ["v4", "v5e", "v5p", "v6e", "tpu7x"]);
/// ```
pub const GENERATIONS: [Generation; 5] = [
    Generation {
        name: "v4",
        device_memory: 16 << 30,
        devices_per_chip: 2,
        topologies: &TORI,
        pod: [16, 16, 16],
    },
    Generation {
        name: "v5e",
        device_memory: 16 << 30,
        devices_per_chip: 1,
        topologies: &MESHES,
        pod: [16, 16, 1],
    },
    Generation {
        name: "v5p",
        device_memory: 96 << 30,
        devices_per_chip: 1,
        topologies: &TORI,
        pod: [16, 20, 28],
    },
    Generation {
        name: "v6e",
        device_memory: 32 << 30,
        devices_per_chip: 1,
        topologies: &MESHES,
        pod: [16, 16, 1],
    },
    Generation {
        name: "tpu7x",
        device_memory: 96 << 30,
        devices_per_chip: 2,
        topologies: &TORI,
        pod: [16, 24, 24],
    },
];

const MESHES: [&str; 8] = ["1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"];

const TORI: [&str; 10] =
    ["2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16"];

/// A topology of that name; whether there is one is for libtpu to say.
///
/// Of sizes that it does not expect, libtpu ends the process: those are refused here.
fn describe(name: &str) -> Result<TopologySpec> {
    // As libtpu reads names: a generation, the sizes of a slice, and perhaps how its ends are connected.
    let (generation, slice) = name.split_once([':', '=', '_']).unwrap_or((name, ""));
    let sizes = slice.split('_').next().unwrap_or("").split('x').map(|size| size.parse().unwrap_or(0));
    let mut sizes: Vec<usize> = sizes.filter(|&size| size != 1).collect();
    let known = GENERATIONS.iter().find(|known| known.name == generation);
    let mut pod = known.map_or([128; 3], |known| known.pod);
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    pod.sort_unstable_by(|a, b| b.cmp(a));
    let fits =
        sizes.len() <= pod.len() && sizes.iter().zip(pod).all(|(&size, most)| (1..=most).contains(&size));
    if !fits || generation.is_empty() {
        let [x, y, z] = known.map_or(pod, |known| known.pod).map(|size| size.to_string());
        let whole = if z == "1" { format!("{x}x{y}") } else { format!("{x}x{y}x{z}") };
        let expected = format!("a generation and sizes up to {whole}, such as v5e:2x2 or v5p:2x2x1");
        return Err(Error::argument("target", "topology", expected, format!("{name:?}")));
    }
    let topologies = known.map_or(&[][..], |known| known.topologies);
    Ok(TopologySpec {
        name: name.to_owned(),
        options: Vec::new(),
        device_memory: known.map(|known| known.device_memory),
        devices_per_chip: known.map_or(1, |known| known.devices_per_chip),
        sizes: topologies.iter().map(|size| format!("{generation}:{size}")).collect(),
    })
}

/// libtpu, API 0.116: `libtpu/libtpu.so`. There is a wheel for each CPython, all with the same library.
const LIBTPU: Wheel = Wheel {
    package: "libtpu",
    version: "0.0.51",
    python: "cp311",
    platform: "manylinux_2_31_x86_64",
    sha256: "ba67ddbfdbac61c8da1fafc26cd51b93e9fe4d298016e2882eb986b1718cba34",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topologies_of_known_generations_are_slices_of_a_pod() {
        for name in
            ["v5e:2x2", "v5e:16x16", "v5e:2x4x1", "v4:2x2x1", "v5p:16x20x28", "v5p:28x16x20", "v3:32x32"]
        {
            assert_eq!(describe(name).unwrap().name, name);
        }
        assert_eq!(describe("v4:4x4x8_untwisted").unwrap().devices_per_chip, 2);
        for name in [
            "v5e",
            "v5e:",
            "v5e:a",
            "v5e:2xa",
            "v5e:0x0",
            "v5e:2x0",
            "v5e:2x2x2",
            "v5e:16x32",
            "v5e:16x16x16",
            "v4:0x0x0",
            "v5p:2x2x2x2",
            "v5p:29x1x1",
            "v3:0x0",
            "v3:9999x9999",
            ":2x2",
            "v5e:-1x2",
        ] {
            let refusal = describe(name).unwrap_err().to_string();
            assert!(refusal.contains("such as v5e:2x2"), "{name}: {refusal}");
        }
        assert!(describe("v5e:32x32").unwrap_err().to_string().contains("up to 16x16,"));
    }
}
