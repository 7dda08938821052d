use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use super::*;

const MEMBER: &str = "package/library.so";

/// A folder with a wheel in it, and a script in pip's place that runs `body` with the download folder in $dest.
struct Registry {
    folder: tempfile::TempDir,
    wheel: Wheel,
}

impl Registry {
    fn new() -> Registry {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = zip::ZipWriter::new(File::create(folder.path().join("package.whl")).unwrap());
        archive.start_file(MEMBER, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(&b"library ".repeat(100_000)).unwrap();
        for other in ["package/readme.txt", "package/part.so.1", "package/deep/far.so", "packages/other.so"] {
            archive.start_file(other, zip::write::SimpleFileOptions::default()).unwrap();
        }
        archive.finish().unwrap();
        let bytes = std::fs::read(folder.path().join("package.whl")).unwrap();
        let hash = sha256::text(&sha256::of_parts(&[&bytes]));
        let wheel =
            Wheel { package: "package", version: "1.0", python: "py3", platform: "any", sha256: hash.leak() };
        Registry { folder, wheel }
    }

    /// A script is read by the shell, not executed: another thread's fork may hold it open for writing.
    fn pip(&self, name: &str, body: &str) -> Vec<OsString> {
        let path = self.folder.path().join(name);
        let find = "for word; do case $last in --dest) dest=$word;; esac; last=$word; done\n";
        std::fs::write(&path, format!("{find}wheels={:?}\n{body}\n", self.folder.path())).unwrap();
        vec!["/bin/sh".into(), path.into()]
    }

    fn fetch(&self, body: &str, destination: &Path) -> Result<Fetched> {
        let pip = Pip { commands: vec![self.pip("pip", body)] };
        self.wheel.fetch_with(&pip, MEMBER, destination)
    }

    /// What the error says after the package and the command.
    fn problem(&self, body: &str) -> String {
        let destination = self.folder.path().join("cache/library.so");
        let error = self.fetch(body, &destination).unwrap_err().to_string();
        assert_eq!(entries(&self.folder.path().join("cache")), 0, "left something behind: {error}");
        let start = "fetching package==1.0: ";
        let problem = error.strip_prefix(start).unwrap_or_else(|| panic!("{error}"));
        let command = format!("/bin/sh {}: ", self.folder.path().join("pip").display());
        problem.strip_prefix(&command).unwrap_or(problem).to_owned()
    }
}

const COPY: &str = "/bin/cp $wheels/package.whl $dest/package-1.0-py3-none-any.whl";

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_member_is_unpacked_and_nothing_else_left() {
    let registry = Registry::new();
    let destination = registry.folder.path().join("deep/cache/library.so");
    assert_eq!(registry.fetch(COPY, &destination).unwrap(), Fetched::Downloaded);
    assert_eq!(std::fs::read(&destination).unwrap(), b"library ".repeat(100_000));
    assert_eq!(entries(destination.parent().unwrap()), 1);
    let ordinary = registry.folder.path().join("ordinary");
    std::fs::write(&ordinary, "").unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&destination), mode(&ordinary));
    // The second time, pip is not called.
    assert_eq!(registry.fetch("exit 1", &destination).unwrap(), Fetched::Present);
}

#[test]
fn pips_last_error_is_told() {
    let registry = Registry::new();
    let body = "echo 'ERROR: first' >&2; echo 'ERROR: no matching distribution' >&2; echo >&2; exit 1";
    assert_eq!(registry.problem(body), "no matching distribution");
    assert_eq!(registry.problem("echo 'Traceback'; echo 'KeyError: 3' >&2; exit 2"), "KeyError: 3");
    let exception =
        "echo 'ERROR: Exception:' >&2; echo 'Traceback' >&2; echo 'OSError: disk full' >&2; exit 2";
    assert_eq!(registry.problem(exception), "OSError: disk full");
    assert_eq!(registry.problem("exit 3"), "exit status: 3");
    let refused = "echo \"WARNING: Retrying (Retry(total=0)) after connection broken by 'refused': /x\" >&2; \
                   echo 'ERROR: none' >&2; exit 1";
    assert_eq!(registry.problem(refused), "none ('refused': /x)");
}

#[test]
fn another_hash_is_refused_before_unpacking() {
    let registry = Registry::new();
    let problem = registry.problem("echo other > $dest/package.whl");
    assert!(
        problem.starts_with(&format!("the wheel's SHA-256 must be {}, got ", registry.wheel.sha256)),
        "{problem}"
    );
}

#[test]
fn a_wheel_that_did_not_come_is_refused() {
    assert_eq!(Registry::new().problem("exit 0"), "pip downloaded no wheel");
}

