#include "frame.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace xlann {

using xla_ffi::AttributeType;
using xla_ffi::DataType;
using xla_ffi::ErrorCode;

const char* name(DataType type) {
  switch (type) {
    case DataType::pred:
      return "pred";
    case DataType::s8:
      return "s8";
    case DataType::s16:
      return "s16";
    case DataType::s32:
      return "s32";
    case DataType::s64:
      return "s64";
    case DataType::u8:
      return "u8";
    case DataType::u16:
      return "u16";
    case DataType::u32:
      return "u32";
    case DataType::u64:
      return "u64";
    case DataType::f16:
      return "f16";
    case DataType::f32:
      return "f32";
    case DataType::f64:
      return "f64";
    case DataType::bf16:
      return "bf16";
  }
  return "another type";
}

bool equal(xla_ffi::Text text, const char* other) {
  return text.size == std::strlen(other) && std::memcmp(text.data, other, text.size) == 0;
}

Type type_of(DataType type) {
  switch (type) {
    case DataType::bf16:
      return Type::bf16;
    case DataType::f16:
      return Type::f16;
    case DataType::f64:
      return Type::f64;
    case DataType::s8:
      return Type::s8;
    default:
      return Type::f32;
  }
}

bool Frame::refuse(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  set_error(ErrorCode::invalid_argument, format, arguments);
  va_end(arguments);
  return false;
}

bool Frame::fail(ErrorCode code, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  set_error(code, format, arguments);
  va_end(arguments);
  return false;
}

void Frame::set_error(ErrorCode code, const char* format, va_list arguments) {
  std::vsnprintf(message_, sizeof message_, format, arguments);
  code_ = code;
}

namespace {

// Text of limited length, cut where it is longer.
class Line {
 public:
  void add(const char* format, ...) __attribute__((format(printf, 2, 3))) {
    va_list arguments;
    va_start(arguments, format);
    const int written = std::vsnprintf(text_ + size_, sizeof text_ - size_, format, arguments);
    va_end(arguments);
    size_ += static_cast<size_t>(written);
    if (size_ >= sizeof text_) size_ = sizeof text_ - 1;
  }
  void add_size(int64_t size, bool first) { add(first ? "%lld" : ",%lld", static_cast<long long>(size)); }
  const char* text() const { return text_; }

 private:
  char text_[200] = "";
  size_t size_ = 0;
};

}  // namespace

bool Frame::counts(std::initializer_list<const char*> arguments, int64_t results) {
  int64_t expected = 0;
  Line names;
  for (const char* each : arguments) {
    if (each == nullptr) continue;
    names.add("%s%s", expected == 0 ? "" : ", ", each);
    ++expected;
  }
  if (frame_.arguments.count != expected) {
    return refuse("expected %lld operand%s (%s), got %lld", static_cast<long long>(expected), expected == 1 ? "" : "s",
                  names.text(), static_cast<long long>(frame_.arguments.count));
  }
  if (frame_.results.count != results) {
    return refuse("expected %lld results, got %lld", static_cast<long long>(results),
                  static_cast<long long>(frame_.results.count));
  }
  return true;
}

bool Frame::argument(int64_t index, const char* name, int trailing, Matrix& matrix) {
  return buffer(frame_.arguments, index, name, trailing, matrix);
}

bool Frame::result(int64_t index, const char* name, int trailing, Matrix& matrix) {
  return buffer(frame_.results, index, name, trailing, matrix);
}

bool Frame::buffer(const xla_ffi::Buffers& buffers, int64_t index, const char* name, int trailing, Matrix& matrix) {
  if (buffers.types[index] != xla_ffi::buffer_argument) return refuse("%s must be a buffer", name);
  const auto& buffer = *static_cast<const xla_ffi::Buffer*>(buffers.buffers[index]);
  if (buffer.rank < trailing) {
    return refuse("%s must be of rank %d or more, got %lld", name, trailing, static_cast<long long>(buffer.rank));
  }
  // Sizes in bytes, of any of them, fit.
  int64_t elements = 1;
  for (int64_t i = 0; i < buffer.rank; ++i) {
    const int64_t dim = buffer.dims[i];
    if (dim < 0) return refuse("%s must be of sizes of 0 or more, got %lld", name, static_cast<long long>(dim));
    if (__builtin_mul_overflow(elements, dim > 0 ? dim : 1, &elements) || elements >= int64_t{1} << 60) {
      return refuse("%s must be of less than 2^60 elements", name);
    }
  }
  matrix = Matrix{};
  matrix.data = buffer.data;
  matrix.type = buffer.type;
  matrix.dims = buffer.dims;
  matrix.rank = buffer.rank;
  matrix.columns = buffer.dims[buffer.rank - 1];
  if (trailing == 2) matrix.rows = buffer.dims[buffer.rank - 2];
  for (int64_t i = 0; i < buffer.rank - trailing; ++i) matrix.batch *= buffer.dims[i];
  return true;
}

bool Frame::has_type(const char* what, const Matrix& matrix, std::initializer_list<DataType> types) {
  char expected[64] = "";
  for (DataType type : types) {
    if (matrix.type == type) return true;
    std::snprintf(expected + std::strlen(expected), sizeof expected - std::strlen(expected), "%s%s",
                  expected[0] == 0 ? "" : ", ", name(type));
  }
  return refuse("%s must be of %s, got %s", what, expected, name(matrix.type));
}

