// The handlers, as XLA knows them: functions of a call frame, to be registered for the platform "Host". Each one's file
// says what it takes.
#pragma once

#include "../xla_ffi.h"

extern "C" {
xla_ffi::Error* xlann_select_k_handler(xla_ffi::CallFrame* frame);
xla_ffi::Error* xlann_fused_search_handler(xla_ffi::CallFrame* frame);

// The instruction set that a search of rows of a type, of the kernels' number, takes on this machine.
const char* xlann_instruction_set(int32_t type);
// Whether queries are rounded to as many steps for rows of s8 as these are; else to fewer.
bool xlann_rounds_queries_as_rows();
}
