//! Clients: a plugin's hold on its devices.
#![allow(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::abi::*;
use super::api::{Api, Value, element_type, slice, text, with_slots, write_named_values};
use super::buffer::Buffer;
use super::compile::{Cache, CompileOptions, Key, Program, raw_program};
use super::compiled::Origin;
use super::event::{Event, in_callback};
use super::executable::{Executable, Loaded, Signature};
use super::memory;
use super::plugin::Plugin;
use crate::array::check_preds;
use crate::{Array, Error, PjrtCode, Result, Shape};

/// A plugin's hold on the devices of this process. Copies of it are the same client, which lives until the last
/// of them, and of the buffers and executables made with it, is dropped.
///
/// ```
/// use xlann::pjrt::{Client, Plugin, Value};
/// use xlann::target::cpu;
///
/// if let Ok(plugin) = Plugin::find(&cpu::PLATFORM.plugin) {
///     let client = Client::new(plugin, &[("cpu_device_count", Value::Int(2))])?;
///     println!("{} {}", client.platform_name(), client.platform_version());
///     assert_eq!(client.devices().len(), 2);
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    plugin: Plugin,
    raw: *mut PJRT_Client,
    platform_name: String,
    platform_version: String,
    devices: Vec<Device>,
    cache: Cache,
    /// Held while a program is handed to several devices: if two programs came to them in different orders, the
    /// devices would wait for each other for ever.
    launch: Mutex<()>,
}

// SAFETY: PJRT clients and devices may be used from any thread.
unsafe impl Send for Inner {}
// SAFETY: PJRT clients and devices may be used from several threads at once.
unsafe impl Sync for Inner {}

/// Bytes in host memory that a buffer may read in place.
///
/// ```
/// use std::sync::Arc;
/// use xlann::pjrt::HostMemory;
///
/// let memory: HostMemory = Arc::new(vec![0u8; 64]);
/// assert_eq!((*memory).as_ref().len(), 64);
/// ```
pub type HostMemory = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// More devices than any program splits into, and few enough to have threads of their own.
const MAX_CPU_DEVICES: i64 = 1024;

