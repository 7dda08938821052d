//! Topologies: devices that are described, not attached, to compile for.
#![allow(unsafe_code)]

use super::abi::*;
use super::api::{Api, Value, slice, text, write_named_values};
use super::client::device_kind;
use super::compile::{CompileOptions, Key, Program, raw_program};
use super::compiled::{Compiled, Origin};
use super::executable::Signature;
use super::plugin::Plugin;
use crate::{Error, Result};

/// Devices by their description: a plugin compiles programs for them where there are none.
///
/// ```
/// use xlann::pjrt::{Plugin, Topology};
/// use xlann::target::tpu;
///
/// if let Ok(plugin) = Plugin::find(&tpu::PLATFORM.plugin) {
///     let pod = Topology::new(plugin, "v5e:16x16", &[])?;
///     println!("{} of {}", pod.device_count(), pod.device_kind());
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
pub struct Topology {
    plugin: Plugin,
    raw: *mut PJRT_TopologyDescription,
    platform_name: String,
    platform_version: String,
    device_kind: String,
    device_count: usize,
}

// SAFETY: a topology is constant, and may be used from any thread.
unsafe impl Send for Topology {}
// SAFETY: as for Send.
unsafe impl Sync for Topology {}

impl Topology {
    /// The topology that the plugin knows under a name, such as `v5e:2x2`, or by its options, such as a GPU's
    /// `target_config`.
    ///
    /// # Errors
    /// Where the plugin knows no such name or option, or describes no devices.
    pub fn new(plugin: Plugin, name: &str, options: &[(&str, Value)]) -> Result<Topology> {
        let api = plugin.api();
        let values = write_named_values(options);
        let mut args = PJRT_TopologyDescription_Create_Args {
            topology_name: name.as_ptr().cast(),
            topology_name_size: name.len(),
            create_options: values.as_ptr(),
            num_options: values.len(),
            ..PJRT_TopologyDescription_Create_Args::new()
        };
        // SAFETY: the name and the options are alive during the call.
        unsafe { api.call(&mut args)? };
        let mut topology = Topology {
            plugin,
            raw: args.topology,
            platform_name: String::new(),
            platform_version: String::new(),
            device_kind: String::new(),
            device_count: 0,
        };
        topology.describe()?;
        if topology.device_count == 0 {
            let problem = format!("its topology {name:?} has no devices");
            return Err(Error::Plugin { path: plugin.path().into(), problem });
        }
        Ok(topology)
    }

    fn describe(&mut self) -> Result<()> {
        let (topology, api) = (self.raw, self.api());
        let mut name = PJRT_TopologyDescription_PlatformName_Args {
            topology,
            ..PJRT_TopologyDescription_PlatformName_Args::new()
        };
        let mut version = PJRT_TopologyDescription_PlatformVersion_Args {
            topology,
            ..PJRT_TopologyDescription_PlatformVersion_Args::new()
        };
        let mut devices = PJRT_TopologyDescription_GetDeviceDescriptions_Args {
            topology,
            ..PJRT_TopologyDescription_GetDeviceDescriptions_Args::new()
        };
        // SAFETY: the topology is alive, and what it gives as long as it.
        unsafe {
            api.call(&mut name)?;
            self.platform_name = text(name.platform_name, name.platform_name_size);
            api.call(&mut version)?;
            self.platform_version = text(version.platform_version, version.platform_version_size);
            api.call(&mut devices)?;
            let descriptions = slice(devices.descriptions, devices.num_descriptions);
            self.device_count = descriptions.len();
            if let Some(&first) = descriptions.first() {
                self.device_kind = device_kind(api, first)?;
            }
        }
        Ok(())
    }

    /// The plugin.
    pub fn plugin(&self) -> Plugin {
        self.plugin
    }

    /// The platform's name, such as `cuda` or `tpu`.
    pub fn platform_name(&self) -> &str {
        &self.platform_name
    }

    /// What the plugin says of the platform's version.
    pub fn platform_version(&self) -> &str {
        &self.platform_version
    }

    /// What its devices are, such as `TPU v5 lite`.
    pub fn device_kind(&self) -> &str {
        &self.device_kind
    }

    /// How many devices it has; a chip of some kinds is two.
    pub fn device_count(&self) -> usize {
        self.device_count
    }

    /// Compiles a program for the topology's devices.
    ///
    /// `signature` is checked as by [`Client::compile`](super::Client::compile).
    ///
    /// # Errors
    /// Where the options ask for no device or more than there are, the plugin does not compile the program, or it
    /// takes or gives other shapes than the signature says.
    ///
    /// ```
    /// use xlann::pjrt::{CompileOptions, Plugin, Program, Signature, Topology};
    /// use xlann::target::tpu;
    /// use xlann::{DType, Shape};
    ///
    /// if let Ok(plugin) = Plugin::find(&tpu::PLATFORM.plugin) {
    ///     let program = Program::StableHlo(
    ///         "func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
    ///            %y = stablehlo.add %x, %x : tensor<2xf32>
    ///            return %y : tensor<2xf32>
    ///          }",
    ///     );
    ///     let shape = Shape::new(DType::F32, [2]);
    ///     let signature =
    ///         Signature { name: "twice".into(), parameters: vec![shape.clone()], results: vec![shape] };
    ///     let topology = Topology::new(plugin, "v5e:2x2", &[])?;
    ///     let compiled = topology.compile(program, signature, &CompileOptions::default())?;
    ///     println!("{} bytes of machine code", compiled.generated_code_size()?);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn compile(
        &self,
        program: Program<'_>,
        signature: Signature,
        options: &CompileOptions,
    ) -> Result<Compiled> {
        // Devices that are described are numbered from 0.
        options.check(&(0..self.device_count as i32).collect::<Vec<_>>())?;
        let key = Key::new(program, signature, options);
        key.check_signature()?;
        let mut code = key.program().to_vec();
        let program = raw_program(&mut code, key.format());
        let options = options.to_proto();
        let mut args = PJRT_Compile_Args {
            topology: self.raw,
            program: &program,
            compile_options: options.as_ptr().cast(),
            compile_options_size: options.len(),
            ..PJRT_Compile_Args::new()
        };
        let origin = Origin {
            plugin: self.plugin,
            platform_name: self.platform_name.clone(),
            platform_version: self.platform_version.clone(),
            signature: key.signature().clone(),
            program: Some(key.sha256()),
        };
        // SAFETY: the topology is alive, and the program and the options are during the call; the executable is new
        // and ours.
        unsafe {
            self.api().call(&mut args)?;
            Compiled::new(args.executable, origin)
        }
    }

    fn api(&self) -> &'static Api {
        self.plugin.api()
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        let mut args = PJRT_TopologyDescription_Destroy_Args {
            topology: self.raw,
            ..PJRT_TopologyDescription_Destroy_Args::new()
        };
        // SAFETY: the topology is alive and ours. A failure to destroy it leaves nothing to be done.
        let _ = unsafe { self.api().call(&mut args) };
    }
}

impl std::fmt::Debug for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.device_count, self.device_kind)
    }
}
