// The candidates of one query: those that passed its threshold since it was last raised.
#pragma once

#include <cstdint>

#include "order.h"

namespace xlann {

// Candidates are appended in the order of their indices. When `limit` of them are there, the list is compacted to the
// best k, and the threshold raised to the last of these: an equal score that comes later has the greater index, and
// loses.
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
static inline int64_t list_base(int64_t k) { return k + at_least(k, 64); }
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

}  // namespace xlann
