//! Targets: what functions are compiled for.
//!
//! Targets differ in data. A [`Platform`] says where its plugin comes from and what can be lowered for it. A
//! [`Target`] is a platform whose devices are attached to this machine, or a described part of it such as
//! `gpu:h100` or `tpu:v5e:2x2`, for which functions are compiled ahead of time, on a machine without any. A
//! [`Session`] holds the devices of an attached target, a [`Compiler`] those of a described one.
//!
//! ```
//! use xlann::target::{Target, compile_for};
//! use xlann::{ApproxTopKOptions, DType, Error, Function, Shape, lower};
//!
//! let f = Function::trace("best", &[Shape::new(DType::F32, [128, 100_000])], |x| {
//!     x[0].approx_max_k(10, &ApproxTopKOptions::default())
//! })?;
//! match compile_for(&f, &Target::parse("tpu:v5e:2x2")?, &lower::Options::default()) {
//!     Ok((compiled, choices)) => println!("{}: {:?}", choices[0], compiled.memory()?),
//!     Err(Error::PluginNotFound { advice, .. }) => println!("{advice}"),
//!     Err(other) => return Err(other),
//! }
//! # Ok::<(), xlann::Error>(())
//! ```

pub mod cpu;
pub mod gpu;
pub mod tpu;

use std::path::Path;

use crate::data::{self, ExecutableFile, Fetched, Installed, Libraries, Wheel};
use crate::graph::Function;
use crate::lower::{self, Capabilities, Choice};
use crate::pjrt::{
    Client, CompileOptions, Compiled, Device, Executable, Plugin, PluginSpec, Program, Signature, Topology,
    Value, package_folders,
};
use crate::{Error, Result, kernels};

/// A kind of device, and how it is reached.
///
/// ```
/// use xlann::target::Platform;
///
/// let platform = Platform::named("cpu")?;
/// assert_eq!(platform.plugin.name, "cpu");
/// println!("plugins come in {}", platform.wheels[0]);
/// assert!(Platform::named("abacus").is_err());
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Platform {
    /// The plugins that drive it.
    pub plugin: PluginSpec,
    /// The packages that the plugins come in, as in the specification's order.
    pub wheels: &'static [Wheel],
    /// What the plugins need beside them: packages, and files of theirs.
    pub companions: &'static [(Wheel, &'static str)],
    /// The options that a client is created with.
    pub client_options: &'static [(&'static str, Value)],
    /// The option by which a client is created with a number of devices, where that is not the machine's.
    pub device_count_option: Option<&'static str>,
    /// The options of XLA's own that functions are compiled with.
    pub xla_options: &'static [(&'static str, bool)],
    /// Options of XLA's own that take a folder of companions, and where that is in a folder of packages.
    pub folder_options: &'static [(&'static str, &'static str)],
    /// How a part of it is described, such as `v5e:2x2`; `None` where the plugin only compiles for what is attached.
    pub describe: Option<fn(&str) -> Result<TopologySpec>>,
    /// What can be lowered for it.
    pub capabilities: &'static Capabilities,
    /// The [kernels] that its plugins can call, where there are any.
    pub kernels: Option<Kernels>,
}

/// How a platform's plugins come by the [kernels].
///
/// ```
/// use xlann::target::cpu;
/// assert_eq!(cpu::PLATFORM.kernels.unwrap().ffi_platform, "Host");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    /// What the plugins' FFI calls the devices.
    pub ffi_platform: &'static str,
    /// What can be lowered where a plugin has no FFI.
    pub capabilities_without: &'static Capabilities,
}

