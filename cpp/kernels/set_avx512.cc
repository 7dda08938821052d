// AVX-512: F, BW, DQ, VL and CD.
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
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd," \
                          "avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt")
#endif

namespace xlann {
namespace avx512 {
#include "simd_avx512.inc"
#include "inner_lists.inc"
#include "inner_tile.inc"
#include "inner_stream.inc"
#include "inner_difference.inc"
#include "inner_scan.inc"
#include "inner_tables.inc"
#include "inner_pairs.inc"
}  // namespace avx512

extern const Routines avx512_routines;
const Routines avx512_routines = avx512::table;
const SearchRoutines avx512_s8_search = avx512::search_of_pairs;
}  // namespace xlann

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
