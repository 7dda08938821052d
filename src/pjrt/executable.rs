//! Executables: compiled programs on the devices that run them.
#![allow(unsafe_code)]

use std::sync::Arc;

use super::abi::*;
use super::api::{Api, slice, with_slots};
use super::buffer::Buffer;
use super::client::{Client, Device};
use super::compiled::{Compiled, Origin};
use super::memory;
use crate::{Array, Error, Function, Result, Shape};

/// What a program takes and gives.
///
/// ```
/// use xlann::{DType, Shape};
/// use xlann::pjrt::Signature;
///
/// let matrix = Shape::new(DType::F32, [2, 2]);
/// let signature = Signature {
///     name: "determinant".into(),
///     parameters: vec![matrix.clone()],
///     results: vec![matrix.with_dims([])],
/// };
/// assert_eq!(signature.results[0].to_string(), "f32[]");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signature {
    /// The program's name, for messages.
    pub name: String,
    /// The shape of each parameter.
    pub parameters: Vec<Shape>,
    /// The shape of each result.
    pub results: Vec<Shape>,
}

impl Signature {
    /// What a function takes and gives.
    ///
    /// ```
    /// use xlann::pjrt::Signature;
    /// use xlann::{DType, Function, Shape};
    ///
    /// let f = Function::trace("norm", &[Shape::new(DType::F32, [2])], |x| {
    ///     (&x[0] * &x[0])?.reduce_sum(&[0])?.sqrt()
    /// })?;
    /// let signature = Signature::of(&f);
    /// assert_eq!((signature.name.as_str(), signature.results), ("norm", vec![Shape::scalar(DType::F32)]));
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn of(function: &Function) -> Signature {
        Signature {
            name: function.name().to_owned(),
            parameters: function.parameter_shapes(),
            results: function.result_shapes(),
        }
    }
}

/// A compiled program, loaded on one device or several. Copies of it are the same executable.
///
/// ```
/// use xlann::{Array, DType, Function, Session, Shape};
///
/// if let Ok(session) = Session::cpu() {
///     let f = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
///     let double = session.compile(&f)?;
///     assert_eq!(double.signature().name, "double");
///     let results = double.run_arrays(&[Array::new([3], &[1f32, 2.0, 3.0])?])?;
///     assert_eq!(results, [Array::new([3], &[2f32, 4.0, 6.0])?]);
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone)]
pub struct Executable {
    // Declared before the client, so that it is destroyed before it.
    loaded: Arc<Loaded>,
    client: Client,
}

/// What copies of an executable share. It does not hold its client, whose cache holds it.
pub(super) struct Loaded {
    api: &'static Api,
    raw: *mut PJRT_LoadedExecutable,
    compiled: Compiled,
    /// The positions, among the client's devices, of those that it runs on.
    devices: Vec<usize>,
    /// Over how many devices each copy of the program is partitioned.
    partitions: usize,
    /// The position of every argument: callers keep their buffers unless they say otherwise.
    non_donatable: Vec<i64>,
    /// The bytes that a run allocates in host memory for all devices, where those are many.
    large: Option<u64>,
}

/// From this many bytes on, a run in host memory is checked against what the machine has left.
const LARGE: u64 = 1 << 30;

// SAFETY: PJRT executables may be used from any thread.
unsafe impl Send for Loaded {}
// SAFETY: PJRT executables may be used from several threads at once.
unsafe impl Sync for Loaded {}

