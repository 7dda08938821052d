//! NumPy's file format, versions 1.0 to 3.0 (numpy/lib/format.py describes it).

use std::io::{Read, Write};
use std::path::Path;

use super::{MappedArray, atomic, checked_byte_count, damaged, open_regular};
use crate::{Array, DType, Error, Result, Shape};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// The longest header that NumPy reads without being told to trust the file.
const MAX_HEADER: usize = 10_000;

/// The highest rank of an array of NumPy 2.
const MAX_RANK: usize = 64;

/// Opens a .npy file by mapping it.
pub(super) fn open(path: &Path) -> Result<MappedArray> {
    let (file, size) = open_regular(path)?;
    let mut start = Vec::new();
    (&file).take(12 + MAX_HEADER as u64).read_to_end(&mut start).map_err(Error::io(path))?;
    let Layout { shape, offset, fortran_order } = parse(path, &start, size)?;
    let dims = shape.dims().to_vec();
    let mapped = MappedArray::of_file(path, &file, offset, shape)?;
    if mapped.shape().dtype() == DType::Pred
        && let Some(byte) = mapped.as_bytes().iter().find(|&&byte| byte > 1)
    {
        return Err(damaged(path, "0 or 1 for each element of dtype '|b1'", byte.to_string()));
    }
    if fortran_order && dims.len() > 1 {
        return Ok(from_fortran_order(&mapped.to_array()?, &dims).into());
    }
    // Older versions of NumPy, and other writers, put the elements anywhere.
    if offset % 64 == 0 { Ok(mapped) } else { Ok(mapped.to_array()?.into()) }
}

/// The array of these dimensions whose elements lie in `array` with the first index running fastest.
fn from_fortran_order(array: &Array, dims: &[usize]) -> Array {
    array.rearranged(dims, None, |position| {
        let (mut rest, mut source, mut stride) = (position, 0, array.shape().element_count());
        // From the last index, which runs fastest in the result and slowest in the source.
        for &dim in dims.iter().rev() {
            stride /= dim;
            source += rest % dim * stride;
            rest /= dim;
        }
        Some(source)
    })
}

/// Writes an array as a .npy file of version 1.0 that NumPy and [`open`](crate::data::open) read.
///
/// The file appears whole or not at all: it is written under a temporary name in the same folder and then
/// renamed, which replaces a file that was there. Its elements start at a multiple of 64 bytes. bf16 is
/// written as ml_dtypes does, `<V2`, which NumPy gives back as 2-byte voids, to be viewed as `bfloat16`.
///
/// # Errors
/// Where the array has more than 64 dimensions, which NumPy cannot read, or the file cannot be written.
///
/// ```
/// use xlann::{Array, data};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("indices.npy");
/// let indices = Array::new([2, 1], &[7, 3])?;
/// data::write_npy(&path, &indices)?;
/// assert_eq!(data::open(&path)?.to_array()?, indices);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn write_npy(path: impl AsRef<Path>, array: &Array) -> Result<()> {
    let path = path.as_ref();
    let shape = array.shape();
    if shape.rank() > MAX_RANK {
        return Err(Error::argument("write_npy", "array", format!("of rank {MAX_RANK} or less"), shape));
    }
    let header = header(shape);
    atomic::write(path, |file| {
        file.write_all(&header).and_then(|()| file.write_all(array.as_bytes())).map_err(Error::io(path))
    })
}

/// Everything before the elements.
fn header(shape: &Shape) -> Vec<u8> {
    let dims: Vec<String> = shape.dims().iter().map(usize::to_string).collect();
    let comma = if dims.len() == 1 { "," } else { "" };
    let dict = format!(
        "{{'descr': '{}', 'fortran_order': False, 'shape': ({}{comma}), }}",
        descr(shape.dtype()),
        dims.join(", ")
    );
    // 10 bytes come before the dict, a line feed after it.
    let size = (10 + dict.len() + 1).next_multiple_of(64);
    let mut header = Vec::with_capacity(size);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&[1, 0]);
    header.extend_from_slice(&((size - 10) as u16).to_le_bytes());
    header.extend_from_slice(dict.as_bytes());
    header.resize(size - 1, b' ');
    header.push(b'\n');
    header
}

