//! Custom-call kernels: search and top-k on the CPU, in C++ (`cpp/`), called by compiled programs through XLA's FFI.
//!
//! A session registers them with its plugin, and lowering takes them where they fit
//! ([`Form::Kernel`](crate::lower::Form::Kernel)). Other users of XLA, such as JAX, find the handlers under the same names
//! in this crate's C dynamic library: see `examples/jax_kernels.py`.
//!
//! | target | operands | results | attributes |
//! |---|---|---|---|
//! | `xlann_select_k` | `[..., n]` of f32, bf16, f16 or f64 | values `[..., k]`, indices s32`[..., k]` | `least`: a truth value, default false |
//! | `xlann_fused_search` | queries `[..., q, d]` of f32, bf16 or f16; database `[..., n, d]` of f32, bf16, f16 or s8; for s8 or if scaled, scales f32`[..., n]`; for l2, half norms f32`[..., n]`; for candidates, rows f32`[..., n, d]`; for a certified recall, errors f32`[..., 2]` | values f32`[..., q, k]`, indices s32`[..., q, k]` | `metric`: `"inner_product"`, the default, or `"l2"`; `scaled`: a truth value, default false; `candidates`: an integer, default 0; `certified_recall`: an f64 or f32, default 0 |
//!
//! Both take `threads`, an integer, of XLA's own thread pool (default 0: all of them), and `instruction_set`: `"automatic"`,
//! the default, `"portable"`, `"avx2"`, `"avx512"`, `"avx512_bf16"`, `"avx512_vnni"` or `"neon"`. k is read off the
//! results. Equal scores go to the lower index, -0.0 equals 0.0, and a NaN comes after everything else. Results do not
//! depend on the number of threads.
#![allow(unsafe_code)]

use std::ffi::c_void;

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
    fn xlann_multiplies_s8() -> bool;
    fn xlann_multiplies_bf16() -> bool;
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

/// The dtype below f32 whose products this machine's processor sums fastest, where it has instructions for one.
pub(crate) fn fastest_below_f32() -> Option<DType> {
    // SAFETY: the functions take nothing, and ask the processor.
    match unsafe { (xlann_multiplies_s8(), xlann_multiplies_bf16()) } {
        (true, _) => Some(DType::S8),
        (false, true) => Some(DType::BF16),
        (false, false) => None,
    }
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