impl Loaded {
    /// Takes an executable that the plugin gave, and checks the signature against it.
    ///
    /// # Safety
    /// `raw` must be an executable of the client's that nothing else destroys.
    pub unsafe fn new(client: &Client, raw: *mut PJRT_LoadedExecutable, origin: Origin) -> Result<Loaded> {
        let api = client.api();
        /// Destroys the executable unless it becomes part of a `Loaded`.
        struct Guard(&'static Api, *mut PJRT_LoadedExecutable);
        impl Drop for Guard {
            fn drop(&mut self) {
                // SAFETY: the guard owns the executable.
                unsafe { destroy(self.0, self.1) };
            }
        }
        let guard = Guard(api, raw);
        let mut get = PJRT_LoadedExecutable_GetExecutable_Args {
            loaded_executable: raw,
            ..PJRT_LoadedExecutable_GetExecutable_Args::new()
        };
        let mut devices = PJRT_LoadedExecutable_AddressableDevices_Args {
            executable: raw,
            ..PJRT_LoadedExecutable_AddressableDevices_Args::new()
        };
        // SAFETY: the executable is alive, what it gives is ours, and its list of devices lives as long as it.
        let (compiled, partitions, devices) = unsafe {
            api.call(&mut get)?;
            let compiled = Compiled::new(get.executable, origin)?;
            let mut partitions = PJRT_Executable_NumPartitions_Args {
                executable: get.executable,
                ..PJRT_Executable_NumPartitions_Args::new()
            };
            api.call(&mut partitions)?;
            api.call(&mut devices)?;
            let devices = slice(devices.addressable_devices, devices.num_addressable_devices);
            (compiled, partitions.num_partitions, devices)
        };
        let devices: Vec<_> = devices.iter().filter_map(|&device| client.device_index(device)).collect();
        std::mem::forget(guard);
        let needed = compiled.memory().map_or(0, |memory| {
            let results = memory.results.saturating_sub(memory.aliased);
            results.saturating_add(memory.temporaries).max(0) as u64
        });
        let needed = needed.saturating_mul(devices.len() as u64);
        let large = (client.is_in_host_memory() && needed >= LARGE).then_some(needed);
        let non_donatable = (0..compiled.signature().parameters.len() as i64).collect();
        Ok(Loaded { api, raw, compiled, devices, partitions, non_donatable, large })
    }
}

/// # Safety
/// `executable` must be alive, owned by the caller, and not be used afterwards.
unsafe fn destroy(api: &Api, executable: *mut PJRT_LoadedExecutable) {
    let mut args =
        PJRT_LoadedExecutable_Destroy_Args { executable, ..PJRT_LoadedExecutable_Destroy_Args::new() };
    // SAFETY: the caller's promise. A failure to destroy it leaves nothing to be done.
    let _ = unsafe { api.call(&mut args) };
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: the executable is alive and ours.
        unsafe { destroy(self.api, self.raw) };
    }
}

impl Executable {
    pub(super) fn new(loaded: Arc<Loaded>, client: Client) -> Executable {
        Executable { loaded, client }
    }

    /// What it takes and gives.
    pub fn signature(&self) -> &Signature {
        self.loaded.compiled.signature()
    }

    /// The client that it was compiled with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What the compiler made of the program: its optimized form, its costs, its bytes.
    pub fn compiled(&self) -> &Compiled {
        &self.loaded.compiled
    }

