//! Custom calls: functions of this process that compiled programs call by name.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::PoisonError;

use super::Plugin;
use super::abi::*;
use crate::{Error, PjrtCode, Result};

impl Plugin {
    /// Whether custom calls can be registered with the plugin.
    ///
    /// ```
    /// use xlann::Session;
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     println!("custom calls: {}", session.client().plugin().has_ffi());
    /// }
    /// ```
    pub fn has_ffi(&self) -> bool {
        self.ffi().is_some()
    }

    /// Registers `handler` as the custom call `name`, for programs that are compiled after it; once, where it is asked
    /// for again.
    ///
    /// `platform` is the name by which the plugin's FFI knows its devices: `Host` for CPU, `CUDA` for NVIDIA.
    ///
    /// # Errors
    /// Where the plugin has no FFI extension, or refuses the registration, as of a name that is taken.
    ///
    /// # Safety
    /// `handler` must be a function `XLA_FFI_Error* (XLA_FFI_CallFrame*)` that keeps to the rules of XLA's FFI,
    /// answers the call for its metadata, may be called from any thread, and stays loaded for ever.
    ///
    /// ```no_run
    /// use xlann::Session;
    ///
    /// # fn my_kernel() -> *mut std::ffi::c_void { std::ptr::null_mut() }
    /// let plugin = Session::cpu()?.client().plugin();
    /// // A handler that is linked into this program, written in C against XLA's FFI.
    /// let handler: *mut std::ffi::c_void = my_kernel();
    /// // SAFETY: it keeps to the rules of the FFI, and is a part of the program.
    /// unsafe { plugin.register_handler("my_kernel", handler, "Host")? };
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub unsafe fn register_handler(&self, name: &str, handler: *mut c_void, platform: &str) -> Result<()> {
        const CALL: &str = "PJRT_FFI_Register_Handler";
        let Some(extension) = self.ffi() else {
            return Err(Error::Pjrt {
                call: CALL,
                code: PjrtCode::Unimplemented,
                message: "the plugin has no FFI extension".into(),
            });
        };
        let registration = (name.to_owned(), platform.to_owned(), handler as usize);
        let mut registered = self.handlers().lock().unwrap_or_else(PoisonError::into_inner);
        if registered.contains(&registration) {
            return Ok(());
        }
        let mut args = PJRT_FFI_Register_Handler_Args {
            target_name: name.as_ptr().cast(),
            target_name_size: name.len(),
            handler,
            platform_name: platform.as_ptr().cast(),
            platform_name_size: platform.len(),
            ..PJRT_FFI_Register_Handler_Args::new()
        };
        // SAFETY: the function is the plugin's own, it copies the names, and the caller answers for the handler.
        unsafe { self.api().call_function(CALL, extension.register_handler, &mut args)? };
        registered.push(registration);
        Ok(())
    }

    /// The FFI extension, where it is there and reaches as far as it is used.
    fn ffi(&self) -> Option<&'static PJRT_FFI_Extension> {
        let (_, base) =
            self.api().extensions().into_iter().find(|&(r#type, _)| r#type == PJRT_Extension_Type_FFI)?;
        // SAFETY: a link of the extension chain, which is constant and stays loaded.
        let size = unsafe { (*base).struct_size };
        // SAFETY: an extension of this type and of at least this size has this layout.
        (size >= size_of::<PJRT_FFI_Extension>()).then(|| unsafe { &*base.cast::<PJRT_FFI_Extension>() })
    }
}
