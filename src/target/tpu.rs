//! TPUs, through libtpu.

use crate::DType;
use crate::lower::{Capabilities, Form};

/// What is lowered for XLA:TPU.
///
/// libtpu fuses `PartialReduce` into the matrix product that feeds it, so that the scores never leave the chip.
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
};
