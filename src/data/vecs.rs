//! The formats of the TEXMEX corpora (SIFT1M, GIST1M, SIFT1B): rows that each start with their length.

use std::io::{BufReader, Read};
use std::path::Path;

use super::{MappedArray, checked_byte_count, damaged, open_regular};
use crate::{Array, DType, Error, Result, Shape};

/// Reads a file whose rows are a little-endian s32, their number of elements, and as many elements of `dtype`.
pub(super) fn read(path: &Path, dtype: DType) -> Result<MappedArray> {
    let (file, file_size) = open_regular(path)?;
    if file_size < 4 {
        return Err(damaged(
            path,
            "at least one row, of 4 bytes and its elements",
            format!("{file_size} bytes"),
        ));
    }
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let first = read_length(path, &mut reader)?;
    let length = match usize::try_from(first) {
        Ok(length) if length > 0 => length,
        _ => return Err(damaged(path, "rows of 1 or more elements", format!("a first row of {first}"))),
    };
    let row_size = 4 + (length as u64) * (dtype.size() as u64);
    if !file_size.is_multiple_of(row_size) {
        let expected = format!("a multiple of {row_size} bytes, rows of {length} elements of {dtype}");
        return Err(damaged(path, expected, format!("{file_size} bytes")));
    }
    let rows = usize::try_from(file_size / row_size)
        .map_err(|_| damaged(path, "a file that fits the address space", format!("{file_size} bytes")))?;
    let shape = Shape::new(dtype, [rows, length]);
    checked_byte_count(path, &shape)?;
    let array = Array::try_filled(shape, |bytes| {
        for (row, target) in bytes.chunks_exact_mut(length * dtype.size()).enumerate() {
            if row > 0 {
                let next = read_length(path, &mut reader)?;
                if next != first {
                    let expected = format!("rows of {length} elements, as the first");
                    return Err(damaged(path, expected, format!("{next} in row {row}")));
                }
            }
            reader.read_exact(target).map_err(Error::io(path))?;
        }
        Ok(())
    })?;
    Ok(array.into())
}

fn read_length(path: &Path, reader: &mut impl Read) -> Result<i32> {
    let mut length = [0; 4];
    reader.read_exact(&mut length).map_err(Error::io(path))?;
    Ok(i32::from_le_bytes(length))
}
