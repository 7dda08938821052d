//! Custom-call kernels: search and top-k on the CPU, in C++ (`cpp/`), called by compiled programs through XLA's FFI.
//!
//! # How a kernel is reached from the graph
//!
//! Nothing in a graph names a kernel. A session registers the handlers with its plugin, if that has an FFI, and the
//! target's [`Capabilities`](crate::lower::Capabilities) then have the form [`Form::Kernel`](crate::lower::Form::Kernel),
//! which the policy takes first. Lowering looks at what defines the operand of an approximate top-k. Of these it makes one
//! call of [`FUSED_SEARCH`], which keeps no scores:
//!
//! | graph, of queries `q` and a database `db` | searched by |
//! |---|---|
//! | `approx_max_k(dot_general(q, db))` | inner product |
//! | `approx_min_k(half_norms - dot_general(q, db))` | L2 |
//! | `approx_max_k(dot_general(q, db) * scales)` | inner product with scaled rows, as cosines are |
//!
//! A [`Searcher`](crate::ann::Searcher) by L2 calls it for true squared distances.
//!
//! The graphs are recognised with operands of f32, or of bf16 or f16 that were converted to f32, and whatever batch dimensions, broadcasts and
//! transpositions [`vmap`](crate::vmap()) has put there. Any other operand is computed, and [`SELECT_K`] called with it.
//! [`explain`](crate::lower::explain) gives the choice and, for the latter, the reason. Derivatives are of the graph, before
//! lowering: an approximate top-k that carries tangents along takes another form.
//!
//! # How fast products are, by instruction set
//!
//! Searches of 1024 queries of 128 columns by inner product, k = 10, on two cores of an AMD EPYC (Zen 5) that was made to take
//! one set or the other: multiplications and additions a second, in 10^9, with a proven recall of 0.95 below f32, and how many
//! times as fast that is as f32 by the same set. The limit is that of its own instructions in a loop of nothing else.
//!
//! | set | f32, n 1M | int8, n 1M | int8, n 100k | limit f32 | limit int8 |
//! |---|---|---|---|---|---|
//! | `avx2` | 247 | 628, 2.5 x | 519, 2.1 x | 265 | 914 |
//! | `avx_vnni` | | | 741, 3.2 x | 260 | 1025 |
//! | `avx512` | | | 884, 1.9 x | 521 | 1803 |
//! | `avx512_vnni` | | | 1304, 2.7 x | 511 | 2052 |
//!
//! With k = 100, of 100,000 rows, int8 is 1.7, 2.2, 1.3 and 1.8 times as fast as f32 by these sets, as more candidates are kept
//! and scored anew; of 1,000,000, 2.3 times by `avx2`. bf16 is as fast as f32, but for `avx512_bf16`: rows are made f32, and so many queries are searched in f32 from
//! the start.
//!
//! # Calling them from elsewhere
//!
//! Other users of XLA, such as JAX, find the handlers in this crate's C dynamic library (`cargo build --release --lib`:
//! `libxlann.so`), under the names of the targets; `examples/jax_kernels.py` registers and calls them. All buffers are dense
//! and row-major, on the platform that XLA's FFI calls "Host". Attributes are scalars and strings of the call's dictionary,
//! as MLIR writes them: `{metric = "l2", candidates = 40 : i64, certified_recall = 0.95 : f32}`. One that a handler does
//! not know, or of another type, is refused, as are operands that do not fit.
//!
//! | target | operands | results | attributes |
//! |---|---|---|---|
//! | `xlann_select_k` | `[.., n]` of f32, bf16, f16 or f64 | values `[.., k]`, indices s32`[.., k]` | `least` |
//! | `xlann_fused_search` | queries `[.., q, d]` of f32, bf16 or f16 (f64, too, for squared distances); database `[.., n, d]` of f32, bf16, f16 or s8 (for squared distances without candidates f64, not s8); then, where there are any, scales f32`[.., n]`, half norms f32`[.., n]`, rows f32`[.., n, d]` (bf16 and f16, too, for squared distances), errors f32`[.., 2]`, centre f32`[.., d]` | values f32`[.., q, k]` (f64 of squared distances), indices s32`[.., q, k]` | `metric`, `scaled`, `candidates`, `certified_recall`, `centred` |
//!
//! | attribute | type | default | meaning |
//! |---|---|---|---|
//! | `least` | truth value | false | the least are searched for, not the greatest |
//! | `metric` | string | `"inner_product"` | or `"l2"`: the least half norm less product, for which half norms are an operand; or `"squared_distance"`: the least sum of squared differences, to 2^-20 of it |
//! | `scaled` | truth value | false | products are multiplied by the rows' scales, an operand; s8 always has it |
//! | `candidates` | s64 or s32 | 0 | so many are found first, then scored anew by `rows`, an operand; 0: none are |
//! | `certified_recall` | f32 or f64 | 0 | the share of the results of all queries `[q, d]` that is proven to be what a search of `rows` finds, with `errors`, an operand: the greatest norm of a row less the database's row, and of a database's row; where less is proven, those queries of which the least is proven are searched again: a few among eight times as many candidates, others, and those of which that proves too little, in `rows` |
//! | `centred` | truth value | false | of squared distances with candidates: the database is `rows` less a centre, an operand |
//! | `threads` | s64 or s32 | 0 | so many of XLA's threads at most; 0: all |
//! | `instruction_set` | string | `"automatic"` | or `"portable"`, `"avx2"`, `"avx_vnni"`, `"avx512"`, `"avx512_bf16"`, `"avx512_vnni"`, `"neon"`: which are used is in [`instruction_set`] |
//!
//! Rows of s8 are least work where each 24, from the first on, have the same scale. Queries are rounded to 127 steps of their
//! greatest magnitude for them. `avx2` and `avx512` sum products in 16 bits, and round to as many steps as these hold: of
//! normally distributed numbers to about 70.
//!
//! Squared distances are computed in f64. Without candidates, that is all. With candidates, these are found by half distances
//! of the database, for which half norms are an operand (of `rows` less the centre), and scored anew by `rows`;
//! `certified_recall` must be given, and the last search for a query is by the differences to all `rows`. A row whose distance
//! is NaN is not found: its place has the index -1.
//!
//! k is read off the results. Equal scores go to the lower index, -0.0 equals 0.0, and a NaN comes after everything else.
//! Results do not depend on the number of threads. These are XLA's own, which the FFI lends (`thread_pool_schedule`): the
//! kernels start none, so that two programs at once share the machine as XLA's do.
//!
//! # Adding one
//!
//! 1. A plain function over pointers and sizes in `cpp/kernels`, declared in `kernels.h`, with scratch memory from its caller;
//!    what differs between instruction sets goes into `inner_*.inc`, which each `set_*.cc` includes. Its tests, against a
//!    naive version, go into `cpp/tests`; `scripts/test-kernels` finds them.
//! 2. A handler in `cpp/handlers`: it reads the call frame through `frame.h`, whose functions check and set the error, and
//!    takes threads from `thread_pool.h`. Declare it in `handlers.h`, and let `cpp/fuzz` call it.
//! 3. Here: the target's name, the function that exports the handler, and a line in `register`.
//! 4. In `src/lower/kernel.rs`: the [`CustomCall`](crate::CustomCall) with a reference function, and in
//!    `src/lower/fused.rs` how its graph is recognised.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};