bool Frame::has_sizes(const char* what, const Matrix& matrix, const Matrix& other, int64_t leading,
                      std::initializer_list<int64_t> last) {
  const int64_t rank = leading + static_cast<int64_t>(last.size());
  const auto wanted = [&](int64_t i) { return i < leading ? other.dims[i] : last.begin()[i - leading]; };
  bool equal = matrix.rank == rank;
  for (int64_t i = 0; equal && i < rank; ++i) equal = matrix.dims[i] == wanted(i);
  if (equal) return true;
  Line expected, got;
  for (int64_t i = 0; i < rank; ++i) expected.add_size(wanted(i), i == 0);
  for (int64_t i = 0; i < matrix.rank; ++i) got.add_size(matrix.dims[i], i == 0);
  return refuse("%s must be %s[%s], got %s[%s]", what, name(matrix.type), expected.text(), name(matrix.type),
                got.text());
}

bool Frame::attributes(std::initializer_list<const char*> names) {
  for (int64_t i = 0; i < frame_.attributes.count; ++i) {
    const xla_ffi::Text given = *frame_.attributes.names[i];
    bool known = false;
    for (const char* each : names) known = known || equal(given, each);
    if (!known) {
      const int size = given.size > 64 ? 64 : static_cast<int>(given.size);
      return refuse("there is no attribute %.*s", size, given.data);
    }
  }
  return true;
}

const void* Frame::find(const char* name, AttributeType& type) const {
  for (int64_t i = 0; i < frame_.attributes.count; ++i) {
    if (!equal(*frame_.attributes.names[i], name)) continue;
    type = frame_.attributes.types[i];
    return frame_.attributes.values[i];
  }
  return nullptr;
}

bool Frame::attribute(const char* name, int64_t& value) {
  AttributeType type;
  const void* const found = find(name, type);
  if (found == nullptr) return true;
  const auto* const scalar = static_cast<const xla_ffi::Scalar*>(found);
  if (type == AttributeType::scalar && scalar->type == DataType::s64) {
    std::memcpy(&value, scalar->value, sizeof value);
    return true;
  }
  if (type == AttributeType::scalar && scalar->type == DataType::s32) {
    int32_t narrow;
    std::memcpy(&narrow, scalar->value, sizeof narrow);
    value = narrow;
    return true;
  }
  return refuse("the attribute %s must be an s64 or s32", name);
}

bool Frame::attribute(const char* name, double& value) {
  AttributeType type;
  const void* const found = find(name, type);
  if (found == nullptr) return true;
  const auto* const scalar = static_cast<const xla_ffi::Scalar*>(found);
  if (type == AttributeType::scalar && scalar->type == DataType::f64) {
    std::memcpy(&value, scalar->value, sizeof value);
    return true;
  }
  if (type == AttributeType::scalar && scalar->type == DataType::f32) {
    float narrow;
    std::memcpy(&narrow, scalar->value, sizeof narrow);
    value = narrow;
    return true;
  }
  return refuse("the attribute %s must be an f64 or f32", name);
}

bool Frame::attribute(const char* name, bool& value) {
  AttributeType type;
  const void* const found = find(name, type);
  if (found == nullptr) return true;
  const auto* const scalar = static_cast<const xla_ffi::Scalar*>(found);
  if (type != AttributeType::scalar || scalar->type != DataType::pred) {
    return refuse("the attribute %s must be a truth value", name);
  }
  value = *static_cast<const uint8_t*>(scalar->value) != 0;
  return true;
}

bool Frame::attribute(const char* name, xla_ffi::Text& value) {
  AttributeType type;
  const void* const found = find(name, type);
  if (found == nullptr) return true;
  if (type != AttributeType::string) return refuse("the attribute %s must be a string", name);
  value = *static_cast<const xla_ffi::Text*>(found);
  return true;
}

xla_ffi::Error* Frame::error() const {
  char message[sizeof message_ + 64];
  std::snprintf(message, sizeof message, "%s: %s", handler_, message_);
  xla_ffi::ErrorCreate create{sizeof(xla_ffi::ErrorCreate), nullptr, message, code_};
  return frame_.api->error_create(&create);
}

bool read_execution(Frame& frame, Execution& execution) {
  xla_ffi::Text set{"automatic", 9};
  if (!frame.attribute("threads", execution.threads) || !frame.attribute("instruction_set", set)) return false;
  if (execution.threads < 0) {
    return frame.refuse("threads must be 0 or more, got %lld", static_cast<long long>(execution.threads));
  }
  for (InstructionSet each : {InstructionSet::automatic, InstructionSet::portable, InstructionSet::avx2,
                              InstructionSet::avx_vnni, InstructionSet::avx512, InstructionSet::avx512_bf16,
                              InstructionSet::avx512_vnni, InstructionSet::neon}) {
    if (!equal(set, name(each))) continue;
    execution.instruction_set = each;
    return supported(each) || frame.refuse("this machine has no instruction set %s", name(each));
  }
  const int size = set.size > 64 ? 64 : static_cast<int>(set.size);
  return frame.refuse("there is no instruction set %.*s", size, set.data);
}

namespace {

// Registration asks for this, and silently drops a handler that does not answer.
bool answers_metadata(const xla_ffi::CallFrame& frame) {
  for (const xla_ffi::Extension* each = frame.extensions; each != nullptr; each = each->next) {
    if (each->type != xla_ffi::metadata_extension) continue;
    xla_ffi::Metadata& metadata = *reinterpret_cast<const xla_ffi::MetadataExtension*>(each)->metadata;
    metadata.version.major = xla_ffi::api_major;
    metadata.version.minor = xla_ffi::api_minor;
    metadata.traits = 0;
    return true;
  }
  return false;
}

}  // namespace

xla_ffi::Error* handle(xla_ffi::CallFrame* frame, const char* handler, bool (*run)(Frame&)) {
  if (answers_metadata(*frame) || frame->stage != xla_ffi::Stage::execute) return nullptr;
  Frame checked(*frame, handler);
  return run(checked) ? nullptr : checked.error();
}

}  // namespace xlann
