//! The one path by which functions of a plugin are called.
#![allow(unsafe_code, non_upper_case_globals)]

use std::ffi::{c_char, c_int};

use super::abi::*;
use crate::{DType, Error, PjrtCode, Result};

/// A plugin's table of functions; functions that the plugin's own table does not reach are null.
pub(super) struct Api {
    table: PJRT_Api,
}

// SAFETY: the table is never written; the functions that it points to may be called from any thread, which is
// what PJRT promises of them, and the extension chain is constant.
unsafe impl Send for Api {}
// SAFETY: as for Send.
unsafe impl Sync for Api {}

impl Api {
    /// Copies a plugin's table, or says why it is of no use.
    ///
    /// # Safety
    /// `raw` must be null or what a plugin's `GetPjrtApi` returned, and the plugin must stay loaded for ever.
    pub unsafe fn new(raw: *const PJRT_Api) -> Result<Api, String> {
        if raw.is_null() {
            return Err("GetPjrtApi returned null".into());
        }
        // SAFETY: every version of the table starts with its size.
        let size = unsafe { (&raw const (*raw).struct_size).read() };
        let header = std::mem::offset_of!(PJRT_Api, PJRT_Error_Destroy);
        if size < header {
            return Err(format!("its function table must be of at least {header} bytes, got {size}"));
        }
        // SAFETY: zero bytes are null functions and pointers, and integers.
        let mut table: PJRT_Api = unsafe { std::mem::zeroed() };
        let copied = size.min(size_of::<PJRT_Api>());
        // SAFETY: the plugin's table is of `size` bytes, ours of at least `copied`.
        unsafe { std::ptr::copy_nonoverlapping(raw.cast::<u8>(), (&raw mut table).cast::<u8>(), copied) };
        let version = &table.pjrt_api_version;
        if version.major_version != MAJOR_VERSION || version.minor_version < OLDEST_MINOR_VERSION {
            return Err(format!(
                "its PJRT API must be {MAJOR_VERSION}.{OLDEST_MINOR_VERSION} or newer, of the same major \
                 version, got {}.{}",
                version.major_version, version.minor_version
            ));
        }
        let missing: Vec<_> = [
            ("PJRT_Error_Destroy", table.PJRT_Error_Destroy.is_none()),
            ("PJRT_Error_Message", table.PJRT_Error_Message.is_none()),
            ("PJRT_Error_GetCode", table.PJRT_Error_GetCode.is_none()),
            ("PJRT_Plugin_Initialize", table.PJRT_Plugin_Initialize.is_none()),
            ("PJRT_Client_Create", table.PJRT_Client_Create.is_none()),
            ("PJRT_Client_Destroy", table.PJRT_Client_Destroy.is_none()),
            ("PJRT_LoadedExecutable_Destroy", table.PJRT_LoadedExecutable_Destroy.is_none()),
            ("PJRT_Buffer_Destroy", table.PJRT_Buffer_Destroy.is_none()),
            ("PJRT_Event_Destroy", table.PJRT_Event_Destroy.is_none()),
            // Memory is lent to the plugin until it says that it is done.
            ("PJRT_Event_Await", table.PJRT_Event_Await.is_none()),
        ]
        .into_iter()
        .filter_map(|(name, missing)| missing.then_some(name))
        .collect();
        if !missing.is_empty() {
            return Err(format!("it lacks {}", missing.join(", ")));
        }
        Ok(Api { table })
    }

    /// The major and minor version that the plugin was built with.
    pub fn version(&self) -> (i32, i32) {
        (self.table.pjrt_api_version.major_version, self.table.pjrt_api_version.minor_version)
    }

    /// Calls the function that takes these arguments.
    ///
    /// # Errors
    /// What the plugin answers; [`PjrtCode::Unimplemented`] where it does not have the function.
    ///
    /// # Safety
    /// The pointers in `args` must be what the function asks for, and live as long as it asks for.
    pub unsafe fn call<A: Args>(&self, args: &mut A) -> Result<()> {
        // SAFETY: `Args` ties the function to its arguments; the caller answers for what they point to.
        unsafe { self.call_function(A::CALL, A::function(&self.table), args) }
    }