use crate::pjrt::Plugin;
use crate::{DType, Result};

/// The custom call of top-k.
pub const SELECT_K: &str = "xlann_select_k";

/// The custom call of search.
pub const FUSED_SEARCH: &str = "xlann_fused_search";

// C++ has these as functions of a call frame, of whose type no Rust needs to know.
unsafe extern "C" {
    fn xlann_select_k_handler(frame: *mut c_void) -> *mut c_void;
    fn xlann_fused_search_handler(frame: *mut c_void) -> *mut c_void;
    fn xlann_instruction_set(of_type: i32) -> *const c_char;
    fn xlann_rounds_queries_as_rows() -> bool;
}

/// The handler of [`SELECT_K`], for XLA.
///
/// # Safety
/// `frame` must be a call frame of XLA's FFI.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlann_select_k(frame: *mut c_void) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { xlann_select_k_handler(frame) }
}

/// The handler of [`FUSED_SEARCH`], for XLA.
///
/// # Safety
/// `frame` must be a call frame of XLA's FFI.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlann_fused_search(frame: *mut c_void) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { xlann_fused_search_handler(frame) }
}

/// The instruction set that searches of a database of a dtype take on this machine, as the attribute `instruction_set` has
/// it; `None` for a dtype that the kernels do not search by products.
///
/// ```
/// use xlann::{DType, kernels};
///
/// println!("f32 by {}", kernels::instruction_set(DType::F32).unwrap());
/// assert_eq!(kernels::instruction_set(DType::S32), None);
/// ```
pub fn instruction_set(database: DType) -> Option<&'static str> {
    // As cpp/kernels/kernels.h counts them.
    let of_type = match database {
        DType::F32 => 0,
        DType::BF16 => 1,
        DType::F16 => 2,
        DType::S8 => 4,
        _ => return None,
    };
    // SAFETY: the function asks the processor, and gives a string that is a constant.
    unsafe { CStr::from_ptr(xlann_instruction_set(of_type)) }.to_str().ok()
}

/// The dtype below f32 that this machine's processor searches fastest, where one is faster.
///
/// As measured on one Zen 5 that was made to take each set (see the module): int8 is 1.9 times as fast as f32 or more, and
/// bf16 as fast as f32, but for `avx512_bf16`. In sets that are not named here both are made f32, and no faster.
pub(crate) fn fastest_below_f32() -> Option<DType> {
    match (instruction_set(DType::S8)?, instruction_set(DType::BF16)?) {
        ("avx2" | "avx_vnni" | "avx512" | "avx512_vnni", _) => Some(DType::S8),
        (_, "avx512_bf16") => Some(DType::BF16),
        _ => None,
    }
}

/// Whether a search of int8 rounds queries to as many steps as rows: without VNNI they are fewer.
pub(crate) fn rounds_queries_as_rows() -> bool {
    // SAFETY: the function takes nothing, and asks the processor.
    unsafe { xlann_rounds_queries_as_rows() }
}

/// Registers the kernels with a plugin, for the devices that its FFI calls `platform`; and tells whether they are: a
/// plugin without an FFI has no custom calls.
///
/// # Errors
/// Where the plugin refuses a registration.
pub(crate) fn register(plugin: Plugin, platform: &str) -> Result<bool> {
    if !plugin.has_ffi() {
        return Ok(false);
    }
    let handlers: [(&str, unsafe extern "C" fn(*mut c_void) -> *mut c_void); 2] =
        [(SELECT_K, xlann_select_k_handler), (FUSED_SEARCH, xlann_fused_search_handler)];
    for (name, handler) in handlers {
        // SAFETY: the handlers keep to the rules of the FFI, answer for their metadata, take calls from any thread, and
        // are a part of this library.
        unsafe { plugin.register_handler(name, handler as *mut c_void, platform)? };
    }
    Ok(true)
}
