//! Where plugins are looked for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::data::Libraries;

/// Which plugin is looked for: data that a target gives.
///
/// ```
/// use xlann::target::cpu;
/// assert_eq!(cpu::PLATFORM.plugin.environment_variable(), "XLANN_CPU_PLUGIN");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PluginSpec {
    /// Its name in lower case, such as `cpu` or `cuda13`.
    pub name: &'static str,
    /// Environment variables that it reads as it is loaded, and what they are set to where they are unset, on a
    /// machine that has none of the `device_files`.
    pub environment: &'static [(&'static str, &'static str)],
    /// The files by which a machine's devices are known.
    pub device_files: &'static [&'static str],
    /// The paths of known plugins within a Python package directory, the preferred one first.
    pub members: &'static [&'static str],
    /// The shared libraries that the plugin runs programs with, in the order in which they are loaded.
    pub libraries: &'static [Libraries],
}

impl PluginSpec {
    /// The environment variable that names the plugin's file, such as `XLANN_CPU_PLUGIN`.
    pub fn environment_variable(&self) -> String {
        format!("XLANN_{}_PLUGIN", self.name.to_uppercase())
    }

    /// Whether any of the files is there by which the machine's devices are known.
    pub fn has_devices(&self) -> bool {
        self.device_files.iter().any(|file| Path::new(file).exists())
    }

    /// The names of the members, without their directories.
    fn file_names(&self) -> impl Iterator<Item = &'static Path> {
        self.members.iter().filter_map(|member| Path::new(member).file_name()).map(Path::new)
    }
}

/// A place where a plugin may be.
///
/// ```
/// use xlann::{pjrt, target};
///
/// for candidate in pjrt::search_order(&target::cpu::PLATFORM.plugin) {
///     let found = if candidate.exists { "found" } else { "not there" };
///     println!("{}: {} {found}", candidate.place, candidate.path.display());
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What makes it a candidate, such as `$XLANN_CPU_PLUGIN` or `cache`.
    pub place: String,
    /// The file.
    pub path: PathBuf,
    /// Whether the file exists.
    pub exists: bool,
    /// Whether it was asked for by name, so that it is an error if it does not exist.
    pub required: bool,
}

/// Every place that [`Plugin::find`](super::Plugin::find) looks at, in this order:
///
/// 1. the file that the environment variable `XLANN_<NAME>_PLUGIN` names; where it is set, nothing else counts;
/// 2. the [cache directory](cache_directory), as `plugins/<name>/<file>`;
/// 3. the Python packages of the active environment, which is `$VIRTUAL_ENV`, else `$CONDA_PREFIX`, else the one whose
///    `bin` folder has the first `python3` of `$PATH`, as `lib/python3*/site-packages/<member>` (on Debian
///    `dist-packages`, also under `local`);
/// 4. the directories of `$LD_LIBRARY_PATH`, as `<file>`.
///
/// ```
/// use xlann::{pjrt, target};
///
/// let candidates = pjrt::search_order(&target::cpu::PLATFORM.plugin);
/// let first = candidates.iter().find(|candidate| candidate.exists || candidate.required);
/// println!("the plugin that is loaded: {first:?}");
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn search_order(spec: &PluginSpec) -> Vec<Candidate> {
    candidates(spec, &|name| std::env::var_os(name))
}

/// Where this crate keeps what it has fetched: `$XLANN_CACHE`, else `$XDG_CACHE_HOME/xlann`, else
/// `$HOME/.cache/xlann`; `None` where none of the three is set.
///
/// ```
/// if let Some(cache) = xlann::pjrt::cache_directory() {
///     println!("plugins are kept in {}", cache.join("plugins").display());
/// }
/// ```
pub fn cache_directory() -> Option<PathBuf> {
    cache_directory_in(&|name| std::env::var_os(name))
}

/// The value of an environment variable.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A variable's value as a path; an empty one counts as not set.
fn directory(lookup: Lookup, name: &str) -> Option<PathBuf> {
    lookup(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The XDG specification has relative paths ignored.
fn absolute(directory: Option<PathBuf>) -> Option<PathBuf> {
    directory.filter(|directory| directory.is_absolute())
}

fn cache_directory_in(lookup: Lookup) -> Option<PathBuf> {
    directory(lookup, "XLANN_CACHE")
        .or_else(|| absolute(directory(lookup, "XDG_CACHE_HOME")).map(|cache| cache.join("xlann")))
        .or_else(|| directory(lookup, "HOME").map(|home| home.join(".cache/xlann")))
}

fn candidates(spec: &PluginSpec, lookup: Lookup) -> Vec<Candidate> {
    let mut found = Vec::new();
    let mut add = |place: &str, path: PathBuf| {
        let exists = path.is_file();
        found.push(Candidate { place: place.into(), path, exists, required: false });
    };
    let variable = spec.environment_variable();
    if let Some(path) = directory(lookup, &variable) {
        let exists = path.is_file();
        return vec![Candidate { place: format!("${variable}"), path, exists, required: true }];
    }
    if let Some(cache) = cache_directory_in(lookup) {
        for file in spec.file_names() {
            add("cache", cache.join("plugins").join(spec.name).join(file));
        }
    }
    if let Some((place, environment)) = active_environment(lookup) {
        for packages in site_packages(&environment) {
            for member in spec.members {
                add(place, packages.join(member));
            }
        }
    }
    if let Some(paths) = lookup("LD_LIBRARY_PATH") {
        for directory in std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()) {
            for file in spec.file_names() {
                add("$LD_LIBRARY_PATH", directory.join(file));
            }
        }
    }
    found
}

/// The Python environment that is active, and what tells.
fn active_environment(lookup: Lookup) -> Option<(&'static str, PathBuf)> {
    let named = |place: &'static str| Some((place, directory(lookup, place.trim_start_matches('$'))?));
    named("$VIRTUAL_ENV").or_else(|| named("$CONDA_PREFIX")).or_else(|| {
        let paths = lookup("PATH")?;
        let folder = std::env::split_paths(&paths).find(|folder| folder.join("python3").is_file())?;
        Some(("python3 of $PATH", folder.parent()?.to_owned()))
    })
}

/// The package directories of a Python environment that there are, in order of their names.
fn site_packages(environment: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    for libraries in [environment.join("lib"), environment.join("local/lib")] {
        let Ok(entries) = libraries.read_dir() else { continue };
        let pythons = entries.flatten().map(|entry| entry.path());
        let pythons = pythons.filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3"))
        });
        let packages = |python: PathBuf| ["site-packages", "dist-packages"].map(|name| python.join(name));
        directories.extend(pythons.flat_map(packages).filter(|path| path.is_dir()));
    }
    directories.sort();
    directories
}

