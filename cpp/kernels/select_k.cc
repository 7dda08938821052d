// Top-k of ready scores: how rows are split, and candidates become results.
#include <algorithm>
#include <atomic>

#include "parallel.h"
#include "routines.h"

namespace xlann {
namespace {

bool valid(const SelectK& call) {
  return call.type != Type::s8 && call.rows >= 0 && call.columns >= 1 && call.columns <= most_choices && call.k >= 1 &&
         call.k <= call.columns && call.rows <= INT64_MAX / 64 / call.columns;
}

int64_t bytes_of(Type type) { return type == Type::f64 ? 8 : type == Type::f32 ? 4 : 2; }

struct Plan {
  const Routines* base;
  int64_t parts;  // of each row
  int64_t part;   // elements
  int64_t workers;
};

Plan plan_of(const SelectK& call, const Parallel& parallel) {
  Plan plan;
  plan.base = routines(call.instruction_set);
  const int64_t threads = workers_for(parallel, static_cast<double>(call.rows) * static_cast<double>(call.columns));
  // Parts are merged from k candidates each: they should be much longer.
  const int64_t least = at_least(at_most(parallel.least_work, 16384), 8 * call.k);
  int64_t parts = 1;
  if (threads > 1 && call.rows < 4 * threads && call.rows > 0) {
    parts = at_least(at_most(4 * threads / call.rows, call.columns / least), 1);
  }
  plan.part = (call.columns + parts - 1) / parts;
  plan.parts = (call.columns + plan.part - 1) / plan.part;
  plan.workers = at_least(at_most(threads, call.rows * plan.parts), 1);
  return plan;
}

template <class Key>
struct Candidate {
  Key key;
  int32_t index;
};

template <class Key>
bool better(const Candidate<Key>& a, const Candidate<Key>& b) {
  return a.key != b.key ? a.key > b.key : a.index < b.index;
}

template <class Key>
struct Worker {
  Key* keys;
  int32_t* indices;
};

template <class Key>
struct Memory {
  Candidate<Key>* found;  // [rows, parts, k], or [workers, k] where a row is one part
  Worker<Key>* workers;
};

template <class Key>
Memory<Key> lay_out(const Plan& plan, const SelectK& call, Arena& arena) {
  Memory<Key> memory;
  memory.found = arena.take<Candidate<Key>>((plan.parts == 1 ? plan.workers : call.rows * plan.parts) * call.k);
  memory.workers = arena.take<Worker<Key>>(plan.workers);
  const int64_t stride = list_stride(call.k, plan.part);
  for (int64_t w = 0; w < plan.workers; ++w) {
    Worker<Key> worker;
    worker.keys = arena.take<Key>(stride);
    worker.indices = arena.take<int32_t>(stride);
    if (memory.workers != nullptr) memory.workers[w] = worker;
  }
  return memory;
}

void compact(const Routines& base, List<int32_t>& list) { base.compact(list, 0, 0); }
void compact(const Routines& base, List<int64_t>& list) { base.compact_wide(list, 0, 0); }

// The best k of row[begin, end), or all; their number.
template <class Key>
int64_t find(const Plan& plan, const SelectK& call, const char* row, int64_t begin, int64_t end,
             const Worker<Key>& worker, Candidate<Key>* found) {
  const int64_t k = at_most(call.k, end - begin);
  List<Key> list;
  reset(list, k, end - begin, worker.keys, worker.indices);
  plan.base->scan[static_cast<int>(call.type)](row, static_cast<int32_t>(begin), static_cast<int32_t>(end), call.least,
                                               &list);
  compact(*plan.base, list);
  for (int32_t i = 0; i < list.count; ++i) found[i] = {list.keys[i], list.indices[i]};
  return list.count;
}

void write(const SelectK& call, int64_t row, int64_t rank, int32_t index) {
  const int64_t size = bytes_of(call.type);
  call.indices[row * call.k + rank] = index;
  std::memcpy(static_cast<char*>(call.values) + (row * call.k + rank) * size,
              static_cast<const char*>(call.operand) + (row * call.columns + index) * size, static_cast<size_t>(size));
}

template <class Key>
void run(const Plan& plan, const SelectK& call, const Parallel& parallel, const Memory<Key>& memory) {
  const int64_t row_bytes = call.columns * bytes_of(call.type);
  const char* const operand = static_cast<const char*>(call.operand);
  std::atomic<int64_t> next{0};
  auto scan = [&](int w) {
    for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < call.rows * plan.parts;) {
      const int64_t row = task / plan.parts, begin = task % plan.parts * plan.part;
      const int64_t end = at_most(begin + plan.part, call.columns);
      Candidate<Key>* const found = memory.found + (plan.parts == 1 ? w : task) * call.k;
      const int64_t count = find(plan, call, operand + row * row_bytes, begin, end, memory.workers[w], found);
      if (plan.parts > 1) continue;
      std::sort(found, found + count, better<Key>);
      for (int64_t i = 0; i < call.k; ++i) write(call, row, i, found[i].index);
    }
  };
  for_each_task(parallel, static_cast<int>(plan.workers), scan);
  if (plan.parts == 1) return;
  std::atomic<int64_t> done{0};
  auto merge = [&](int) {
    for (int64_t row; (row = done.fetch_add(1, std::memory_order_relaxed)) < call.rows;) {
      // All parts have k candidates: they are longer, but for the last, whose missing ones are closed up.
      Candidate<Key>* const found = memory.found + row * plan.parts * call.k;
      const int64_t last = call.columns - (plan.parts - 1) * plan.part;
      const int64_t count = (plan.parts - 1) * call.k + at_most(call.k, last);
      std::partial_sort(found, found + call.k, found + count, better<Key>);
      for (int64_t i = 0; i < call.k; ++i) write(call, row, i, found[i].index);
    }
  };
  for_each_task(parallel, static_cast<int>(at_most(plan.workers, call.rows)), merge);
}

}  // namespace

size_t select_k_scratch(const SelectK& call, const Parallel& parallel) {
  if (!valid(call)) return 0;
  const Plan plan = plan_of(call, parallel);
  if (plan.base == nullptr) return 0;
  Arena arena;
  if (call.type == Type::f64) {
    lay_out<int64_t>(plan, call, arena);
  } else {
    lay_out<int32_t>(plan, call, arena);
  }
  return arena.needed();
}

Status select_k(const SelectK& call, void* scratch, size_t scratch_bytes, const Parallel& parallel) {
  if (!valid(call)) return Status::invalid_argument;
  const Plan plan = plan_of(call, parallel);
  if (plan.base == nullptr) return Status::unsupported_instruction_set;
  if (call.rows == 0) return Status::ok;
  if (scratch == nullptr || scratch_bytes < select_k_scratch(call, parallel)) return Status::scratch_too_small;
  Arena arena(scratch);
  if (call.type == Type::f64) {
    run(plan, call, parallel, lay_out<int64_t>(plan, call, arena));
  } else {
    run(plan, call, parallel, lay_out<int32_t>(plan, call, arena));
  }
  return Status::ok;
}

}  // namespace xlann
