//! Compares the declarations in `src/pjrt/abi.rs` with an official `pjrt_c_api.h`, read by bindgen.
//!
//! Run as `cargo test --features check-abi --test abi`. Header and libclang are fetched into the cache, unless
//! `PJRT_C_API_HEADER` and `LIBCLANG_PATH` name others.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

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
