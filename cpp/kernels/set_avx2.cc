// AVX2 with FMA and F16C.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>
#include <limits>
#include <type_traits>

#include "routines.h"

// The instruction set is chosen for what follows, not for the whole file: functions of the standard library that other
// files use too must not be compiled for it.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt")
#endif

namespace xlann {
namespace avx2 {
#include "simd_avx2.inc"
#include "inner_append.inc"
#include "inner_lists.inc"
#include "inner_tile.inc"
#include "inner_stream.inc"
#include "inner_difference.inc"
#include "inner_scan.inc"
#include "inner_tables.inc"
#include "inner_pairs.inc"
}  // namespace avx2

extern const Routines avx2_routines;
const Routines avx2_routines = avx2::table;
const SearchRoutines avx2_s8_search = avx2::search_of_pairs;
}  // namespace xlann

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
