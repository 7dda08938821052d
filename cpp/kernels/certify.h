// Proof that results of a search in reduced precision are those of a search in f32.
#pragma once

#include "kernels.h"

namespace xlann {

// How many of a query's k results, which stand in call.values, are proven. `worst` is the worst score among its
// candidates as they were found; greater is better, for both metrics.
int64_t proven(const FusedSearch& call, int64_t query, float worst);

// As `proven`, of squared distances, which stand in call.distances: how many have no row before them that is no candidate,
// but for some whose distance is less by at most 2^-20 of it.
int64_t proven_distances(const FusedSearch& call, int64_t query, float worst);

}  // namespace xlann
