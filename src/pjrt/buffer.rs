//! Buffers: tensors in a device's memory.
#![allow(unsafe_code)]

use std::ffi::c_void;

use super::abi::*;
use super::api::with_slots;
use super::client::{Client, Device};
use super::event::Event;
use crate::{Array, Error, PjrtCode, Result, Shape};

/// A tensor in a device's memory, freed when it is dropped.
///
/// It may still be being computed: an error of the program that computes it shows when it is read.
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
    pub fn to_host(&self, target: &mut [u8]) -> Result<()> {
        let expected = self.shape.byte_count();
        if target.len() != expected {
            let expected = format!("{expected} bytes for {}", self.shape);
            return Err(Error::argument("buffer", "target", expected, format!("{} bytes", target.len())));
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

    /// Frees its memory now, or when no program needs it any more. Reading it or running a program with it is an
    /// error afterwards.
    ///
    /// # Errors
    /// Where the plugin refuses.
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