/// NumPy's name of a dtype.
fn descr(dtype: DType) -> &'static str {
    match dtype {
        DType::Pred => "|b1",
        DType::S8 => "|i1",
        DType::S16 => "<i2",
        DType::S32 => "<i4",
        DType::S64 => "<i8",
        DType::U8 => "|u1",
        DType::U16 => "<u2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        DType::F16 => "<f2",
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        // No other type of ml_dtypes has two bytes, and NumPy's own void has no byte order: |V2.
        DType::BF16 => "<V2",
    }
}

/// What the header says of the elements.
struct Layout {
    shape: Shape,
    /// Where the elements start in the file.
    offset: usize,
    /// Whether the first index runs fastest.
    fortran_order: bool,
}

/// The layout of a file of `size` bytes that starts with `start`.
fn parse(path: &Path, start: &[u8], size: u64) -> Result<Layout> {
    let Some(version) = start.strip_prefix(MAGIC) else {
        let got =
            format!("{} bytes that start with \"{}\"", size, start[..start.len().min(8)].escape_ascii());
        return Err(damaged(path, "a .npy file, which starts with \"\\x93NUMPY\"", got));
    };
    let cut_short = || damaged(path, "a .npy header", format!("a file cut short after {size} bytes"));
    let (length, offset) = match version {
        [1, 0, a, b, ..] => (u32::from(u16::from_le_bytes([*a, *b])), 10),
        [2 | 3, 0, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]), 12),
        [1..=3, 0, ..] | [] | [_] => return Err(cut_short()),
        [major, minor, ..] => {
            return Err(damaged(
                path,
                "version 1.0, 2.0 or 3.0 of the .npy format",
                format!("{major}.{minor}"),
            ));
        }
    };
    let length = length as usize;
    if length > MAX_HEADER {
        let expected = format!("a header of at most {MAX_HEADER} bytes");
        return Err(damaged(path, expected, format!("one of {length}")));
    }
    let header = start.get(offset..offset + length).ok_or_else(cut_short)?;
    let offset = offset + length;
    let python2 = version[0] < 3;
    let (shape, fortran_order) = Header { path, rest: header, python2 }.parse()?;
    let byte_count = checked_byte_count(path, &shape)?;
    if (byte_count as u64).checked_add(offset as u64) != Some(size) {
        let expected = format!("{byte_count} bytes of elements for {shape}");
        return Err(damaged(path, expected, format!("{} bytes", size.saturating_sub(offset as u64))));
    }
    Ok(Layout { shape, offset, fortran_order })
}

/// The first bytes of a piece of the header, to be shown.
fn quoted(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(20)]))
}

/// A reader of the header, a Python dict; as strict as NumPy's own, and without escapes in strings.
struct Header<'a> {
    path: &'a Path,
    rest: &'a [u8],
    /// Whether it is of a version that Python 2 wrote, whose long integers end in L.
    python2: bool,
}

impl<'a> Header<'a> {
    /// The shape, and whether the elements are in Fortran order.
    fn parse(mut self) -> Result<(Shape, bool)> {
        self.rest = match self.rest.split_last() {
            Some((b'\n', rest)) => rest,
            _ => return Err(self.refused("a line feed at the end of the header")),
        };
        let (mut dtype, mut fortran_order, mut dims) = (None, None, None);
        self.expect(b'{')?;
        while !self.take(b'}') {
            match self.string()? {
                b"descr" if dtype.is_none() => {
                    self.expect(b':')?;
                    dtype = Some(self.dtype()?);
                }
                b"fortran_order" if fortran_order.is_none() => {
                    self.expect(b':')?;
                    fortran_order = Some(self.boolean()?);
                }
                b"shape" if dims.is_none() => {
                    self.expect(b':')?;
                    dims = Some(self.tuple()?);
                }
                key => {
                    let expected = "the header's keys to be descr, fortran_order and shape, each once";
                    return Err(damaged(self.path, expected, quoted(key)));
                }
            }
            if !self.take(b',') {
                self.expect(b'}')?;
                break;
            }
        }
        if !self.peek().is_empty() {
            return Err(self.refused("nothing after the header's dict"));
        }
        let missing = |key: &str| damaged(self.path, format!("the key '{key}' in the header"), "none");
        let dtype = dtype.ok_or_else(|| missing("descr"))?;
        let dims = dims.ok_or_else(|| missing("shape"))?;
        let fortran_order = fortran_order.ok_or_else(|| missing("fortran_order"))?;
        Ok((Shape::new(dtype, dims), fortran_order))
    }

