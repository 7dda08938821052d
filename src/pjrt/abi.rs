//! The part of the PJRT C API that this crate uses, declared after `pjrt_c_api.h`.
//!
//! Structs are declared with every field that the newest known version of the header (0.114) gives them:
//! a plugin refuses an argument struct that is smaller than the one it was built with, and ignores what lies
//! past the end that it knows. `tests/abi.rs` compares all of it with an official header.
#![allow(unsafe_code, non_camel_case_types, non_snake_case, non_upper_case_globals)]

use std::ffi::{c_char, c_int, c_void};

/// The major version that these declarations are of.
pub(super) const MAJOR_VERSION: i32 = 0;

/// The oldest minor version that is seen to work. Plugins of 0.81 do not heed the layout that is asked for when a
/// buffer is copied to the host, and give wrong results without an error.
pub(super) const OLDEST_MINOR_VERSION: i32 = 106;

/// Defines types that only the plugin looks into.
macro_rules! opaque {
    ($($name:ident),* $(,)?) => {$(
        #[repr(C)]
        pub(super) struct $name {
            opaque: [u8; 0],
        }
    )*};
}

opaque! {
    PJRT_Error, PJRT_Event, PJRT_Client, PJRT_Device, PJRT_DeviceDescription, PJRT_Memory, PJRT_Executable,
    PJRT_LoadedExecutable, PJRT_Buffer, PJRT_SerializedExecutable, PJRT_ExecuteContext,
    PJRT_TopologyDescription,
}

/// A struct whose first field is its size.
///
/// # Safety
/// The layout must be that of the C header, and zero bytes must be a value of every field.
pub(super) unsafe trait Struct: Sized {
    /// The offset of the end of the last field, which is what the header calls the struct's size.
    const STRUCT_SIZE: usize;

    /// The value with `struct_size` filled in and every other field zero.
    fn new() -> Self;
}

/// The arguments of one function of the API.
///
/// # Safety
/// `function` must be the entry that takes these arguments.
pub(super) unsafe trait Args: Struct {
    /// The function's name in the header.
    const CALL: &'static str;

    /// The plugin's entry for it.
    fn function(table: &PJRT_Api) -> Function<Self>;
}

/// An entry of the API: null where the plugin does not have it, else a function that returns null or an error.
pub(super) type Function<A> = Option<unsafe extern "C" fn(*mut A) -> *mut PJRT_Error>;

/// An entry of the API that this crate does not use.
pub(super) type Unused = *const c_void;

/// Defines structs that start with `struct_size` and, unless it is left out in the header, `extension_start`.
macro_rules! structs {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        #[repr(C)]
        pub(super) struct $name {
            pub struct_size: usize,
            $(pub $field: $type,)*
        }

        // SAFETY: `repr(C)` with the header's fields, which are integers, bools, and pointers or functions
        // that may be null.
        unsafe impl Struct for $name {
            const STRUCT_SIZE: usize = {
                let ends = [
                    size_of::<usize>(),
                    $(std::mem::offset_of!($name, $field) + size_of::<$type>(),)*
                ];
                ends[ends.len() - 1]
            };

            fn new() -> Self {
                // SAFETY: as the trait says, zero bytes are a value of every field.
                let zero: Self = unsafe { std::mem::zeroed() };
                Self { struct_size: Self::STRUCT_SIZE, ..zero }
            }
        }
    )*
        #[cfg(feature = "check-abi")]
        fn struct_layouts() -> Vec<StructLayout> {
            vec![$(StructLayout {
                name: stringify!($name),
                size: size_of::<$name>(),
                fields: vec![
                    ("struct_size", 0),
                    $((stringify!($field), std::mem::offset_of!($name, $field)),)*
                ],
            }),*]
        }
    };
}

/// Says which entry of the API takes which arguments.
macro_rules! calls {
    ($($function:ident($args:ident)),* $(,)?) => {$(
        // SAFETY: the header declares the function with these arguments.
        unsafe impl Args for $args {
            const CALL: &'static str = stringify!($function);

            fn function(table: &PJRT_Api) -> Function<Self> {
                table.$function
            }
        }
    )*};
}

pub(super) type Extensions = *mut PJRT_Extension_Base;
pub(super) type PJRT_Event_OnReadyCallback = Option<unsafe extern "C" fn(*mut PJRT_Error, *mut c_void)>;
pub(super) type SerializedExecutableDeleter = Option<unsafe extern "C" fn(*mut PJRT_SerializedExecutable)>;

