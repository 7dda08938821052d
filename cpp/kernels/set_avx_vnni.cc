// Search in s8 by AVX-VNNI, in vectors of 256 bits: four products of u8 and s8 at once, summed in s32.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>
#include <limits>
#include <type_traits>

#include "routines.h"

#if defined(XLANN_AVX_VNNI)

// The instruction set is chosen for what follows, not for the whole file: functions of the standard library that other
// files use too must not be compiled for it.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avxvnni,avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt"))), \
                             apply_to = function)
#else
#pragma GCC target("avxvnni,avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt")
#endif

namespace xlann {
namespace avx_vnni {
#include "simd_avx2.inc"
#include "inner_append.inc"
#include "inner_lists.inc"
#include "inner_tile.inc"
#include "inner_stream.inc"

inline F32::Keys add_products(Bytes::Vector row, Bytes::Vector query, F32::Keys sum) {
  return (F32::Keys)_mm256_dpbusd_avx_epi32((__m256i)sum, row, query);
}

#include "inner_whole.inc"
}  // namespace avx_vnni

extern const SearchRoutines avx_vnni_search;
const SearchRoutines avx_vnni_search = {avx_vnni::tile_of<avx_vnni::MultiplyS8>,
                                        avx_vnni::rank_block_of<avx_vnni::MultiplyS8>,
                                        QueryForm::s8,
                                        false,
                                        avx_vnni::F32::lanes,
                                        avx_vnni::tile_vectors,
                                        avx_vnni::stream<avx_vnni::StreamS8>,
                                        avx_vnni::StreamS8::step};
}  // namespace xlann

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
#endif
