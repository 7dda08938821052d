//! SHA-256, of files and as text.

use std::io::{ErrorKind, Read, Result};

use sha2::{Digest, Sha256};

/// The hash of all that can be read.
pub(crate) fn of_reader(mut reader: impl Read) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut part = vec![0; 1 << 20];
    loop {
        match reader.read(&mut part) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(count) => hash.update(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
}

/// The hash of these bytes, one after the other.
pub(crate) fn of_parts(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// A hash as hexadecimal digits.
pub(crate) fn text(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