structs! {
    PJRT_Extension_Base { r#type: c_int, next: Extensions }
    PJRT_Api_Version { extension_start: Extensions, major_version: c_int, minor_version: c_int }
    PJRT_NamedValue {
        extension_start: Extensions, name: *const c_char, name_size: usize, r#type: c_int,
        value: NamedValueUnion, value_size: usize,
    }
    PJRT_Program {
        extension_start: Extensions, code: *mut c_char, code_size: usize, format: *const c_char,
        format_size: usize,
    }
    PJRT_ExecuteOptions {
        extension_start: Extensions, send_callbacks: *mut c_void, recv_callbacks: *mut c_void,
        num_send_ops: usize, num_recv_ops: usize, launch_id: c_int,
        non_donatable_input_indices: *const i64, num_non_donatable_input_indices: usize,
        context: *mut PJRT_ExecuteContext, call_location: *const c_char, num_tasks: usize,
        task_ids: *mut c_int, incarnation_ids: *mut i64, multi_slice_config: *mut c_void,
        use_major_to_minor_data_layout_for_callbacks: bool, hlo_output_callbacks: *mut c_void,
        num_hlo_output_callbacks: usize,
    }
    PJRT_Buffer_MemoryLayout_Tiled {
        extension_start: Extensions, minor_to_major: *const i64, minor_to_major_size: usize,
        tile_dims: *const i64, tile_dim_sizes: *const usize, num_tiles: usize,
    }
    PJRT_Buffer_MemoryLayout {
        extension_start: Extensions, tiled: PJRT_Buffer_MemoryLayout_Tiled, r#type: c_int,
    }

    PJRT_Error_Destroy_Args { extension_start: Extensions, error: *mut PJRT_Error }
    PJRT_Error_Message_Args {
        extension_start: Extensions, error: *const PJRT_Error, message: *const c_char, message_size: usize,
    }
    PJRT_Error_GetCode_Args { extension_start: Extensions, error: *const PJRT_Error, code: c_int }

    PJRT_Plugin_Initialize_Args { extension_start: Extensions }
    PJRT_Plugin_Attributes_Args {
        extension_start: Extensions, attributes: *const PJRT_NamedValue, num_attributes: usize,
    }

    PJRT_Event_Destroy_Args { extension_start: Extensions, event: *mut PJRT_Event }
    PJRT_Event_IsReady_Args { extension_start: Extensions, event: *mut PJRT_Event, is_ready: bool }
    PJRT_Event_Await_Args { extension_start: Extensions, event: *mut PJRT_Event }
    PJRT_Event_OnReady_Args {
        extension_start: Extensions, event: *mut PJRT_Event, callback: PJRT_Event_OnReadyCallback,
        user_arg: *mut c_void,
    }

    PJRT_Client_Create_Args {
        extension_start: Extensions, create_options: *const PJRT_NamedValue, num_options: usize,
        kv_get_callback: Unused, kv_get_user_arg: *mut c_void, kv_put_callback: Unused,
        kv_put_user_arg: *mut c_void, client: *mut PJRT_Client, kv_try_get_callback: Unused,
        kv_try_get_user_arg: *mut c_void,
    }
    PJRT_Client_Destroy_Args { extension_start: Extensions, client: *mut PJRT_Client }
    PJRT_Client_PlatformName_Args {
        extension_start: Extensions, client: *mut PJRT_Client, platform_name: *const c_char,
        platform_name_size: usize,
    }
    PJRT_Client_PlatformVersion_Args {
        extension_start: Extensions, client: *mut PJRT_Client, platform_version: *const c_char,
        platform_version_size: usize,
    }
    PJRT_Client_AddressableDevices_Args {
        extension_start: Extensions, client: *mut PJRT_Client,
        addressable_devices: *const *mut PJRT_Device, num_addressable_devices: usize,
    }
    PJRT_Client_Compile_Args {
        extension_start: Extensions, client: *mut PJRT_Client, program: *const PJRT_Program,
        compile_options: *const c_char, compile_options_size: usize, executable: *mut PJRT_LoadedExecutable,
    }
    PJRT_Client_BufferFromHostBuffer_Args {
        extension_start: Extensions, client: *mut PJRT_Client, data: *const c_void, r#type: c_int,
        dims: *const i64, num_dims: usize, byte_strides: *const i64, num_byte_strides: usize,
        host_buffer_semantics: c_int, device: *mut PJRT_Device, memory: *mut PJRT_Memory,
        device_layout: *mut PJRT_Buffer_MemoryLayout, done_with_host_buffer: *mut PJRT_Event,
        buffer: *mut PJRT_Buffer,
    }

    PJRT_Device_GetDescription_Args {
        extension_start: Extensions, device: *mut PJRT_Device,
        device_description: *mut PJRT_DeviceDescription,
    }
    PJRT_Device_LocalHardwareId_Args {
        extension_start: Extensions, device: *mut PJRT_Device, local_hardware_id: c_int,
    }
    PJRT_Device_MemoryStats_Args {
        extension_start: Extensions, device: *mut PJRT_Device, bytes_in_use: i64, peak_bytes_in_use: i64,
        peak_bytes_in_use_is_set: bool, num_allocs: i64, num_allocs_is_set: bool, largest_alloc_size: i64,
        largest_alloc_size_is_set: bool, bytes_limit: i64, bytes_limit_is_set: bool, bytes_reserved: i64,
        bytes_reserved_is_set: bool, peak_bytes_reserved: i64, peak_bytes_reserved_is_set: bool,
        bytes_reservable_limit: i64, bytes_reservable_limit_is_set: bool, largest_free_block_bytes: i64,
        largest_free_block_bytes_is_set: bool, pool_bytes: i64, pool_bytes_is_set: bool,
        peak_pool_bytes: i64, peak_pool_bytes_is_set: bool, peak_allocated_bytes: i64,
        peak_allocated_bytes_is_set: bool,
    }
    PJRT_DeviceDescription_Id_Args {
        extension_start: Extensions, device_description: *mut PJRT_DeviceDescription, id: c_int,
    }
    PJRT_DeviceDescription_Kind_Args {
        extension_start: Extensions, device_description: *mut PJRT_DeviceDescription,
        device_kind: *const c_char, device_kind_size: usize,
    }
    PJRT_DeviceDescription_DebugString_Args {
        extension_start: Extensions, device_description: *mut PJRT_DeviceDescription,
        debug_string: *const c_char, debug_string_size: usize,
    }

    PJRT_Executable_Destroy_Args { extension_start: Extensions, executable: *mut PJRT_Executable }
    PJRT_Executable_NumPartitions_Args {
        extension_start: Extensions, executable: *mut PJRT_Executable, num_partitions: usize,
    }
    PJRT_Executable_NumOutputs_Args {
        extension_start: Extensions, executable: *mut PJRT_Executable, num_outputs: usize,
    }
    PJRT_Executable_OutputElementTypes_Args {
        extension_start: Extensions, executable: *mut PJRT_Executable, output_types: *const c_int,
        num_output_types: usize,
    }
    PJRT_Executable_OutputDimensions_Args {
        extension_start: Extensions, executable: *mut PJRT_Executable, num_outputs: usize,
        dims: *const i64, dim_sizes: *const usize,
    }
    PJRT_Executable_SizeOfGeneratedCodeInBytes_Args {
        extension_start: Extensions, executable: *mut PJRT_Executable, size_in_bytes: i64,
    }
    PJRT_Executable_GetCostAnalysis_Args {
        extension_start: Extensions, executable: *mut PJRT_Executable, num_properties: usize,
        properties: *const PJRT_NamedValue,
    }
    PJRT_Executable_GetCompiledMemoryStats_Args {
        extension_start: Extensions, executable: *mut PJRT_Executable, generated_code_size_in_bytes: i64,
        argument_size_in_bytes: i64, output_size_in_bytes: i64, alias_size_in_bytes: i64,
        temp_size_in_bytes: i64, host_generated_code_size_in_bytes: i64, host_argument_size_in_bytes: i64,
        host_output_size_in_bytes: i64, host_alias_size_in_bytes: i64, host_temp_size_in_bytes: i64,
        peak_memory_in_bytes: i64, total_size_in_bytes: i64, total_allocation_bytes: i64,
        indefinite_allocations: i64, peak_unpadded_heap_bytes: i64,
    }
    PJRT_Executable_OptimizedProgram_Args {
        extension_start: Extensions, executable: *mut PJRT_Executable, program: *mut PJRT_Program,
    }
    PJRT_Executable_Serialize_Args {
        extension_start: Extensions, executable: *const PJRT_Executable, serialized_bytes: *const c_char,
        serialized_bytes_size: usize, serialized_executable: *mut PJRT_SerializedExecutable,
        serialized_executable_deleter: SerializedExecutableDeleter,
    }
    PJRT_Executable_DeserializeAndLoad_Args {
        extension_start: Extensions, client: *mut PJRT_Client, serialized_executable: *const c_char,
        serialized_executable_size: usize, loaded_executable: *mut PJRT_LoadedExecutable,
        overridden_serialized_compile_options: *const c_char,
        overridden_serialized_compile_options_size: usize, load_options: *mut c_void,
    }
    PJRT_LoadedExecutable_Destroy_Args { extension_start: Extensions, executable: *mut PJRT_LoadedExecutable }
    PJRT_LoadedExecutable_GetExecutable_Args {
        extension_start: Extensions, loaded_executable: *mut PJRT_LoadedExecutable,
        executable: *mut PJRT_Executable,
    }
    PJRT_LoadedExecutable_AddressableDevices_Args {
        extension_start: Extensions, executable: *mut PJRT_LoadedExecutable,
        addressable_devices: *const *mut PJRT_Device, num_addressable_devices: usize,
    }
    PJRT_LoadedExecutable_Execute_Args {
        extension_start: Extensions, executable: *mut PJRT_LoadedExecutable,
        options: *mut PJRT_ExecuteOptions, argument_lists: *const *const *mut PJRT_Buffer,
        num_devices: usize, num_args: usize, output_lists: *const *mut *mut PJRT_Buffer,
        device_complete_events: *mut *mut PJRT_Event, execute_device: *mut PJRT_Device,
    }

    PJRT_Buffer_Destroy_Args { extension_start: Extensions, buffer: *mut PJRT_Buffer }
    PJRT_Buffer_Delete_Args { extension_start: Extensions, buffer: *mut PJRT_Buffer }
    PJRT_Buffer_IsDeleted_Args { extension_start: Extensions, buffer: *mut PJRT_Buffer, is_deleted: bool }
    PJRT_Buffer_ReadyEvent_Args {
        extension_start: Extensions, buffer: *mut PJRT_Buffer, event: *mut PJRT_Event,
    }
    PJRT_Buffer_ToHostBuffer_Args {
        extension_start: Extensions, src: *mut PJRT_Buffer, host_layout: *mut PJRT_Buffer_MemoryLayout,
        dst: *mut c_void, dst_size: usize, event: *mut PJRT_Event,
    }

    PJRT_Buffer_IsOnCpu_Args { extension_start: Extensions, buffer: *mut PJRT_Buffer, is_on_cpu: bool }
    PJRT_Buffer_GetMemoryLayout_Args {
        extension_start: Extensions, buffer: *mut PJRT_Buffer, layout: PJRT_Buffer_MemoryLayout,
    }
    PJRT_Buffer_IncreaseExternalReferenceCount_Args { extension_start: Extensions, buffer: *mut PJRT_Buffer }
    PJRT_Buffer_DecreaseExternalReferenceCount_Args { extension_start: Extensions, buffer: *mut PJRT_Buffer }
    PJRT_Buffer_OpaqueDeviceMemoryDataPointer_Args {
        extension_start: Extensions, buffer: *mut PJRT_Buffer, device_memory_ptr: *mut c_void,
    }

    PJRT_TopologyDescription_Create_Args {
        extension_start: Extensions, topology_name: *const c_char, topology_name_size: usize,
        create_options: *const PJRT_NamedValue, num_options: usize, topology: *mut PJRT_TopologyDescription,
    }
    PJRT_TopologyDescription_Destroy_Args {
        extension_start: Extensions, topology: *mut PJRT_TopologyDescription,
    }
    PJRT_TopologyDescription_PlatformName_Args {
        extension_start: Extensions, topology: *const PJRT_TopologyDescription, platform_name: *const c_char,
        platform_name_size: usize,
    }
    PJRT_TopologyDescription_PlatformVersion_Args {
        extension_start: Extensions, topology: *mut PJRT_TopologyDescription, platform_version: *const c_char,
        platform_version_size: usize,
    }
    PJRT_TopologyDescription_GetDeviceDescriptions_Args {
        extension_start: Extensions, topology: *const PJRT_TopologyDescription,
        descriptions: *const *mut PJRT_DeviceDescription, num_descriptions: usize,
    }
    PJRT_Compile_Args {
        extension_start: Extensions, topology: *const PJRT_TopologyDescription, program: *const PJRT_Program,
        compile_options: *const c_char, compile_options_size: usize, client: *mut PJRT_Client,
        executable: *mut PJRT_Executable,
    }

    PJRT_FFI_Register_Handler_Args {
        target_name: *const c_char, target_name_size: usize, handler: *mut c_void,
        platform_name: *const c_char, platform_name_size: usize, traits: u32,
    }
}

calls! {
    PJRT_Error_GetCode(PJRT_Error_GetCode_Args),
    PJRT_Plugin_Initialize(PJRT_Plugin_Initialize_Args),
    PJRT_Plugin_Attributes(PJRT_Plugin_Attributes_Args),
    PJRT_Event_Destroy(PJRT_Event_Destroy_Args),
    PJRT_Event_IsReady(PJRT_Event_IsReady_Args),
    PJRT_Event_Await(PJRT_Event_Await_Args),
    PJRT_Event_OnReady(PJRT_Event_OnReady_Args),
    PJRT_Client_Create(PJRT_Client_Create_Args),
    PJRT_Client_Destroy(PJRT_Client_Destroy_Args),
    PJRT_Client_PlatformName(PJRT_Client_PlatformName_Args),
    PJRT_Client_PlatformVersion(PJRT_Client_PlatformVersion_Args),
    PJRT_Client_AddressableDevices(PJRT_Client_AddressableDevices_Args),
    PJRT_Client_Compile(PJRT_Client_Compile_Args),
    PJRT_Client_BufferFromHostBuffer(PJRT_Client_BufferFromHostBuffer_Args),
    PJRT_Device_GetDescription(PJRT_Device_GetDescription_Args),
    PJRT_Device_LocalHardwareId(PJRT_Device_LocalHardwareId_Args),
    PJRT_Device_MemoryStats(PJRT_Device_MemoryStats_Args),
    PJRT_DeviceDescription_Id(PJRT_DeviceDescription_Id_Args),
    PJRT_DeviceDescription_Kind(PJRT_DeviceDescription_Kind_Args),
    PJRT_DeviceDescription_DebugString(PJRT_DeviceDescription_DebugString_Args),
    PJRT_Executable_Destroy(PJRT_Executable_Destroy_Args),
    PJRT_Executable_NumPartitions(PJRT_Executable_NumPartitions_Args),
    PJRT_Executable_NumOutputs(PJRT_Executable_NumOutputs_Args),
    PJRT_Executable_OutputElementTypes(PJRT_Executable_OutputElementTypes_Args),
    PJRT_Executable_OutputDimensions(PJRT_Executable_OutputDimensions_Args),
    PJRT_Executable_SizeOfGeneratedCodeInBytes(PJRT_Executable_SizeOfGeneratedCodeInBytes_Args),
    PJRT_Executable_GetCostAnalysis(PJRT_Executable_GetCostAnalysis_Args),
    PJRT_Executable_GetCompiledMemoryStats(PJRT_Executable_GetCompiledMemoryStats_Args),
    PJRT_Executable_OptimizedProgram(PJRT_Executable_OptimizedProgram_Args),
    PJRT_Executable_Serialize(PJRT_Executable_Serialize_Args),
    PJRT_Executable_DeserializeAndLoad(PJRT_Executable_DeserializeAndLoad_Args),
    PJRT_LoadedExecutable_Destroy(PJRT_LoadedExecutable_Destroy_Args),
    PJRT_LoadedExecutable_GetExecutable(PJRT_LoadedExecutable_GetExecutable_Args),
    PJRT_LoadedExecutable_AddressableDevices(PJRT_LoadedExecutable_AddressableDevices_Args),
    PJRT_LoadedExecutable_Execute(PJRT_LoadedExecutable_Execute_Args),
    PJRT_Buffer_Destroy(PJRT_Buffer_Destroy_Args),
    PJRT_Buffer_Delete(PJRT_Buffer_Delete_Args),
    PJRT_Buffer_IsDeleted(PJRT_Buffer_IsDeleted_Args),
    PJRT_Buffer_ReadyEvent(PJRT_Buffer_ReadyEvent_Args),
    PJRT_Buffer_ToHostBuffer(PJRT_Buffer_ToHostBuffer_Args),
    PJRT_Buffer_IsOnCpu(PJRT_Buffer_IsOnCpu_Args),
    PJRT_Buffer_GetMemoryLayout(PJRT_Buffer_GetMemoryLayout_Args),
    PJRT_Buffer_IncreaseExternalReferenceCount(PJRT_Buffer_IncreaseExternalReferenceCount_Args),
    PJRT_Buffer_DecreaseExternalReferenceCount(PJRT_Buffer_DecreaseExternalReferenceCount_Args),
    PJRT_Buffer_OpaqueDeviceMemoryDataPointer(PJRT_Buffer_OpaqueDeviceMemoryDataPointer_Args),
    PJRT_TopologyDescription_Create(PJRT_TopologyDescription_Create_Args),
    PJRT_TopologyDescription_Destroy(PJRT_TopologyDescription_Destroy_Args),
    PJRT_TopologyDescription_PlatformName(PJRT_TopologyDescription_PlatformName_Args),
    PJRT_TopologyDescription_PlatformVersion(PJRT_TopologyDescription_PlatformVersion_Args),
    PJRT_TopologyDescription_GetDeviceDescriptions(PJRT_TopologyDescription_GetDeviceDescriptions_Args),
    PJRT_Compile(PJRT_Compile_Args),
}

/// What a [`PJRT_NamedValue`] holds, by its type.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) union NamedValueUnion {
    pub string_value: *const c_char,
    pub int64_value: i64,
    pub int64_array_value: *const i64,
    pub float_value: f32,
    pub bool_value: bool,
}

