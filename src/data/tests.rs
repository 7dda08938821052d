use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::Array;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/npy").join(name)
}

/// Opens a file of this content and gives the error's text after the path.
fn refusal(name: &str, content: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    let error = open(&path).expect_err("a damaged file").to_string();
    error.strip_prefix(&format!("{}: ", path.display())).unwrap_or_else(|| panic!("{error}")).to_owned()
}

/// A .npy file of version 1.0 with this header and these elements.
fn npy(header: &str, elements: &[u8]) -> Vec<u8> {
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend_from_slice(&(header.len() as u16).to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(elements);
    file
}

#[test]
fn every_dtype_that_numpy_saves_is_read() {
    for dtype in DType::ALL {
        let array = open(fixture(&format!("{dtype}.npy"))).unwrap().to_array().unwrap();
        let values = match dtype {
            DType::Pred => [0.0, 1.0, 0.0, 1.0, 0.0, 0.0],
            float if float.is_float() => [0.0, 1.0, 2.0, 3.0, 4.0, -1.5],
            _ => [0.0, 1.0, 2.0, 3.0, 4.0, 100.0],
        };
        assert_eq!(array, Array::from_f64(Shape::new(dtype, [2, 3]), &values).unwrap());
    }
}

#[test]
fn every_rank_and_version_is_read() {
    for (name, text) in [
        ("scalar", "f32[] 2.5"),
        ("vector", "s32[3] [0, 1, 2]"),
        ("empty", "f32[0,3] []"),
        ("version2", "s32[3] [0, 1, 2]"),
        ("version3", "s32[3] [0, 1, 2]"),
        ("fortran-order", "f32[2,3] [[0, 1, 2], [3, 4, 5]]"),
    ] {
        let mapped = open(fixture(&format!("{name}.npy"))).unwrap();
        assert_eq!(mapped.to_array().unwrap().to_string(), text);
        assert_eq!(mapped.as_bytes().as_ptr() as usize % 64, 0);
    }
}

#[test]
fn what_has_no_dtype_here_is_refused() {
    for (name, expected) in [
        ("big-endian", "expected little-endian elements, got \">f4\", big-endian"),
        ("void", "got \"|V2\", which does not say what it holds"),
        ("complex", "got \"<c8\""),
        ("text", "got \"<U2\""),
        ("records", "got a structured dtype"),
        ("objects", "got \"|O\""),
        ("float8", "got \"<V1\""),
    ] {
        let error = open(fixture(&format!("refused-{name}.npy"))).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn damaged_npy_files_are_refused() {
    let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n";
    let with = |from: &str, to: &str| npy(&good.replace(from, to), &[0; 8]);
    assert!(open_bytes("good.npy", &npy(good, &[0; 8])).is_ok());
    let magic = "expected a .npy file, which starts with \"\\x93NUMPY\", got ";
    let key = "expected the header's keys to be descr, fortran_order and shape, each once, got ";
    let cut = "expected a .npy header, got a file cut short after ";
    for (file, expected) in [
        (b"".to_vec(), format!("{magic}0 bytes that start with \"\"")),
        (b"\x93NUMP".to_vec(), format!("{magic}5 bytes that start with \"\\x93NUMP\"")),
        (
            b"PK\x03\x04 an .npz file".to_vec(),
            format!("{magic}17 bytes that start with \"PK\\x03\\x04 an \""),
        ),
        (b"\x93NUMPY".to_vec(), format!("{cut}6 bytes")),
        (b"\x93NUMPY\x01\x00\x40".to_vec(), format!("{cut}9 bytes")),
        (b"\x93NUMPY\x02\x00\x40\x00\x00".to_vec(), format!("{cut}11 bytes")),
        (b"\x93NUMPY\x01\x00\x40\x00{}".to_vec(), format!("{cut}12 bytes")),
        (
            b"\x93NUMPY\x04\x00\x40\x00\x00\x00{}".to_vec(),
            "expected version 1.0, 2.0 or 3.0 of the .npy format, got 4.0".into(),
        ),
        (
            b"\x93NUMPY\x01\x01\x40\x00\x00\x00{}".to_vec(),
            "expected version 1.0, 2.0 or 3.0 of the .npy format, got 1.1".into(),
        ),
        (
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}".to_vec(),
            "expected a header of at most 10000 bytes, got one of 4294967295".into(),
        ),
        (npy(good, &[0; 7]), "expected 8 bytes of elements for f32[1,2], got 7 bytes".into()),
        (npy(good, &[0; 9]), "expected 8 bytes of elements for f32[1,2], got 9 bytes".into()),
        (npy(good, &[]), "expected 8 bytes of elements for f32[1,2], got 0 bytes".into()),
        (npy(good.trim_end(), &[0; 8]), "expected a line feed at the end of the header, got ".into()),
        (npy("", &[]), "expected a line feed at the end of the header, got its end".into()),
        (npy("\n", &[]), "expected '{' in the header, got its end".into()),
        (npy("{\n", &[]), "expected a string in the header, got its end".into()),
        (npy("{}\n", &[]), "expected the key 'descr' in the header, got none".into()),
        (with("'shape': (1, 2), ", ""), "expected the key 'shape' in the header, got none".into()),
        (
            with("'fortran_order': False, ", ""),
            "expected the key 'fortran_order' in the header, got none".into(),
        ),
        (with("}", "'shape': (1, 2)}"), format!("{key}\"shape\"")),
        (with("}", "'descr': '<f4'}"), format!("{key}\"descr\"")),
        (with("}", "'more': 1}"), format!("{key}\"more\"")),
        (with("descr", "des\\x63r"), "expected a string without escapes in the header, got ".into()),
        (with("}", "} 1"), "expected nothing after the header's dict, got \"1\"".into()),
        (with("}", ""), "expected a string in the header, got its end".into()),
        (with(", 'fortran", " 'fortran"), "expected '}' in the header, got \"'fortran_order': Fal\"".into()),
        (with("'<f4'", "3"), "expected a string in the header, got \"3, 'fortran_order':".into()),
        (with("'<f4", "'<f4\"x"), "expected a dtype of |b1, |i1, <i2, ".into()),
        (with("<f4", "|f4"), "expected a dtype of |b1, |i1, <i2, ".into()),
        (with("False", "0"), "expected True or False for fortran_order, got \"0, 'shape': (1, 2), \"".into()),
        (with("False", "Falsehood"), "expected '}' in the header, got \"hood, 'shape': (1, 2\"".into()),
        (with("(1, 2)", "[1, 2]"), "expected '(' in the header, got \"[1, 2], }\"".into()),
        (with("(1, 2)", "(2)"), "expected ',' after the first size of the shape, got \"), }\"".into()),
        (with("(1, 2)", "(1, 2"), "expected sizes from 0 to 2^64 - 1 in the shape, got \"}\"".into()),
        (
            with("(1, 2)", "(-1, 2)"),
            "expected sizes from 0 to 2^64 - 1 in the shape, got \"-1, 2), }\"".into(),
        ),
        (
            with("(1, 2)", "(01, 2)"),
            "expected sizes from 0 to 2^64 - 1 in the shape, got \"01, 2), }\"".into(),
        ),
        (with("(1, 2)", "(1,, 2)"), "expected sizes from 0 to 2^64 - 1 in the shape, got \", 2), }\"".into()),
        (with("(1, 2)", "(1 2)"), "expected ',' after the first size of the shape, got \"2), }\"".into()),
        (
            with("(1, 2)", "(18446744073709551616, 2)"),
            "expected sizes from 0 to 2^64 - 1 in the shape, got \"18446744073709551616\"".into(),
        ),
        (
            with("(1, 2)", "(18446744073709551615, 2)"),
            "expected a shape that fits the address space, got f32[18446744073709551615,2]".into(),
        ),
        (
            with("(1, 2)", "(4294967296, 4294967296)"),
            "expected a shape that fits the address space, got f32[4294967296,4294967296]".into(),
        ),
        (
            npy(&good.replace("<f4", "|b1"), &[1, 2]),
            "expected 0 or 1 for each element of dtype '|b1', got 2".into(),
        ),
    ] {
        let got = refusal("x.npy", &file);
        assert!(got.starts_with(&expected), "{}\n{got}\n{expected}", file.escape_ascii());
    }
}

#[test]
fn damaged_vecs_files_are_refused() {
    let row = |length: i32, elements: usize| [length.to_le_bytes().to_vec(), vec![0; elements]].concat();
    for (name, file, expected) in [
        ("x.fvecs", vec![], "expected at least one row, of 4 bytes and its elements, got 0 bytes"),
        ("x.fvecs", vec![1, 0, 0], "expected at least one row, of 4 bytes and its elements, got 3 bytes"),
        ("x.fvecs", row(0, 0), "expected rows of 1 or more elements, got a first row of 0"),
        ("x.bvecs", row(-1, 8), "expected rows of 1 or more elements, got a first row of -1"),
        ("x.fvecs", row(2, 7), "expected a multiple of 12 bytes, rows of 2 elements of f32, got 11 bytes"),
        ("x.ivecs", row(2, 9), "expected a multiple of 12 bytes, rows of 2 elements of s32, got 13 bytes"),
        (
            "x.ivecs",
            row(i32::MAX, 8),
            "expected a multiple of 8589934592 bytes, rows of 2147483647 elements of s32, got 12 bytes",
        ),
        (
            "x.bvecs",
            [row(4, 4), row(3, 4)].concat(),
            "expected rows of 4 elements, as the first, got 3 in row 1",
        ),
    ] {
        assert_eq!(refusal(name, &file), expected);
    }
}

#[test]
fn long_integers_of_python_2_are_read() {
    let header = |shape: &str| format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    for (shape, dims) in
        [("(2L, 1L)", &[2, 1][..]), ("(2L,)", &[2]), ("(1, 2L)", &[1, 2]), ("(2 L, 1)", &[2, 1])]
    {
        let mut file = npy(&header(shape), &[0; 8]);
        assert_eq!(open_bytes("x.npy", &file).unwrap().shape().dims(), dims, "{shape}");
        // Python 3 wrote version 3, whose header has a size of 4 bytes.
        file.splice(6..10, [3, 0, file[8], file[9], 0, 0]);
        assert!(refusal("x.npy", &file).starts_with("expected "), "{shape}");
    }
    let file = |shape: &str| npy(&header(shape), &[0; 8]);
    let comma = "expected ',' after the first size of the shape, got ";
    for (shape, expected) in [
        ("(2LL,)", format!("{comma}\"L,), }}\"")),
        ("(2l,)", format!("{comma}\"l,), }}\"")),
        ("(2L)", format!("{comma}\"), }}\"")),
        ("(L,)", "expected sizes from 0 to 2^64 - 1 in the shape, got \"L,), }\"".into()),
    ] {
        assert_eq!(refusal("x.npy", &file(shape)), expected, "{shape}");
    }
}

/// A file of big-ann-benchmarks with these sizes and elements.
fn bin(rows: u32, length: u32, elements: &[u8]) -> Vec<u8> {
    [&rows.to_le_bytes(), &length.to_le_bytes(), elements].concat()
}

#[test]
fn damaged_bin_files_are_refused() {
    let header = "expected 8 bytes at least, the number of rows and their length, got ";
    let sizes = "expected 1 or more rows of 1 or more elements, got ";
    for (name, file, expected) in [
        ("x.fbin", vec![], format!("{header}0 bytes")),
        ("x.ibin", vec![1, 0, 0, 0, 1, 0, 0], format!("{header}7 bytes")),
        ("x.u8bin", bin(0, 3, &[]), format!("{sizes}0 rows of 3")),
        ("x.fbin", bin(3, 0, &[]), format!("{sizes}3 rows of 0")),
        ("x.fbin", bin(2, 1, &[0; 7]), "expected 8 bytes of elements for f32[2,1], got 7 bytes".into()),
        ("x.ibin", bin(2, 1, &[0; 9]), "expected 8 bytes of elements for s32[2,1], got 9 bytes".into()),
        ("x.u8bin", bin(2, 2, &[]), "expected 4 bytes of elements for u8[2,2], got 0 bytes".into()),
        // A ground truth with its distances behind it.
        ("x.ibin", bin(1, 2, &[0; 16]), "expected 8 bytes of elements for s32[1,2], got 16 bytes".into()),
        (
            "x.u8bin",
            bin(u32::MAX, 1, &[0; 8]),
            "expected 4294967295 bytes of elements for u8[4294967295,1], got 8 bytes".into(),
        ),
        (
            "x.fbin",
            bin(u32::MAX, u32::MAX, &[0; 8]),
            format!("expected a shape that fits the address space, got f32[{0},{0}]", u32::MAX),
        ),
    ] {
        assert_eq!(refusal(name, &file), expected);
    }
}

#[test]
fn bins_are_read_by_their_ending() {
    let f32s = bytemuck::cast_slice::<f32, u8>(&[1.0, -2.5, 3.0, 4.0]).to_vec();
    let s32s = bytemuck::cast_slice::<u32, u8>(&[7, i32::MAX as u32]).to_vec();
    for (name, file, text) in [
        ("x.fbin", bin(2, 2, &f32s), "f32[2,2] [[1, -2.5], [3, 4]]"),
        ("x.ibin", bin(1, 2, &s32s), "s32[1,2] [[7, 2147483647]]"),
        ("x.U8BIN", bin(1, 3, &[1, 2, 255]), "u8[1,3] [[1, 2, 255]]"),
    ] {
        let mapped = open_bytes(name, &file).unwrap();
        assert_eq!(mapped.as_bytes().as_ptr() as usize % 64, 0);
        assert_eq!(mapped.to_array().unwrap().to_string(), text);
    }
}

#[test]
fn vecs_are_read_by_their_ending() {
    let bytes = |elements: &[u8]| [&2i32.to_le_bytes(), elements].concat();
    let f32s = bytemuck::cast_slice::<f32, u8>(&[1.0, -2.5]).to_vec();
    let s32s = bytemuck::cast_slice::<i32, u8>(&[7, -8]).to_vec();
    for (name, file, text) in [
        ("x.fvecs", bytes(&f32s), "f32[1,2] [[1, -2.5]]"),
        ("x.ivecs", bytes(&s32s), "s32[1,2] [[7, -8]]"),
        ("x.BVECS", [bytes(&[1, 2]), bytes(&[3, 255])].concat(), "u8[2,2] [[1, 2], [3, 255]]"),
    ] {
        assert_eq!(open_bytes(name, &file).unwrap().to_array().unwrap().to_string(), text);
    }
}

fn open_bytes(name: &str, content: &[u8]) -> Result<MappedArray> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    open(&path)
}

#[test]
fn what_is_not_an_array_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = |name: &str| open(folder.path().join(name)).unwrap_err();
    assert!(matches!(error("missing.npy"), Error::Io { .. }));
    std::fs::create_dir(folder.path().join("folder.npy")).unwrap();
    assert!(error("folder.npy").to_string().ends_with("folder.npy: expected a file, got a directory"));
    for name in ["data.csv", "npy", "data"] {
        let endings = ".npy, .fvecs, .bvecs, .ivecs, .fbin, .u8bin or .ibin";
        let expected = format!("expected a file name that ends in {endings}, got {name}");
        assert!(error(name).to_string().ends_with(&expected), "{}", error(name));
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("zero.npy")).unwrap();
        assert!(error("zero.npy").to_string().ends_with("expected a file, got a device, pipe or socket"));
    }
}

