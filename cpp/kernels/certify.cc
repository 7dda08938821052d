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
namespace {

// What the proof of one query stands on.
struct Lost {
  double g;         // what a sum of products is off by, relative to the product of norms
  double lost;      // |x - x'| at most, but for the rounding of the products of scales with s8 numbers
  double stored;    // |x'| at most
  double tiny;      // the norm of what was taken for 0
  double query;     // |q|
  double rounding;  // |q - q'|
  double used;      // |q'|
  bool known;       // whether all this is

  Lost(const FusedSearch& call, int64_t at)
      : g(0), lost(0), stored(0), tiny(0), query(0), rounding(0), used(0), known(false) {
    const double d = static_cast<double>(call.dimension), nu = (d + 16) * 0x1p-24;
    if (!(nu < 1) || !(call.errors[0] >= 0 && call.errors[1] >= 0)) return;
    g = nu / (1 - nu);
    // Numbers below 2^-126 may have been taken for 0, squares of them by the caller too.
    tiny = std::sqrt(d) * 0x1p-62;
    // The caller's sums were rounded.
    lost = call.errors[0] * (1 + g) + tiny;
    stored = call.errors[1] * (1 + g) + tiny;
    const QueryNorms norms = norms_of(call, at);
    query = norms.query;
    rounding = norms.lost + tiny;
    used = query + rounding;
    known = query < INFINITY;
  }

  // |x - x'| of a row whose |x'| is at most that.
  double row(double stored) const { return lost + g * stored; }
};

// Whether no sum of products with a stored row of that norm overflowed; for s8 no sum times the row's scale either, before
// the query's: that of its numbers is up to 127.
bool in_range(const FusedSearch& call, const Lost& lost, double stored) {
  const double quantised = call.type == Type::s8 ? 127 * std::sqrt(static_cast<double>(call.dimension)) * stored : 0;
  return (lost.query + lost.used) * (lost.row(stored) + stored) + quantised < 1e38;
}

}  // namespace

int64_t proven(const FusedSearch& call, int64_t query, float worst) {
  const Lost lost(call, query);
  if (!lost.known || !in_range(call, lost, lost.stored)) return 0;
  const double row = lost.row(lost.stored);
  const double bound = (lost.query * row + lost.rounding * lost.stored +
                        lost.g * (lost.used * lost.stored + 3 * lost.query * (row + lost.stored))) *
                           (1 + 0x1p-20) +
                       static_cast<double>(call.dimension) * 0x1p-122;

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

// Why a squared distance is proven. Let q and x be a query and a row less the centre, in exact numbers, so that
//   |q - x|^2 = |q|^2 - 2 s, with s = q . x - |x|^2 / 2.
// The row less the centre was rounded to f32, then stored as x'; h is the half norm of the former as f32 sums give it, off by
// g |x|^2 / 2. Suppose that a row that is no candidate is nearer than a result at the squared distance D. Then it is
// within reach: |x| <= |q| + sqrt(D). That is to be below 2^62, so that the row is one of those of which the caller says what
// norms they have at most: it may leave out greater ones, and those that are not finite. As above, its score q' . x' - h was
// computed to be at most `worst`, and so
//   s <= worst + u |worst| + |q| |x - x'| + |q - q'| |x'| + g (|q'| |x'| + |x|^2),
// where the last term has g |x|^2 for the half norm and the rounding of the difference. If |q|^2 less twice that is D or
// more, there is no such row; and if it is D (1 - 2^-20) or more, none that is nearer by more.
int64_t proven_distances(const FusedSearch& call, int64_t query, float worst) {
  const Lost lost(call, query);
  if (!lost.known || !std::isfinite(worst)) return 0;
  const double rounded = call.centre != nullptr ? 0x1p-23 : 0, scored = worst;
  const double* const distances = call.distances + query * call.k;
  int64_t count = 0;
  for (; count < call.k; ++count) {
    const double distance = distances[count];
    if (distance == 0) continue;
    // Half norms of greater ones overflow, and the caller says nothing of them.
    const double within = (lost.query + std::sqrt(distance) + lost.lost) / (1 - lost.g);
    if (!(within < 0x1p62)) break;
    // Of x' and of x.
    const double stored = std::fmin(lost.stored, within), row = lost.row(stored), reach = stored + row;
    if (!in_range(call, lost, stored)) break;
    const double bound = (lost.query * (row + rounded * reach) + lost.rounding * stored +
                          lost.g * (lost.used * stored + reach * reach) + 0x1p-23 * std::fabs(scored)) *
                             (1 + 0x1p-20) +
                         static_cast<double>(call.dimension) * 0x1p-122;
    if (!(distance * (1 - 0x1p-20) <= lost.query * lost.query - 2 * (scored + bound))) break;
  }
  return count;
}

}  // namespace xlann
