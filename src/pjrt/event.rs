//! Events: the end of something that a plugin does on its own time.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::abi::*;
use super::api::Api;
use crate::Result;

/// The end of an asynchronous operation, which may be an error.
///
/// ```
/// use xlann::{Array, Session};
/// use std::sync::mpsc;
///
/// if let Ok(session) = Session::cpu() {
///     let client = session.client();
///     let buffer = client.buffer_from_array(&Array::scalar(1f32), &client.devices()[0])?;
///     let ready = buffer.ready()?;
///     ready.wait()?;
///     assert!(ready.is_ready()?);
///
///     let (sender, receiver) = mpsc::channel();
///     buffer.ready()?.on_ready(move |outcome| sender.send(outcome).expect("it is waited for"))?;
///     receiver.recv().expect("called once")?;
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
pub struct Event {
    api: &'static Api,
    raw: *mut PJRT_Event,
}

// SAFETY: PJRT events may be used from any thread.
unsafe impl Send for Event {}
// SAFETY: PJRT events may be used from several threads at once.
unsafe impl Sync for Event {}

/// What is to be done when an event is ready.
type Callback = Box<dyn FnOnce(Result<()>) + Send>;

/// What a pending callback needs, on the heap until the plugin calls.
struct Pending {
    api: &'static Api,
    callback: Callback,
}

impl Event {
    /// An event that the plugin gave to the caller; null, which some functions give for work that is already
    /// done, makes none.
    ///
    /// # Safety
    /// `raw` must be null or an event of this plugin that nothing else destroys.
    pub(super) unsafe fn new(api: &'static Api, raw: *mut PJRT_Event) -> Option<Event> {
        (!raw.is_null()).then_some(Event { api, raw })
    }

    /// Whether the operation has ended, well or with an error.
    ///
    /// # Errors
    /// Where the plugin cannot tell.
    pub fn is_ready(&self) -> Result<bool> {
        let mut args = PJRT_Event_IsReady_Args { event: self.raw, ..PJRT_Event_IsReady_Args::new() };
        // SAFETY: the event is alive.
        unsafe { self.api.call(&mut args)? };
        Ok(args.is_ready)
    }

    /// Blocks until the operation has ended.
    ///
    /// # Errors
    /// The operation's own.
    pub fn wait(&self) -> Result<()> {
        let mut args = PJRT_Event_Await_Args { event: self.raw, ..PJRT_Event_Await_Args::new() };
        // SAFETY: the event is alive.
        unsafe { self.api.call(&mut args) }
    }

    /// Calls `callback` once with the operation's outcome, on this thread where it has ended already, else on
    /// one of the plugin's, which it must not block. A panic in it is caught and goes no further.
    ///
    /// It takes the event, since an event must not be destroyed within its own callback.
    ///
    /// # Errors
    /// Where the plugin refuses; the callback is then dropped uncalled.
    pub fn on_ready(self, callback: impl FnOnce(Result<()>) + Send + 'static) -> Result<()> {
        let pending = Box::into_raw(Box::new(Pending { api: self.api, callback: Box::new(callback) }));
        let mut args = PJRT_Event_OnReady_Args {
            event: self.raw,
            callback: Some(ready),
            user_arg: pending.cast(),
            ..PJRT_Event_OnReady_Args::new()
        };
        // SAFETY: the event is alive, and the pending callback is until `ready` takes it. The event may be
        // destroyed before then: it is a handle on the outcome, which the plugin keeps.
        let registered = unsafe { self.api.call(&mut args) };
        if registered.is_err() {
            // SAFETY: a refused callback is not called, so that the box is still ours.
            drop(unsafe { Box::from_raw(pending) });
        }
        registered
    }
}

/// Runs a pending callback.
///
/// # Safety
/// `pending` must come from [`Event::on_ready`], and `error` be null or an error that the callee owns.
unsafe extern "C" fn ready(error: *mut PJRT_Error, pending: *mut c_void) {
    // SAFETY: the plugin calls once, with the pointer that it was given.
    let Pending { api, callback } = *unsafe { Box::from_raw(pending.cast::<Pending>()) };
    let outcome = if error.is_null() {
        Ok(())
    } else {
        // SAFETY: the plugin gives the error to its callback.
        Err(unsafe { api.error("PJRT_Event_OnReady", error) })
    };
    IN_CALLBACK.set(true);
    // Unwinding must not reach the plugin's frames.
    let _ = catch_unwind(AssertUnwindSafe(|| callback(outcome)));
    IN_CALLBACK.set(false);
}

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is the plugin's and runs a callback, so that it must not wait for the plugin.
pub(super) fn in_callback() -> bool {
    IN_CALLBACK.get()
}

impl Drop for Event {
    fn drop(&mut self) {
        let mut args = PJRT_Event_Destroy_Args { event: self.raw, ..PJRT_Event_Destroy_Args::new() };
        // SAFETY: the event is alive and ours. A failure to destroy it leaves nothing to be done.
        let _ = unsafe { self.api.call(&mut args) };
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event").field("is_ready", &self.is_ready().ok()).finish()
    }
}
