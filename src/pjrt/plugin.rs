//! Plugins: shared libraries that implement PJRT for some kind of device.
#![allow(unsafe_code)]

use std::error::Error as _;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use libloading::os::unix;

use super::abi::*;
use super::api::{Api, Value, read_named_values};
use super::elf::is_cut_short;
use super::search::{PluginSpec, search_order};
use crate::{Error, Result, sha256};

/// A loaded plugin. It is a handle: copies of it are the same plugin, which stays loaded until the process ends.
///
/// ```
/// use xlann::Error;
/// use xlann::pjrt::Plugin;
/// use xlann::target::cpu;
///
/// match Plugin::find(&cpu::PLATFORM.plugin) {
///     Ok(plugin) => {
///         let (major, minor) = plugin.api_version();
///         println!("{}, PJRT {major}.{minor}", plugin.path().display());
///         for (name, value) in plugin.attributes()? {
///             println!("{name}: {value}");
///         }
///         for (number, name) in plugin.extensions() {
///             println!("extension {number}: {}", name.unwrap_or("unknown"));
///         }
///     }
///     Err(Error::PluginNotFound { looked_at, advice, .. }) => println!("{looked_at:?}: {advice}"),
///     Err(other) => return Err(other),
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Plugin {
    loaded: &'static Loaded,
}

struct Loaded {
    path: PathBuf,
    raw: *const PJRT_Api,
    api: Api,
    sha256: OnceLock<[u8; 32]>,
}

// SAFETY: `raw` is only compared; the rest is Send and Sync.
unsafe impl Send for Loaded {}
// SAFETY: as for Send.
unsafe impl Sync for Loaded {}

/// Every plugin of this process. Plugins keep threads and registries, so that none is ever unloaded.
static LOADED: Mutex<Vec<&'static Loaded>> = Mutex::new(Vec::new());

impl Plugin {
    /// Loads a plugin from a file. The same file, by whatever path, is loaded once.
    ///
    /// Loading runs code of the library; it stays loaded even if it is refused.
    ///
    /// # Errors
    /// [`Error::Plugin`] where the file does not exist, is not a shared library, has no `GetPjrtApi`, is of
    /// another major version of the API or too old, lacks functions or refuses to start.
    ///
    /// ```
    /// use xlann::Error;
    /// use xlann::pjrt::Plugin;
    ///
    /// let refused = Plugin::load("no/such/plugin.so").unwrap_err();
    /// assert!(matches!(refused, Error::Plugin { .. }));
    /// ```
    pub fn load(path: impl AsRef<Path>) -> Result<Plugin> {
        let path = path.as_ref();
        let refused = |problem: String| Error::Plugin { path: path.to_owned(), problem };
        let canonical = path.canonicalize().map_err(|problem| refused(problem.to_string()))?;
        if !canonical.is_file() {
            return Err(refused("it is not a file".into()));
        }
        // Loading under the lock: two threads that load the same file must not both initialise it.
        let mut plugins = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = plugins.iter().find(|loaded| loaded.path == canonical) {
            return Ok(Plugin { loaded });
        }
        if is_cut_short(&canonical).map_err(|problem| refused(problem.to_string()))? {
            return Err(refused("it is cut short".into()));
        }
        // Never unloaded, not even if refused: plugins start threads as soon as they are loaded.
        let library = open_library(&canonical).map_err(refused)?;
        // SAFETY: in every plugin the symbol is a function of this type.
        let get_api = unsafe { library.get::<unsafe extern "C" fn() -> *const PJRT_Api>(b"GetPjrtApi\0") }
            .map_err(|_| refused("it has no function GetPjrtApi".into()))?;
        // SAFETY: the function takes nothing and may be called at any time.
        let raw = unsafe { get_api() };
        if let Some(loaded) = plugins.iter().find(|loaded| loaded.raw == raw) {
            return Ok(Plugin { loaded });
        }
        // SAFETY: `raw` is what GetPjrtApi returned; the library is kept for ever.
        let api = unsafe { Api::new(raw) }.map_err(refused)?;
        let mut initialize = PJRT_Plugin_Initialize_Args::new();
        // SAFETY: the first call into the plugin, as PJRT asks for.
        unsafe { api.call(&mut initialize) }
            .map_err(|problem| refused(format!("it does not start: {problem}")))?;
        let loaded: &'static Loaded =
            Box::leak(Box::new(Loaded { path: canonical, raw, api, sha256: OnceLock::new() }));
        plugins.push(loaded);
        Ok(Plugin { loaded })
    }

