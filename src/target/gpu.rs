//! GPUs, through an XLA:GPU plugin.

use crate::lower::{Capabilities, Form};

/// What is lowered for XLA:GPU.
///
/// It sorts rows of up to 2048 elements in one kernel, in shared memory; longer ones take a kernel for every few
/// steps of the sort, each of which reads and writes all. Only of f32 and k up to 16 it makes a top-k that does not
/// sort. Bucket maxima are one reduction that reads the operand once, neighbouring elements by neighbouring threads.
pub const CAPABILITIES: Capabilities = Capabilities {
    target: "gpu",
    forms: &[Form::Sort, Form::TwoStage, Form::Blocks],
    sorted_at_once: 2048,
    blocks_over_two_stage: usize::MAX,
    blocks_over_sort: 8,
    blocks_over_full_sort: 8,
    two_stage_over_sort: 2,
    bucket_multiple: 128,
    strided_blocks: true,
    fast_top_k: &[],
    fuses_into_top_k: true,
    native: &[],
};
