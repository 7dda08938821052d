// What the sizes of a search decide: the path, how work is split, and how many candidates are kept.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "parallel.h"
#include "queries.h"
#include "routines.h"

namespace xlann {

// Rows of a sample that stand together: as many as are a multiple of every tile's height.
constexpr int64_t sample_run = 24;

int64_t bytes_of(Type type);

// Squared distances to all rows, rather than to candidates.
bool by_differences(const FusedSearch& call);

// Whether the arguments fit together.
bool valid(const FusedSearch& call);

// The inner loops that a valid call takes; null where its instruction set is not supported.
const SearchRoutines* search_routines(const FusedSearch& call);

// Everything about a call that its sizes decide.
struct Plan {
  const Routines* base;
  const SearchRoutines* search;
  int64_t kept;        // candidates of each query
  bool streams;        // few queries: rows are read as they are
  bool by_rows;        // workers share the rows, and have lists for all queries; else they share the queries
  int64_t group;       // queries at a time
  int64_t share;       // where workers share the queries: one takes a multiple of so many at a time
  int64_t workers;
  int64_t block;       // rows
  int64_t made_bytes;  // of a row that is made another before tiles take it; else 0
  int64_t samples;     // rows that a first threshold is taken from
  int64_t rank;        // of the row among them whose score it is
  bool ranks_few;      // among the best of each few of them
  int64_t list_stride;
  QueryLayout layout;  // of the queries that a worker has lists for
};

// `again` for queries that another search leaves over: they may be too few for all workers to have some.
Plan plan_of(const FusedSearch& call, const Parallel& parallel, bool again = false);

// The rank in a sample of the row that gives the first threshold. Where there are many more rows, it is that among the
// best of each few. To keep these in order is less work than lists are, as long as the rank is low; and of alike rows
// that are stored side by side only some count.
void take_rank(Plan& plan, int64_t rank);

}  // namespace xlann
