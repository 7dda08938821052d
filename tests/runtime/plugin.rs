//! Files that are plugins, and files that are not.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::common;
use xlann::Error;
use xlann::pjrt::{Plugin, PluginSpec};
use xlann::target::cpu;

/// The problem for which a file is refused as a plugin.
fn refusal(path: impl AsRef<Path>) -> String {
    match Plugin::load(path) {
        Err(Error::Plugin { problem, .. }) => problem,
        other => panic!("expected Error::Plugin, got {other:?}"),
    }
}

#[test]
fn a_file_that_does_not_exist_is_refused() {
    assert!(refusal("/no/such/plugin.so").contains("No such file"));
    assert_eq!(refusal(std::env::temp_dir()), "it is not a file");
}

#[test]
fn garbage_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(4096, 0xff);
    let loader = "it cannot be loaded: ";
    for (name, content, problem) in [
        ("empty.so", &b""[..], loader),
        ("text.so", b"not a library", loader),
        ("start.so", &header[..20], "it is cut short"),
        ("header.so", &header, "it is cut short"),
    ] {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        assert!(refusal(&path).starts_with(problem), "{name}");
    }
}

#[test]
fn a_plugin_cut_short_is_refused() {
    let Some(client) = common::cpu_client() else { return };
    let directory = tempfile::tempdir().unwrap();
    let length = std::fs::metadata(client.plugin().path()).unwrap().len();
    let path = directory.path().join("cut.so");
    for length in [64, 1 << 20, length / 2] {
        let mut start = Vec::new();
        let file = std::fs::File::open(client.plugin().path()).unwrap();
        file.take(length).read_to_end(&mut start).unwrap();
        std::fs::write(&path, start).unwrap();
        assert_eq!(refusal(&path), "it is cut short");
    }
}

#[test]
fn a_library_that_is_no_plugin_is_refused() {
    let places = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6", "/lib64/libm.so.6"];
    let Some(libm) = places.iter().find(|path| Path::new(path).exists()) else {
        println!("skipped: no libm.so.6 in {places:?}");
        return;
    };
    assert_eq!(refusal(libm), "it has no function GetPjrtApi");
}

/// Compiles a library whose `GetPjrtApi` has the given body; `None`, with a printed reason, without a compiler.
fn fake_plugin(directory: &Path, body: &str) -> Option<PathBuf> {
    let source = format!(
        "#include <stddef.h>
         typedef void* (*function)(void*);
         struct api {{ size_t size; void* extensions; size_t version_size; void* version_extensions; int major, minor;
                       function functions[60]; }};
         static struct api api;
         static void* fail(void* args) {{ return &api; }}
         static void* message(void* args) {{
           ((const char**)args)[3] = \"no device today\"; ((size_t*)args)[4] = 15; return 0;
         }}
         static void* code(void* args) {{ ((int*)args)[6] = 14; return 0; }}
         static void* nothing(void* args) {{ return 0; }}
         const void* GetPjrtApi(void) {{ api.size = sizeof api; api.minor = 200; {body} return &api; }}"
    );
    let (file, library) = (directory.join("fake.c"), directory.join("fake.so"));
    std::fs::write(&file, source).unwrap();
    match common::command("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&file).status() {
        Ok(status) if status.success() => Some(library),
        other => {
            println!("skipped: cc does not compile a shared library: {other:?}");
            None
        }
    }
}

#[test]
fn plugins_of_another_kind_are_refused() {
    let cases = [
        ("return 0;", "GetPjrtApi returned null"),
        ("api.size = 8;", "its function table must be of at least 40 bytes, got 8"),
        ("api.major = 7;", "its PJRT API must be 0.106 or newer, of the same major version, got 7.200"),
        ("api.minor = 81;", "its PJRT API must be 0.106 or newer, of the same major version, got 0.81"),
        (
            "",
            "it lacks PJRT_Error_Destroy, PJRT_Error_Message, PJRT_Error_GetCode, PJRT_Plugin_Initialize, \
             PJRT_Client_Create, PJRT_Client_Destroy, PJRT_LoadedExecutable_Destroy, PJRT_Buffer_Destroy, \
             PJRT_Event_Destroy, PJRT_Event_Await",
        ),
        (
            "for (int i = 0; i < 60; ++i) api.functions[i] = nothing;
             api.functions[1] = message; api.functions[2] = code; api.functions[3] = fail;",
            "it does not start: PJRT_Plugin_Initialize: no device today (Unavailable)",
        ),
    ];
    for (body, problem) in cases {
        let directory = tempfile::tempdir().unwrap();
        let Some(path) = fake_plugin(directory.path(), body) else { return };
        assert_eq!(refusal(path), problem);
    }
}

#[test]
fn a_plugin_is_loaded_once() {
    let Some(client) = common::cpu_client() else { return };
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("link.so");
    std::os::unix::fs::symlink(client.plugin().path(), &link).unwrap();
    assert_eq!(Plugin::load(link).unwrap(), client.plugin());
}

#[test]
fn a_plugin_describes_itself() {
    let Some(client) = common::cpu_client() else { return };
    let plugin = client.plugin();
    assert_eq!(plugin.api_version().0, 0);
    let attributes = plugin.attributes().unwrap();
    assert!(attributes.iter().any(|(name, _)| name == "stablehlo_current_version"), "{attributes:?}");
    assert!(plugin.has_ffi());
    assert!(plugin.extensions().contains(&(5, Some("FFI"))));
}

#[test]
fn a_plugin_that_is_nowhere_is_not_found() {
    let spec = PluginSpec { name: "nowhere", members: &["nowhere/nothing.so"], ..cpu::PLATFORM.plugin };
    let problem = Plugin::find(&spec).unwrap_err();
    assert!(matches!(&problem, Error::PluginNotFound { name, .. } if name == "nowhere"));
    assert!(problem.to_string().contains("XLANN_NOWHERE_PLUGIN"), "{problem}");
}