#[test]
fn elements_off_a_cache_line_are_copied_to_one() {
    let file =
        npy("{'descr':'<f4','fortran_order':False,'shape':(2,)}\n", bytemuck::cast_slice(&[1f32, 2.0]));
    let mapped = open_bytes("x.npy", &file).unwrap();
    assert_eq!(mapped.as_bytes().as_ptr() as usize % 64, 0);
    assert_eq!(format!("{mapped:?}"), "f32[2] in memory");
    assert_eq!(mapped.to_array().unwrap().to_string(), "f32[2] [1, 2]");
}

#[test]
fn clones_outlive_the_file() {
    fn keepable<T: AsRef<[u8]> + Clone + Send + Sync + 'static>(value: T) -> T {
        value
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    write_npy(&path, &Array::new([2], &[1i32, 2]).unwrap()).unwrap();
    let clone = keepable(open(&path).unwrap().clone());
    assert_eq!(format!("{clone:?}"), "s32[2] in a mapped file");
    write_npy(&path, &Array::new([1], &[9i32]).unwrap()).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(clone.as_ref(), bytemuck::cast_slice::<i32, u8>(&[1, 2]));
}

#[test]
fn what_is_written_is_what_numpy_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    let names = DType::ALL.map(|dtype| dtype.to_string());
    for name in names.iter().map(String::as_str).chain(["scalar", "vector", "empty"]) {
        let numpys = fixture(&format!("{name}.npy"));
        write_npy(&path, &open(&numpys).unwrap().to_array().unwrap()).unwrap();
        // NumPy leaves room for the first size to grow, which can take one more line of 64 bytes.
        let (ours, numpys) = (std::fs::read(&path).unwrap(), std::fs::read(&numpys).unwrap());
        let dict =
            |file: &[u8]| file[10..].split(|&byte| byte == b'\n').next().unwrap().trim_ascii().to_vec();
        assert_eq!(dict(&ours).escape_ascii().to_string(), dict(&numpys).escape_ascii().to_string());
    }
}

