// Proof that results of a search in reduced precision are those of a search in f32.
#pragma once

#include "kernels.h"

namespace xlann {

// Whether at least the share call.certified_recall of a query's k results, which stand in call.values, is proven.
// `worst` is the worst score among its candidates as they were found; greater is better, for both metrics.
bool certified(const FusedSearch& call, int64_t query, float worst);

}  // namespace xlann
