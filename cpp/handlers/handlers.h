// The handlers, as XLA knows them: functions of a call frame, to be registered for the platform "Host". Each one's file
// says what it takes.
#pragma once

#include "../xla_ffi.h"

extern "C" {
xla_ffi::Error* xlann_select_k_handler(xla_ffi::CallFrame* frame);
xla_ffi::Error* xlann_fused_search_handler(xla_ffi::CallFrame* frame);

// Whether this machine has instructions for sums of such products.
bool xlann_multiplies_s8();
bool xlann_multiplies_bf16();
}