#[test]
fn a_failed_write_leaves_nothing_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let array = Array::scalar(1f32);
    let missing = folder.path().join("no/such/x.npy");
    let error = write_npy(&missing, &array).unwrap_err().to_string();
    assert_eq!(error, format!("{}: No such file or directory (os error 2)", missing.display()));
    let error = write_npy(folder.path(), &array).unwrap_err().to_string();
    assert!(error.ends_with("expected a file, or nothing there, got a directory"), "{error}");
    let error = write_npy("/dev/null", &array).unwrap_err().to_string();
    assert_eq!(error, "/dev/null: expected a file, or nothing there, got a device");
    let deep = Array::new(vec![1; 65], &[1f32]).unwrap();
    let path = folder.path().join("x.npy");
    write_npy(&path, &array).unwrap();
    assert!(matches!(write_npy(&path, &deep), Err(Error::Argument { .. })));
    let failed = atomic::write(&path, |file| {
        std::io::Write::write_all(file, &[0; 1 << 17]).map_err(Error::io(&path))?;
        Err(damaged(&path, "success", "failure"))
    });
    assert!(failed.is_err());
    assert_eq!(open(&path).unwrap().to_array().unwrap(), array);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn a_written_file_has_ordinary_permissions_and_links_stay_links() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str| folder.path().join(name);
    std::fs::write(of("ordinary"), "").unwrap();
    write_npy(of("x.npy"), &Array::scalar(1f32)).unwrap();
    let mode = |name| std::fs::metadata(of(name)).unwrap().permissions().mode();
    assert_eq!(mode("x.npy"), mode("ordinary"));
    std::os::unix::fs::symlink("x.npy", of("link.npy")).unwrap();
    write_npy(of("link.npy"), &Array::scalar(2f32)).unwrap();
    assert!(of("link.npy").is_symlink());
    assert_eq!(open(of("x.npy")).unwrap().to_array().unwrap(), Array::scalar(2f32));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ending in prop_oneof!["npy", "fvecs", "ivecs", "bvecs", "fbin", "u8bin", "ibin"],
    ) {
        let _ = open_bytes(&format!("x.{ending}"), &bytes).map(|mapped| mapped.to_array());
    }

    #[test]
    fn a_truncated_file_is_refused(dtype in 0..DType::ALL.len(), share in 0.0..1.0) {
        let file = std::fs::read(fixture(&format!("{}.npy", DType::ALL[dtype]))).unwrap();
        let length = (file.len() as f64 * share) as usize;
        prop_assert!(open_bytes("x.npy", &file[..length]).is_err());
    }

    #[test]
    fn a_mutated_file_is_read_or_refused(
        mutations in proptest::collection::vec((0usize..152, any::<u8>()), 1..4),
        ending in prop_oneof!["npy", "fvecs", "ivecs", "bvecs", "fbin", "u8bin", "ibin"],
    ) {
        let mut file = match ending.as_str() {
            "npy" => std::fs::read(fixture("f32.npy")).unwrap(),
            "bvecs" => [4i32.to_le_bytes(); 19].concat(),
            "u8bin" => bin(12, 12, &[1; 144]),
            "fbin" | "ibin" => bin(6, 6, &[1; 144]),
            _ => [1i32.to_le_bytes(); 38].concat(),
        };
        for (position, byte) in mutations {
            let position = position % file.len();
            file[position] = byte;
        }
        if let Ok(mapped) = open_bytes(&format!("x.{ending}"), &file) {
            prop_assert_eq!(mapped.shape().byte_count(), mapped.as_bytes().len());
        }
    }
}
