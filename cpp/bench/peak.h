// The machine's own limits, taken in the same run as what is compared with them.
#pragma once

#include <cstdint>

#include "../kernels/routines.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace xlann {

#if defined(__x86_64__)
constexpr int peak_chains = 12;
constexpr int64_t peak_rounds = 4000000;

#define XLANN_PEAK(name, features, vector, start, operand, step, sum)                   \
  __attribute__((target(features))) inline float name() {                              \
    vector a[peak_chains];                                                             \
    operand;                                                                           \
    for (int i = 0; i < peak_chains; ++i) a[i] = start;                                \
    for (int64_t r = 0; r < peak_rounds; ++r) {                                        \
      _Pragma("GCC unroll 12") for (int i = 0; i < peak_chains; ++i) a[i] = step;      \
      __asm__ volatile("");                                                            \
    }                                                                                  \
    for (int i = 1; i < peak_chains; ++i) a[0] = a[0] + a[i];                          \
    return static_cast<float>(sum);                                                    \
  }

XLANN_PEAK(peak_avx2, "avx2,fma", __m256, _mm256_set1_ps(float(i)),
           const __m256 x = _mm256_set1_ps(0.5f), _mm256_fmadd_ps(a[i], x, x), a[0][0])
XLANN_PEAK(peak_avx512, "avx512f", __m512, _mm512_set1_ps(float(i)),
           const __m512 x = _mm512_set1_ps(0.5f), _mm512_fmadd_ps(a[i], x, x), a[0][0])
XLANN_PEAK(peak_bf16, "avx512f,avx512bw,avx512bf16", __m512, _mm512_set1_ps(float(i)),
           const __m512bh x = (__m512bh)_mm512_set1_epi16(0x3c00), _mm512_dpbf16_ps(a[i], x, x), a[0][0])
// Of the intrinsics' own type for whole numbers, GCC 12 stores each sum in each step.
typedef int32_t Sums256 __attribute__((vector_size(32)));
typedef int32_t Sums512 __attribute__((vector_size(64)));
typedef uint16_t Pairs256 __attribute__((vector_size(32)));
typedef uint16_t Pairs512 __attribute__((vector_size(64)));
XLANN_PEAK(peak_pairs, "avx2", Pairs256, Pairs256{} + uint16_t(i), const __m256i x = _mm256_set1_epi8(1),
           a[i] + (Pairs256)_mm256_maddubs_epi16(x, (__m256i)a[i]), a[0][0])
XLANN_PEAK(peak_pairs_avx512, "avx512f,avx512bw", Pairs512, Pairs512{} + uint16_t(i),
           const __m512i x = _mm512_set1_epi8(1), a[i] + (Pairs512)_mm512_maddubs_epi16(x, (__m512i)a[i]), a[0][0])
#if defined(XLANN_AVX_VNNI)
XLANN_PEAK(peak_avx_vnni, "avx2,avxvnni", Sums256, Sums256{} + int32_t(i), const __m256i x = _mm256_set1_epi8(1),
           (Sums256)_mm256_dpbusd_avx_epi32((__m256i)a[i], x, x), a[0][0])
#endif
XLANN_PEAK(peak_vnni, "avx512f,avx512vnni", Sums512, Sums512{} + int32_t(i), const __m512i x = _mm512_set1_epi8(1),
           (Sums512)_mm512_dpbusd_epi32((__m512i)a[i], x, x), a[0][0])
#undef XLANN_PEAK
#endif

// Reads all of it.
inline uint64_t read_all(const void* memory, int64_t bytes) {
  typedef uint64_t Vector __attribute__((vector_size(32), aligned(1), may_alias));
  const Vector* p = static_cast<const Vector*>(memory);
  Vector a = {}, b = {}, c = {}, d = {};
  for (int64_t i = 0; i + 4 <= bytes / 32; i += 4) {
    a ^= p[i];
    b ^= p[i + 1];
    c ^= p[i + 2];
    d ^= p[i + 3];
  }
  a ^= b ^ c ^ d;
  return a[0] ^ a[1] ^ a[2] ^ a[3];
}

}  // namespace xlann