/// What a [`Topology`] is made from.
///
/// ```
/// use xlann::target::tpu;
///
/// let describe = tpu::PLATFORM.describe.unwrap();
/// assert_eq!(describe("v5e:2x2")?.name, "v5e:2x2");
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TopologySpec {
    /// The plugin's name of it.
    pub name: String,
    /// The plugin's options.
    pub options: Vec<(&'static str, Value)>,
    /// The memory of each device in bytes, where that is known.
    pub device_memory: Option<u64>,
    /// How many devices a chip is.
    pub devices_per_chip: usize,
    /// The names of the topologies of the same devices, the smallest first, where they are known.
    pub sizes: Vec<String>,
}

/// Every platform.
///
/// ```
/// let names = xlann::target::PLATFORMS.map(|platform| platform.name());
/// assert_eq!(names, ["cpu", "gpu", "tpu"]);
/// ```
pub const PLATFORMS: [&Platform; 3] = [&cpu::PLATFORM, &gpu::PLATFORM, &tpu::PLATFORM];

impl Platform {
    /// The name, such as `cpu`.
    pub fn name(&self) -> &'static str {
        self.capabilities.target
    }

    /// The platform of that name.
    ///
    /// # Errors
    /// Where there is none.
    ///
    /// ```
    /// use xlann::target::Platform;
    /// assert_eq!(Platform::named("tpu")?.name(), "tpu");
    /// assert!(Platform::named("abacus").is_err());
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn named(name: &str) -> Result<&'static Platform> {
        PLATFORMS.into_iter().find(|platform| platform.name() == name).ok_or_else(|| {
            let names = PLATFORMS.map(|platform| platform.name()).join(", ");
            Error::argument("target", "platform", format!("one of {names}"), format!("{name:?}"))
        })
    }

    /// Puts a plugin into the cache, unless one is there, from the first of the packages that can be had; and what it
    /// needs beside it.
    ///
    /// # Errors
    /// Where no package can be fetched, none is for this machine, or the cache cannot be written.
    ///
    /// ```no_run
    /// use xlann::target::cpu;
    ///
    /// println!("{}", cpu::PLATFORM.install()?);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn install(&self) -> Result<Installed> {
        let members = self.plugin.members.iter().copied();
        data::install_plugin(self.plugin.name, self.wheels.iter().copied().zip(members), self.companions)
    }

    /// Puts the shared libraries that the plugin needs to run programs into the cache, unless they are there; gives
    /// whether each package had to be fetched. For GPUs, these are two gigabytes to fetch.
    ///
    /// # Errors
    /// As [`install`](Platform::install).
    ///
    /// ```no_run
    /// use xlann::target::gpu;
    ///
    /// gpu::PLATFORM.install()?;
    /// for (libraries, fetched) in gpu::PLATFORM.install_libraries()? {
    ///     println!("{}: {fetched:?}", libraries.wheel);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn install_libraries(&self) -> Result<Vec<(&'static Libraries, Fetched)>> {
        data::install_libraries(self.plugin.name, self.plugin.libraries)
    }

    /// Attaches to the platform's devices through the plugin that [`Plugin::find`] finds.
    ///
    /// # Errors
    /// Where no plugin is found, it cannot be loaded or finds no device, or a library that it needs is missing.
    ///
    /// ```
    /// use xlann::target::Platform;
    ///
    /// if let Ok(session) = Platform::named("cpu")?.session() {
    ///     println!("{:?}", session.client());
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn session(&self) -> Result<Session> {
        self.session_of(self.client_options)
    }

    /// As [`session`](Platform::session), with a number of devices: as many as asked for where it can be chosen, as
    /// on the CPU, whose devices share its processors and memory; elsewhere as many at least.
    ///
    /// # Errors
    /// As [`session`](Platform::session), and where there are fewer devices.
    ///
    /// ```
    /// use xlann::target::cpu;
    ///
    /// if let Ok(session) = cpu::PLATFORM.session_with_devices(4) {
    ///     assert_eq!(session.client().devices().len(), 4);
    /// }
    /// ```
    pub fn session_with_devices(&self, count: usize) -> Result<Session> {
        let count_option = self.device_count_option.map(|name| (name, Value::Int(count as i64)));
        let options: Vec<_> = self.client_options.iter().cloned().chain(count_option).collect();
        let session = self.session_of(&options)?;
        let there = session.client.devices().len();
        if !(1..=there).contains(&count) {
            return Err(Error::argument("session", "devices", format!("from 1 to {there}"), count));
        }
        Ok(session)
    }

    fn session_of(&self, options: &[(&str, Value)]) -> Result<Session> {
        let plugin = Plugin::find(&self.plugin)?;
        if self.plugin.has_devices() {
            // As the plugin was found they were loaded, but for what is missing.
            self.plugin.load_libraries(plugin.path())?;
        }
        let client = Client::new(plugin, options)?;
        let mut platform = *self;
        if let Some(Kernels { ffi_platform, capabilities_without }) = self.kernels
            && !kernels::register(plugin, ffi_platform)?
        {
            platform.capabilities = capabilities_without;
        }
        Ok(Session { client, platform })
    }

    /// The options that functions are compiled with, by a plugin that may have companions near it.
    fn compile_options(&self, plugin: Plugin) -> CompileOptions {
        let fixed = self.xla_options.iter().map(|&(name, value)| (name.to_owned(), Value::Bool(value)));
        let folders = self.folder_options.iter().filter_map(|&(name, folder)| {
            let folders = package_folders(plugin.path()).into_iter().map(|near| near.join(folder));
            let folder = folders.into_iter().find(|folder| folder.is_dir())?;
            Some((name.to_owned(), Value::String(folder.to_str()?.to_owned())))
        });
        CompileOptions { overrides: fixed.chain(folders).collect(), ..CompileOptions::default() }
    }

    /// A function as a program: lowered, with the form that each approximate top-k took.
    fn lower(
        &self,
        function: &Function,
        options: &lower::Options,
        replicas: usize,
    ) -> Result<(Vec<u8>, Signature, Vec<Choice>)> {
        function.check_replicas(replicas)?;
        let lowered = lower::lower(function, self.capabilities, options)?;
        Ok((lowered.module.to_bytes(), Signature::of(function), lowered.choices))
    }
}

