//! Buffers: tensors in a device's memory.
#![allow(unsafe_code)]

use std::ffi::c_void;

use super::abi::*;
use super::api::{slice, with_slots};
use super::client::{Client, Device};
use super::event::Event;
use crate::{Array, Error, PjrtCode, Result, Shape};

/// A tensor in a device's memory, freed when it is dropped.
///
/// It may still be being computed: an error of the program that computes it shows when it is read.
///
/// ```
/// use xlann::{Array, DType, Function, Session, Shape};
///
/// if let Ok(session) = Session::cpu() {
///     let f = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
///     let double = session.compile(&f)?;
///     let client = session.client();
///     let x = client.buffer_from_array(&Array::new([3], &[1f32, 2.0, 3.0])?, &client.devices()[0])?;
///     // Intermediate results stay on the device.
///     let twice = double.run(&[&x])?;
///     let four_times = double.run(&[&twice[0]])?;
///     assert_eq!(four_times[0].to_array()?, Array::new([3], &[4f32, 8.0, 12.0])?);
///     assert_eq!(four_times[0].shape(), x.shape());
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
pub struct Buffer {
    raw: *mut PJRT_Buffer,
    shape: Shape,
    device: usize,
    client: Client,
}

// SAFETY: PJRT buffers may be used from any thread.
unsafe impl Send for Buffer {}
// SAFETY: PJRT buffers may be used from several threads at once; that includes their deletion.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// # Safety
    /// `raw` must be a buffer of the client's, of this shape and on the device at this position, that nothing
    /// else destroys; the shape's size must have been checked.
    pub(super) unsafe fn new(client: Client, raw: *mut PJRT_Buffer, shape: Shape, device: usize) -> Buffer {
        Buffer { raw, shape, device, client }
    }

    /// Its dtype and dimensions.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The device that it is on.
    pub fn device(&self) -> &Device {
        &self.client.devices()[self.device]
    }

    /// The client that it was made with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until it is computed, and copies it into an array.
    ///
    /// # Errors
    /// That of the program that should have computed it, or that it is deleted.
    pub fn to_array(&self) -> Result<Array> {
        Array::try_filled(self.shape.clone(), |bytes| self.to_host(bytes))
    }

    /// Waits until it is computed, and copies its elements in row-major order into `target`.
    ///
    /// # Errors
    /// Where `target` is not of the shape's number of bytes; else as [`to_array`](Buffer::to_array).
    ///
    /// ```
    /// use xlann::{Array, Session};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let client = session.client();
    ///     let buffer = client.buffer_from_array(&Array::scalar(7u8), &client.devices()[0])?;
    ///     let mut bytes = [0];
    ///     buffer.to_host(&mut bytes)?;
    ///     assert_eq!(bytes, [7]);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn to_host(&self, target: &mut [u8]) -> Result<()> {
        let expected = self.shape.byte_count();
        if target.len() != expected {
            let expected = format!("{expected} bytes for {}", self.shape);
            return Err(Error::argument("buffer", "target", expected, format!("{} bytes", target.len())));
        }
        if self.copy_in_place(target)? {
            return Ok(());
        }
        with_slots(self.shape.rank(), 0i64, |minor_to_major| {
            for (slot, axis) in minor_to_major.iter_mut().zip((0..self.shape.rank() as i64).rev()) {
                *slot = axis;
            }
            let mut layout = PJRT_Buffer_MemoryLayout {
                tiled: PJRT_Buffer_MemoryLayout_Tiled {
                    minor_to_major: minor_to_major.as_ptr(),
                    minor_to_major_size: minor_to_major.len(),
                    ..PJRT_Buffer_MemoryLayout_Tiled::new()
                },
                r#type: PJRT_Buffer_MemoryLayout_Type_Tiled,
                ..PJRT_Buffer_MemoryLayout::new()
            };
            let mut args = PJRT_Buffer_ToHostBuffer_Args {
                src: self.raw,
                host_layout: &mut layout,
                dst: target.as_mut_ptr().cast::<c_void>(),
                dst_size: target.len(),
                ..PJRT_Buffer_ToHostBuffer_Args::new()
            };
            // SAFETY: the buffer is alive, the layout during the call; the target is as large as the elements
            // and borrowed until the event below is ready.
            let copied = unsafe {
                self.client.api().call(&mut args)?;
                Event::new(self.client.api(), args.event)
            };
            copied.map_or(Ok(()), |copied| copied.wait())
        })
    }

    /// Copies the elements, where they stand in row-major order in host memory, without a detour through the
    /// plugin's threads, which is most of the time that a small buffer takes; else returns false.
    fn copy_in_place(&self, target: &mut [u8]) -> Result<bool> {
        let (api, buffer) = (self.client.api(), self.raw);
        let mut on_cpu = PJRT_Buffer_IsOnCpu_Args { buffer, ..PJRT_Buffer_IsOnCpu_Args::new() };
        // SAFETY: the buffer is alive.
        let known = unsafe { api.call(&mut on_cpu) };
        if known.is_err() || !on_cpu.is_on_cpu {
            return Ok(false);
        }
        self.ready()?.wait()?;
        if !self.is_row_major() {
            return Ok(false);
        }
        let mut increase = PJRT_Buffer_IncreaseExternalReferenceCount_Args {
            buffer,
            ..PJRT_Buffer_IncreaseExternalReferenceCount_Args::new()
        };
        // SAFETY: the buffer is alive.
        if unsafe { api.call(&mut increase) }.is_err() {
            return Ok(false);
        }
        let mut pointer = PJRT_Buffer_OpaqueDeviceMemoryDataPointer_Args {
            buffer,
            ..PJRT_Buffer_OpaqueDeviceMemoryDataPointer_Args::new()
        };
        // SAFETY: the buffer is alive.
        let pointed = unsafe { api.call(&mut pointer) };
        let copied = pointed.is_ok() && (target.is_empty() || !pointer.device_memory_ptr.is_null());
        if copied && !target.is_empty() {
            let source = pointer.device_memory_ptr.cast_const().cast::<u8>();
            // SAFETY: the buffer is computed, holds as many bytes as the target, which `to_host` checked, and is
            // not freed, by another thread's delete, while the external reference is held.
            unsafe { std::ptr::copy_nonoverlapping(source, target.as_mut_ptr(), target.len()) };
        }
        let mut decrease = PJRT_Buffer_DecreaseExternalReferenceCount_Args {
            buffer,
            ..PJRT_Buffer_DecreaseExternalReferenceCount_Args::new()
        };
        // SAFETY: the buffer is alive, and the reference is ours.
        unsafe { api.call(&mut decrease)? };
        Ok(copied)
    }

    /// Whether its elements are known to stand in row-major order, without tiles.
    fn is_row_major(&self) -> bool {
        let rank = self.shape.rank();
        if rank < 2 {
            return true;
        }
        let mut args =
            PJRT_Buffer_GetMemoryLayout_Args { buffer: self.raw, ..PJRT_Buffer_GetMemoryLayout_Args::new() };
        // SAFETY: the buffer is alive, and the layout as long as it.
        let minor_to_major = unsafe {
            if self.client.api().call(&mut args).is_err() {
                return false;
            }
            if args.layout.r#type != PJRT_Buffer_MemoryLayout_Type_Tiled || args.layout.tiled.num_tiles > 0 {
                return false;
            }
            slice(args.layout.tiled.minor_to_major, args.layout.tiled.minor_to_major_size)
        };
        minor_to_major.iter().copied().eq((0..rank as i64).rev())
    }

    /// Frees its memory now, or when no program needs it any more. Reading it or running a program with it is an
    /// error afterwards.
    ///
    /// # Errors
    /// Where the plugin refuses.
    ///
    /// ```
    /// use xlann::{Array, Session};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let client = session.client();
    ///     let buffer = client.buffer_from_array(&Array::scalar(7u8), &client.devices()[0])?;
    ///     buffer.delete()?;
    ///     assert!(buffer.is_deleted()?);
    ///     assert!(buffer.to_array().is_err());
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn delete(&self) -> Result<()> {
        let mut args = PJRT_Buffer_Delete_Args { buffer: self.raw, ..PJRT_Buffer_Delete_Args::new() };
        // SAFETY: the buffer is alive: deletion frees its memory, not itself.
        unsafe { self.client.api().call(&mut args) }
    }

    /// Whether it has been deleted.
    ///
    /// # Errors
    /// Where the plugin cannot tell.
    pub fn is_deleted(&self) -> Result<bool> {
        let mut args = PJRT_Buffer_IsDeleted_Args { buffer: self.raw, ..PJRT_Buffer_IsDeleted_Args::new() };
        // SAFETY: the buffer is alive.
        unsafe { self.client.api().call(&mut args)? };
        Ok(args.is_deleted)
    }

    /// The end of its computation.
    ///
    /// # Errors
    /// Where it is deleted.
    pub fn ready(&self) -> Result<Event> {
        let mut args = PJRT_Buffer_ReadyEvent_Args { buffer: self.raw, ..PJRT_Buffer_ReadyEvent_Args::new() };
        // SAFETY: the buffer is alive; the event is new and ours.
        let event = unsafe {
            self.client.api().call(&mut args)?;
            Event::new(self.client.api(), args.event)
        };
        event.ok_or_else(|| Error::Pjrt {
            call: PJRT_Buffer_ReadyEvent_Args::CALL,
            code: PjrtCode::Internal,
            message: "the plugin gave no event".into(),
        })
    }

    pub(super) fn raw(&self) -> *mut PJRT_Buffer {
        self.raw
    }

    pub(super) fn device_index(&self) -> usize {
        self.device
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut args = PJRT_Buffer_Destroy_Args { buffer: self.raw, ..PJRT_Buffer_Destroy_Args::new() };
        // SAFETY: the buffer is alive and ours. A failure to destroy it leaves nothing to be done.
        let _ = unsafe { self.client.api().call(&mut args) };
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} on {:?})", self.shape, self.device())
    }
}
