//! Compares the declarations in `src/pjrt/abi.rs` with an official `pjrt_c_api.h`, read by bindgen, and those in
//! `cpp/xla_ffi.h` with jaxlib's `c_api.h`, by a compiler of C++ (`CXX`, else `c++`).
//!
//! Run as `cargo test --features check-abi --test abi`. Headers and libclang are fetched into the cache, unless
//! `PJRT_C_API_HEADER`, `XLA_FFI_HEADERS` (the folder of `c_api.h`) and `LIBCLANG_PATH` name others.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{LazyLock, Mutex, PoisonError};

use xlann::data::Wheel;
use xlann::pjrt::abi;

/// The official header of the PJRT C API, 0.81: `xla_plugins/xla_cpu_pjrt/include/pjrt_c_api.h`.
const XLA_CPU_PJRT: Wheel = Wheel {
    package: "xla-cpu-pjrt",
    version: "0.0.1",
    python: "py3",
    platform: "manylinux_2_27_x86_64",
    sha256: "55837b6b7b47daa717f2d9a5a03563ea0ceaa338d06a81a1e2d3f060d960decc",
};

/// Clang as a library, for bindgen: `libclang-18.1.1.data/platlib/clang/native/libclang.so`.
const LIBCLANG: Wheel = Wheel {
    package: "libclang",
    version: "18.1.1",
    python: "py3",
    platform: "manylinux2010_x86_64",
    sha256: "c533091d8a3bbf7460a00cb6c1a71da93bffe148f172c7d03b1c31fbf8aa2a0b",
};

/// The header of XLA's FFI, 0.3: `jaxlib/include/xla/ffi/api/c_api.h`.
const JAXLIB: Wheel = Wheel {
    package: "jaxlib",
    version: "0.10.2",
    python: "cp311",
    platform: "manylinux_2_27_x86_64",
    sha256: "1faca3c5d4662cb4a6130a68105d68bb520764817e165d6eebfd6786c0d1f30f",
};

/// A file out of a wheel, in the cache.
fn fetch(wheel: &Wheel, member: &str) -> PathBuf {
    let cache = xlann::pjrt::cache_directory().expect("there is a folder for the cache");
    let path = cache.join("abi").join(member.rsplit('/').next().unwrap_or(member));
    wheel.fetch(member, &path).unwrap();
    path
}

/// What the header says: sizes of structs, offsets of their fields, and values of constants.
struct Header {
    sizes: HashMap<String, usize>,
    offsets: HashMap<String, HashMap<String, usize>>,
    constants: HashMap<String, i64>,
}

/// Reads the layout assertions and the constants from the text that bindgen generates.
fn read_header(path: &str) -> Header {
    let mut builder = bindgen::Builder::default()
        .header(path)
        .layout_tests(true)
        .generate_comments(false)
        .prepend_enum_name(false)
        .formatter(bindgen::Formatter::Prettyplease);
    // The wheel of libclang comes without the compiler's own headers, such as stddef.h.
    let found = Command::new("cc").arg("-print-file-name=include").output();
    if let Ok(output) = found {
        let directory = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        if directory.is_dir() {
            builder = builder.clang_arg("-I").clang_arg(directory.to_string_lossy());
        }
    }
    let text = builder.generate().expect("bindgen reads the header").to_string();
    // A line break may stand anywhere in an assertion.
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut header = Header { sizes: HashMap::new(), offsets: HashMap::new(), constants: HashMap::new() };
    let quoted: Vec<_> = words.split('"').collect();
    for pair in quoted[1..].chunks_exact(2) {
        let [label, rest] = pair else { continue };
        let number = rest.split(" - ").nth(1).and_then(|rest| rest.split_once("usize"));
        let Some(value) = number.and_then(|(number, _)| number.trim().parse::<usize>().ok()) else {
            continue;
        };
        if let Some(name) = label.strip_prefix("Size of ") {
            header.sizes.insert(name.into(), value);
        } else if let Some((name, field)) =
            label.strip_prefix("Offset of field: ").and_then(|label| label.split_once("::"))
        {
            header.offsets.entry(name.into()).or_default().insert(field.into(), value);
        }
    }
    for part in words.split("pub const ").skip(1) {
        let Some((name, rest)) = part.split_once(':') else { continue };
        let value = rest.split_once('=').and_then(|(_, rest)| rest.split_once(';'));
        if let Some(value) = value.and_then(|(value, _)| value.trim().parse().ok()) {
            header.constants.insert(name.into(), value);
        }
    }
    header
}

