//! Refusing what the machine's memory cannot hold, where the plugin would not.

use super::abi::{
    Args, PJRT_Client_BufferFromHostBuffer_Args, PJRT_Client_Compile_Args, PJRT_LoadedExecutable_Execute_Args,
};
use super::client::Device;
use super::executable::Signature;
use crate::{Error, PjrtCode, Result};

/// Requires that parameters and results of all devices fit the memory that there is: XLA:CPU can crash while it
/// compiles a program for far more.
pub(super) fn check_compile(signature: &Signature, devices: usize) -> Result<()> {
    let shapes = signature.parameters.iter().chain(&signature.results);
    let needed = shapes.fold(0u64, |needed, shape| needed.saturating_add(shape.byte_count() as u64));
    let needed = needed.saturating_mul(devices as u64);
    check(PJRT_Client_Compile_Args::CALL, &signature.name, needed, ALL)
}

/// Requires that the bytes that a run allocates are left: the system would grant the memory all the same, and end
/// the process when it is written.
pub(super) fn check_run(signature: &Signature, needed: u64) -> Result<()> {
    check(PJRT_LoadedExecutable_Execute_Args::CALL, &signature.name, needed, LEFT)
}

/// Requires that host memory has room for buffers: for those bytes that are `allocated` now, and for all of them
/// with those that are `read_in_place`.
pub(super) fn check_upload(name: &str, allocated: u64, read_in_place: u64) -> Result<()> {
    let call = PJRT_Client_BufferFromHostBuffer_Args::CALL;
    check(call, name, allocated, LEFT)?;
    check(call, name, allocated.saturating_add(read_in_place), ALL)
}

/// Requires that a device has room for buffers, where it counts its memory.
pub(super) fn check_device(name: &str, device: &Device, needed: u64) -> Result<()> {
    let there = device.memory_stats().ok().and_then(|stats| {
        let left = stats.bytes_limit?.saturating_sub(stats.bytes_in_use);
        u64::try_from(left).ok()
    });
    compare(PJRT_Client_BufferFromHostBuffer_Args::CALL, name, needed, there)
}

/// What Linux calls the memory that there is, and its swap.
const ALL: [&str; 2] = ["MemTotal:", "SwapTotal:"];

/// What Linux calls the memory that is left, and its swap.
const LEFT: [&str; 2] = ["MemAvailable:", "SwapFree:"];

fn check(call: &'static str, name: &str, needed: u64, fields: [&str; 2]) -> Result<()> {
    compare(call, name, needed, memory(fields))
}

fn compare(call: &'static str, name: &str, needed: u64, there: Option<u64>) -> Result<()> {
    match there {
        Some(there) if needed > there => Err(Error::Pjrt {
            call,
            code: PjrtCode::ResourceExhausted,
            message: format!("{name} needs {needed} bytes, and there are {there}"),
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