/// What functions are compiled for: a platform's devices on this machine, or devices that are described.
///
/// ```
/// use xlann::target::Target;
///
/// let target = Target::parse("tpu:v5e:2x2")?;
/// assert_eq!((target.platform().name(), target.topology()), ("tpu", Some("v5e:2x2")));
/// assert_eq!(target.to_string(), "tpu:v5e:2x2");
/// assert_eq!(Target::parse("cpu")?.topology(), None);
/// assert!(Target::parse("cpu:2x2").is_err());
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Target {
    platform: &'static Platform,
    topology: Option<TopologySpec>,
}

impl Target {
    /// The target of a text such as `cpu`, `gpu` or `tpu`, for what is attached to this machine; or for what is
    /// described: `gpu:h100`, `gpu:h200`, `gpu:a100`, `gpu:FILE` for a file with XLA's `GpuTargetConfigProto` in text
    /// format, and `tpu:TOPOLOGY` such as `tpu:v5e:2x2`.
    ///
    /// # Errors
    /// Where there is no such platform, it cannot be described, or the file is unreadable or lacks a field. Whether
    /// there is such a topology is for the plugin to say.
    pub fn parse(text: &str) -> Result<Target> {
        let Some((platform, topology)) = text.split_once(':') else {
            return Ok(Target { platform: Platform::named(text)?, topology: None });
        };
        let platform = Platform::named(platform)?;
        let Some(describe) = platform.describe else {
            let expected = format!("{}, as it compiles only for what is attached", platform.name());
            return Err(Error::argument("target", "topology", expected, text));
        };
        if topology.is_empty() {
            let expected = format!("one after {text}");
            return Err(Error::argument("target", "topology", expected, "none"));
        }
        Ok(Target { platform, topology: Some(describe(topology)?) })
    }

