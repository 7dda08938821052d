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

inline F32::Keys add_products(Bytes::Vector row, Bytes::Vector query, F32::Keys sum) {
  return (F32::Keys)_mm512_dpbusd_epi32((__m512i)sum, row, query);
}

#include "inner_whole.inc"
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
