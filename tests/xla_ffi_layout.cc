// Compares cpp/xla_ffi.h with jaxlib's header: compiled by tests/abi.rs, which sees to it that nothing is left out.
#include <type_traits>

#include "c_api.h"
#include "xla_ffi.h"

using namespace xla_ffi;

// A field's place, size and kind.
#define FIELD(ours, field, theirs, their_field)                                                          \
  static_assert(offsetof(ours, field) == offsetof(theirs, their_field), "offset of " #ours "::" #field);   \
  static_assert(sizeof(ours::field) == sizeof(theirs::their_field), "size of " #ours "::" #field);         \
  static_assert(std::is_pointer_v<decltype(ours::field)> == std::is_pointer_v<decltype(theirs::their_field)>, \
                "kind of " #ours "::" #field)

#define SIZE(ours, theirs) static_assert(sizeof(ours) == sizeof(theirs), "size of " #ours)
// Of a structure that is declared only as far as it is used.
#define PREFIX(ours, theirs, next) static_assert(sizeof(ours) == offsetof(theirs, next), "size of " #ours)

#define VALUE(ours, theirs) static_assert(static_cast<int64_t>(ours) == static_cast<int64_t>(theirs), #ours)

VALUE(api_major, XLA_FFI_API_MAJOR);
VALUE(api_minor, XLA_FFI_API_MINOR);
VALUE(metadata_extension, XLA_FFI_Extension_Metadata);
VALUE(buffer_argument, XLA_FFI_ArgType_BUFFER);
VALUE(buffer_argument, XLA_FFI_RetType_BUFFER);

VALUE(ErrorCode::invalid_argument, XLA_FFI_Error_Code_INVALID_ARGUMENT);
VALUE(ErrorCode::resource_exhausted, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED);
VALUE(ErrorCode::unimplemented, XLA_FFI_Error_Code_UNIMPLEMENTED);
VALUE(ErrorCode::internal, XLA_FFI_Error_Code_INTERNAL);

VALUE(DataType::pred, XLA_FFI_DataType_PRED);
VALUE(DataType::s8, XLA_FFI_DataType_S8);
VALUE(DataType::s16, XLA_FFI_DataType_S16);
VALUE(DataType::s32, XLA_FFI_DataType_S32);
VALUE(DataType::s64, XLA_FFI_DataType_S64);
VALUE(DataType::u8, XLA_FFI_DataType_U8);
VALUE(DataType::u16, XLA_FFI_DataType_U16);
VALUE(DataType::u32, XLA_FFI_DataType_U32);
VALUE(DataType::u64, XLA_FFI_DataType_U64);
VALUE(DataType::f16, XLA_FFI_DataType_F16);
VALUE(DataType::f32, XLA_FFI_DataType_F32);
VALUE(DataType::f64, XLA_FFI_DataType_F64);
VALUE(DataType::bf16, XLA_FFI_DataType_BF16);

VALUE(Stage::instantiate, XLA_FFI_ExecutionStage_INSTANTIATE);
VALUE(Stage::prepare, XLA_FFI_ExecutionStage_PREPARE);
VALUE(Stage::initialize, XLA_FFI_ExecutionStage_INITIALIZE);
VALUE(Stage::execute, XLA_FFI_ExecutionStage_EXECUTE);

VALUE(AttributeType::array, XLA_FFI_AttrType_ARRAY);
VALUE(AttributeType::dictionary, XLA_FFI_AttrType_DICTIONARY);
VALUE(AttributeType::scalar, XLA_FFI_AttrType_SCALAR);
VALUE(AttributeType::string, XLA_FFI_AttrType_STRING);

FIELD(Extension, size, XLA_FFI_Extension_Base, struct_size);
FIELD(Extension, type, XLA_FFI_Extension_Base, type);
FIELD(Extension, next, XLA_FFI_Extension_Base, next);
SIZE(Extension, XLA_FFI_Extension_Base);

FIELD(Version, size, XLA_FFI_Api_Version, struct_size);
FIELD(Version, extensions, XLA_FFI_Api_Version, extension_start);
FIELD(Version, major, XLA_FFI_Api_Version, major_version);
FIELD(Version, minor, XLA_FFI_Api_Version, minor_version);
SIZE(Version, XLA_FFI_Api_Version);

FIELD(Metadata, size, XLA_FFI_Metadata, struct_size);
FIELD(Metadata, version, XLA_FFI_Metadata, api_version);
FIELD(Metadata, traits, XLA_FFI_Metadata, traits);
PREFIX(Metadata, XLA_FFI_Metadata, state_type_id);

FIELD(MetadataExtension, base, XLA_FFI_Metadata_Extension, extension_base);
FIELD(MetadataExtension, metadata, XLA_FFI_Metadata_Extension, metadata);
SIZE(MetadataExtension, XLA_FFI_Metadata_Extension);

FIELD(Text, data, XLA_FFI_ByteSpan, ptr);
FIELD(Text, size, XLA_FFI_ByteSpan, len);
SIZE(Text, XLA_FFI_ByteSpan);

FIELD(Scalar, type, XLA_FFI_Scalar, dtype);
FIELD(Scalar, value, XLA_FFI_Scalar, value);
SIZE(Scalar, XLA_FFI_Scalar);

FIELD(Buffer, size, XLA_FFI_Buffer, struct_size);
FIELD(Buffer, extensions, XLA_FFI_Buffer, extension_start);
FIELD(Buffer, type, XLA_FFI_Buffer, dtype);
FIELD(Buffer, data, XLA_FFI_Buffer, data);
FIELD(Buffer, rank, XLA_FFI_Buffer, rank);
FIELD(Buffer, dims, XLA_FFI_Buffer, dims);
SIZE(Buffer, XLA_FFI_Buffer);

FIELD(Buffers, size, XLA_FFI_Args, struct_size);
FIELD(Buffers, extensions, XLA_FFI_Args, extension_start);
FIELD(Buffers, count, XLA_FFI_Args, size);
FIELD(Buffers, types, XLA_FFI_Args, types);
FIELD(Buffers, buffers, XLA_FFI_Args, args);
SIZE(Buffers, XLA_FFI_Args);
FIELD(Buffers, size, XLA_FFI_Rets, struct_size);
FIELD(Buffers, extensions, XLA_FFI_Rets, extension_start);
FIELD(Buffers, count, XLA_FFI_Rets, size);
FIELD(Buffers, types, XLA_FFI_Rets, types);
FIELD(Buffers, buffers, XLA_FFI_Rets, rets);
SIZE(Buffers, XLA_FFI_Rets);

FIELD(Attributes, size, XLA_FFI_Attrs, struct_size);
FIELD(Attributes, extensions, XLA_FFI_Attrs, extension_start);
FIELD(Attributes, count, XLA_FFI_Attrs, size);
FIELD(Attributes, types, XLA_FFI_Attrs, types);
FIELD(Attributes, names, XLA_FFI_Attrs, names);
FIELD(Attributes, values, XLA_FFI_Attrs, attrs);
SIZE(Attributes, XLA_FFI_Attrs);

FIELD(ErrorCreate, size, XLA_FFI_Error_Create_Args, struct_size);
FIELD(ErrorCreate, extensions, XLA_FFI_Error_Create_Args, extension_start);
FIELD(ErrorCreate, message, XLA_FFI_Error_Create_Args, message);
FIELD(ErrorCreate, code, XLA_FFI_Error_Create_Args, errc);
SIZE(ErrorCreate, XLA_FFI_Error_Create_Args);

FIELD(ThreadPoolSchedule, size, XLA_FFI_ThreadPool_Schedule_Args, struct_size);
FIELD(ThreadPoolSchedule, extensions, XLA_FFI_ThreadPool_Schedule_Args, extension_start);
FIELD(ThreadPoolSchedule, context, XLA_FFI_ThreadPool_Schedule_Args, ctx);
FIELD(ThreadPoolSchedule, task, XLA_FFI_ThreadPool_Schedule_Args, task);
FIELD(ThreadPoolSchedule, data, XLA_FFI_ThreadPool_Schedule_Args, data);
SIZE(ThreadPoolSchedule, XLA_FFI_ThreadPool_Schedule_Args);
static_assert(std::is_same_v<decltype(ThreadPoolSchedule::task), XLA_FFI_Task*>, "type of ThreadPoolSchedule::task");

FIELD(ThreadPoolNumThreads, size, XLA_FFI_ThreadPool_NumThreads_Args, struct_size);
FIELD(ThreadPoolNumThreads, extensions, XLA_FFI_ThreadPool_NumThreads_Args, extension_start);
FIELD(ThreadPoolNumThreads, context, XLA_FFI_ThreadPool_NumThreads_Args, ctx);
FIELD(ThreadPoolNumThreads, threads, XLA_FFI_ThreadPool_NumThreads_Args, num_threads);
SIZE(ThreadPoolNumThreads, XLA_FFI_ThreadPool_NumThreads_Args);

FIELD(ErrorDestroy, size, XLA_FFI_Error_Destroy_Args, struct_size);
FIELD(ErrorDestroy, extensions, XLA_FFI_Error_Destroy_Args, extension_start);
FIELD(ErrorDestroy, error, XLA_FFI_Error_Destroy_Args, error);
SIZE(ErrorDestroy, XLA_FFI_Error_Destroy_Args);

FIELD(Api, size, XLA_FFI_Api, struct_size);
FIELD(Api, extensions, XLA_FFI_Api, extension_start);
FIELD(Api, version, XLA_FFI_Api, api_version);
FIELD(Api, internal, XLA_FFI_Api, internal_api);
FIELD(Api, error_create, XLA_FFI_Api, XLA_FFI_Error_Create);
FIELD(Api, error_get_message, XLA_FFI_Api, XLA_FFI_Error_GetMessage);
FIELD(Api, error_destroy, XLA_FFI_Api, XLA_FFI_Error_Destroy);
static_assert(offsetof(Api, not_used) == offsetof(XLA_FFI_Api, XLA_FFI_Handler_Register), "offset of Api::not_used");
FIELD(Api, thread_pool_schedule, XLA_FFI_Api, XLA_FFI_ThreadPool_Schedule);
FIELD(Api, thread_pool_num_threads, XLA_FFI_Api, XLA_FFI_ThreadPool_NumThreads);
PREFIX(Api, XLA_FFI_Api, XLA_FFI_Future_Create);

FIELD(CallFrame, size, XLA_FFI_CallFrame, struct_size);
FIELD(CallFrame, extensions, XLA_FFI_CallFrame, extension_start);
FIELD(CallFrame, api, XLA_FFI_CallFrame, api);
FIELD(CallFrame, context, XLA_FFI_CallFrame, ctx);
FIELD(CallFrame, stage, XLA_FFI_CallFrame, stage);
FIELD(CallFrame, arguments, XLA_FFI_CallFrame, args);
FIELD(CallFrame, results, XLA_FFI_CallFrame, rets);
FIELD(CallFrame, attributes, XLA_FFI_CallFrame, attrs);
PREFIX(CallFrame, XLA_FFI_CallFrame, future);
