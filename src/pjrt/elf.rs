//! A look at a shared library before it is loaded.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Whether an ELF file for 64-bit little-endian machines is shorter than what its own header says is to be mapped.
///
/// The system's loader maps what the header says without a look at the file's length; a download cut short would
/// end the process with SIGBUS. Files of other kinds are left for the loader to refuse.
pub(super) fn is_cut_short(path: &Path) -> std::io::Result<bool> {
    const LOAD: u32 = 1;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut header = Vec::new();
    file.by_ref().take(64).read_to_end(&mut header)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Ok(false);
    }
    if header.len() < 64 {
        return Ok(true);
    }
    let table = u64::from_le_bytes(bytes(&header, 32));
    let (entry_size, count) =
        (u16::from_le_bytes(bytes(&header, 54)), u16::from_le_bytes(bytes(&header, 56)));
    let size = u64::from(entry_size) * u64::from(count);
    if entry_size < 56 || table.checked_add(size).is_none_or(|end| end > length) {
        return Ok(true);
    }
    file.seek(SeekFrom::Start(table))?;
    let mut entries = Vec::new();
    file.take(size).read_to_end(&mut entries)?;
    Ok(entries.chunks_exact(entry_size.into()).any(|entry| {
        let (offset, size) = (u64::from_le_bytes(bytes(entry, 8)), u64::from_le_bytes(bytes(entry, 32)));
        u32::from_le_bytes(bytes(entry, 0)) == LOAD && offset.checked_add(size).is_none_or(|end| end > length)
    }))
}

/// The `N` bytes from `start`, which must be there.
fn bytes<const N: usize>(from: &[u8], start: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&from[start..start + N]);
    bytes
}