#[test]
fn a_missing_member_is_refused() {
    let registry = Registry::new();
    let pip = Pip { commands: vec![registry.pip("pip", COPY)] };
    let destination = registry.folder.path().join("cache/other.so");
    let error = registry.wheel.fetch_with(&pip, "package/other.so", &destination).unwrap_err().to_string();
    assert!(error.starts_with("fetching package==1.0: the wheel's package/other.so: "), "{error}");
    assert_eq!(entries(destination.parent().unwrap()), 0);
}

#[test]
fn the_libraries_of_a_folder_are_unpacked_to_the_same_folder() {
    let registry = Registry::new();
    let packages = registry.folder.path().join("cache");
    let fetch = |files: &[&str], body: &str| {
        let pip = Pip { commands: vec![registry.pip("pip", body)] };
        registry.wheel.fetch_libraries_with(&pip, "package", files, &packages)
    };
    assert_eq!(fetch(&["library.so"], COPY).unwrap(), Fetched::Downloaded);
    assert_eq!(std::fs::read(packages.join(MEMBER)).unwrap(), b"library ".repeat(100_000));
    assert!(packages.join("package/part.so.1").is_file());
    assert_eq!(entries(&packages), 1);
    assert_eq!(entries(&packages.join("package")), 2);
    // As long as they are all there, pip is not called.
    assert_eq!(fetch(&["part.so.1", "library.so"], "exit 1").unwrap(), Fetched::Present);
    std::fs::remove_file(packages.join(MEMBER)).unwrap();
    assert!(fetch(&["part.so.1", "library.so"], "exit 1").is_err());
    assert_eq!(fetch(&["part.so.1", "library.so"], COPY).unwrap(), Fetched::Downloaded);
    let error = fetch(&["absent.so"], COPY).unwrap_err().to_string();
    assert!(error.contains("the wheel's package/absent.so: "), "{error}");
}

#[test]
fn a_command_that_is_not_pip_is_passed_over() {
    let registry = Registry::new();
    let no_module = registry.pip("python3", "echo '/usr/bin/python3: No module named pip' >&2; exit 1");
    let shim = registry.pip("python", "echo 'pyenv: python: command not found' >&2; exit 127");
    let absent = vec![registry.folder.path().join("absent").into_os_string()];
    let pip = registry.pip("pip", COPY);
    let destination = registry.folder.path().join("cache/library.so");
    let without = Pip { commands: vec![no_module.clone(), shim.clone(), absent.clone()] };
    let error = registry.wheel.fetch_with(&without, MEMBER, &destination).unwrap_err().to_string();
    assert!(error.contains("needs pip, and found none ("), "{error}");
    assert!(error.contains("No module named pip; ") && error.contains("command not found; "), "{error}");
    let with = Pip { commands: vec![no_module, shim, absent, pip] };
    assert_eq!(registry.wheel.fetch_with(&with, MEMBER, &destination).unwrap(), Fetched::Downloaded);
}

#[test]
fn an_unwritable_destination_is_refused_before_pip_runs() {
    let registry = Registry::new();
    // A file where the folder should be: refused to root as well.
    let file = registry.folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = registry.fetch("echo ran > $wheels/ran", &file.join("library.so")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    let error = registry.fetch("echo ran > $wheels/ran", registry.folder.path()).unwrap_err();
    assert!(
        error.to_string().ends_with("expected a file, or nothing there, got a directory or device"),
        "{error}"
    );
    assert!(!registry.folder.path().join("ran").exists());
}

#[test]
fn a_file_of_another_hand_is_not_touched() {
    let registry = Registry::new();
    let destination = registry.folder.path().join("library.so");
    std::fs::write(&destination, "mine").unwrap();
    assert_eq!(registry.fetch(COPY, &destination).unwrap(), Fetched::Present);
    assert_eq!(std::fs::read(&destination).unwrap(), b"mine");
}

#[test]
fn hashes_are_lower_case_hexadecimal() {
    for wheel in crate::target::cpu::PLATFORM.wheels {
        let hexadecimal = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        assert!(wheel.sha256.len() == 64 && wheel.sha256.bytes().all(hexadecimal), "{wheel}");
    }
}

#[test]
#[ignore = "downloads 60 MB"]
fn the_cpu_plugin_can_be_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let destination = folder.path().join("plugin.so");
    let member = "lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so";
    assert_eq!(
        crate::target::cpu::PLATFORM.wheels[0].fetch(member, &destination).unwrap(),
        Fetched::Downloaded
    );
    assert!(std::fs::read(&destination).unwrap().starts_with(b"\x7fELF"));
}
