// Queries in the form that the inner loops want.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "parallel.h"
#include "routines.h"

namespace xlann {

// How queries are packed.
struct QueryLayout {
  QueryForm form;
  bool streams;     // query after query; else panels of vectors
  int64_t lanes;    // queries in a vector
  int64_t vectors;  // at most, in a panel
  int64_t queries;  // at most, at a time
  int64_t units;    // tiles: of a query
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
Panel panel_at(const QueryLayout& layout, const PackedQueries& packed, int64_t queries, int64_t panel);

// Queries that are searched together: consecutive ones of the call, or those of a list.
struct Group {
  int64_t first;
  int64_t queries;
  const int32_t* list;  // or null

  int64_t query(int64_t i) const { return list == nullptr ? first + i : list[i]; }
};

// Packs a panel of a group.
void pack_panel(const QueryLayout& layout, const FusedSearch& call, const Group& group, int64_t panel,
                const PackedQueries& packed);

// What a tile takes of a query in one step.
int64_t unit_bytes(QueryForm form);
int64_t elements_in_unit(QueryForm form);

// A query as it was given.
void read_query(const FusedSearch& call, int64_t query, float* to);
void read_query(const FusedSearch& call, int64_t query, double* to);

// The Euclidean norms of a query, less the centre, and of its difference to the query that is packed.
struct QueryNorms {
  double query;
  double lost;
};
QueryNorms norms_of(const FusedSearch& call, int64_t query);

}  // namespace xlann
