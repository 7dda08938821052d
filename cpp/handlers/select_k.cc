// xlann_select_k: top-k along the last dimension.
//
// Operand: [..., n], of f32, bf16, f16 or f64.
// Results: values [..., k] of the operand's type, and indices s32[..., k]; k is read off them.
// Attributes: `least` (a truth value; false), and those of Execution.
#include "handlers.h"
#include "scratch.h"
#include "thread_pool.h"

namespace xlann {
namespace {

using xla_ffi::DataType;

bool run(Frame& frame) {
  Matrix operand, values, indices;
  bool least = false;
  Execution execution;
  if (!frame.counts({"the operand"}, 2) || !frame.argument(0, "the operand", 1, operand) ||
      !frame.has_type("the operand", operand, {DataType::f32, DataType::bf16, DataType::f16, DataType::f64}) ||
      !frame.result(0, "the values", 1, values) || !frame.has_type("the values", values, {operand.type}) ||
      !frame.result(1, "the indices", 1, indices) || !frame.has_type("the indices", indices, {DataType::s32}) ||
      !frame.has_sizes("the values", values, operand, operand.rank - 1, {values.columns}) ||
      !frame.has_sizes("the indices", indices, operand, operand.rank - 1, {values.columns}) ||
      !frame.attributes({"least", "threads", "instruction_set"}) || !frame.attribute("least", least) ||
      !read_execution(frame, execution)) {
    return false;
  }
  const int64_t k = values.columns;
  if (operand.columns > most_choices) {
    return frame.refuse("the operand's last size must be at most %lld, got %lld",
                        static_cast<long long>(most_choices), static_cast<long long>(operand.columns));
  }
  if (k > operand.columns) {
    return frame.refuse("k must be at most the operand's last size (%lld), got %lld",
                        static_cast<long long>(operand.columns), static_cast<long long>(k));
  }
  if (operand.batch == 0 || k == 0) return true;
  ThreadPool pool(frame.frame(), execution.threads);
  SelectK call;
  call.type = type_of(operand.type);
  call.operand = operand.data;
  call.rows = operand.batch;
  call.columns = operand.columns;
  call.k = k;
  call.least = least;
  call.values = const_cast<void*>(values.data);
  call.indices = static_cast<int32_t*>(const_cast<void*>(indices.data));
  call.instruction_set = execution.instruction_set;
  const Parallel parallel = pool.parallel();
  return with_scratch(frame, select_k_scratch(call, parallel), [&](void* scratch, size_t bytes) {
    return select_k(call, scratch, bytes, parallel);
  });
}

}  // namespace
}  // namespace xlann

extern "C" xla_ffi::Error* xlann_select_k_handler(xla_ffi::CallFrame* frame) {
  return xlann::handle(frame, "xlann_select_k", xlann::run);
}
