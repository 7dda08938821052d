// No instruction that a machine may lack.
#include <cstring>
#include <limits>
#include <type_traits>

#include "convert.h"
#include "routines.h"

namespace xlann {
namespace portable {
#include "simd_portable.inc"
#include "inner_append.inc"
#include "inner_lists.inc"
#include "inner_tile.inc"
#include "inner_stream.inc"
#include "inner_difference.inc"
#include "inner_scan.inc"
#include "inner_tables.inc"
}  // namespace portable

extern const Routines portable_routines;
const Routines portable_routines = portable::table;
}  // namespace xlann