    /// What is left after white space.
    fn peek(&mut self) -> &'a [u8] {
        self.rest = self.rest.trim_ascii_start();
        self.rest
    }

    fn take(&mut self, byte: u8) -> bool {
        match self.peek() {
            [first, rest @ ..] if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.refused(&format!("'{}' in the header", char::from(byte))))
        }
    }

    fn refused(&self, expected: &str) -> Error {
        let got = match self.rest {
            [] => "its end".to_owned(),
            rest => quoted(rest),
        };
        damaged(self.path, expected, got)
    }

    fn string(&mut self) -> Result<&'a [u8]> {
        let quote = match self.peek() {
            [quote @ (b'\'' | b'"'), ..] => *quote,
            _ => return Err(self.refused("a string in the header")),
        };
        let content = &self.rest[1..];
        match content.iter().position(|&byte| byte == quote || byte == b'\\') {
            Some(end) if content[end] == quote => {
                self.rest = &content[end + 1..];
                Ok(&content[..end])
            }
            _ => Err(self.refused("a string without escapes in the header")),
        }
    }

    fn boolean(&mut self) -> Result<bool> {
        for (text, value) in [("False", false), ("True", true)] {
            if let Some(rest) = self.peek().strip_prefix(text.as_bytes()) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(self.refused("True or False for fortran_order"))
    }

    fn dtype(&mut self) -> Result<DType> {
        let names = || DType::ALL.map(descr).join(", ");
        if self.peek().starts_with(b"[") {
            return Err(damaged(self.path, format!("a dtype of {}", names()), "a structured dtype"));
        }
        let name = self.string()?;
        if let Some(dtype) = DType::ALL.into_iter().find(|&dtype| descr(dtype).as_bytes() == name) {
            return Ok(dtype);
        }
        let got = quoted(name);
        match name {
            // One byte has no order.
            b"<b1" => Ok(DType::Pred),
            b"<i1" => Ok(DType::S8),
            b"<u1" => Ok(DType::U8),
            [b'>', ..] => Err(damaged(self.path, "little-endian elements", format!("{got}, big-endian"))),
            b"|V2" => {
                let got = format!("{got}, which does not say what it holds");
                Err(damaged(self.path, format!("a dtype of {}", names()), got))
            }
            _ => Err(damaged(self.path, format!("a dtype of {}", names()), got)),
        }
    }

    fn tuple(&mut self) -> Result<Vec<usize>> {
        let mut dims = Vec::new();
        self.expect(b'(')?;
        while !self.take(b')') {
            dims.push(self.integer()?);
            if !self.take(b',') {
                // In Python, (3) is a number, (3,) a tuple.
                if dims.len() == 1 {
                    return Err(self.refused("',' after the first size of the shape"));
                }
                self.expect(b')')?;
                break;
            }
        }
        Ok(dims)
    }

    fn integer(&mut self) -> Result<usize> {
        let end = self.peek().iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let value = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        match value {
            // Python refuses leading zeros.
            Some(value) if digits.len() == 1 || digits[0] != b'0' => {
                self.rest = rest;
                if self.python2 {
                    self.take(b'L');
                }
                Ok(value)
            }
            _ => Err(self.refused("sizes from 0 to 2^64 - 1 in the shape")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), size in any::<u64>()) {
            let _ = parse(Path::new("x.npy"), &bytes, size);
        }

        #[test]
        fn any_header_is_read_or_refused(text in "[{}()\\[\\]'\",: \n0-9a-zA-Z_<>|\\\\-]{0,120}", size in any::<u64>()) {
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
            let _ = parse(Path::new("x.npy"), &bytes, size);
        }

        #[test]
        fn headers_come_back(dtype in 0..DType::ALL.len(), dims in proptest::collection::vec(0usize..50, 0..8)) {
            let shape = Shape::new(DType::ALL[dtype], dims);
            let header = header(&shape);
            prop_assert_eq!(header.len() % 64, 0);
            let size = (header.len() + shape.byte_count()) as u64;
            let layout = parse(Path::new("x.npy"), &header, size).unwrap();
            prop_assert_eq!((layout.shape, layout.offset, layout.fortran_order), (shape, header.len(), false));
        }
    }
}