impl Client {
    /// A client with the given creation options, whose names are the plugin's, such as `cpu_device_count`.
    ///
    /// # Errors
    /// Where the plugin knows no such option, or does not find its devices.
    ///
    /// ```
    /// use xlann::pjrt::{Client, Plugin, Value};
    /// use xlann::target::cpu;
    ///
    /// if let Ok(plugin) = Plugin::find(&cpu::PLATFORM.plugin) {
    ///     let client = Client::new(plugin, &[("cpu_device_count", Value::Int(2))])?;
    ///     assert_eq!(client.devices().len(), 2);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn new(plugin: Plugin, options: &[(&str, Value)]) -> Result<Client> {
        if let Some((name, value)) = options.iter().find(|(name, _)| *name == "cpu_device_count")
            && !matches!(value, Value::Int(1..=MAX_CPU_DEVICES))
        {
            // The plugin ends the process.
            let expected = format!("an integer from 1 to {MAX_CPU_DEVICES}");
            return Err(Error::argument("client", *name, expected, value));
        }
        let api = plugin.api();
        let values = write_named_values(options);
        let mut args = PJRT_Client_Create_Args {
            create_options: values.as_ptr(),
            num_options: values.len(),
            ..PJRT_Client_Create_Args::new()
        };
        // SAFETY: the options are alive during the call.
        unsafe { api.call(&mut args)? };
        let mut inner = Inner {
            plugin,
            raw: args.client,
            platform_name: String::new(),
            platform_version: String::new(),
            devices: Vec::new(),
            cache: Cache::default(),
            launch: Mutex::default(),
        };
        inner.describe()?;
        if inner.devices.is_empty() {
            return Err(Error::Plugin {
                path: plugin.path().into(),
                problem: "its client has no devices".into(),
            });
        }
        Ok(Client { inner: Arc::new(inner) })
    }

    /// The plugin.
    pub fn plugin(&self) -> Plugin {
        self.inner.plugin
    }

    /// The platform's name, such as `cpu`, `cuda` or `tpu`.
    pub fn platform_name(&self) -> &str {
        &self.inner.platform_name
    }

    /// What the plugin says of the platform's version.
    pub fn platform_version(&self) -> &str {
        &self.inner.platform_version
    }

    /// The devices that this process can address; there is at least one.
    pub fn devices(&self) -> &[Device] {
        &self.inner.devices
    }

    /// Compiles a program, or gives the executable of the same program, signature and options if that is among
    /// the 64 that were last asked for. Threads that ask for the same at once wait for one compilation.
    ///
    /// `signature` is what the program takes and gives. It is checked against an HLO module; of StableHLO, the
    /// plugin can confirm the results only.
    ///
    /// # Errors
    /// Where the options ask for no device or more than there are, the plugin does not compile the program, it
    /// takes or gives other shapes than the signature says, or these cannot fit the machine's memory.
    ///
    /// ```
    /// use xlann::{Array, DType, Session, Shape};
    /// use xlann::pjrt::{CompileOptions, Program, Signature};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let program = Program::StableHlo(
    ///         "func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
    ///            %y = stablehlo.add %x, %x : tensor<2xf32>
    ///            return %y : tensor<2xf32>
    ///          }",
    ///     );
    ///     let shape = Shape::new(DType::F32, [2]);
    ///     let signature =
    ///         Signature { name: "twice".into(), parameters: vec![shape.clone()], results: vec![shape] };
    ///     let twice = session.client().compile(program, signature, &CompileOptions::default())?;
    ///     let results = twice.run_arrays(&[Array::new([2], &[1f32, 2.0])?])?;
    ///     assert_eq!(results, [Array::new([2], &[2f32, 4.0])?]);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn compile(
        &self,
        program: Program<'_>,
        signature: Signature,
        options: &CompileOptions,
    ) -> Result<Executable> {
        options.check(&self.devices().iter().map(Device::id).collect::<Vec<_>>())?;
        let key = Key::new(program, signature, options);
        let loaded = self.inner.cache.get(key, |key| {
            key.check_signature()?;
            if self.is_in_host_memory() {
                memory::check_compile(key.signature(), key.options().device_count())?;
            }
            let mut code = key.program().to_vec();
            let program = raw_program(&mut code, key.format());
            let options = key.options().to_proto();
            let mut args = PJRT_Client_Compile_Args {
                client: self.inner.raw,
                program: &program,
                compile_options: options.as_ptr().cast(),
                compile_options_size: options.len(),
                ..PJRT_Client_Compile_Args::new()
            };
            // SAFETY: the client is alive, and the program and the options are during the call.
            unsafe { self.api().call(&mut args)? };
            // SAFETY: the executable is new and ours.
            unsafe {
                Loaded::new(self, args.executable, self.origin(key.signature().clone(), Some(key.sha256())))
            }
        })?;
        Ok(Executable::new(loaded, self.clone()))
    }

    /// Loads an executable from what [`Compiled::serialize`](super::Compiled::serialize) gave. What
    /// [`Compiled::save`](super::Compiled::save) wrote, which is checked, [`load_file`](Client::load_file) loads.
    ///
    /// # Errors
    /// Where the plugin does not accept the bytes, as those of another build of it, or they have other results
    /// than the signature says. Plugins check little: only bytes from a place that is trusted should be loaded.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Session, Shape};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let f = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
    ///     let double = session.compile(&f)?;
    ///     let bytes = double.compiled().serialize()?;
    ///     // In another process, with the same plugin:
    ///     let double = session.client().load(&bytes, double.signature().clone())?;
    ///     let results = double.run_arrays(&[Array::new([3], &[1f32, 2.0, 3.0])?])?;
    ///     assert_eq!(results, [Array::new([3], &[2f32, 4.0, 6.0])?]);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn load(&self, serialized: &[u8], signature: Signature) -> Result<Executable> {
        let mut args = PJRT_Executable_DeserializeAndLoad_Args {
            client: self.inner.raw,
            serialized_executable: serialized.as_ptr().cast(),
            serialized_executable_size: serialized.len(),
            ..PJRT_Executable_DeserializeAndLoad_Args::new()
        };
        // SAFETY: the client is alive, and the bytes are during the call.
        unsafe { self.api().call(&mut args)? };
        // SAFETY: the executable is new and ours.
        let loaded = unsafe { Loaded::new(self, args.loaded_executable, self.origin(signature, None))? };
        Ok(Executable::new(Arc::new(loaded), self.clone()))
    }

    /// A buffer on `device` with an array's elements.
    ///
    /// On CPU the elements are not copied: the buffer shares them with the array, which is faster than a copy even
    /// for a scalar.
    ///
    /// # Errors
    /// Where the device is not this client's or has no room.
    ///
    /// ```
    /// use xlann::{Array, Session};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let client = session.client();
    ///     let array = Array::new([2], &[1f32, 2.0])?;
    ///     let buffer = client.buffer_from_array(&array, &client.devices()[0])?;
    ///     assert_eq!(buffer.to_array()?, array);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn buffer_from_array(&self, array: &Array, device: &Device) -> Result<Buffer> {
        let device = self.index(device)?;
        // SAFETY: an array's elements stay where they are and as they are while a clone of it lives.
        unsafe { self.upload(array.shape().clone(), array.as_bytes(), array.clone(), device) }
    }

    /// A buffer on `device` with the elements that stand in `memory`, in row-major order and this machine's byte
    /// order. Their number of bytes must be the shape's.
    ///
    /// On CPU the buffer reads them in place where they start at a multiple of 64 bytes, so that a mapped file
    /// is not copied. The memory is let go when neither the buffer nor a running program needs it.
    ///
    /// # Errors
    /// Where the number of bytes is not the shape's, a pred is neither 0 nor 1, or the device is not this client's or has no room.
    ///
    /// ```
    /// use xlann::{Array, DType, Session, Shape};
    /// use std::sync::Arc;
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let client = session.client();
    ///     let memory = Arc::new(vec![1u8, 2, 3]);
    ///     let buffer = client.buffer_from_host(Shape::new(DType::U8, [3]), memory, &client.devices()[0])?;
    ///     assert_eq!(buffer.to_array()?, Array::new([3], &[1u8, 2, 3])?);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn buffer_from_host(&self, shape: Shape, memory: HostMemory, device: &Device) -> Result<Buffer> {
        let device = self.index(device)?;
        let bytes = (*memory).as_ref();
        let expected = shape.checked_byte_count("buffer")?;
        if bytes.len() != expected {
            let expected = format!("{expected} bytes for {shape}");
            return Err(Error::argument("buffer", "memory", expected, format!("{} bytes", bytes.len())));
        }
        check_preds("buffer", &shape, bytes)?;
        // SAFETY: the bytes are borrowed from what `memory` holds, and stay so while a clone of it lives: to
        // change or move them, its owner would need exclusive access, which nothing has while it is shared.
        unsafe { self.upload(shape, bytes, memory.clone(), device) }
    }

    /// Makes a buffer; the plugin may read `bytes` in place until it drops `keep`.
    ///
    /// # Safety
    /// `bytes` must be the shape's elements, and stay unchanged while a clone of `keep` lives.
    unsafe fn upload<K: Clone + Send + 'static>(
        &self,
        shape: Shape,
        bytes: &[u8],
        keep: K,
        device: usize,
    ) -> Result<Buffer> {
        let args = with_slots(shape.rank(), 0i64, |dims| {
            for (slot, &dim) in dims.iter_mut().zip(shape.dims()) {
                *slot = dim as i64;
            }
            let mut args = PJRT_Client_BufferFromHostBuffer_Args {
                client: self.inner.raw,
                data: bytes.as_ptr().cast(),
                r#type: element_type(shape.dtype()),
                dims: dims.as_ptr(),
                num_dims: dims.len(),
                host_buffer_semantics: PJRT_HostBufferSemantics_kImmutableZeroCopy,
                device: self.inner.devices[device].raw,
                ..PJRT_Client_BufferFromHostBuffer_Args::new()
            };
            // SAFETY: client and device are alive, dims during the call, and the bytes until the event below.
            unsafe { self.api().call(&mut args).map(|()| args) }
        })?;
        // SAFETY: the event is new and ours.
        let done = unsafe { Event::new(self.api(), args.done_with_host_buffer) };
        // SAFETY: the buffer is new, ours, and on this device.
        let buffer = unsafe { Buffer::new(self.clone(), args.buffer, shape, device) };
        let kept = keep.clone();
        let registered = match done {
            Some(done) => done.on_ready(move |_| drop(kept)),
            None => Err(Error::Pjrt {
                call: PJRT_Client_BufferFromHostBuffer_Args::CALL,
                code: PjrtCode::Internal,
                message: "no event tells when the host memory is no longer read".into(),
            }),
        };
        match registered {
            Ok(()) => Ok(buffer),
            Err(problem) => {
                // When the plugin stops reading is not known: the memory is never let go.
                std::mem::forget(keep);
                Err(problem)
            }
        }
    }

    /// Where the executables of this client come from.
    fn origin(&self, signature: Signature, program: Option<[u8; 32]>) -> Origin {
        let Inner { plugin, platform_name, platform_version, .. } = &*self.inner;
        let (platform_name, platform_version) = (platform_name.clone(), platform_version.clone());
        Origin { plugin: *plugin, platform_name, platform_version, signature, program }
    }

    /// Requires that each of the first devices has room for what is `uploaded` and for what is `made` of it there, in
    /// bytes, as far as that is known. In host memory, what is uploaded may be read where it is.
    pub(crate) fn check_room(
        &self,
        name: &str,
        devices: usize,
        uploaded: u64,
        made: u64,
        read_in_place: bool,
    ) -> Result<()> {
        if self.is_in_host_memory() {
            let of_all = |bytes: u64| bytes.saturating_mul(devices as u64);
            return match read_in_place {
                true => memory::check_upload(name, of_all(made), of_all(uploaded)),
                false => memory::check_upload(name, of_all(made.saturating_add(uploaded)), 0),
            };
        }
        let needed = uploaded.saturating_add(made);
        self.devices().iter().take(devices).try_for_each(|device| memory::check_device(name, device, needed))
    }

    /// The position of a device among this client's.
    fn index(&self, device: &Device) -> Result<usize> {
        self.device_index(device.raw)
            .ok_or_else(|| Error::argument("buffer", "device", "one of this client's", &device.debug_string))
    }

    pub(super) fn device_index(&self, device: *mut PJRT_Device) -> Option<usize> {
        self.inner.devices.iter().position(|known| known.raw == device)
    }

    /// Whether the devices' memory is that of the host: then no plugin counts it.
    pub(super) fn is_in_host_memory(&self) -> bool {
        self.devices().iter().all(|device| device.memory_stats().is_err())
    }

    pub(super) fn api(&self) -> &'static Api {
        self.inner.plugin.api()
    }

    /// What is held while a program is handed to several devices.
    pub(super) fn launch(&self) -> MutexGuard<'_, ()> {
        self.inner.launch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Fills in what the plugin says of the client.
    fn describe(&mut self) -> Result<()> {
        let (client, api) = (self.raw, self.plugin.api());
        let mut name = PJRT_Client_PlatformName_Args { client, ..PJRT_Client_PlatformName_Args::new() };
        // SAFETY: the client is alive, and the text as long as it.
        self.platform_name = unsafe {
            api.call(&mut name)?;
            text(name.platform_name, name.platform_name_size)
        };
        let mut version =
            PJRT_Client_PlatformVersion_Args { client, ..PJRT_Client_PlatformVersion_Args::new() };
        // SAFETY: as above.
        self.platform_version = unsafe {
            api.call(&mut version)?;
            text(version.platform_version, version.platform_version_size)
        };
        let mut devices =
            PJRT_Client_AddressableDevices_Args { client, ..PJRT_Client_AddressableDevices_Args::new() };
        // SAFETY: the client is alive, and the list as long as it.
        let devices = unsafe {
            api.call(&mut devices)?;
            slice(devices.addressable_devices, devices.num_addressable_devices)
        };
        // SAFETY: the devices are this client's, which outlives them.
        self.devices =
            devices.iter().map(|&raw| unsafe { Device::new(api, raw) }).collect::<Result<Vec<_>>>()?;
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let remains =
            Remains { api: self.plugin.api(), raw: self.raw, cache: std::mem::take(&mut self.cache) };
        if in_callback() {
            // A client waits for its threads to end, of which this is one. Without a new thread it is left.
            let _ = std::thread::Builder::new().spawn(move || remains.destroy());
        } else {
            remains.destroy();
        }
    }
}

