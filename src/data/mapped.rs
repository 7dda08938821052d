//! Arrays that lie in a file.

use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use super::damaged;
use crate::{Array, Error, Result, Shape};

/// A dense row-major array whose elements lie in a mapped file or, for formats that cannot be mapped, in memory.
///
/// Cloning shares the elements; the file stays mapped until the last clone is dropped. See
/// [`open`](crate::data::open) for what may not be done to the file until then.
///
/// ```
/// use xlann::{Array, data::MappedArray};
/// let array = MappedArray::from(Array::new([2], &[1i32, 2])?);
/// assert_eq!(array.shape().to_string(), "s32[2]");
/// assert_eq!(array.as_bytes().len(), 8);
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone)]
pub struct MappedArray {
    shape: Shape,
    storage: Storage,
}

#[derive(Clone)]
enum Storage {
    Array(Array),
    File { map: Arc<Mmap>, offset: usize },
}

impl MappedArray {
    /// The elements of `shape` from `offset` on to the end of a file.
    pub(super) fn of_file(
        path: &Path,
        file: &std::fs::File,
        offset: usize,
        shape: Shape,
    ) -> Result<MappedArray> {
        let size = super::checked_byte_count(path, &shape)?;
        // SAFETY: the map is read-only and only ever handed out as `&[u8]`, of which any value is valid. That
        // the file is not changed meanwhile is asked of the user in the documentation of `open`.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(file) }.map_err(Error::io(path))?;
        // The file may have changed since its header was read.
        if offset.checked_add(size) != Some(map.len()) {
            let expected = format!("{size} bytes after a header of {offset} bytes, for {shape}");
            return Err(damaged(path, expected, format!("a file of {} bytes", map.len())));
        }
        Ok(MappedArray { shape, storage: Storage::File { map: Arc::new(map), offset } })
    }

    /// Its dtype and dimensions.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The bytes of its elements, in row-major order, little-endian.
    ///
    /// They start at a 64-byte boundary, which XLA:CPU asks of memory that it reads in place: a file that does
    /// not have them at one is copied when it is opened.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Array(array) => array.as_bytes(),
            Storage::File { map, offset } => map.get(*offset..).unwrap_or_default(),
        }
    }

    /// The array in memory: a copy of a mapped file.
    ///
    /// # Errors
    /// Where a pred is neither 0 nor 1.
    pub fn to_array(&self) -> Result<Array> {
        match &self.storage {
            Storage::Array(array) => Ok(array.clone()),
            Storage::File { .. } => Array::from_bytes(self.shape.clone(), self.as_bytes()),
        }
    }
}

impl From<Array> for MappedArray {
    fn from(array: Array) -> MappedArray {
        MappedArray { shape: array.shape().clone(), storage: Storage::Array(array) }
    }
}

impl AsRef<[u8]> for MappedArray {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl std::fmt::Debug for MappedArray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let storage = match self.storage {
            Storage::Array(_) => "in memory",
            Storage::File { .. } => "in a mapped file",
        };
        write!(f, "{} {storage}", self.shape)
    }
}
