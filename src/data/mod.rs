//! Files: databases and queries as .npy, .fvecs, .bvecs, .ivecs, .fbin, .u8bin and .ibin, and the packages that plugins come in.
//!
//! ```
//! use xlann::{Array, data};
//! # let folder = tempfile::tempdir().unwrap();
//! let path = folder.path().join("database.npy");
//! data::write_npy(&path, &Array::new([2, 2], &[1f32, 2.0, 3.0, 4.0])?)?;
//! let database = data::open(&path)?;
//! assert_eq!(database.to_array()?.to_string(), "f32[2,2] [[1, 2], [3, 4]]");
//! # Ok::<(), xlann::Error>(())
//! ```

pub use executable::ExecutableFile;
pub use install::{Installed, Libraries};
pub(crate) use install::{install_libraries, install_plugin};
pub use mapped::MappedArray;
pub use npy::write_npy;
pub use wheel::{Fetched, Wheel};

use std::path::Path;

use crate::{DType, Error, Result, Shape};

mod atomic;
mod bin;
mod executable;
mod install;
mod mapped;
mod npy;
mod vecs;
mod wheel;

/// Writes a file, which appears whole or not at all; one that is there is replaced.
///
/// # Errors
/// [`Error::Io`] where it cannot be written, [`Error::File`] where its name is that of a directory or device.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("module.hlo");
/// xlann::data::write(&path, b"HloModule double")?;
/// assert_eq!(std::fs::read(&path).unwrap(), b"HloModule double");
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn write(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    atomic::write(path, |file| std::io::Write::write_all(file, bytes).map_err(Error::io(path)))
}

/// Opens an array by the ending of its file's name: `.npy`, `.fvecs`, `.bvecs`, `.ivecs`, `.fbin`, `.u8bin` or `.ibin`.
///
/// A .npy file is mapped into memory, not read: its header is checked, its elements are read when they are
/// used. **It must not change as long as the array or a clone of it is in use**: another program that writes
/// into it changes elements under the reader, and one that cuts it short has the reader killed (SIGBUS).
/// Replacing it, as [`write_npy`] does, is safe: the array keeps the old file. The other formats
/// have their elements at places that a device cannot read them from; they are read whole and copied.
///
/// | ending | elements | rows |
/// |---|---|---|
/// | `.npy` | NumPy's: bool, (u)int8 to 64, float16, 32, 64; bfloat16 as ml_dtypes has it saved, `<V2` | any dimensions, little-endian; C order is mapped, Fortran order copied |
/// | `.fvecs` | f32 | each its length as s32, then its elements, little-endian; all of one length |
/// | `.bvecs` | u8 | the same |
/// | `.ivecs` | s32 | the same |
/// | `.fbin` | f32 | those of big-ann-benchmarks: the number of rows and their length, each a u32, then the elements of all rows, little-endian |
/// | `.u8bin` | u8 | the same |
/// | `.ibin` | s32, of which the row numbers of a ground truth, u32, are those below 2^31 | the same |
///
/// # Errors
/// [`Error::Io`] where the file cannot be read, [`Error::File`] where it is not a file of one of these
/// formats, is damaged or cut short, or holds elements that the crate has no dtype for.
///
/// ```
/// use xlann::{DType, Error, Shape, data};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("database.fvecs");
/// # std::fs::write(&path, [2u32.to_le_bytes(), 1f32.to_le_bytes(), 2f32.to_le_bytes()].concat()).unwrap();
/// let database = data::open(&path)?;
/// assert_eq!(database.shape(), &Shape::new(DType::F32, [1, 2]));
///
/// let refused = data::open("database.csv").unwrap_err();
/// assert!(matches!(refused, Error::File { .. }));
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn open(path: impl AsRef<Path>) -> Result<MappedArray> {
    let path = path.as_ref();
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    match ending.as_deref() {
        Some("npy") => npy::open(path),
        Some("fvecs") => vecs::read(path, DType::F32),
        Some("bvecs") => vecs::read(path, DType::U8),
        Some("ivecs") => vecs::read(path, DType::S32),
        Some("fbin") => bin::read(path, DType::F32),
        Some("u8bin") => bin::read(path, DType::U8),
        Some("ibin") => bin::read(path, DType::S32),
        _ => {
            let got = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
            let endings = ".npy, .fvecs, .bvecs, .ivecs, .fbin, .u8bin or .ibin";
            Err(damaged(path, format!("a file name that ends in {endings}"), got))
        }
    }
}

/// An [`Error::File`].
fn damaged(path: &Path, expected: impl Into<String>, got: impl Into<String>) -> Error {
    Error::File { path: path.into(), expected: expected.into(), got: got.into() }
}

/// Opens a file to be read, and gives its size; what is not a regular file is refused.
fn open_regular(path: &Path) -> Result<(std::fs::File, u64)> {
    // Opening a pipe would wait for a writer.
    let kind = std::fs::metadata(path).map_err(Error::io(path))?;
    if !kind.is_file() {
        let got = if kind.is_dir() { "a directory" } else { "a device, pipe or socket" };
        return Err(damaged(path, "a file", got));
    }
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let size = file.metadata().map_err(Error::io(path))?.len();
    Ok((file, size))
}

/// The number of bytes of a shape that a file claims to hold.
fn checked_byte_count(path: &Path, shape: &Shape) -> Result<usize> {
    shape
        .checked_byte_count("data")
        .map_err(|_| damaged(path, "a shape that fits the address space", shape.to_string()))
}

#[cfg(test)]
mod tests;
