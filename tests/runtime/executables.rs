//! Executables in files: round trips, and files that are refused.

use std::path::{Path, PathBuf};

use crate::common;
use prost::Message;
use sha2::{Digest, Sha256};
use xlann::data::ExecutableFile;
use xlann::hlo::proto::ShapeProto;
use xlann::pjrt::{Program, Signature};
use xlann::target::Target;
use xlann::{ApproxTopKOptions, Array, DType, Error, Function, Session, Shape, lower};

/// The header of a file, as its documentation says.
#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(string, tag = "1")]
    platform_name: String,
    #[prost(string, tag = "2")]
    platform_version: String,
    #[prost(int32, tag = "3")]
    api_major: i32,
    #[prost(int32, tag = "4")]
    api_minor: i32,
    #[prost(bytes = "vec", tag = "5")]
    plugin: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    program: Vec<u8>,
    #[prost(string, tag = "7")]
    name: String,
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ShapeProto>,
    #[prost(message, repeated, tag = "9")]
    results: Vec<ShapeProto>,
}

/// Row by row, the two largest.
fn best() -> Function {
    Function::trace("best", &[Shape::new(DType::F32, [2, 4])], |x| {
        x[0].approx_max_k(2, &ApproxTopKOptions::default())
    })
    .unwrap()
}

fn arguments() -> [Array; 1] {
    [Array::new([2, 4], &[3f32, 9.0, 7.0, 1.0, -1.0, -4.0, -2.0, -3.0]).unwrap()]
}

fn results() -> [Array; 2] {
    [Array::new([2, 2], &[9f32, 7.0, -1.0, -2.0]).unwrap(), Array::new([2, 2], &[1, 2, 0, 2]).unwrap()]
}

/// A saved executable, in a folder that goes with the first.
fn saved(session: &Session) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("best.exe");
    session.compile(&best()).unwrap().compiled().save(&path).unwrap();
    (folder, path)
}

fn refusal(session: &Session, path: &Path) -> String {
    let problem = session.load(path).unwrap_err();
    assert!(matches!(problem, Error::File { .. }), "{problem:?}");
    let text = problem.to_string();
    assert!(text.starts_with(&format!("{}: expected ", path.display())), "{text}");
    text
}

/// The parts of a file.
fn parts(path: &Path) -> (Header, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"xlannexe");
    assert_eq!(bytes[8..12], 1u32.to_le_bytes());
    let header = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let executable = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) as usize;
    assert_eq!(bytes.len(), 24 + header + executable + 32);
    (Header::decode(&bytes[24..24 + header]).unwrap(), bytes[24 + header..][..executable].to_vec())
}

/// Writes a file of these parts, whose checksum is right.
fn write(path: &Path, version: u32, header: &[u8], executable: &[u8]) {
    let mut bytes = b"xlannexe".to_vec();
    bytes.extend(version.to_le_bytes());
    bytes.extend((header.len() as u32).to_le_bytes());
    bytes.extend((executable.len() as u64).to_le_bytes());
    bytes.extend(header);
    bytes.extend(executable);
    bytes.extend(Sha256::digest(&bytes));
    std::fs::write(path, bytes).unwrap();
}

/// The variable that names the file to the second process.
const FILE: &str = "XLANN_TEST_EXECUTABLE";

#[test]
fn an_executable_is_loaded_in_another_process() {
    let Some(session) = common::cpu() else { return };
    let (_folder, path) = saved(session);
    let output = common::command(std::env::current_exe().unwrap())
        .args(["--exact", "executables::what_the_other_process_does", "--nocapture"])
        .env(FILE, &path)
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("loaded and run"), "{text}");
}

#[test]
fn what_the_other_process_does() {
    // Only in that process.
    let Some(path) = std::env::var_os(FILE) else { return };
    let session = Session::cpu().unwrap();
    let best = session.load(path).unwrap();
    assert_eq!(best.signature().name, "best");
    assert_eq!(best.run_arrays(&arguments()).unwrap(), results());
    println!("loaded and run");
}