/// Structs that have gained fields at their end since API 0.81; a header may know fewer of them than we do.
const GROWN: [&str; 4] = [
    "PJRT_ExecuteOptions",
    "PJRT_Device_MemoryStats_Args",
    "PJRT_Executable_GetCompiledMemoryStats_Args",
    "PJRT_Executable_DeserializeAndLoad_Args",
];

/// Unions without a name, whose offsets bindgen does not tell; what stands before and after them pins them down.
const ANONYMOUS: [(&str, &str); 2] = [("PJRT_NamedValue", "value"), ("PJRT_Buffer_MemoryLayout", "tiled")];

/// Not in `pjrt_c_api.h` but in the header of the FFI extension.
const ELSEWHERE: [&str; 1] = ["PJRT_FFI_Register_Handler_Args"];

#[test]
fn declarations_are_those_of_the_official_header() {
    let _environment = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    let path = std::env::var("PJRT_C_API_HEADER").unwrap_or_else(|_| {
        let member = "xla_plugins/xla_cpu_pjrt/include/pjrt_c_api.h";
        fetch(&XLA_CPU_PJRT, member).to_string_lossy().into_owned()
    });
    if std::env::var_os("LIBCLANG_PATH").is_none() {
        let library = fetch(&LIBCLANG, "libclang-18.1.1.data/platlib/clang/native/libclang.so");
        // SAFETY: the lock keeps the other test from reading the environment meanwhile.
        unsafe { std::env::set_var("LIBCLANG_PATH", library) };
    }
    let header = read_header(&path);
    let mut compared = 0;
    for ours in abi::layouts().into_iter().filter(|ours| !ELSEWHERE.contains(&ours.name)) {
        let name = ours.name;
        let size = *header.sizes.get(name).unwrap_or_else(|| panic!("{name} is not in the header"));
        let offsets = &header.offsets[name];
        let fields: Vec<_> = ours
            .fields
            .iter()
            .filter(|(field, _)| !ANONYMOUS.contains(&(name, field)))
            .map(|&(field, offset)| (field.trim_start_matches("r#"), offset))
            .collect();
        for &(field, offset) in &fields {
            // bindgen adds an underscore to what is a keyword.
            match offsets.get(field).or_else(|| offsets.get(&format!("{field}_"))) {
                Some(&theirs) => assert_eq!(offset, theirs, "offset of {name}::{field}"),
                None => assert!(
                    GROWN.contains(&name) && offset >= size,
                    "{name}::{field} at {offset} is not in the header"
                ),
            }
            compared += 1;
        }
        // The table of functions is declared only as far as it is used.
        if name != "PJRT_Api" {
            for (field, offset) in offsets {
                assert!(
                    fields.iter().any(|(_, at)| at == offset),
                    "{name}::{field} of the header, at {offset}, is missing"
                );
            }
            assert!(
                ours.size == size || GROWN.contains(&name),
                "{name} is of {} bytes, not {size}",
                ours.size
            );
        }
    }
    for (name, value) in abi::constants() {
        let theirs = header.constants.get(name).unwrap_or_else(|| panic!("{name} is not in the header"));
        assert_eq!(value, *theirs, "{name}");
        compared += 1;
    }
    println!("compared {compared} fields and constants");
}

/// Held by each test: one sets an environment variable.
static ENVIRONMENT: Mutex<()> = Mutex::new(());

#[test]
fn a_plugin_of_an_older_api_is_refused_without_a_crash() {
    let _environment = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    let plugin = fetch(&XLA_CPU_PJRT, "xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so");
    // In a process of its own: unloading it would crash when that ends.
    let output = Command::new(env!("CARGO_BIN_EXE_xlann"))
        .args(["topk", "--input", "tests/fixtures/npy/f32.npy", "-k", "1"])
        .env("XLANN_CPU_PLUGIN", plugin)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("its PJRT API must be 0.106 or newer, of the same major version, got 0.81"),
        "{stderr}"
    );
}

