// The candidates of one query: those that passed its threshold since it was last raised.
#pragma once

#include <cmath>
#include <cstdint>

#include "order.h"

namespace xlann {

// Candidates are appended in the order of their indices. When `limit` of them are there, the list is compacted to
// about the best k, and the threshold raised to what these exceed. Of equal ones the first stay: one that comes later
// has the greater index, and loses.
template <class Key>
struct alignas(64) List {
  Key* keys;
  int32_t* indices;
  Key threshold;
  int32_t count;
  int32_t limit;
  int32_t capacity;
  int32_t k;
  int32_t last;  // the index at which it was last compacted
};

// Room behind the capacity, so that whole vectors can be read and appended.
constexpr int64_t list_slack = 128;

static inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t at_least(int64_t a, int64_t b) { return a < b ? b : a; }

// A low limit keeps the threshold fresh, and is best while few pass; where many pass, compaction costs less in greater
// batches, and the limit is doubled up to the capacity.
static inline int64_t list_base(int64_t k) { return k + at_least(k / 2, 16); }
// How many more than k compaction may leave: fewer are more work to find than they save.
static inline int32_t list_spare(int32_t k) { return k / 8 + 2; }
static inline int64_t list_capacity(int64_t k, int64_t count) { return at_most(k + at_least(k, 512), count); }
static inline int64_t list_stride(int64_t k, int64_t count) {
  return (list_capacity(k, count) + list_slack + 15) / 16 * 16;
}

template <class Key>
static inline void reset(List<Key>& list, int64_t k, int64_t count, Key* keys, int32_t* indices) {
  list.keys = keys;
  list.indices = indices;
  list.threshold = lowest_key<Key>();
  list.count = 0;
  list.capacity = static_cast<int32_t>(list_capacity(k, count));
  list.limit = static_cast<int32_t>(at_most(list_base(k), list.capacity));
  list.k = static_cast<int32_t>(k);
  list.last = 0;
}

// The size of a sample that a threshold is taken from, in runs of neighbours. About k * length / size of the whole
// exceed its kth best, and of a whole in order up to run * length / size: that is as many as are in the sample where
// `thrift` is 1, and thrift^2 times as many else, for those to which one that passes costs that much less. (A search
// takes a better one than the kth, and half the size or twice would make no difference.) None where it would be much
// beside the whole, or too few to tell.
static inline int64_t sample_size(int64_t k, int64_t length, int64_t run, int64_t thrift) {
  const int64_t most = length / (8 * thrift);
  int64_t size = 2 * k;
  while (size < most && size * size * thrift * thrift < at_least(k, run) * length) size += size / 4 + 1;
  size = at_most(size, most) / run * run;
  return size < 2 * k ? 0 : size;
}

// The rank of the element of a sample that a first threshold for the k best of the whole is taken from. Fewer than k
// are above it only where so many of the sample are among them. As a rule k * samples / length are, with a deviation of
// its square root: so many are in about one case of 10^5; more often where the best are stored side by side, as a
// sample has runs of neighbours. Then the search has to be made again.
static inline int64_t sample_rank(int64_t k, int64_t samples, int64_t length) {
  const double expected = static_cast<double>(k) * static_cast<double>(samples) / static_cast<double>(length);
  return at_most(k, static_cast<int64_t>(expected + 4 * std::sqrt(expected)) + 4);
}

// The place of element `at` of a sample of `count` from `length`, the first of `run` in a row. The places are spread
// evenly, but for a shift that is different for each, so as not to fall in step with the data.
static inline int64_t spread(int64_t at, int64_t count, int64_t length, int64_t run) {
  const int64_t stride = length / count * run, part = at / run;
  const uint64_t shift = (static_cast<uint64_t>(part) * 2654435761u >> 7) % static_cast<uint64_t>(stride - run + 1);
  return part * stride + static_cast<int64_t>(shift);
}

// Never lowers it. Some integers are the key of no score, and as numbers would compare otherwise: the one below 0's is
// -0.0, which 0.0 does not exceed, and those between NaN's and that of minus infinity are NaNs.
template <class Key>
static inline void raise(List<Key>& list, Key threshold) {
  if (threshold == -1) threshold = -2;
  if (threshold > nan_key<Key>() && value_of(threshold) != value_of(threshold)) threshold = nan_key<Key>();
  list.threshold = threshold > list.threshold ? threshold : list.threshold;
}

// The candidates of all queries at hand, for one worker.
struct Candidates {
  List<int32_t>* lists;
  float* thresholds;  // value_of(lists[i].threshold), side by side for vectors
  // What scores of stored numbers are compared with before they are multiplied by their query's scale, and the scales;
  // or the thresholds, and null.
  float* bounds;
  const float* scales;
  int32_t* shared;  // the greatest threshold of any worker, or null; written by all
};

// A number whose product with a scale, rounded, is at most the threshold, and so are those of all that are less: a
// little below the quotient. NaN where there is none.
static inline float before_scale(float threshold, float scale) {
  if (threshold == INFINITY || (scale == 0 && threshold >= 0)) return INFINITY;
  const float quotient = threshold / scale;
  return quotient - (std::fabs(quotient) * 0x1p-20f + 0x1p-126f);
}

// To be called when the threshold of a list has changed.
static inline void spread_threshold(Candidates& candidates, int32_t query) {
  const float threshold = value_of(candidates.lists[query].threshold);
  candidates.thresholds[query] = threshold;
  if (candidates.scales != nullptr) candidates.bounds[query] = before_scale(threshold, candidates.scales[query]);
}

// What k candidates of another worker exceed, those of this one need not be compared with; but equal ones of a lower
// index may be better.
static inline void take_shared_threshold(Candidates& candidates, int32_t query, int32_t shared) {
  List<int32_t>& list = candidates.lists[query];
  if (shared > lowest_key<int32_t>()) raise(list, shared - 1);
  spread_threshold(candidates, query);
}

static inline void share_threshold(Candidates& candidates, int32_t query) {
  if (candidates.shared == nullptr) return spread_threshold(candidates, query);
  const int32_t shared = __atomic_load_n(candidates.shared + query, __ATOMIC_RELAXED);
  const int32_t own = candidates.lists[query].threshold;
  // Of two that write at once either is a bound.
  if (own > shared) __atomic_store_n(candidates.shared + query, own, __ATOMIC_RELAXED);
  take_shared_threshold(candidates, query, shared);
}

}  // namespace xlann