#[test]
fn a_file_says_what_is_in_it() {
    let Some(session) = common::cpu() else { return };
    let (_folder, path) = saved(session);
    let file = ExecutableFile::read(&path).unwrap();
    assert_eq!(*file.signature(), Signature::of(&best()));
    assert_eq!(file.platform_name(), session.client().platform_name());
    assert_eq!(file.platform_version(), session.client().platform_version());
    assert_eq!(file.api_version(), session.client().plugin().api_version());
    let (header, executable) = parts(&path);
    assert_eq!(header.plugin, Sha256::digest(std::fs::read(session.client().plugin().path()).unwrap())[..]);
    let lowered = lower::lower(&best(), session.platform().capabilities, &lower::Options::default()).unwrap();
    assert_eq!(header.program, Sha256::digest(lowered.module.to_bytes())[..]);
    let loaded = session.client().load(&executable, Signature::of(&best())).unwrap();
    assert_eq!(loaded.run_arrays(&arguments()).unwrap(), results());
}

#[test]
fn executables_are_told_apart_by_their_programs() {
    let Some(session) = common::cpu() else { return };
    let (_folder, path) = saved(session);
    let options = lower::Options::default();
    session.load_for(&path, &best(), &options).unwrap();
    let third = Function::trace("best", &[Shape::new(DType::F32, [2, 4])], |x| {
        x[0].approx_min_k(2, &ApproxTopKOptions::default())
    });
    let problem = session.load_for(&path, &third.unwrap(), &options).unwrap_err().to_string();
    assert!(problem.contains("the executable of a program of SHA-256 "), "{problem}");
}

#[test]
fn another_plugins_executables_are_refused() {
    let Some(session) = common::cpu() else { return };
    let (_folder, path) = saved(session);
    let (header, executable) = parts(&path);
    let refused = |edit: &dyn Fn(&mut Header)| {
        let mut header = header.clone();
        edit(&mut header);
        write(&path, 1, &header.encode_to_vec(), &executable);
        refusal(session, &path)
    };
    let problem = refused(&|header| header.platform_name = "tpu".to_owned());
    assert!(problem.ends_with("expected an executable for the platform cpu, got one for tpu"), "{problem}");
    let problem = refused(&|header| header.api_minor += 1);
    let (major, minor) = session.client().plugin().api_version();
    let expected = format!(
        "expected an executable by a plugin of version {major}.{minor} of the PJRT C API, \
         got one by a plugin of version {major}.{} of the PJRT C API",
        minor + 1
    );
    assert!(problem.ends_with(&expected), "{problem}");
    let problem = refused(&|header| header.plugin = vec![0xab; 32]);
    let library = session.client().plugin();
    assert!(problem.contains(&library.path().display().to_string()), "{problem}");
    assert!(problem.ends_with(&format!("got one by a plugin of SHA-256 {}", "ab".repeat(32))), "{problem}");
    // What the platform says of its version, it may say otherwise where it was only described.
    write(&path, 1, &Header { platform_version: "other".into(), ..header }.encode_to_vec(), &executable);
    assert_eq!(session.load(&path).unwrap().run_arrays(&arguments()).unwrap(), results());
}

