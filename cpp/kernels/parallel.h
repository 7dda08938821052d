// Running work on the caller's threads, each task under the same floating-point rules.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "kernels.h"

namespace xlann {

// Subnormal numbers count, to nearest, in whatever mode the calling threads are (XLA's flush them to 0): comparisons
// that took them for 0 would sort them wrongly, and results would depend on who calls.
class FloatMode {
 public:
#if defined(__x86_64__)
  FloatMode() : before_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
  ~FloatMode() { _mm_setcsr(before_); }
#elif defined(__aarch64__)
  FloatMode() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
    __asm__ volatile("msr fpcr, %0" : : "r"(uint64_t{0}));
  }
  ~FloatMode() { __asm__ volatile("msr fpcr, %0" : : "r"(before_)); }
#else
  FloatMode() {}
#endif
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

 private:
#if defined(__x86_64__)
  unsigned before_;
#elif defined(__aarch64__)
  uint64_t before_;
#endif
};

inline int64_t workers_for(const Parallel& parallel, double work) {
  const double worth = work / static_cast<double>(parallel.least_work > 1 ? parallel.least_work : 1) + 1;
  const int64_t threads = parallel.threads > 1 ? parallel.threads : 1;
  return worth < static_cast<double>(threads) ? static_cast<int64_t>(worth) : threads;
}

// Calls work(i) for each i < tasks.
template <class Work>
void for_each_task(const Parallel& parallel, int tasks, Work& work) {
  const auto task = [](void* argument, int index) {
    const FloatMode mode;
    (*static_cast<Work*>(argument))(index);
  };
  if (parallel.run != nullptr && tasks > 1) {
    parallel.run(parallel.context, tasks, task, &work);
  } else {
    for (int index = 0; index < tasks; ++index) task(&work, index);
  }
}

// Hands out parts of a piece of memory, aligned for vectors; over no memory it counts what is needed.
class Arena {
 public:
  static constexpr size_t alignment = 64;

  Arena() : memory_(nullptr) {}
  explicit Arena(void* memory) {
    const uintptr_t start = reinterpret_cast<uintptr_t>(memory);
    memory_ = static_cast<char*>(memory) + (alignment - start % alignment) % alignment;
  }

  template <class T>
  T* take(int64_t count) {
    char* const part = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (static_cast<size_t>(count) * sizeof(T) + alignment - 1) / alignment * alignment;
    return reinterpret_cast<T*>(part);
  }

  // Including what alignment may take.
  size_t needed() const { return used_ + alignment; }

 private:
  char* memory_;
  size_t used_ = 0;
};

}  // namespace xlann
