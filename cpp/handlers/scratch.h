// Memory for the time of a call.
#pragma once

#include <cstdlib>

#include "frame.h"

namespace xlann {

// Calls a kernel with so much scratch memory, and sets the error where it refuses or there is none.
template <class Kernel>
bool with_scratch(Frame& frame, size_t bytes, const Kernel& kernel) {
  void* const scratch = std::malloc(bytes);
  if (scratch == nullptr && bytes > 0) {
    return frame.fail(xla_ffi::ErrorCode::resource_exhausted, "there are no %zu bytes of scratch memory", bytes);
  }
  const Status status = kernel(scratch, bytes);
  std::free(scratch);
  switch (status) {
    case Status::ok:
      return true;
    case Status::unsupported_instruction_set:
      return frame.fail(xla_ffi::ErrorCode::unimplemented, "the kernel has no such instruction set for these types");
    default:
      return frame.fail(xla_ffi::ErrorCode::internal, "the kernel refuses its arguments");
  }
}

}  // namespace xlann