#[test]
fn headers_that_do_not_fit_are_refused() {
    let Some(session) = common::cpu() else { return };
    let (_folder, path) = saved(session);
    let (header, executable) = parts(&path);
    let refused = |edit: &dyn Fn(&mut Header)| {
        let mut header = header.clone();
        edit(&mut header);
        write(&path, 1, &header.encode_to_vec(), &executable);
        refusal(session, &path)
    };
    let problem = refused(&|header| header.results[1].dimensions[1] = 3);
    assert!(
        problem.contains("results of best must be [f32[2,2], s32[2,2]], got [f32[2,2], s32[2,3]]"),
        "{problem}"
    );
    refused(&|header| header.results.clear());
    for (element_type, dimension) in [(99, 2), (13, 2), (11, -1), (11, i64::MIN)] {
        let problem = refused(&|header| {
            header.parameters[0].element_type = element_type;
            header.parameters[0].dimensions[0] = dimension;
        });
        assert!(problem.contains("shapes of arrays of this crate's dtypes"), "{problem}");
    }
    let problem = refused(&|header| header.parameters[0].dimensions = vec![i64::MAX; 3]);
    assert!(problem.contains("an executable that the plugin loads"), "{problem}");
    for edit in
        [&|header: &mut Header| header.plugin.truncate(5), &|header: &mut Header| header.program.push(0)]
            as [&dyn Fn(&mut Header); 2]
    {
        assert!(refused(edit).contains("SHA-256, of 32 bytes"));
    }
    write(&path, 1, b"\xff\xff\xff", &executable);
    assert!(refusal(session, &path).contains("the header of an executable"));
    // No executable at all, though all else is right.
    for executable in [&b""[..], b"garbage", &executable[..executable.len() / 2]] {
        write(&path, 1, &header.encode_to_vec(), executable);
        assert!(refusal(session, &path).contains("an executable that the plugin loads"));
    }
}

#[test]
fn other_versions_of_the_format_are_refused() {
    let Some(session) = common::cpu() else { return };
    let (_folder, path) = saved(session);
    let (header, executable) = parts(&path);
    for version in [0, 2, u32::MAX] {
        write(&path, version, &header.encode_to_vec(), &executable);
        let problem = refusal(session, &path);
        assert!(
            problem.ends_with(&format!("expected version 1 of the format, got version {version}")),
            "{problem}"
        );
    }
}

#[test]
fn files_that_are_cut_short_or_longer_are_refused() {
    let Some(session) = common::cpu() else { return };
    let (_folder, path) = saved(session);
    let bytes = std::fs::read(&path).unwrap();
    let header = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let boundaries = [24 + header, bytes.len() - 32].into_iter().flat_map(|at| [at - 1, at, at + 1]);
    for size in (0..24 + 8).chain(boundaries).chain([bytes.len() / 2, bytes.len() - 1]) {
        std::fs::write(&path, &bytes[..size]).unwrap();
        let problem = refusal(session, &path);
        let expected =
            if size < 24 { format!("{size} bytes: it is cut short") } else { format!("got {size} bytes") };
        assert!(problem.ends_with(&expected), "{problem}");
    }
    std::fs::write(&path, [&bytes[..], b"\0"].concat()).unwrap();
    refusal(session, &path);
    std::fs::write(&path, bytes.repeat(2)).unwrap();
    refusal(session, &path);
}

#[test]
fn every_flipped_bit_is_found() {
    let Some(session) = common::cpu() else { return };
    let (_folder, path) = saved(session);
    let bytes = std::fs::read(&path).unwrap();
    let header = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let all = (0..24 + header + 16)
        .chain((24 + header..bytes.len() - 32).step_by(997))
        .chain(bytes.len() - 32..bytes.len());
    for (index, position) in all.enumerate() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 1 << (index % 8);
        std::fs::write(&path, &damaged).unwrap();
        refusal(session, &path);
    }
    std::fs::write(&path, &bytes).unwrap();
    session.load(&path).unwrap();
}

#[test]
fn sizes_past_the_file_take_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge");
    for (header, executable) in [
        (0u32, u64::MAX),
        (u32::MAX, 0),
        (u32::MAX, u64::MAX),
        (1 << 20, u64::MAX - (1 << 20)),
        (1 << 20, 1 << 60),
        ((1 << 20) + 1, 0),
        (0, 1 << 40),
    ] {
        let mut bytes = b"xlannexe".to_vec();
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(header.to_le_bytes());
        bytes.extend(executable.to_le_bytes());
        bytes.resize(200, 0);
        std::fs::write(&path, bytes).unwrap();
        let problem = ExecutableFile::read(&path).unwrap_err().to_string();
        assert!(problem.contains("expected a") || problem.ends_with("got 200 bytes"), "{problem}");
    }
}

