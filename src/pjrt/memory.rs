//! Refusing what the machine's memory cannot hold, where the plugin would not.

use super::abi::{Args, PJRT_Client_Compile_Args, PJRT_LoadedExecutable_Execute_Args};
use super::executable::Signature;
use crate::{Error, PjrtCode, Result};

/// Requires that parameters and results of all devices fit the memory that there is: XLA:CPU can crash while it
/// compiles a program for far more.
pub(super) fn check_compile(signature: &Signature, devices: usize) -> Result<()> {
    let shapes = signature.parameters.iter().chain(&signature.results);
    let needed = shapes.fold(0u64, |needed, shape| needed.saturating_add(shape.byte_count() as u64));
    let needed = needed.saturating_mul(devices as u64);
    check(PJRT_Client_Compile_Args::CALL, signature, needed, ["MemTotal:", "SwapTotal:"])
}

/// Requires that the bytes that a run allocates are left: the system would grant the memory all the same, and end
/// the process when it is written.
pub(super) fn check_run(signature: &Signature, needed: u64) -> Result<()> {
    check(PJRT_LoadedExecutable_Execute_Args::CALL, signature, needed, ["MemAvailable:", "SwapFree:"])
}

fn check(call: &'static str, signature: &Signature, needed: u64, fields: [&str; 2]) -> Result<()> {
    match memory(fields) {
        Some(there) if needed > there => Err(Error::Pjrt {
            call,
            code: PjrtCode::ResourceExhausted,
            message: format!("{} needs {needed} bytes, and there are {there}", signature.name),
        }),
        _ => Ok(()),
    }
}

/// The bytes that Linux tells in two fields, of memory and of swap; `None` where it does not.
fn memory([memory, swap]: [&str; 2]) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some((field(memory)? + field(swap).unwrap_or(0)) << 10)
}