    /// Loads the first plugin in the [search order](search_order) of `spec` that exists.
    ///
    /// On a machine with devices of its kind, the shared libraries that the plugin runs programs with are loaded before
    /// it, those that [are found](PluginSpec::find_libraries). On one without, sets the environment variables that the
    /// specification gives for that, where they are unset: a program that reads its environment in C on another thread
    /// should find its plugins before it does.
    ///
    /// # Errors
    /// [`Error::PluginNotFound`] where there is none; [`Error::Plugin`] where the first that exists is of no
    /// use, or where the environment variable names a file that does not exist.
    ///
    /// ```
    /// use xlann::pjrt::{Client, Plugin};
    /// use xlann::target::cpu;
    ///
    /// if let Ok(plugin) = Plugin::find(&cpu::PLATFORM.plugin) {
    ///     let client = Client::new(plugin, &[])?;
    ///     println!("{:?}", client.devices());
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn find(spec: &PluginSpec) -> Result<Plugin> {
        let candidates = search_order(spec);
        match candidates.iter().find(|candidate| candidate.exists || candidate.required) {
            Some(candidate) => {
                let path = candidate.path.canonicalize().unwrap_or(candidate.path.clone());
                if spec.has_devices() {
                    // What is missing is told when a client is created: to compile, none is needed.
                    let _ = spec.load_libraries(&path);
                } else {
                    set_environment(spec.environment);
                }
                Plugin::load(path)
            }
            None => Err(Error::PluginNotFound {
                name: spec.name.into(),
                looked_at: candidates.iter().map(|candidate| candidate.path.display().to_string()).collect(),
                advice: format!(
                    "run xlann plugin install {}, or set {} to the path of one",
                    spec.name,
                    spec.environment_variable()
                ),
            }),
        }
    }

    /// The shared library, as a canonical path.
    pub fn path(&self) -> &Path {
        &self.loaded.path
    }

    /// The major and minor version of the PJRT C API that the plugin was built with.
    pub fn api_version(&self) -> (i32, i32) {
        self.api().version()
    }

    /// The SHA-256 of the shared library, in which builds of a plugin differ: executables of one are not for another.
    ///
    /// The library is read at the first call, of which a second or so is gone for some.
    ///
    /// # Errors
    /// Where the library cannot be read any more.
    pub fn sha256(&self) -> Result<[u8; 32]> {
        if let Some(hash) = self.loaded.sha256.get() {
            return Ok(*hash);
        }
        let path = self.path();
        let library = std::fs::File::open(path).map_err(Error::io(path))?;
        let hash = sha256::of_reader(library).map_err(Error::io(path))?;
        Ok(*self.loaded.sha256.get_or_init(|| hash))
    }

    /// What the plugin says of itself, such as `xla_version` and `stablehlo_current_version`.
    ///
    /// # Errors
    /// Where the plugin cannot tell.
    pub fn attributes(&self) -> Result<Vec<(String, Value)>> {
        let mut args = PJRT_Plugin_Attributes_Args::new();
        // SAFETY: the function only writes to its arguments.
        unsafe { self.api().call(&mut args)? };
        // SAFETY: the attributes live as long as the plugin.
        Ok(unsafe { read_named_values(args.attributes, args.num_attributes) })
    }

    /// The number of each extension of the API that the plugin has, with its name where this crate knows it.
    pub fn extensions(&self) -> Vec<(i32, Option<&'static str>)> {
        let name =
            |r#type: i32| usize::try_from(r#type).ok().and_then(|r#type| EXTENSIONS.get(r#type).copied());
        self.api().extensions().into_iter().map(|(r#type, _)| (r#type, name(r#type))).collect()
    }

    pub(super) fn api(&self) -> &'static Api {
        &self.loaded.api
    }
}

/// Loads a shared library for ever, so that whoever asks for it by its name is given this one. A name without a folder
/// is looked for by the system's loader.
///
/// # Errors
/// [`Error::Plugin`] where it is not found, or cannot be loaded.
pub(super) fn load_library(file: &Path) -> Result<()> {
    let refused = |problem| Error::Plugin { path: file.to_owned(), problem };
    open_library(file).map(drop).map_err(refused)
}

/// Loads a shared library for ever; the problem where it cannot be.
fn open_library(file: &Path) -> Result<ManuallyDrop<unix::Library>, String> {
    // SAFETY: initialisers of the library run; that they are well-behaved is what a user who names or installs the file
    // vouches for.
    let library = unsafe { unix::Library::open(Some(file), unix::RTLD_LAZY | unix::RTLD_GLOBAL) };
    library.map(ManuallyDrop::new).map_err(|problem| {
        // The reason is only in the source: the error itself says that dlopen failed.
        let reason = problem.source().map_or(problem.to_string(), |reason| reason.to_string());
        format!("it cannot be loaded: {reason}")
    })
}

/// Sets environment variables where they are unset.
fn set_environment(variables: &[(&str, &str)]) {
    for (name, value) in variables {
        if std::env::var_os(name).is_none() {
            // SAFETY: Rust's own readers of the environment are locked out; C code that reads it at the same time
            // is what `Plugin::find` warns of.
            unsafe { std::env::set_var(name, value) };
        }
    }
}

/// The names of the extension types 0 to 24.
const EXTENSIONS: [&str; 25] = [
    "Gpu_Custom_Call",
    "Profiler",
    "Custom_Partitioner",
    "Stream",
    "Layouts",
    "FFI",
    "MemoryDescriptions",
    "Triton",
    "RawBuffer",
    "PhaseCompile",
    "Example",
    "Unknown",
    "CrossHostTransfers",
    "ExecutableMetadata",
    "Callback",
    "HostAllocator",
    "TpuTopology",
    "TpuExecutable",
    "Megascale",
    "Shardings",
    "AbiVersion",
    "Collectives",
    "MultiSlice",
    "HostMemoryAllocator",
    "XlaTransform",
];

impl PartialEq for Plugin {
    /// Whether they are the same loaded plugin.
    fn eq(&self, other: &Plugin) -> bool {
        std::ptr::eq(self.loaded, other.loaded)
    }
}

impl Eq for Plugin {}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("path", &self.path())
            .field("api_version", &self.api_version())
            .finish()
    }
}