    /// As [`call`](Api::call), for a function that stands in an extension and not in the table.
    ///
    /// # Safety
    /// As [`call`](Api::call); `function` must be null or the plugin's.
    pub unsafe fn call_function<A>(
        &self,
        call: &'static str,
        function: Function<A>,
        args: &mut A,
    ) -> Result<()> {
        let Some(function) = function else {
            return Err(Error::Pjrt {
                call,
                code: PjrtCode::Unimplemented,
                message: "the plugin does not have this function".into(),
            });
        };
        // SAFETY: the caller's promise.
        let error = unsafe { function(args) };
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the function gave the error to us, and nothing else refers to it.
        Err(unsafe { self.error(call, error) })
    }

    /// Turns an error of the plugin's into this crate's and destroys it.
    ///
    /// # Safety
    /// `error` must be an error of this plugin that the caller owns; it must not be used afterwards.
    #[cold]
    pub unsafe fn error(&self, call: &'static str, error: *mut PJRT_Error) -> Error {
        let mut code = PJRT_Error_GetCode_Args { error, ..PJRT_Error_GetCode_Args::new() };
        if let Some(get_code) = self.table.PJRT_Error_GetCode {
            // SAFETY: the error is alive. Asking for its code does not fail.
            unsafe { get_code(&mut code) };
        }
        let mut message = PJRT_Error_Message_Args { error, ..PJRT_Error_Message_Args::new() };
        if let Some(get_message) = self.table.PJRT_Error_Message {
            // SAFETY: the error is alive.
            unsafe { get_message(&mut message) };
        }
        // SAFETY: the message lives as long as the error.
        let message = unsafe { text(message.message, message.message_size) };
        let mut destroy = PJRT_Error_Destroy_Args { error, ..PJRT_Error_Destroy_Args::new() };
        if let Some(destroy_error) = self.table.PJRT_Error_Destroy {
            // SAFETY: the caller owns the error, and the message has been copied.
            unsafe { destroy_error(&mut destroy) };
        }
        Error::Pjrt { call, code: code.code.into(), message }
    }

    /// The extensions of the plugin, as pointers to their bases, with their types.
    pub fn extensions(&self) -> Vec<(c_int, *const PJRT_Extension_Base)> {
        let mut extensions = Vec::new();
        let mut next = self.table.extension_start.cast_const();
        while !next.is_null() {
            // SAFETY: the chain is the plugin's, constant, and ends with null; each link starts with a base.
            let base = unsafe { &*next };
            extensions.push((base.r#type, next));
            next = base.next.cast_const();
        }
        extensions
    }
}

/// Copies a plugin's string.
///
/// # Safety
/// `start` must be null or point to `size` readable bytes.
pub(super) unsafe fn text(start: *const c_char, size: usize) -> String {
    // SAFETY: the caller's promise.
    String::from_utf8_lossy(unsafe { slice(start.cast(), size) }).into_owned()
}

/// A plugin's array, which may be null where it is empty.
///
/// # Safety
/// `start` must be null or point to `count` values that stay unchanged for `'a`.
pub(super) unsafe fn slice<'a, T>(start: *const T, count: usize) -> &'a [T] {
    if start.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(start, count) }
}

/// The value of an option, an attribute or a property.
///
/// ```
/// use xlann::pjrt::Value;
/// assert_eq!(Value::IntList(vec![1, 2]).to_string(), "[1, 2]");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Text.
    String(String),
    /// An integer.
    Int(i64),
    /// A list of integers.
    IntList(Vec<i64>),
    /// A number.
    Float(f32),
    /// A truth value.
    Bool(bool),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::String(value) => f.write_str(value),
            Value::Int(value) => write!(f, "{value}"),
            Value::IntList(values) => write!(f, "{values:?}"),
            Value::Float(value) => write!(f, "{value}"),
            Value::Bool(value) => write!(f, "{value}"),
        }
    }
}