    /// The kind of its devices.
    pub fn platform(&self) -> &'static Platform {
        self.platform
    }

    /// The name of its topology, where it is described.
    pub fn topology(&self) -> Option<&str> {
        self.topology.as_ref().map(|topology| topology.name.as_str())
    }

    /// What is described, where it is not attached.
    ///
    /// ```
    /// use xlann::target::Target;
    ///
    /// let target = Target::parse("tpu:v5e:2x2")?;
    /// let spec = target.description().unwrap();
    /// assert_eq!(spec.device_memory, Some(16 << 30));
    /// assert_eq!(spec.sizes[..3], ["v5e:1x1", "v5e:2x2", "v5e:2x4"]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn description(&self) -> Option<&TopologySpec> {
        self.topology.as_ref()
    }

    /// Prepares compiling for described devices.
    ///
    /// # Errors
    /// Where the target is not described, no plugin is found or it cannot be loaded, or it knows no such topology.
    ///
    /// ```
    /// use xlann::target::Target;
    ///
    /// if let Ok(compiler) = Target::parse("tpu:v5e:16x16")?.describe() {
    ///     assert_eq!(compiler.topology().device_count(), 256);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn describe(&self) -> Result<Compiler> {
        let Some(TopologySpec { name, options, .. }) = &self.topology else {
            let expected = "a described one, such as gpu:h100 or tpu:v5e:2x2";
            return Err(Error::argument("compile_for", "target", expected, self));
        };
        let topology = Topology::new(Plugin::find(&self.platform.plugin)?, name, options)?;
        Ok(Compiler { topology, platform: *self.platform })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.platform.name())?;
        self.topology().map_or(Ok(()), |topology| write!(f, ":{topology}"))
    }
}

/// Lowers and compiles a function ahead of time for a described target, in the forms that the options ask for;
/// also gives which were taken. To compile several, make a [`Compiler`] once.
///
/// # Errors
/// As [`Target::describe`] and [`Compiler::compile`].
///
/// ```
/// use xlann::target::{Target, compile_for};
/// use xlann::{DType, Function, Shape, lower};
///
/// let f = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
/// if let Ok((compiled, _)) = compile_for(&f, &Target::parse("gpu:h100")?, &lower::Options::default()) {
///     println!("{} bytes of machine code", compiled.generated_code_size()?);
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn compile_for(
    function: &Function,
    target: &Target,
    options: &lower::Options,
) -> Result<(Compiled, Vec<Choice>)> {
    target.describe()?.compile(function, options, 1)
}

/// A target that is described: lowers and compiles functions for it ahead of time.
///
/// ```
/// use xlann::target::Target;
/// use xlann::{DType, Function, Shape, lower};
///
/// if let Ok(compiler) = Target::parse("tpu:v5e:2x2")?.describe() {
///     let f = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
///     let (compiled, _) = compiler.compile(&f, &lower::Options::default(), 1)?;
///     for (name, value) in compiled.cost_analysis()? {
///         println!("{name}: {value}");
///     }
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Debug)]
pub struct Compiler {
    topology: Topology,
    platform: Platform,
}

impl Compiler {
    /// The described devices.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Lowers and compiles a function, in the forms that the options ask for, to run on as many devices as
    /// there are replicas; also gives which forms were taken.
    ///
    /// # Errors
    /// Where an operator has no form on the target, or not the one asked for, or is one of another number of
    /// replicas; where there are not as many devices as replicas; and where the plugin does not compile the program.
    pub fn compile(
        &self,
        function: &Function,
        options: &lower::Options,
        replicas: usize,
    ) -> Result<(Compiled, Vec<Choice>)> {
        let (module, signature, choices) = self.platform.lower(function, options, replicas)?;
        let options = CompileOptions {
            num_replicas: replicas,
            ..self.platform.compile_options(self.topology.plugin())
        };
        Ok((self.topology.compile(Program::Hlo(&module), signature, &options)?, choices))
    }
}

