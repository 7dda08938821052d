//! The formats of big-ann-benchmarks (Deep1B, BigANN, Text2Image): the sizes of a matrix, then its elements.

use std::io::Read;
use std::path::Path;

use super::{MappedArray, checked_byte_count, damaged, open_regular};
use crate::{Array, DType, Error, Result, Shape};

/// The size of what comes before the elements, which so are off the cache lines that XLA:CPU reads in place.
const HEADER: u64 = 8;

/// Reads a file of two little-endian u32, the number of rows and their length, and then the elements of all rows.
pub(super) fn read(path: &Path, dtype: DType) -> Result<MappedArray> {
    let (mut file, file_size) = open_regular(path)?;
    if file_size < HEADER {
        let expected = format!("{HEADER} bytes at least, the number of rows and their length");
        return Err(damaged(path, expected, format!("{file_size} bytes")));
    }
    let mut size = || -> Result<usize> {
        let mut bytes = [0; 4];
        file.read_exact(&mut bytes).map_err(Error::io(path))?;
        let too_large = |_| damaged(path, "sizes that fit the address space", format!("{bytes:?}"));
        usize::try_from(u32::from_le_bytes(bytes)).map_err(too_large)
    };
    let [rows, length] = [size()?, size()?];
    if rows == 0 || length == 0 {
        let got = format!("{rows} rows of {length}");
        return Err(damaged(path, "1 or more rows of 1 or more elements", got));
    }
    let shape = Shape::new(dtype, [rows, length]);
    let byte_count = checked_byte_count(path, &shape)? as u64;
    let got = file_size - HEADER;
    if got != byte_count {
        let expected = format!("{byte_count} bytes of elements for {shape}");
        return Err(damaged(path, expected, format!("{got} bytes")));
    }
    let array = Array::try_filled(shape, |bytes| file.read_exact(bytes).map_err(Error::io(path)))?;
    Ok(array.into())
}