    /// Runs it. The arguments must be on its device; they stay usable. The results may still be being computed
    /// when this returns, and an error in computing them may show only when they are read.
    ///
    /// # Errors
    /// Where arguments are too many or too few, of other shapes than the parameters, deleted, or another client's
    /// or device's; where the executable is one for several devices; and those of the plugin. On CPU, a run that
    /// needs more memory than the machine has left is refused as [`PjrtCode::ResourceExhausted`](crate::PjrtCode::ResourceExhausted).
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Session, Shape};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let f = Function::trace("double", &[Shape::scalar(DType::F32)], |x| &x[0] * 2)?;
    ///     let double = session.compile(&f)?;
    ///     let client = session.client();
    ///     let mut x = client.buffer_from_array(&Array::scalar(1f32), &client.devices()[0])?;
    ///     for _ in 0..10 {
    ///         // Runs follow one another on the device; nothing is waited for here.
    ///         x = double.run(&[&x])?.remove(0);
    ///     }
    ///     assert_eq!(x.to_array()?, Array::scalar(1024f32));
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn run(&self, arguments: &[&Buffer]) -> Result<Vec<Buffer>> {
        self.run_keeping(arguments, &self.loaded.non_donatable)
    }

    /// As [`run`](Executable::run), but the arguments of the numbers `donated` are given up: where the program says
    /// that a result may take a parameter's memory (in StableHLO, the attribute `tf.aliasing_output`), it does,
    /// and the argument's buffer is deleted. Elsewhere nothing changes; host memory that a buffer reads in place
    /// is never written.
    ///
    /// # Errors
    /// As [`run`](Executable::run), and where there is no argument of such a number.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Session, Shape};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let f = Function::trace("double", &[Shape::scalar(DType::F32)], |x| &x[0] * 2)?;
    ///     let client = session.client();
    ///     let x = client.buffer_from_array(&Array::scalar(1f32), &client.devices()[0])?;
    ///     let results = session.compile(&f)?.run_donating(&[&x], &[0])?;
    ///     assert_eq!(results[0].to_array()?, Array::scalar(2f32));
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn run_donating(&self, arguments: &[&Buffer], donated: &[usize]) -> Result<Vec<Buffer>> {
        let kept = &self.loaded.non_donatable;
        if let Some(number) = donated.iter().find(|&&number| number >= kept.len()) {
            let expected = format!("numbers of arguments of {}, below {}", self.signature().name, kept.len());
            return Err(Error::argument("executable", "donated", expected, number));
        }
        let kept: Vec<i64> =
            kept.iter().copied().filter(|&kept| !donated.contains(&(kept as usize))).collect();
        self.run_keeping(arguments, &kept)
    }

    fn run_keeping(&self, arguments: &[&Buffer], non_donatable: &[i64]) -> Result<Vec<Buffer>> {
        let (signature, large) = (self.signature(), self.loaded.large);
        let device = self.device()?;
        self.check_arguments(arguments, device)?;
        if let Some(needed) = large {
            memory::check_run(signature, needed)?;
        }
        let mut options = PJRT_ExecuteOptions {
            non_donatable_input_indices: non_donatable.as_ptr(),
            num_non_donatable_input_indices: non_donatable.len(),
            ..PJRT_ExecuteOptions::new()
        };
        with_slots(arguments.len(), std::ptr::null_mut(), |inputs| {
            for (slot, argument) in inputs.iter_mut().zip(arguments) {
                *slot = argument.raw();
            }
            with_slots(signature.results.len(), std::ptr::null_mut(), |outputs| {
                let (argument_list, output_list) = (inputs.as_ptr(), outputs.as_mut_ptr());
                let mut args = PJRT_LoadedExecutable_Execute_Args {
                    executable: self.loaded.raw,
                    options: &mut options,
                    argument_lists: &argument_list,
                    num_devices: 1,
                    num_args: inputs.len(),
                    output_lists: &output_list,
                    ..PJRT_LoadedExecutable_Execute_Args::new()
                };
                // SAFETY: the executable and the buffers are alive, the lists during the call; there is one
                // device, and a slot for each result.
                unsafe { self.loaded.api.call(&mut args)? };
                let result = |(&mut raw, shape): (&mut *mut PJRT_Buffer, &Shape)| {
                    // SAFETY: the plugin gave us one new buffer for each result; compile checked their shapes.
                    unsafe { Buffer::new(self.client.clone(), raw, shape.clone(), device) }
                };
                Ok(outputs.iter_mut().zip(&signature.results).map(result).collect())
            })
        })
    }

    /// Runs it from host to host: copies the arguments to its device and the results back.
    ///
    /// # Errors
    /// As [`run`](Executable::run).
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Session, Shape};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let f = Function::trace("double", &[Shape::scalar(DType::F32)], |x| &x[0] * 2)?;
    ///     assert_eq!(session.compile(&f)?.run_arrays(&[Array::scalar(4f32)])?, [Array::scalar(8f32)]);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn run_arrays(&self, arguments: &[Array]) -> Result<Vec<Array>> {
        let device = &self.client.devices()[self.device()?];
        let parameters = &self.signature().parameters;
        if arguments.len() != parameters.len() {
            return Err(self.argument_count(arguments.len()));
        }
        for (index, (argument, parameter)) in arguments.iter().zip(parameters).enumerate() {
            self.check_shape(index, argument.shape(), parameter)?;
        }
        let upload = |array| self.client.buffer_from_array(array, device);
        let buffers = arguments.iter().map(upload).collect::<Result<Vec<_>>>()?;
        let results = self.run(&buffers.iter().collect::<Vec<_>>())?;
        results.iter().map(Buffer::to_array).collect()
    }

    /// Runs it on all its devices at once: `arguments` holds those of each replica, on its device of
    /// [`devices`](Executable::devices), and so do the results. The arguments stay usable.
    ///
    /// # Errors
    /// Where there are not as many lists of arguments as replicas, or the replicas are partitioned; for each, as
    /// [`run`](Executable::run).
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape, lower, target};
    ///
    /// let f = Function::trace("sum", &[Shape::new(DType::F32, [1])], |x| {
    ///     x[0].all_gather(0, 2)?.reduce_sum(&[0])
    /// })?;
    /// if let Ok(session) = target::cpu::PLATFORM.session_with_devices(2) {
    ///     let (sum, _) = session.compile_replicas(&f, &lower::Options::default(), 2)?;
    ///     let client = session.client();
    ///     let [x, y] = [Array::new([1], &[1f32])?, Array::new([1], &[2f32])?];
    ///     let x = client.buffer_from_array(&x, sum.devices().next().unwrap())?;
    ///     let y = client.buffer_from_array(&y, sum.devices().nth(1).unwrap())?;
    ///     let results = sum.run_replicas(&[vec![&x], vec![&y]])?;
    ///     assert_eq!(results[0][0].to_array()?, Array::scalar(3f32));
    ///     assert_eq!(results[1][0].to_array()?, Array::scalar(3f32));
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn run_replicas(&self, arguments: &[Vec<&Buffer>]) -> Result<Vec<Vec<Buffer>>> {
        let Loaded { devices, partitions, large, non_donatable, .. } = &*self.loaded;
        let signature = self.signature();
        if *partitions != 1 {
            // What stands on a device is then a part of what the signature says.
            let got = format!("{partitions} for {}", signature.name);
            return Err(Error::argument("executable", "number of partitions", "1", got));
        }
        if arguments.len() != devices.len() {
            let expected = format!("{}, one for each device of {}", devices.len(), signature.name);
            return Err(Error::argument("executable", "lists of arguments", expected, arguments.len()));
        }
        for (arguments, &device) in arguments.iter().zip(devices) {
            self.check_arguments(arguments, device)?;
        }
        if let Some(needed) = *large {
            memory::check_run(signature, needed)?;
        }
        let mut options = PJRT_ExecuteOptions {
            non_donatable_input_indices: non_donatable.as_ptr(),
            num_non_donatable_input_indices: non_donatable.len(),
            ..PJRT_ExecuteOptions::new()
        };
        let inputs: Vec<Vec<_>> = arguments
            .iter()
            .map(|arguments| arguments.iter().map(|argument| argument.raw()).collect())
            .collect();
        let mut outputs = vec![vec![std::ptr::null_mut(); signature.results.len()]; devices.len()];
        let input_lists: Vec<_> = inputs.iter().map(|inputs| inputs.as_ptr()).collect();
        let output_lists: Vec<_> = outputs.iter_mut().map(|outputs| outputs.as_mut_ptr()).collect();
        let mut args = PJRT_LoadedExecutable_Execute_Args {
            executable: self.loaded.raw,
            options: &mut options,
            argument_lists: input_lists.as_ptr(),
            num_devices: devices.len(),
            num_args: signature.parameters.len(),
            output_lists: output_lists.as_ptr(),
            ..PJRT_LoadedExecutable_Execute_Args::new()
        };
        let launch = self.client.launch();
        // SAFETY: the executable and the buffers are alive, the lists during the call; there is a list for each
        // device, with a buffer for each parameter and a slot for each result.
        unsafe { self.loaded.api.call(&mut args)? };
        drop(launch);
        let results = outputs.into_iter().zip(devices).map(|(outputs, &device)| {
            let result = |(raw, shape): (*mut PJRT_Buffer, &Shape)| {
                // SAFETY: the plugin gave us one new buffer for each result; compile checked their shapes.
                unsafe { Buffer::new(self.client.clone(), raw, shape.clone(), device) }
            };
            outputs.into_iter().zip(&signature.results).map(result).collect()
        });
        Ok(results.collect())
    }

    /// The devices that it runs on, in the order of its replicas.
    pub fn devices(&self) -> impl ExactSizeIterator<Item = &Device> {
        self.loaded.devices.iter().map(|&device| &self.client.devices()[device])
    }

    /// Requires that arguments are the parameters' and on the device at this position.
    fn check_arguments(&self, arguments: &[&Buffer], device: usize) -> Result<()> {
        let signature = self.signature();
        if arguments.len() != signature.parameters.len() {
            return Err(self.argument_count(arguments.len()));
        }
        for (index, (argument, parameter)) in arguments.iter().zip(&signature.parameters).enumerate() {
            self.check_shape(index, argument.shape(), parameter)?;
            if *argument.client() != self.client || argument.device_index() != device {
                return Err(Error::argument(
                    "executable",
                    format!("argument {index} of {}", signature.name),
                    format!("on {:?} of the executable's client", self.client.devices()[device]),
                    match *argument.client() == self.client {
                        true => format!("one on {:?}", argument.device()),
                        false => "one of another client".into(),
                    },
                ));
            }
        }
        Ok(())
    }

    /// The position of the one device that it runs on.
    fn device(&self) -> Result<usize> {
        match self.loaded.devices[..] {
            [device] => Ok(device),
            ref devices => Err(Error::argument(
                "executable",
                "number of devices",
                "1",
                format!("{} for {}", devices.len(), self.signature().name),
            )),
        }
    }

    fn argument_count(&self, got: usize) -> Error {
        let Signature { name, parameters, .. } = self.signature();
        Error::ArgumentCount { function: name.clone(), expected: parameters.len(), got }
    }

    fn check_shape(&self, index: usize, got: &Shape, expected: &Shape) -> Result<()> {
        if got == expected {
            return Ok(());
        }
        let function = self.signature().name.clone();
        Err(Error::Call { function, index, expected: expected.clone(), got: got.clone() })
    }
}

impl PartialEq for Executable {
    /// Whether they are the same compiled program.
    fn eq(&self, other: &Executable) -> bool {
        Arc::ptr_eq(&self.loaded, &other.loaded)
    }
}

impl Eq for Executable {}

impl std::fmt::Debug for Executable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executable").field("signature", self.signature()).finish_non_exhaustive()
    }
}
