// A call frame of XLA's FFI, read with checks: whatever XLA or a user of it hands over ends in a result or an error.
#pragma once

#include <cstdarg>
#include <initializer_list>

#include "../kernels/kernels.h"
#include "../xla_ffi.h"

namespace xlann {

// A buffer: its sizes, and those that a handler cares for.
struct Matrix {
  const void* data = nullptr;
  xla_ffi::DataType type{};
  const int64_t* dims = nullptr;
  int64_t rank = 0;
  int64_t batch = 1;    // the product of the dimensions before the last two, or before the last of a vector
  int64_t rows = 1;     // the last but one
  int64_t columns = 1;  // the last
};

// Every function that gives a bool gives false where it has set the error.
class Frame {
 public:
  Frame(const xla_ffi::CallFrame& frame, const char* handler) : frame_(frame), handler_(handler) {}

  // Sets the error: what is wrong with an argument, in printf's format.
  bool refuse(const char* format, ...) __attribute__((format(printf, 2, 3)));
  bool fail(xla_ffi::ErrorCode code, const char* format, ...) __attribute__((format(printf, 3, 4)));

  // Requires so many operands, named in the error, and results.
  bool counts(std::initializer_list<const char*> arguments, int64_t results);

  // `trailing` is how many last dimensions are not a batch: 2 for a matrix, 1 for a vector.
  bool argument(int64_t index, const char* name, int trailing, Matrix& matrix);
  bool result(int64_t index, const char* name, int trailing, Matrix& matrix);
  bool has_type(const char* name, const Matrix& matrix, std::initializer_list<xla_ffi::DataType> types);
  // Requires that a buffer has the first `leading` sizes of another, and then these.
  bool has_sizes(const char* name, const Matrix& matrix, const Matrix& other, int64_t leading,
                 std::initializer_list<int64_t> last);

  // Requires that every attribute is one of these.
  bool attributes(std::initializer_list<const char*> names);
  // Leave the value alone where there is no such attribute.
  bool attribute(const char* name, int64_t& value);
  bool attribute(const char* name, double& value);
  bool attribute(const char* name, bool& value);
  bool attribute(const char* name, xla_ffi::Text& value);

  // The error, to be given to XLA; null where there is none.
  xla_ffi::Error* error() const;

  const xla_ffi::CallFrame& frame() const { return frame_; }

 private:
  void set_error(xla_ffi::ErrorCode code, const char* format, va_list arguments);
  bool buffer(const xla_ffi::Buffers& buffers, int64_t index, const char* name, int trailing, Matrix& matrix);
  const void* find(const char* name, xla_ffi::AttributeType& type) const;

  const xla_ffi::CallFrame& frame_;
  const char* handler_;
  char message_[512] = "";
  xla_ffi::ErrorCode code_{};
};

const char* name(xla_ffi::DataType type);
bool equal(xla_ffi::Text text, const char* other);

// The kernels' type of these; f32 for types that they lack.
Type type_of(xla_ffi::DataType type);

// The attributes that all handlers take: `threads` (an integer; 0, the default: as many as XLA has) and
// `instruction_set` (text; "automatic", the default, or another name of kernels.h).
struct Execution {
  int64_t threads = 0;
  InstructionSet instruction_set = InstructionSet::automatic;
};
bool read_execution(Frame& frame, Execution& execution);

// Runs a handler: answers XLA's question for its metadata, and calls `run` where it is to be executed.
xla_ffi::Error* handle(xla_ffi::CallFrame* frame, const char* handler, bool (*run)(Frame&));

}  // namespace xlann