/// Copies named values; values of types that this crate does not know are left out.
///
/// # Safety
/// `start` must be null or point to `count` valid named values.
pub(super) unsafe fn read_named_values(start: *const PJRT_NamedValue, count: usize) -> Vec<(String, Value)> {
    // SAFETY: the caller's promise.
    let values = unsafe { slice(start, count) };
    let read = |value: &PJRT_NamedValue| {
        // SAFETY: the type says which member of the union is set; pointers are to `value_size` values.
        let data = unsafe {
            match value.r#type {
                PJRT_NamedValue_kString => Value::String(text(value.value.string_value, value.value_size)),
                PJRT_NamedValue_kInt64 => Value::Int(value.value.int64_value),
                PJRT_NamedValue_kInt64List => {
                    Value::IntList(slice(value.value.int64_array_value, value.value_size).to_vec())
                }
                PJRT_NamedValue_kFloat => Value::Float(value.value.float_value),
                PJRT_NamedValue_kBool => Value::Bool(value.value.bool_value),
                _ => return None,
            }
        };
        // SAFETY: the name is of `name_size` bytes.
        Some((unsafe { text(value.name, value.name_size) }, data))
    };
    values.iter().filter_map(read).collect()
}

/// Named values that point into `values`, which must outlive their use.
pub(super) fn write_named_values(values: &[(&str, Value)]) -> Vec<PJRT_NamedValue> {
    let write = |(name, value): &(&str, Value)| {
        let (r#type, data, value_size) = match value {
            Value::String(text) => {
                (PJRT_NamedValue_kString, NamedValueUnion { string_value: text.as_ptr().cast() }, text.len())
            }
            Value::Int(number) => (PJRT_NamedValue_kInt64, NamedValueUnion { int64_value: *number }, 1),
            Value::IntList(list) => {
                let data = NamedValueUnion { int64_array_value: list.as_ptr() };
                (PJRT_NamedValue_kInt64List, data, list.len())
            }
            Value::Float(number) => (PJRT_NamedValue_kFloat, NamedValueUnion { float_value: *number }, 1),
            Value::Bool(truth) => (PJRT_NamedValue_kBool, NamedValueUnion { bool_value: *truth }, 1),
        };
        PJRT_NamedValue {
            name: name.as_ptr().cast(),
            name_size: name.len(),
            r#type,
            value: data,
            value_size,
            ..PJRT_NamedValue::new()
        }
    };
    values.iter().map(write).collect()
}

/// PJRT's number of a dtype.
pub(super) fn element_type(dtype: DType) -> c_int {
    match dtype {
        DType::Pred => PJRT_Buffer_Type_PRED,
        DType::S8 => PJRT_Buffer_Type_S8,
        DType::S16 => PJRT_Buffer_Type_S16,
        DType::S32 => PJRT_Buffer_Type_S32,
        DType::S64 => PJRT_Buffer_Type_S64,
        DType::U8 => PJRT_Buffer_Type_U8,
        DType::U16 => PJRT_Buffer_Type_U16,
        DType::U32 => PJRT_Buffer_Type_U32,
        DType::U64 => PJRT_Buffer_Type_U64,
        DType::F16 => PJRT_Buffer_Type_F16,
        DType::BF16 => PJRT_Buffer_Type_BF16,
        DType::F32 => PJRT_Buffer_Type_F32,
        DType::F64 => PJRT_Buffer_Type_F64,
    }
}

/// The dtype of PJRT's number, where it is one of this crate's.
pub(super) fn dtype_of(number: c_int) -> Option<DType> {
    DType::ALL.into_iter().find(|&dtype| element_type(dtype) == number)
}

/// Passes `count` slots that hold `value` to `use_slots`; few of them cost no allocation.
pub(super) fn with_slots<T: Copy, R>(count: usize, value: T, use_slots: impl FnOnce(&mut [T]) -> R) -> R {
    const FEW: usize = 16;
    if count <= FEW { use_slots(&mut [value; FEW][..count]) } else { use_slots(&mut vec![value; count]) }
}
