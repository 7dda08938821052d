// What the tests and the benchmark share: threads, random numbers, arrays, and types as the kernels read them.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "../kernels/convert.h"
#include "../kernels/kernels.h"

namespace xlann {

constexpr InstructionSet all_sets[] = {InstructionSet::portable,    InstructionSet::avx2,   InstructionSet::avx_vnni,
                                       InstructionSet::avx512,      InstructionSet::avx512_bf16,
                                       InstructionSet::avx512_vnni, InstructionSet::neon};

inline const char* name(Type type) {
  constexpr const char* names[] = {"f32", "bf16", "f16", "f64", "s8"};
  return names[static_cast<int>(type)];
}

inline int64_t size_of(Type type) {
  constexpr int64_t sizes[] = {4, 2, 2, 8, 1};
  return sizes[static_cast<int>(type)];
}

// A thread for each task but the first, started anew each time.
inline void run_on_threads(void*, int tasks, void (*task)(void*, int), void* argument) {
  std::vector<std::thread> threads;
  for (int i = 1; i < tasks; ++i) threads.emplace_back(task, argument, i);
  task(argument, 0);
  for (std::thread& thread : threads) thread.join();
}

inline Parallel on_threads(int count) {
  Parallel parallel;
  parallel.threads = count;
  parallel.least_work = 1;
  parallel.run = count > 1 ? run_on_threads : nullptr;
  return parallel;
}

// xorshift64*: the same numbers everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  uint64_t bits() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1du;
  }
  int64_t below(int64_t bound) { return static_cast<int64_t>((bits() >> 33) % static_cast<uint64_t>(bound)); }
  float uniform() { return static_cast<float>(bits() >> 40) * 0x1p-23f - 1; }  // in [-1, 1)
  // Close enough to a normal distribution.
  float normal() { return (uniform() + uniform() + uniform() + uniform()) * 0.866f; }

 private:
  uint64_t state_;
};

inline uint16_t f16_of_float(float value) {
  // The nearest by search: there are 2^16 of them, monotone by sign.
  if (value != value) return 0x7e00;
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::fabs(value);
  uint16_t low = 0, high = 0x7c00;
  while (high - low > 1) {
    const uint16_t middle = static_cast<uint16_t>((low + high) / 2);
    (float_of_f16(middle) <= magnitude ? low : high) = middle;
  }
  if (float_of_f16(high) <= magnitude) low = high;
  const bool up = low < 0x7c00 && magnitude - float_of_f16(low) > float_of_f16(high) - magnitude;
  return static_cast<uint16_t>(sign | (up ? high : low));
}

// Numbers of a type, in memory of exactly their size, so that reading past the end is seen; they start where only
// elements are aligned.
class Numbers {
 public:
  Numbers(Type type, int64_t count) : type_(type), count_(count) {
    memory_ = static_cast<char*>(std::malloc(static_cast<size_t>((count + 1) * size_of(type))));
    std::memset(memory_, 0, static_cast<size_t>((count + 1) * size_of(type)));
  }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;
  ~Numbers() { std::free(memory_); }

  void* data() { return memory_ + size_of(type_); }
  int64_t count() const { return count_; }
  double get(int64_t i) {
    switch (type_) {
      case Type::f32:
        return static_cast<float*>(data())[i];
      case Type::bf16:
        return float_of_bf16(static_cast<uint16_t*>(data())[i]);
      case Type::f16:
        return float_of_f16(static_cast<uint16_t*>(data())[i]);
      case Type::f64:
        return static_cast<double*>(data())[i];
      case Type::s8:
        return static_cast<int8_t*>(data())[i];
    }
    return 0;
  }
  void set(int64_t i, double value) {
    switch (type_) {
      case Type::f32:
        static_cast<float*>(data())[i] = static_cast<float>(value);
        break;
      case Type::bf16:
        static_cast<uint16_t*>(data())[i] = bf16_of_float(static_cast<float>(value));
        break;
      case Type::f16:
        static_cast<uint16_t*>(data())[i] = f16_of_float(static_cast<float>(value));
        break;
      case Type::f64:
        static_cast<double*>(data())[i] = value;
        break;
      case Type::s8:
        static_cast<int8_t*>(data())[i] = static_cast<int8_t>(value > -128 ? value < 127 ? value : 127 : -128);
        break;
    }
  }

 private:
  Type type_;
  int64_t count_;
  char* memory_;
};

// Scratch of exactly the size asked for.
class Scratch {
 public:
  explicit Scratch(size_t bytes) : bytes_(bytes), memory_(std::malloc(bytes + 1)) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(memory_); }
  void* data() { return static_cast<char*>(memory_) + 1; }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_;
  void* memory_;
};

// The mode in which XLA's threads are: subnormal numbers are taken for 0. It has to be the same afterwards.
class FlushedSubnormals {
 public:
#if defined(__x86_64__)
  FlushedSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(flushed); }
  ~FlushedSubnormals() {
    if ((_mm_getcsr() & ~0x3fu) != flushed) std::abort();
    _mm_setcsr(before_);
  }

 private:
  static constexpr unsigned flushed = 0x9fc0;
  unsigned before_;
#else
  FlushedSubnormals() {}
#endif
};

#define CHECK(condition, ...)                                          \
  do {                                                                 \
    if (!(condition)) {                                                \
      std::fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                               \
      std::fprintf(stderr, "\n");                                      \
      std::exit(1);                                                    \
    }                                                                  \
  } while (false)

// The results of a search.
struct Found {
  std::vector<float> values;
  std::vector<int32_t> indices;
};

inline Found search(FusedSearch call, int threads) {
  Found found;
  found.values.assign(size_t(call.query_count * call.k), 12345);
  found.indices.assign(size_t(call.query_count * call.k), -1);
  call.values = found.values.data();
  call.indices = found.indices.data();
  const Parallel parallel = on_threads(threads);
  Scratch scratch(fused_search_scratch(call, parallel));
  const FlushedSubnormals mode;
  CHECK(fused_search(call, scratch.data(), scratch.bytes(), parallel) == Status::ok, "%s", name(call.type));
  return found;
}

inline bool same(const Found& a, const Found& b) {
  return a.indices == b.indices && std::memcmp(a.values.data(), b.values.data(), a.values.size() * 4) == 0;
}

}  // namespace xlann
