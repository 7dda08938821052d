// Search in bf16 by AVX-512 BF16: two products of a pair of elements at once, summed in f32.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>
#include <limits>
#include <type_traits>

#include "routines.h"

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own AVX-512 header sets it off (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

// The instruction set is chosen for what follows, not for the whole file: functions of the standard library that other
// files use too must not be compiled for it.
#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512bf16," \
                          "avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512bf16,avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt")
#endif

namespace xlann {
namespace avx512_bf16 {
#include "simd_avx512.inc"
#include "inner_lists.inc"
#include "inner_tile.inc"
#include "inner_stream.inc"

struct MultiplyBf16 {
  using Element = uint16_t;
  using Accumulator = __m512;
  using Operand = __m512i;
  static constexpr int step = 2;
  static constexpr bool overlaps = false, whole = false, in_parts = true, sums_pairs = false;  // infinity times zero is none
  static Accumulator start(const Panel&, int) { return F32::zero(); }
  static Operand row(const uint16_t* p) { return _mm512_set1_epi32(read<int32_t>(p)); }
  static Operand row_part(const uint16_t* p, int) { return _mm512_set1_epi32(*p); }
  static Operand queries(const void* packed, int64_t vector) {
    return _mm512_loadu_si512(static_cast<const char*>(packed) + vector * 64);
  }
  static Accumulator multiply(Operand row, Operand queries, Accumulator sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)row, (__m512bh)queries);
  }
  static F32::Vector score(Accumulator sum) { return sum; }
};

struct StreamBf16 {
  using Element = uint16_t;
  using Query = uint16_t;
  using Accumulator = __m512;
  using Operand = __m512i;
  static constexpr int step = 32;
  static Accumulator zero() { return F32::zero(); }
  static Operand row(const uint16_t* p) { return _mm512_loadu_si512(p); }
  static Operand row_part(const uint16_t* p, int64_t count) {
    return _mm512_maskz_loadu_epi16((__mmask32{1} << count) - 1, p);
  }
  static Operand query(const uint16_t* p) { return row(p); }
  static Accumulator multiply(Operand row, Operand query, Accumulator sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)row, (__m512bh)query);
  }
  static void sums(const Accumulator* four, const int32_t*, float* to) { F32::sums(four, to); }
};
}  // namespace avx512_bf16

extern const SearchRoutines avx512_bf16_search;
const SearchRoutines avx512_bf16_search = {avx512_bf16::tile_of<avx512_bf16::MultiplyBf16>,
                                          avx512_bf16::rank_block_of<avx512_bf16::MultiplyBf16>,
                                          QueryForm::bf16,
                                          false,
                                          avx512_bf16::F32::lanes,
                                          avx512_bf16::tile_vectors,
                                          avx512_bf16::stream<avx512_bf16::StreamBf16>,
                                          avx512_bf16::StreamBf16::step};
}  // namespace xlann

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
