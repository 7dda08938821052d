//! Runs the command line, each time in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::common;
use serde_json::{Map, Value};
use xlann::{Array, DType, Shape, data};

/// A folder that is the working directory of the commands run in it.
pub struct Folder(tempfile::TempDir);

/// What a successful command printed.
pub struct Printed(pub String);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub fn write_npy(&self, name: &str, array: &Array) {
        data::write_npy(self.path(name), array).unwrap();
    }

    pub fn read(&self, name: &str) -> Array {
        data::open(self.path(name)).unwrap().to_array().unwrap()
    }

    /// The command of these words, which hold no spaces.
    pub fn command(&self, words: &str) -> Command {
        let mut command = common::command(env!("CARGO_BIN_EXE_xlann"));
        command.args(words.split_whitespace()).current_dir(&self.0).stdin(Stdio::null());
        command
    }

    /// As [`command`](Folder::command), where no plugin is to be found.
    pub fn command_without_plugin(&self, words: &str) -> Command {
        let mut command = self.command(words);
        command.env_clear().env("XLANN_CACHE", self.path("cache"));
        command
    }

    /// Runs a command that must succeed.
    pub fn run(&self, words: &str) -> Printed {
        succeeded(words, &self.command(words).output().unwrap())
    }

    /// As [`run`](Folder::run), where the plugins for GPUs and TPUs may write to standard error.
    pub fn run_logged(&self, words: &str) -> Printed {
        let mut output = self.command(words).output().unwrap();
        if output.status.success() {
            output.stderr.clear();
        }
        succeeded(words, &output)
    }

    /// Runs a command with `--json` and gives the object.
    pub fn json(&self, words: &str) -> Map<String, Value> {
        self.run(&format!("{words} --json")).json()
    }

    /// Runs a command that must fail with this status and one line that contains `problem`, print nothing and
    /// change no file.
    pub fn refuses(&self, words: &str, status: i32, problem: &str) {
        self.refuses_command(self.command(words), status, problem);
    }

    pub fn refuses_command(&self, mut command: Command, status: i32, problem: &str) {
        let before = listing(self.0.path());
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{command:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.ends_with('\n'), "{command:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{command:?}: {stderr}");
        assert!(stderr.contains(problem), "{command:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{command:?}");
        assert!(listing(self.0.path()) == before, "{command:?} changed a file");
    }

    /// Every file and what it holds.
    pub fn listing(&self) -> Vec<(PathBuf, Vec<u8>)> {
        listing(self.0.path())
    }
}

pub fn succeeded(what: &str, output: &Output) -> Printed {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{what}: {stderr}");
    assert_eq!(stderr, "", "{what}");
    Printed(String::from_utf8(output.stdout.clone()).unwrap())
}

impl Printed {
    /// The one object that was printed, on one line.
    pub fn json(&self) -> Map<String, Value> {
        assert_eq!(self.0.lines().count(), 1, "{}", self.0);
        serde_json::from_str(&self.0).unwrap()
    }

    pub fn contains(&self, text: &str) {
        assert!(self.0.contains(text), "no {text:?} in {}", self.0);
    }
}

fn listing(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend([(path.clone(), Vec::new())].into_iter().chain(listing(&path))),
            false => files.push((path.clone(), std::fs::read(&path).unwrap_or_default())),
        }
    }
    files.sort();
    files
}

/// Whole numbers from 0 to 15, by a fixed linear congruential generator: sums of products of them are exact.
pub fn digits(dtype: DType, dims: &[usize], seed: u64) -> Array {
    let mut state = seed;
    let shape = Shape::new(dtype, dims);
    let values: Vec<f64> = (0..shape.element_count())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 60) as f64
        })
        .collect();
    Array::from_f64(shape, &values).unwrap()
}

/// A matrix as an .fvecs, .bvecs or .ivecs file, by its dtype.
pub fn vecs(matrix: &Array) -> Vec<u8> {
    let width = matrix.shape().dims()[1];
    let row = width * matrix.shape().dtype().size();
    let rows = matrix.as_bytes().chunks(row);
    rows.flat_map(|row| [&(width as i32).to_le_bytes(), row].concat()).collect()
}

/// A matrix as an .fbin, .u8bin or .ibin file, by its dtype.
pub fn bin(matrix: &Array) -> Vec<u8> {
    let sizes = matrix.shape().dims().iter().flat_map(|&size| (size as u32).to_le_bytes());
    sizes.chain(matrix.as_bytes().iter().copied()).collect()
}

/// A .npy file of little-endian elements.
pub fn npy(descr: &str, fortran_order: bool, dims: &str, elements: &[u8]) -> Vec<u8> {
    let order = if fortran_order { "True" } else { "False" };
    let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({dims}), }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend_from_slice(&(header.len() as u16).to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(elements);
    file
}
