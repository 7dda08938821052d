// Search in s8 by AVX-512 VNNI: four products of u8 and s8 at once, summed in s32.
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
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vnni," \
                          "avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vnni,avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt")
#endif

namespace xlann {
namespace avx512_vnni {
#include "simd_avx512.inc"
#include "inner_lists.inc"
#include "inner_tile.inc"
#include "inner_stream.inc"

// The instruction wants one side unsigned: rows get 128 added, by turning over a bit, and sums start from -128 times
// the sum of the query.
inline __m512i unsigned_of(__m512i x) { return _mm512_xor_si512(x, _mm512_set1_epi8(-128)); }

struct MultiplyS8 {
  using Element = int8_t;
  using Accumulator = F32::Keys;  // of __m512i, GCC 12 stores each sum in each step
  using Operand = __m512i;
  static constexpr int step = 4;
  static constexpr bool overlaps = true, whole = true, in_parts = false;
  static Accumulator start(const Panel& panel, int v) { return read<F32::Keys>(panel.offsets + v * F32::lanes); }
  static Operand row(const int8_t* p) { return unsigned_of(_mm512_set1_epi32(read<int32_t>(p))); }
  // What is added to the missing elements meets zeros of the queries.
  static Operand row_part(const int8_t* p, int count) {
    int32_t four = static_cast<uint8_t>(p[0]);
    if (count > 1) four |= int32_t{static_cast<uint8_t>(p[1])} << 8;
    if (count > 2) four |= int32_t{static_cast<uint8_t>(p[2])} << 16;
    return unsigned_of(_mm512_set1_epi32(four));
  }
  static Operand queries(const void* packed, int64_t vector) {
    return _mm512_loadu_si512(static_cast<const char*>(packed) + vector * 64);
  }
  static Accumulator multiply(Operand row, Operand queries, Accumulator sum) {
    return (F32::Keys)_mm512_dpbusd_epi32((__m512i)sum, row, queries);
  }
  static F32::Vector score(Accumulator sum) { return _mm512_cvtepi32_ps((__m512i)sum); }

  // Whether no sum, times the scale of all rows, exceeds its bound. Sums are compared as they are, with the bounds over
  // the scale: that is less work than scores. The bounds have a relative margin for all that is rounded here
  // (before_scale), which vanishes near 0: so one is subtracted. Sums are below 2^30.1. Greater bounds are cut to
  // 2^31 - 128, which no sum exceeds; those below -2^31 and NaN become the lowest integer, which every sum does. Of NaN
  // and another, the minimum is its second operand.
  template <int vectors, int height>
  static inline __attribute__((always_inline)) bool none_passes(const Accumulator (&sums)[height][vectors],
                                                                const float* bounds, float scale) {
    const __m512 inverse = _mm512_set1_ps(1 / scale), one = _mm512_set1_ps(1), highest = _mm512_set1_ps(0x1.fffffep30f);
    bool none = true;
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      const __m512 quotient = _mm512_fmsub_ps(_mm512_loadu_ps(bounds + v * F32::lanes), inverse, one);
      const __m512i bound = _mm512_cvt_roundps_epi32(_mm512_min_ps(highest, quotient),
                                                     _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
      // Two chains take turns, as each waits for the one before.
      __m512i greatest[2] = {(__m512i)sums[0][v], (__m512i)sums[1][v]};
#pragma GCC unroll 16
      for (int r = 2; r < height; ++r) greatest[r % 2] = _mm512_max_epi32(greatest[r % 2], (__m512i)sums[r][v]);
      none = none & (_mm512_cmpgt_epi32_mask(_mm512_max_epi32(greatest[0], greatest[1]), bound) == 0);
    }
    return none;
  }
};

struct StreamS8 {
  using Element = int8_t;
  using Query = int8_t;
  using Accumulator = F32::Keys;
  using Operand = __m512i;
  static constexpr int step = 64;
  static Accumulator zero() { return Accumulator{}; }
  static Operand row(const int8_t* p) { return unsigned_of(_mm512_loadu_si512(p)); }
  static Operand row_part(const int8_t* p, int64_t count) {
    return unsigned_of(_mm512_maskz_loadu_epi8((__mmask64{1} << count) - 1, p));
  }
  static Operand query(const int8_t* p) { return _mm512_loadu_si512(p); }
  static Accumulator multiply(Operand row, Operand query, Accumulator sum) {
    return (Accumulator)_mm512_dpbusd_epi32((__m512i)sum, row, query);
  }
  static void sums(const Accumulator* four, const int32_t* offsets, float* to) {
    const __m128i start = _mm_loadu_si128((const __m128i*)offsets);
    const __m128i sum = F32::sums(four[0], four[1], four[2], four[3]);
    _mm_storeu_ps(to, _mm_cvtepi32_ps(_mm_add_epi32(start, sum)));
  }
};
}  // namespace avx512_vnni

extern const SearchRoutines avx512_vnni_search;
const SearchRoutines avx512_vnni_search = {avx512_vnni::tile_of<avx512_vnni::MultiplyS8>,
                                          avx512_vnni::rank_block_of<avx512_vnni::MultiplyS8>,
                                          QueryForm::s8,
                                          false,
                                          avx512_vnni::F32::lanes,
                                          avx512_vnni::tile_vectors,
                                          avx512_vnni::stream<avx512_vnni::StreamS8>,
                                          avx512_vnni::StreamS8::step};
}  // namespace xlann

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
