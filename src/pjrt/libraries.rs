//! The shared libraries that plugins run programs with.

use std::path::{Path, PathBuf};

use super::plugin::load_library;
use super::search::{PluginSpec, package_folders};
use crate::data::Libraries;
use crate::{Error, Result};

/// A shared library that a plugin runs programs with, and where it was found.
///
/// ```
/// use xlann::pjrt::Plugin;
/// use xlann::target::gpu;
///
/// let spec = gpu::PLATFORM.plugin;
/// if let Ok(plugin) = Plugin::find(&spec) {
///     for library in spec.find_libraries(plugin.path()) {
///         println!("{}: {:?}", library.file, library.path);
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// The package that it comes in.
    pub package: &'static Libraries,
    /// Its name.
    pub file: &'static str,
    /// Where it is; `None` where that is left to the system's loader.
    pub path: Option<PathBuf>,
}

impl PluginSpec {
    /// The shared libraries that the plugin at that path runs programs with, in the order in which they are loaded: each
    /// from the folders above the plugin, where pip and `xlann plugin install --libraries` put them, else from the
    /// Python packages of the active environment ([`search_order`](super::search_order)), else from where the system's
    /// loader looks (`$LD_LIBRARY_PATH` and its own folders).
    pub fn find_libraries(&self, plugin: &Path) -> Vec<Library> {
        find(self.libraries, &package_folders(plugin))
    }

    /// Loads them, so that the plugin finds these copies when it asks for them by name: some it asks for as it is loaded
    /// itself, and if it does not find them then, never again.
    ///
    /// # Errors
    /// [`Error::Plugin`] where one is missing or broken that nothing runs without. The others are loaded all the same.
    pub(crate) fn load_libraries(&self, plugin: &Path) -> Result<()> {
        load(&self.find_libraries(plugin), plugin, self.name)
    }
}

fn find(packages: &'static [Libraries], folders: &[PathBuf]) -> Vec<Library> {
    let libraries =
        packages.iter().flat_map(|package| package.files.iter().map(move |file| (package, *file)));
    let find = |(package, file): (&'static Libraries, &'static str)| {
        let paths = folders.iter().map(|folder| folder.join(package.folder).join(file));
        Library { package, file, path: paths.into_iter().find(|path| path.is_file()) }
    };
    libraries.map(find).collect()
}

/// Loads the libraries for the plugin of that path and name. Of those that not everything needs, the plugin says itself
/// that one is missing or broken, when it needs it.
fn load(libraries: &[Library], plugin: &Path, name: &str) -> Result<()> {
    let (mut missing, mut broken) = (Vec::new(), Ok(()));
    for Library { package, file, path } in libraries {
        match (load_library(path.as_deref().unwrap_or(Path::new(file))), path) {
            (Err(problem), Some(_)) if package.required => broken = broken.and(Err(problem)),
            (Err(_), None) if package.required => missing.push(*file),
            _ => (),
        }
    }
    if missing.is_empty() || broken.is_err() {
        return broken;
    }
    let problem = format!(
        "to run programs it needs {}, which are neither in packages near it, nor in the active Python environment, nor \
         where the system's loader looks; run xlann plugin install {name} --libraries",
        missing.join(", ")
    );
    Err(Error::Plugin { path: plugin.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{PLATFORMS, gpu};

    /// What is found with these files in a folder of packages, and how loading it ends.
    fn with(files: &[(&str, &[u8])]) -> (Vec<Library>, Result<()>) {
        let folder = tempfile::tempdir().unwrap();
        for (file, content) in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let libraries = find(gpu::PLATFORM.plugin.libraries, &["/nowhere".into(), folder.path().to_owned()]);
        let loaded = load(&libraries, Path::new("plugin.so"), "cuda13");
        (libraries, loaded)
    }

    #[test]
    fn what_is_missing_is_named_and_how_to_get_it() {
        if load_library(Path::new("libcudart.so.13")).is_ok() {
            println!("skipped: the system has CUDA's libraries");
            return;
        }
        let (libraries, loaded) = with(&[]);
        assert!(libraries.iter().all(|library| library.path.is_none()));
        let problem = loaded.unwrap_err().to_string();
        assert!(
            problem.starts_with("plugin plugin.so: to run programs it needs libcudart.so.13, "),
            "{problem}"
        );
        assert!(problem.contains("libcudnn.so.9") && !problem.contains("nccl"), "{problem}");
        assert!(problem.ends_with("run xlann plugin install cuda13 --libraries"), "{problem}");
    }

    #[test]
    fn libraries_of_packages_are_loaded_from_there() {
        let files =
            [("nvidia/cu13/lib/libcudart.so.13", &b"no library"[..]), ("nvidia/nccl/lib/libnccl.so.2", b"")];
        let (libraries, loaded) = with(&files);
        let found: Vec<_> = libraries.iter().filter_map(|library| library.path.clone()).collect();
        assert_eq!(found.len(), 2);
        for ((file, _), path) in files.iter().zip(&found) {
            assert!(path.ends_with(file), "{path:?}");
        }
        // One that is found and broken is told, rather than another looked for.
        let problem = loaded.unwrap_err().to_string();
        assert!(problem.contains("libcudart.so.13: it cannot be loaded"), "{problem}");
    }

    #[test]
    fn libraries_stand_where_the_plugin_looks_for_them() {
        for libraries in PLATFORMS.iter().flat_map(|platform| platform.plugin.libraries) {
            assert!(libraries.folder.ends_with("/lib") && !libraries.files.is_empty(), "{libraries:?}");
            assert_eq!(libraries.wheel.sha256.len(), 64, "{libraries:?}");
        }
    }
}