/// The FFI extension, from whose base a pointer of the extension chain points to it.
#[repr(C)]
pub(super) struct PJRT_FFI_Extension {
    pub base: PJRT_Extension_Base,
    pub type_register: Unused,
    pub user_data_add: Unused,
    pub register_handler: Function<PJRT_FFI_Register_Handler_Args>,
}

/// Defines integer constants with the header's names.
macro_rules! constants {
    ($($name:ident = $value:literal),* $(,)?) => {
        $(pub(super) const $name: c_int = $value;)*

        #[cfg(feature = "check-abi")]
        fn constant_values() -> Vec<(&'static str, i64)> {
            vec![$((stringify!($name), i64::from($name))),*]
        }
    };
}

constants! {
    PJRT_Extension_Type_FFI = 5,
    PJRT_NamedValue_kString = 0,
    PJRT_NamedValue_kInt64 = 1,
    PJRT_NamedValue_kInt64List = 2,
    PJRT_NamedValue_kFloat = 3,
    PJRT_NamedValue_kBool = 4,
    PJRT_Buffer_Type_PRED = 1,
    PJRT_Buffer_Type_S8 = 2,
    PJRT_Buffer_Type_S16 = 3,
    PJRT_Buffer_Type_S32 = 4,
    PJRT_Buffer_Type_S64 = 5,
    PJRT_Buffer_Type_U8 = 6,
    PJRT_Buffer_Type_U16 = 7,
    PJRT_Buffer_Type_U32 = 8,
    PJRT_Buffer_Type_U64 = 9,
    PJRT_Buffer_Type_F16 = 10,
    PJRT_Buffer_Type_F32 = 11,
    PJRT_Buffer_Type_F64 = 12,
    PJRT_Buffer_Type_BF16 = 13,
    PJRT_HostBufferSemantics_kImmutableZeroCopy = 2,
    PJRT_Buffer_MemoryLayout_Type_Tiled = 0,
}

