// The threads of XLA's own pool, which all executions of a client share: two at once take turns on them, and none
// is left spinning.
#pragma once

#include "frame.h"

namespace xlann {

class ThreadPool {
 public:
  // At most `threads` of them, the calling one included; 0 for all.
  ThreadPool(const xla_ffi::CallFrame& frame, int64_t threads);

  Parallel parallel();

 private:
  static void run(void* context, int tasks, void (*task)(void* argument, int index), void* argument);

  const xla_ffi::CallFrame& frame_;
  int threads_ = 1;
};

}  // namespace xlann
