// NEON, which every aarch64 machine has.
#if defined(__aarch64__)
#include <arm_neon.h>

#include <cstring>
#include <limits>
#include <type_traits>

#include "routines.h"

namespace xlann {
namespace neon {
#include "simd_neon.inc"
#include "inner_append.inc"
#include "inner_lists.inc"
#include "inner_tile.inc"
#include "inner_stream.inc"
#include "inner_difference.inc"
#include "inner_scan.inc"
#include "inner_tables.inc"
}  // namespace neon

extern const Routines neon_routines;
const Routines neon_routines = neon::table;
}  // namespace xlann
#endif