/// Defines the table of functions.
macro_rules! api {
    ($($entry:ident: $type:ty),* $(,)?) => {
        /// What `GetPjrtApi` gives: the header's table up to the last function that is used.
        #[repr(C)]
        pub(super) struct PJRT_Api {
            pub struct_size: usize,
            pub extension_start: Extensions,
            pub pjrt_api_version: PJRT_Api_Version,
            $(pub $entry: $type,)*
        }

        #[cfg(feature = "check-abi")]
        fn api_layout() -> StructLayout {
            use std::mem::offset_of;
            StructLayout {
                name: "PJRT_Api",
                size: size_of::<PJRT_Api>(),
                fields: vec![
                    ("struct_size", offset_of!(PJRT_Api, struct_size)),
                    ("extension_start", offset_of!(PJRT_Api, extension_start)),
                    ("pjrt_api_version", offset_of!(PJRT_Api, pjrt_api_version)),
                    $((stringify!($entry), offset_of!(PJRT_Api, $entry)),)*
                ],
            }
        }
    };
}

api! {
    PJRT_Error_Destroy: Option<unsafe extern "C" fn(*mut PJRT_Error_Destroy_Args)>,
    PJRT_Error_Message: Option<unsafe extern "C" fn(*mut PJRT_Error_Message_Args)>,
    PJRT_Error_GetCode: Function<PJRT_Error_GetCode_Args>,
    PJRT_Plugin_Initialize: Function<PJRT_Plugin_Initialize_Args>,
    PJRT_Plugin_Attributes: Function<PJRT_Plugin_Attributes_Args>,
    PJRT_Event_Destroy: Function<PJRT_Event_Destroy_Args>,
    PJRT_Event_IsReady: Function<PJRT_Event_IsReady_Args>,
    PJRT_Event_Error: Unused,
    PJRT_Event_Await: Function<PJRT_Event_Await_Args>,
    PJRT_Event_OnReady: Function<PJRT_Event_OnReady_Args>,
    PJRT_Client_Create: Function<PJRT_Client_Create_Args>,
    PJRT_Client_Destroy: Function<PJRT_Client_Destroy_Args>,
    PJRT_Client_PlatformName: Function<PJRT_Client_PlatformName_Args>,
    PJRT_Client_ProcessIndex: Unused,
    PJRT_Client_PlatformVersion: Function<PJRT_Client_PlatformVersion_Args>,
    PJRT_Client_Devices: Unused,
    PJRT_Client_AddressableDevices: Function<PJRT_Client_AddressableDevices_Args>,
    PJRT_Client_LookupDevice: Unused,
    PJRT_Client_LookupAddressableDevice: Unused,
    PJRT_Client_AddressableMemories: Unused,
    PJRT_Client_Compile: Function<PJRT_Client_Compile_Args>,
    PJRT_Client_DefaultDeviceAssignment: Unused,
    PJRT_Client_BufferFromHostBuffer: Function<PJRT_Client_BufferFromHostBuffer_Args>,
    PJRT_DeviceDescription_Id: Function<PJRT_DeviceDescription_Id_Args>,
    PJRT_DeviceDescription_ProcessIndex: Unused,
    PJRT_DeviceDescription_Attributes: Unused,
    PJRT_DeviceDescription_Kind: Function<PJRT_DeviceDescription_Kind_Args>,
    PJRT_DeviceDescription_DebugString: Function<PJRT_DeviceDescription_DebugString_Args>,
    PJRT_DeviceDescription_ToString: Unused,
    PJRT_Device_GetDescription: Function<PJRT_Device_GetDescription_Args>,
    PJRT_Device_IsAddressable: Unused,
    PJRT_Device_LocalHardwareId: Function<PJRT_Device_LocalHardwareId_Args>,
    PJRT_Device_AddressableMemories: Unused,
    PJRT_Device_DefaultMemory: Unused,
    PJRT_Device_MemoryStats: Function<PJRT_Device_MemoryStats_Args>,
    PJRT_Memory_Id: Unused,
    PJRT_Memory_Kind: Unused,
    PJRT_Memory_DebugString: Unused,
    PJRT_Memory_ToString: Unused,
    PJRT_Memory_AddressableByDevices: Unused,
    PJRT_Executable_Destroy: Function<PJRT_Executable_Destroy_Args>,
    PJRT_Executable_Name: Unused,
    PJRT_Executable_NumReplicas: Unused,
    PJRT_Executable_NumPartitions: Function<PJRT_Executable_NumPartitions_Args>,
    PJRT_Executable_NumOutputs: Function<PJRT_Executable_NumOutputs_Args>,
    PJRT_Executable_SizeOfGeneratedCodeInBytes: Function<PJRT_Executable_SizeOfGeneratedCodeInBytes_Args>,
    PJRT_Executable_GetCostAnalysis: Function<PJRT_Executable_GetCostAnalysis_Args>,
    PJRT_Executable_OutputMemoryKinds: Unused,
    PJRT_Executable_OptimizedProgram: Function<PJRT_Executable_OptimizedProgram_Args>,
    PJRT_Executable_Serialize: Function<PJRT_Executable_Serialize_Args>,
    PJRT_LoadedExecutable_Destroy: Function<PJRT_LoadedExecutable_Destroy_Args>,
    PJRT_LoadedExecutable_GetExecutable: Function<PJRT_LoadedExecutable_GetExecutable_Args>,
    PJRT_LoadedExecutable_AddressableDevices: Function<PJRT_LoadedExecutable_AddressableDevices_Args>,
    PJRT_LoadedExecutable_Delete: Unused,
    PJRT_LoadedExecutable_IsDeleted: Unused,
    PJRT_LoadedExecutable_Execute: Function<PJRT_LoadedExecutable_Execute_Args>,
    PJRT_Executable_DeserializeAndLoad: Function<PJRT_Executable_DeserializeAndLoad_Args>,
    PJRT_LoadedExecutable_Fingerprint: Unused,
    PJRT_Buffer_Destroy: Function<PJRT_Buffer_Destroy_Args>,
    PJRT_Buffer_ElementType: Unused,
    PJRT_Buffer_Dimensions: Unused,
    PJRT_Buffer_UnpaddedDimensions: Unused,
    PJRT_Buffer_DynamicDimensionIndices: Unused,
    PJRT_Buffer_GetMemoryLayout: Function<PJRT_Buffer_GetMemoryLayout_Args>,
    PJRT_Buffer_OnDeviceSizeInBytes: Unused,
    PJRT_Buffer_Device: Unused,
    PJRT_Buffer_Memory: Unused,
    PJRT_Buffer_Delete: Function<PJRT_Buffer_Delete_Args>,
    PJRT_Buffer_IsDeleted: Function<PJRT_Buffer_IsDeleted_Args>,
    PJRT_Buffer_CopyToDevice: Unused,
    PJRT_Buffer_ToHostBuffer: Function<PJRT_Buffer_ToHostBuffer_Args>,
    PJRT_Buffer_IsOnCpu: Function<PJRT_Buffer_IsOnCpu_Args>,
    PJRT_Buffer_ReadyEvent: Function<PJRT_Buffer_ReadyEvent_Args>,
    PJRT_Buffer_UnsafePointer: Unused,
    PJRT_Buffer_IncreaseExternalReferenceCount: Function<PJRT_Buffer_IncreaseExternalReferenceCount_Args>,
    PJRT_Buffer_DecreaseExternalReferenceCount: Function<PJRT_Buffer_DecreaseExternalReferenceCount_Args>,
    PJRT_Buffer_OpaqueDeviceMemoryDataPointer: Function<PJRT_Buffer_OpaqueDeviceMemoryDataPointer_Args>,
    PJRT_CopyToDeviceStream_Destroy: Unused,
    PJRT_CopyToDeviceStream_AddChunk: Unused,
    PJRT_CopyToDeviceStream_TotalBytes: Unused,
    PJRT_CopyToDeviceStream_GranuleSize: Unused,
    PJRT_CopyToDeviceStream_CurrentBytes: Unused,
    PJRT_TopologyDescription_Create: Function<PJRT_TopologyDescription_Create_Args>,
    PJRT_TopologyDescription_Destroy: Function<PJRT_TopologyDescription_Destroy_Args>,
    PJRT_TopologyDescription_PlatformName: Function<PJRT_TopologyDescription_PlatformName_Args>,
    PJRT_TopologyDescription_PlatformVersion: Function<PJRT_TopologyDescription_PlatformVersion_Args>,
    PJRT_TopologyDescription_GetDeviceDescriptions: Function<PJRT_TopologyDescription_GetDeviceDescriptions_Args>,
    PJRT_TopologyDescription_Serialize: Unused,
    PJRT_TopologyDescription_Attributes: Unused,
    PJRT_Compile: Function<PJRT_Compile_Args>,
    PJRT_Executable_OutputElementTypes: Function<PJRT_Executable_OutputElementTypes_Args>,
    PJRT_Executable_OutputDimensions: Function<PJRT_Executable_OutputDimensions_Args>,
    PJRT_Buffer_CopyToMemory: Unused,
    PJRT_Client_CreateViewOfDeviceBuffer: Unused,
    PJRT_Executable_Fingerprint: Unused,
    PJRT_Client_TopologyDescription: Unused,
    PJRT_Executable_GetCompiledMemoryStats: Function<PJRT_Executable_GetCompiledMemoryStats_Args>,
}

/// The layout of one struct of these declarations.
#[cfg(feature = "check-abi")]
pub struct StructLayout {
    /// Its name in the header.
    pub name: &'static str,
    /// Its size in bytes, padding included.
    pub size: usize,
    /// Each field's name and offset.
    pub fields: Vec<(&'static str, usize)>,
}

/// The layout of every struct, for the comparison with an official header.
#[cfg(feature = "check-abi")]
pub fn layouts() -> Vec<StructLayout> {
    let mut layouts = struct_layouts();
    layouts.push(api_layout());
    layouts
}

/// The value of every constant, for the comparison with an official header.
#[cfg(feature = "check-abi")]
pub fn constants() -> Vec<(&'static str, i64)> {
    constant_values()
}