/// The folders in which packages stand that go with a plugin: those that it is in, at any depth, and the Python packages
/// of the active environment.
pub(crate) fn package_folders(plugin: &Path) -> Vec<PathBuf> {
    package_folders_in(plugin, &|name| std::env::var_os(name))
}

fn package_folders_in(plugin: &Path, lookup: Lookup) -> Vec<PathBuf> {
    let above = plugin.ancestors().skip(1).map(Path::to_owned);
    let environment = active_environment(lookup);
    above.chain(environment.map(|(_, environment)| site_packages(&environment)).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: PluginSpec = PluginSpec {
        name: "cpu",
        environment: &[],
        device_files: &[],
        members: &["first/one.so", "second/two.so"],
        libraries: &[],
    };

    fn order(variables: &[(&str, &Path)]) -> Vec<Candidate> {
        candidates(&SPEC, &|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_os_str().to_owned())
        })
    }

    #[test]
    fn the_environment_variable_excludes_every_other_place() {
        let found = order(&[("XLANN_CPU_PLUGIN", Path::new("/missing.so")), ("HOME", Path::new("/home"))]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "$XLANN_CPU_PLUGIN");
        assert!(found[0].required && !found[0].exists);
    }

    #[test]
    fn cache_comes_before_python_packages_and_those_before_the_library_path() {
        let root = tempfile::tempdir().unwrap();
        let packages = root.path().join("env/lib/python3.12/site-packages");
        std::fs::create_dir_all(packages.join("second")).unwrap();
        std::fs::write(packages.join("second/two.so"), "").unwrap();
        let found = order(&[
            ("XLANN_CACHE", &root.path().join("cache")),
            ("VIRTUAL_ENV", &root.path().join("env")),
            ("CONDA_PREFIX", Path::new("/not/active")),
            ("LD_LIBRARY_PATH", Path::new("/a::/b")),
        ]);
        let paths: Vec<_> = found.iter().map(|candidate| candidate.path.clone()).collect();
        assert_eq!(
            paths,
            [
                root.path().join("cache/plugins/cpu/one.so"),
                root.path().join("cache/plugins/cpu/two.so"),
                packages.join("first/one.so"),
                packages.join("second/two.so"),
                "/a/one.so".into(),
                "/a/two.so".into(),
                "/b/one.so".into(),
                "/b/two.so".into(),
            ]
        );
        assert!(found.iter().all(|candidate| candidate.exists
            == candidate.path.ends_with("env/lib/python3.12/site-packages/second/two.so")));
    }

    #[test]
    fn the_python_on_the_path_is_asked_where_no_environment_is_active() {
        let root = tempfile::tempdir().unwrap();
        let packages = root.path().join("local/lib/python3.12/dist-packages");
        std::fs::create_dir_all(&packages).unwrap();
        std::fs::create_dir(root.path().join("bin")).unwrap();
        let path = std::env::join_paths(["/nowhere".into(), root.path().join("bin")]).unwrap();
        let path = Path::new(&path);
        assert_eq!(order(&[("PATH", path)]), []);
        std::fs::write(root.path().join("bin/python3"), "").unwrap();
        let found = order(&[("PATH", path)]);
        assert_eq!(found[0].path, packages.join("first/one.so"));
        assert_eq!(found[0].place, "python3 of $PATH");
        assert_eq!(order(&[("VIRTUAL_ENV", Path::new("/nowhere")), ("PATH", path)]), []);
    }

    #[test]
    fn packages_that_go_with_a_plugin_stand_above_it_and_in_the_environment() {
        let root = tempfile::tempdir().unwrap();
        let packages = root.path().join("lib/python3.12/site-packages");
        std::fs::create_dir_all(&packages).unwrap();
        let lookup = |name: &str| (name == "VIRTUAL_ENV").then(|| root.path().as_os_str().to_owned());
        let folders = package_folders_in(Path::new("/cache/plugins/cuda13/plugin.so"), &lookup);
        let above = ["/cache/plugins/cuda13", "/cache/plugins", "/cache", "/"].map(PathBuf::from);
        assert_eq!(folders[..4], above);
        assert_eq!(folders[4..], [packages]);
    }

    #[test]
    fn the_cache_is_xlanns_own_then_xdgs_then_in_the_home() {
        let cache = |variables: &[(&str, &str)]| {
            cache_directory_in(&|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
            })
        };
        assert_eq!(cache(&[("XLANN_CACHE", "/x"), ("XDG_CACHE_HOME", "/y")]), Some("/x".into()));
        assert_eq!(cache(&[("XLANN_CACHE", ""), ("XDG_CACHE_HOME", "/y")]), Some("/y/xlann".into()));
        assert_eq!(cache(&[("HOME", "/h")]), Some("/h/.cache/xlann".into()));
        assert_eq!(cache(&[]), None);
    }
}
