#include "certify.h"

#include <cmath>
#include <cstdint>

#include "queries.h"

namespace xlann {

// Why a result is proven. Let q be a query and q' what is used of it, x a row of rerank_rows and x' the stored one, and
// h the row's half norm, or 0. For all rows |x - x'| <= e0 and |x'| <= e1. Then
//   (q . x - h) - (q' . x' - h) = q . (x - x') + (q - q') . x' <= |q| e0 + |q - q'| e1.
// A sum of d products in f32, in any order, is off by at most g |q| |x|, with g = n u / (1 - n u), u = 2^-24, and n a
// little above d for scales and conversions (Higham, Accuracy and Stability of Numerical Algorithms, 3.1). The score of
// a row that is no candidate was computed to be at most `worst`. Hence
//   its q' . x' - h  is at most   worst + g |q'| e1,
//   its q . x - h                 that + |q| e0 + |q - q'| e1,
//   its score in f32              that + g |q| (e0 + e1);
// and of a result that was scored as r, whose sum another search in f32 may take in another order,
//   its q . x - h    is at least  r - g |q| (e0 + e1),
//   its score in f32              that - g |q| (e0 + e1).
// Where r - worst exceeds what is added there, a search in f32 has the result before every row that is no candidate;
// not where it is equal, as that row could have the lower index.
// For l2, each of the four scores is a rounded difference of a product and h, off by u of its own magnitude, which is
// that of r or worst but for what is added above: by 2 u (|r| + |worst|) together, for which 4 u is taken.
int64_t proven(const FusedSearch& call, int64_t query, float worst) {
  const double d = static_cast<double>(call.dimension), nu = (d + 16) * 0x1p-24;
  if (!(nu < 1)) return 0;
  const double g = nu / (1 - nu);
  // Numbers below 2^-126 may have been taken for 0, squares of them by the caller too.
  const double tiny = std::sqrt(d) * 0x1p-62;
  const double lost = call.errors[0], stored = call.errors[1];
  if (!(lost >= 0 && stored >= 0)) return 0;
  // The caller's sums were rounded, and the products of scales with s8 numbers.
  const double e0 = lost + g * (lost + stored) + tiny, e1 = stored + g * stored + tiny;
  const QueryNorms norms = norms_of(call, query);
  const double norm = norms.query, rounding = norms.lost + tiny, used = norm + rounding;
  // No sum overflowed, and for s8 no sum times a row's scale, before the query's: that of its numbers is up to 127.
  const double greatest = (norm + used) * (e0 + e1) + (call.type == Type::s8 ? 127 * std::sqrt(d) * e1 : 0);
  if (!(greatest < 1e38)) return 0;
  const double bound =
      (norm * e0 + rounding * e1 + g * (used * e1 + 3 * norm * (e0 + e1))) * (1 + 0x1p-20) + d * 0x1p-122;

  const bool l2 = call.metric == Metric::l2;
  const float* const values = call.values + query * call.k;
  int64_t count = 0;
  for (int64_t i = 0; i < call.k; ++i) {
    const double score = l2 ? -values[i] : values[i];
    const double difference = l2 ? 0x1p-22 * (std::fabs(score) + std::fabs(double{worst})) : 0;
    count += std::isfinite(score) && std::isfinite(worst) && score - worst > bound + difference;
  }
  return count;
}

}  // namespace xlann