#[test]
fn what_is_no_file_of_an_executable_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let read = |path: &Path| ExecutableFile::read(path).unwrap_err();
    assert!(matches!(read(&folder.path().join("missing")), Error::Io { .. }));
    let problem = read(folder.path()).to_string();
    assert!(problem.ends_with("expected a file, got a directory"), "{problem}");
    let problem = read(Path::new("/dev/zero")).to_string();
    assert!(problem.ends_with("expected a file, got a device, pipe or socket"), "{problem}");
    let path = folder.path().join("text");
    for content in
        ["Some text.", "x", "xlannex", "xlanne\0", "\u{93}NUMPY, and so on, for more than 24 bytes"]
    {
        std::fs::write(&path, content).unwrap();
        let problem = read(&path);
        assert!(matches!(problem, Error::File { .. }), "{problem}");
        assert!(problem.to_string().contains("the file of an executable"), "{problem}");
    }
}

#[test]
fn a_file_that_cannot_be_written_leaves_what_was_there() {
    let Some(session) = common::cpu() else { return };
    let (folder, path) = saved(session);
    let best = session.compile(&best()).unwrap();
    // Over another one, which stays whole for who reads it.
    best.compiled().save(&path).unwrap();
    session.load(&path).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(matches!(best.compiled().save(folder.path().join("no/such/folder")), Err(Error::Io { .. })));
    let problem = best.compiled().save(folder.path()).unwrap_err().to_string();
    assert!(problem.ends_with("expected a file, or nothing there, got a directory"), "{problem}");
    // The format has no room for that name.
    let lowered =
        lower::lower(&self::best(), session.platform().capabilities, &lower::Options::default()).unwrap();
    let signature = Signature { name: "best".repeat(1 << 18), ..Signature::of(&self::best()) };
    let module = lowered.module.to_bytes();
    let named =
        session.client().compile(Program::Hlo(&module), signature, &session.compile_options()).unwrap();
    let problem = named.compiled().save(&path).unwrap_err().to_string();
    assert!(problem.starts_with("save: signature must be one that takes at most 1048576 bytes"), "{problem}");
    session.load(&path).unwrap();
}

#[test]
fn what_was_loaded_is_not_serialized_again() {
    let Some(session) = common::cpu() else { return };
    let (_folder, path) = saved(session);
    let again = session.load(&path).unwrap();
    let expected = "serialize: executable of best must be one that was compiled, \
                    got one that was loaded; copy what it was loaded from";
    assert_eq!(again.compiled().serialize().unwrap_err().to_string(), expected);
    assert_eq!(again.compiled().save(&path).unwrap_err().to_string(), expected);
}

#[test]
fn what_is_compiled_ahead_of_time_is_saved_and_refused_elsewhere() {
    for (text, platform) in [("tpu:v5e:2x2", "tpu"), ("gpu:h100", "cuda")] {
        let target = Target::parse(text).unwrap();
        let Some(compiler) = common::compiler(&target) else { continue };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("best");
        let (compiled, _) = compiler.compile(&best(), &lower::Options::default(), 1).unwrap();
        compiled.save(&path).unwrap();
        let file = ExecutableFile::read(&path).unwrap();
        assert_eq!(file.platform_name(), platform);
        assert_eq!(*file.signature(), Signature::of(&best()));
        let lowered =
            lower::lower(&best(), target.platform().capabilities, &lower::Options::default()).unwrap();
        file.check_program(Program::Hlo(&lowered.module.to_bytes())).unwrap();
        let Some(session) = common::cpu() else { continue };
        let problem = refusal(session, &path);
        assert!(problem.ends_with(&format!("for the platform cpu, got one for {platform}")), "{problem}");
    }
}