/// A structure or enumeration of `cpp/xla_ffi.h`.
struct Block<'a> {
    name: &'a str,
    body: &'a str,
    /// Declarations of fields, or constants with their values.
    members: Vec<&'a str>,
}

fn blocks(header: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    for part in ["\nstruct ", "\nenum class "].iter().flat_map(|kind| header.split(kind).skip(1)) {
        let Some((heading, rest)) = part.split_once('{').filter(|(heading, _)| !heading.contains(';')) else {
            continue;
        };
        let name = heading.split_whitespace().next().expect("it has a name");
        let body = rest.split_once("};").expect("it ends").0;
        let members = body.split([';', ',']).map(str::trim).filter(|member| !member.is_empty()).collect();
        blocks.push(Block { name, body, members });
    }
    blocks
}

/// What a member is called; that of a function stands between parentheses.
fn name_of(member: &str) -> &str {
    let declarator = match member.split_once("(*") {
        Some((_, rest)) => rest.split(')').next(),
        None => member.split([' ', '*']).rfind(|word| word.starts_with(|c: char| c.is_alphabetic())),
    };
    declarator.and_then(|name| name.split('[').next()).expect("it has a name")
}

/// Compiles the comparison of the header in `folder` with jaxlib's.
fn compare(folder: &Path) -> Output {
    static THEIRS: LazyLock<PathBuf> = LazyLock::new(|| match std::env::var_os("XLA_FFI_HEADERS") {
        Some(folder) => folder.into(),
        None => {
            let header = fetch(&JAXLIB, "jaxlib/include/xla/ffi/api/c_api.h");
            header.parent().expect("it is in a folder").to_owned()
        }
    });
    Command::new(std::env::var_os("CXX").unwrap_or("c++".into()))
        .args(["-std=c++17", "-fsyntax-only", "tests/xla_ffi_layout.cc", "-I"])
        .args([folder.as_os_str(), "-I".as_ref(), THEIRS.as_os_str()])
        .output()
        .expect("there is a compiler of C++")
}

#[test]
fn ffi_declarations_are_those_of_jaxlib() {
    let output = compare("cpp".as_ref());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let header = std::fs::read_to_string("cpp/xla_ffi.h").unwrap();
    let comparison = std::fs::read_to_string("tests/xla_ffi_layout.cc").unwrap();
    let mut compared = 0;
    for Block { name: block, members, .. } in blocks(&header) {
        for member in members.iter().map(|member| name_of(member)) {
            let there = ["FIELD(", "VALUE(", "offsetof("].iter().any(|how| {
                comparison.contains(&format!("{how}{block}, {member}"))
                    || comparison.contains(&format!("{how}{block}::{member},"))
            });
            assert!(there, "{block}::{member} is not compared");
            compared += 1;
        }
    }
    println!("compared {compared} fields and constants");
    assert!(compared > 80, "{compared}");
}

#[test]
fn swapped_ffi_fields_and_other_constants_are_found() {
    let header = std::fs::read_to_string("cpp/xla_ffi.h").unwrap();
    // Without its own assertions, which find some.
    let (header, _) = header.split_once("\nstatic_assert").expect("it has assertions");
    let header = format!("{header}\n}}\n");
    let folder = tempfile::tempdir().unwrap();
    let agrees = |header: &str| {
        std::fs::write(folder.path().join("xla_ffi.h"), header).unwrap();
        compare(folder.path()).status.success()
    };
    assert!(agrees(&header), "it is right before it is changed");
    let mut changes = 0;
    for Block { name, body, members } in blocks(&header) {
        let constants = members.iter().filter_map(|member| Some((*member, member.split_once(" = ")?.0)));
        let constants = constants.map(|(member, name)| (member.to_owned(), format!("{name} = 99")));
        let swaps = members.windows(2).filter(|pair| !pair[0].contains(" = "));
        let swaps = swaps
            .map(|pair| (format!("{};\n  {}", pair[0], pair[1]), format!("{};\n  {}", pair[1], pair[0])));
        for (from, to) in constants.chain(swaps) {
            let changed = body.replacen(&from, &to, 1);
            assert_ne!(changed, body, "{name}: {from}");
            assert!(!agrees(&header.replacen(body, &changed, 1)), "{name}: {to}");
            changes += 1;
        }
    }
    println!("found {changes} changes");
    assert!(changes > 70, "{changes}");
}
