// Queries in the form that the inner loops want.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "parallel.h"
#include "routines.h"

namespace xlann {

// How a group of queries is packed.
struct QueryLayout {
  QueryForm form;
  bool streams;     // query after query; else panels of vectors
  int64_t lanes;    // queries in a vector
  int64_t vectors;  // at most, in a panel
  int64_t queries;  // at most, in a group
  int64_t steps;    // tiles: 4-byte units of a query
  int64_t stride;   // streams: elements of a query, with padding
};

struct PackedQueries {
  void* packed;
  float* scales;
  int32_t* offsets;
};

QueryLayout layout_of(const SearchRoutines& search, bool streams, int64_t queries, int64_t dimension);
PackedQueries take_queries(const QueryLayout& layout, Arena& arena);

// Panels of `queries` queries; their vectors are spread evenly.
int64_t panel_count(const QueryLayout& layout, int64_t queries);
int64_t panel_queries(const QueryLayout& layout, int64_t queries, int64_t panel);
Panel panel_at(const QueryLayout& layout, const PackedQueries& packed, int64_t queries, int64_t panel);

// Packs a panel of the queries that start at `first_query`.
void pack_panel(const QueryLayout& layout, const FusedSearch& call, int64_t first_query, int64_t queries,
                int64_t panel, const PackedQueries& packed);

// A query in f32.
void read_query(const FusedSearch& call, int64_t query, float* to);

}  // namespace xlann
