// The part of the C interface of XLA's FFI, version 0.3, that the handlers use. tests/abi.rs compares it with jaxlib's
// own header.
//
// Structures grow at their end: `size` says how much of one its writer knew.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xla_ffi {

constexpr int32_t api_major = 0;
constexpr int32_t api_minor = 3;

struct Error;             // opaque
struct ExecutionContext;  // opaque

enum class ErrorCode : int32_t {
  invalid_argument = 3,
  resource_exhausted = 8,
  unimplemented = 12,
  internal = 13,
};

enum class DataType : int32_t {
  pred = 1,
  s8 = 2,
  s16 = 3,
  s32 = 4,
  s64 = 5,
  u8 = 6,
  u16 = 7,
  u32 = 8,
  u64 = 9,
  f16 = 10,
  f32 = 11,
  f64 = 12,
  bf16 = 16,
};

enum class Stage : int32_t { instantiate = 0, prepare = 1, initialize = 2, execute = 3 };
enum class AttributeType : int32_t { array = 1, dictionary = 2, scalar = 3, string = 4 };

constexpr int32_t metadata_extension = 1;
constexpr int32_t buffer_argument = 1;

struct Extension {
  size_t size;
  int32_t type;
  Extension* next;
};

struct Version {
  size_t size;
  Extension* extensions;
  int32_t major;
  int32_t minor;
};

struct Metadata {
  size_t size;
  Version version;
  uint32_t traits;
};

struct MetadataExtension {
  Extension base;
  Metadata* metadata;
};

struct Text {
  const char* data;
  size_t size;
};

struct Scalar {
  DataType type;
  void* value;
};

struct Buffer {
  size_t size;
  Extension* extensions;
  DataType type;
  void* data;
  int64_t rank;
  int64_t* dims;
};

// Arguments and results.
struct Buffers {
  size_t size;
  Extension* extensions;
  int64_t count;
  int32_t* types;
  void** buffers;
};

struct Attributes {
  size_t size;
  Extension* extensions;
  int64_t count;
  AttributeType* types;
  Text** names;
  void** values;
};

struct ErrorCreate {
  size_t size;
  Extension* extensions;
  const char* message;
  ErrorCode code;
};

struct ThreadPoolSchedule {
  size_t size;
  Extension* extensions;
  ExecutionContext* context;
  void (*task)(void* data);
  void* data;
};

struct ThreadPoolNumThreads {
  size_t size;
  Extension* extensions;
  ExecutionContext* context;
  int64_t* threads;
};

struct ErrorDestroy {
  size_t size;
  Extension* extensions;
  Error* error;
};

struct Api {
  size_t size;
  Extension* extensions;
  Version version;
  const void* internal;
  Error* (*error_create)(ErrorCreate*);
  void (*error_get_message)(void*);
  void (*error_destroy)(ErrorDestroy*);
  void* not_used[8];
  Error* (*thread_pool_schedule)(ThreadPoolSchedule*);
  Error* (*thread_pool_num_threads)(ThreadPoolNumThreads*);
};

struct CallFrame {
  size_t size;
  Extension* extensions;
  const Api* api;
  ExecutionContext* context;
  Stage stage;
  Buffers arguments;
  Buffers results;
  Attributes attributes;
};

static_assert(offsetof(CallFrame, arguments) == 40 && offsetof(CallFrame, results) == 80 &&
              offsetof(CallFrame, attributes) == 120 && sizeof(CallFrame) == 168);
static_assert(sizeof(Buffer) == 48 && sizeof(Buffers) == 40 && sizeof(Attributes) == 48);
static_assert(offsetof(Api, thread_pool_schedule) == 136 && sizeof(Api) == 152);

}  // namespace xla_ffi