/// A platform attached to devices: lowers and compiles functions for them.
///
/// Copies of it are the same session; it can be shared between threads. A forked process cannot use its parent's session:
/// XLA's threads do not survive a fork, and the child would wait for them for ever. Fork first and open a session in each
/// process, or start another program.
///
/// ```no_run
/// use xlann::{ApproxTopKOptions, Array, DType, Function, Session, Shape};
///
/// let f = Function::trace("best", &[Shape::new(DType::F32, [5])], |x| {
///     x[0].approx_max_k(2, &ApproxTopKOptions::default())
/// })?;
/// let best = Session::cpu()?.compile(&f)?;
/// let results = best.run_arrays(&[Array::new([5], &[3f32, 9.0, 2.0, 7.0, 1.0])?])?;
/// assert_eq!(results, [Array::new([2], &[9f32, 7.0])?, Array::new([2], &[1i32, 3])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Session {
    client: Client,
    platform: Platform,
}

impl Session {
    /// A session on this machine's CPU.
    ///
    /// # Errors
    /// Where no CPU plugin is found or it cannot be loaded; `xlann plugin install cpu` fetches one.
    ///
    /// ```
    /// use xlann::Session;
    ///
    /// match Session::cpu() {
    ///     Ok(session) => println!("{}", session.client().plugin().path().display()),
    ///     Err(problem) => println!("{problem}"),
    /// }
    /// ```
    pub fn cpu() -> Result<Session> {
        cpu::PLATFORM.session()
    }