/// What is left of a client that nothing holds any more.
struct Remains {
    api: &'static Api,
    raw: *mut PJRT_Client,
    cache: Cache,
}

// SAFETY: PJRT clients and executables may be destroyed on any thread.
unsafe impl Send for Remains {}

impl Remains {
    fn destroy(self) {
        // Executables go before their client.
        drop(self.cache);
        let mut args = PJRT_Client_Destroy_Args { client: self.raw, ..PJRT_Client_Destroy_Args::new() };
        // SAFETY: buffers and executables hold the client, so that none is left. A failure leaves nothing to do.
        let _ = unsafe { self.api.call(&mut args) };
    }
}

impl PartialEq for Client {
    /// Whether they are the same client.
    fn eq(&self, other: &Client) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Client {}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("platform_name", &self.platform_name())
            .field("devices", &self.devices())
            .field("plugin", &self.plugin())
            .finish_non_exhaustive()
    }
}

/// One device of a client.
///
/// ```
/// use xlann::Session;
///
/// if let Ok(session) = Session::cpu() {
///     for device in session.client().devices() {
///         println!("{} {} {device:?}", device.id(), device.kind());
///     }
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
pub struct Device {
    api: &'static Api,
    raw: *mut PJRT_Device,
    id: i32,
    local_hardware_id: i32,
    kind: String,
    debug_string: String,
}

// SAFETY: PJRT devices may be used from any thread.
unsafe impl Send for Device {}
// SAFETY: PJRT devices may be used from several threads at once.
unsafe impl Sync for Device {}

impl Device {
    /// # Safety
    /// `raw` must be a device of a client that outlives the result.
    unsafe fn new(api: &'static Api, raw: *mut PJRT_Device) -> Result<Device> {
        let mut hardware =
            PJRT_Device_LocalHardwareId_Args { device: raw, ..PJRT_Device_LocalHardwareId_Args::new() };
        let mut description =
            PJRT_Device_GetDescription_Args { device: raw, ..PJRT_Device_GetDescription_Args::new() };
        // SAFETY: the device is alive.
        unsafe {
            api.call(&mut hardware)?;
            api.call(&mut description)?;
        }
        let device_description = description.device_description;
        let mut id =
            PJRT_DeviceDescription_Id_Args { device_description, ..PJRT_DeviceDescription_Id_Args::new() };
        let mut debug = PJRT_DeviceDescription_DebugString_Args {
            device_description,
            ..PJRT_DeviceDescription_DebugString_Args::new()
        };
        // SAFETY: the description and its texts live as long as the device.
        unsafe {
            api.call(&mut id)?;
            api.call(&mut debug)?;
            Ok(Device {
                api,
                raw,
                id: id.id,
                local_hardware_id: hardware.local_hardware_id,
                kind: device_kind(api, device_description)?,
                debug_string: text(debug.debug_string, debug.debug_string_size),
            })
        }
    }