    /// The plugin's client, for buffers and devices.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The platform.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// The options that functions are compiled with, for programs that come from elsewhere.
    ///
    /// ```
    /// use xlann::pjrt::{Program, Signature};
    /// use xlann::{ApproxTopKOptions, Array, DType, Function, Session, Shape, lower};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let f = Function::trace("best", &[Shape::new(DType::F32, [5])], |x| {
    ///         x[0].approx_max_k(2, &ApproxTopKOptions::default())
    ///     })?;
    ///     let text = lower::stablehlo(&f, session.platform().capabilities)?;
    ///     let (program, options) = (Program::StableHlo(&text), session.compile_options());
    ///     let best = session.client().compile(program, Signature::of(&f), &options)?;
    ///     let results = best.run_arrays(&[Array::new([5], &[3f32, 9.0, 2.0, 7.0, 1.0])?])?;
    ///     assert_eq!(results, [Array::new([2], &[9f32, 7.0])?, Array::new([2], &[1i32, 3])?]);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn compile_options(&self) -> CompileOptions {
        self.platform.compile_options(self.client.plugin())
    }

    /// Lowers and compiles a function, in the forms that the platform's policy chooses.
    ///
    /// The client keeps what it compiled last: the same function is not compiled again.
    ///
    /// # Errors
    /// Where an operator has no form on the target, or the plugin does not compile the program.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Session, Shape};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let f = Function::trace("norm", &[Shape::new(DType::F32, [2])], |x| {
    ///         (&x[0] * &x[0])?.reduce_sum(&[0])?.sqrt()
    ///     })?;
    ///     let norm = session.compile(&f)?;
    ///     assert_eq!(norm.run_arrays(&[Array::new([2], &[3f32, 4.0])?])?, [Array::scalar(5f32)]);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn compile(&self, function: &Function) -> Result<Executable> {
        Ok(self.compile_with(function, &lower::Options::default())?.0)
    }

    /// As [`compile`](Session::compile), in the forms that the options ask for; also gives which were taken.
    ///
    /// # Errors
    /// As [`compile`](Session::compile), and where a form that was asked for is not the target's.
    ///
    /// ```
    /// use xlann::{ApproxTopKOptions, DType, Function, Session, Shape, lower};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let f = Function::trace("best", &[Shape::new(DType::F32, [128, 1000])], |x| {
    ///         x[0].approx_max_k(10, &ApproxTopKOptions::default())
    ///     })?;
    ///     let (best, choices) = session.compile_with(&f, &lower::Options::default())?;
    ///     println!("{}: {}", best.signature().name, choices[0]);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn compile_with(
        &self,
        function: &Function,
        options: &lower::Options,
    ) -> Result<(Executable, Vec<Choice>)> {
        self.compile_replicas(function, options, 1)
    }

    /// As [`compile_with`](Session::compile_with), to run on as many devices as there are replicas, each with
    /// arguments of its own ([`Executable::run_replicas`]): the first replica on the client's first device, and so
    /// on. What replicas do together are operators such as [`Tensor::all_gather`](crate::Tensor::all_gather).
    ///
    /// # Errors
    /// As [`compile_with`](Session::compile_with), and where there are not as many devices as replicas, or an
    /// operator is one of another number of replicas.
    ///
    /// ```
    /// use xlann::target::cpu;
    /// use xlann::{DType, Function, Shape, lower};
    ///
    /// if let Ok(session) = cpu::PLATFORM.session_with_devices(2) {
    ///     let f = Function::trace("sum", &[Shape::new(DType::F32, [1])], |x| {
    ///         x[0].all_gather(0, 2)?.reduce_sum(&[0])
    ///     })?;
    ///     let (sum, _) = session.compile_replicas(&f, &lower::Options::default(), 2)?;
    ///     assert_eq!(sum.devices().len(), 2);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn compile_replicas(
        &self,
        function: &Function,
        options: &lower::Options,
        replicas: usize,
    ) -> Result<(Executable, Vec<Choice>)> {
        let (module, signature, choices) = self.platform.lower(function, options, replicas)?;
        let options = CompileOptions {
            num_replicas: replicas,
            devices: self.client.devices().iter().take(replicas).map(Device::id).collect(),
            ..self.platform.compile_options(self.client.plugin())
        };
        Ok((self.client.compile(Program::Hlo(&module), signature, &options)?, choices))
    }

    /// Loads the executable that [`Compiled::save`] wrote to a file, in this process or another, or on a machine that
    /// has no such devices.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be read; [`Error::File`] where it is none of an executable, is damaged,
    /// or its executable is for another platform or another build of the plugin.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Session, Shape};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     # let folder = tempfile::tempdir().unwrap();
    ///     let path = folder.path().join("double.exe");
    ///     let f = Function::trace("double", &[Shape::new(DType::F32, [2])], |x| &x[0] + &x[0])?;
    ///     session.compile(&f)?.compiled().save(&path)?;
    ///
    ///     // In another process, with the same plugin:
    ///     let double = Session::cpu()?.load(&path)?;
    ///     assert_eq!(double.run_arrays(&[Array::new([2], &[1f32, 2.0])?])?, [Array::new([2], &[2f32, 4.0])?]);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn load(&self, path: impl AsRef<Path>) -> Result<Executable> {
        self.client.load_file(&ExecutableFile::read(path)?)
    }

    /// As [`load`](Session::load), of a file that should hold what [`compile_with`](Session::compile_with) gives for
    /// this function and these options.
    ///
    /// # Errors
    /// As [`load`](Session::load), and where the function, as it is lowered now, is another program than the file's
    /// executable was compiled from.
    ///
    /// ```
    /// use xlann::{DType, Error, Function, Session, Shape, lower};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     # let folder = tempfile::tempdir().unwrap();
    ///     let path = folder.path().join("scale.exe");
    ///     let scale = |factor: f32| {
    ///         Function::trace("scale", &[Shape::new(DType::F32, [2])], |x| &x[0] * factor)
    ///     };
    ///     session.compile(&scale(2.0)?)?.compiled().save(&path)?;
    ///
    ///     let options = lower::Options::default();
    ///     assert!(session.load_for(&path, &scale(2.0)?, &options).is_ok());
    ///     assert!(matches!(session.load_for(&path, &scale(3.0)?, &options), Err(Error::File { .. })));
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn load_for(
        &self,
        path: impl AsRef<Path>,
        function: &Function,
        options: &lower::Options,
    ) -> Result<Executable> {
        let (module, ..) = self.platform.lower(function, options, 1)?;
        let file = ExecutableFile::read(path)?;
        file.check_program(Program::Hlo(&module))?;
        self.client.load_file(&file)
    }
}