    /// Its number, unique among all devices of all processes.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// The number of its hardware on this machine; -1 where there is none.
    pub fn local_hardware_id(&self) -> i32 {
        self.local_hardware_id
    }

    /// What it is, such as `cpu`, `TPU v5e` or `NVIDIA H100 80GB HBM3`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The plugin's description of it.
    pub fn debug_string(&self) -> &str {
        &self.debug_string
    }

    /// How much of its memory is in use.
    ///
    /// # Errors
    /// Where the plugin does not count, as on CPU.
    pub fn memory_stats(&self) -> Result<MemoryStats> {
        let mut args =
            PJRT_Device_MemoryStats_Args { device: self.raw, ..PJRT_Device_MemoryStats_Args::new() };
        // SAFETY: the device is alive.
        unsafe { self.api.call(&mut args)? };
        Ok(MemoryStats {
            bytes_in_use: args.bytes_in_use,
            peak_bytes_in_use: args.peak_bytes_in_use_is_set.then_some(args.peak_bytes_in_use),
            bytes_limit: args.bytes_limit_is_set.then_some(args.bytes_limit),
            largest_free_block_bytes: args
                .largest_free_block_bytes_is_set
                .then_some(args.largest_free_block_bytes),
        })
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.debug_string)
    }
}

/// What a described device is.
///
/// # Safety
/// The description must be of something that is alive.
pub(super) unsafe fn device_kind(
    api: &'static Api,
    device_description: *mut PJRT_DeviceDescription,
) -> Result<String> {
    let mut args =
        PJRT_DeviceDescription_Kind_Args { device_description, ..PJRT_DeviceDescription_Kind_Args::new() };
    // SAFETY: the description is alive, and the text as long as it.
    unsafe {
        api.call(&mut args)?;
        Ok(text(args.device_kind, args.device_kind_size))
    }
}

/// How much of a device's memory is in use, in bytes; `None` where the plugin does not count it.
///
/// ```
/// use xlann::Session;
///
/// if let Ok(session) = Session::cpu() {
///     match session.client().devices()[0].memory_stats() {
///         Ok(stats) => println!("{} bytes of {:?} are in use", stats.bytes_in_use, stats.bytes_limit),
///         Err(error) => println!("not counted: {error}"),
///     }
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Allocated now.
    pub bytes_in_use: i64,
    /// The most that was ever allocated.
    pub peak_bytes_in_use: Option<i64>,
    /// What can be allocated at most.
    pub bytes_limit: Option<i64>,
    /// The largest allocation that can succeed now.
    pub largest_free_block_bytes: Option<i64>,
}
