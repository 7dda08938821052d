// What each instruction set brings: the inner loops, as tables of functions.
//
// All files are compiled with the same flags, with none for an instruction set: each set_*.cc chooses its own for what
// it has. They are worth -O3, and need -ffp-contract=off: were a product and a difference fused in one loop and not in
// another, a score would depend on where blocks end.
#pragma once

#include <cstdint>

#include "candidates.h"
#include "kernels.h"

namespace xlann {

// Rows of a database, contiguous.
struct Block {
  const void* rows;
  const float* scales;      // of these rows, or null
  const float* half_norms;  // of these rows, or null
  int64_t count;
  int64_t dimension;
  int32_t first;  // index of the first row
  // What a tile routine asks memory for meanwhile: so many bytes for each row.
  uintptr_t ahead;  // an address, which may be past the end of the rows
  int64_t ahead_bytes;
};

// How the multiplications of a routine want the queries.
enum class QueryForm {
  f32,   // floats
  bf16,  // pairs of bf16
  s8,    // four s8
  s8_pairs,  // four s8, of which two products each are summed in 16 bits
  f64,   // doubles, from which rows are subtracted
};

// Of form s8_pairs: for so many steps sums of two products each are kept in 16 bits.
constexpr int pairs_together = 4;

// Some queries, packed for a tile routine: for each step of the dimension `vectors` vectors with a query in each
// lane, of 4 bytes: one float, two bf16 or four s8 of consecutive dimensions; or of 8, one double. What is missing at the
// end is zero; but of s8, the last four come once more, with zeros for those that had their turn, as they are read in one
// go. Of s8_pairs, each few steps follow vectors of what the sums of 16 bits start from: two such of each query.
// For a stream routine: query after query, padded with zeros.
struct Panel {
  const void* packed;
  const float* scales;     // of these queries, or null
  const int32_t* offsets;  // what the sum of a query's products starts from; of s8, and of s8_pairs in a stream
  int32_t vectors;         // tile only
  int32_t queries;
  int32_t first;           // index of the first query among the candidates
  int64_t stride;          // stream only: elements from a query to the next
};

// At most so many rows of a block have one place among the best of a sample.
constexpr int most_ranked_together = 6;

using BlockRoutine = void (*)(const Block& block, const Panel& panel, Candidates& candidates);

struct SearchRoutines {
  // Many queries: a block of rows in the widened form times a panel of queries.
  BlockRoutine tile;
  // Of each query the greatest score of each few rows of a block takes its place among `rank` such, the greatest first,
  // in `best`: [rank, vectors, lanes].
  void (*rank_block)(const Block& block, const Panel& panel, float* best, int64_t rank);
  QueryForm form;
  bool widened;      // rows are made f32 first
  int32_t lanes;     // queries in a vector
  int32_t vectors;   // at most, in a panel
  // Few queries: rows as they are.
  BlockRoutine stream;
  int32_t stream_elements;  // elements of a row that one multiplication takes; queries are padded to a multiple
  // For tiles of form s8_pairs: rows with 128 added to each number, and padded to a multiple of four.
  void (*make_unsigned)(const int8_t* from, uint8_t* to, int64_t rows, int64_t dimension) = nullptr;
};

struct Routines {
  SearchRoutines search[5];      // by type, with products of f32; none of f64
  SearchRoutines difference[5];  // by squared distances, by type; none of s8
  // Appends what passes of row[begin..end) to the list (of int64_t for f64), signs turned over for the least.
  void (*scan[5])(const void* row, int32_t begin, int32_t end, bool least, void* list);
  void (*widen[5])(const void* from, float* to, int64_t count);
  // Cuts a list at an index of its row to the best k, and `spare` more at most.
  void (*compact)(List<int32_t>& list, int32_t index, int32_t spare);
  void (*compact_wide)(List<int64_t>& list, int32_t index, int32_t spare);
  // Empties a list of at least k, and leaves a threshold that the kth of it passes.
  void (*use_as_sample)(List<int32_t>& list);
  // dot(query, row), of f32.
  float (*dot)(const float* a, const float* b, int64_t dimension);
  // The sum of squared differences of a query and a row.
  double (*squared_distance)(const double* query, const float* row, int64_t dimension);
  double (*squared_distance_f64)(const double* query, const double* row, int64_t dimension);
};

// The tables of a supported set; null where it is not supported.
const Routines* routines(InstructionSet set);

// The set whose routines a search of rows of a type takes: automatic takes the best one.
InstructionSet search_set(InstructionSet set, Type type);
const SearchRoutines* search_routines(InstructionSet set, Type type);

extern const Routines portable_routines;
#if defined(__x86_64__)
// Compilers have AVX-VNNI from GCC 11 and Clang 13 on.
#if __clang_major__ >= 13 || (!defined(__clang__) && __GNUC__ >= 11)
#define XLANN_AVX_VNNI
#endif
extern const Routines avx2_routines;
extern const Routines avx512_routines;
extern const SearchRoutines avx2_s8_search;
extern const SearchRoutines avx_vnni_search;
extern const SearchRoutines avx512_s8_search;
extern const SearchRoutines avx512_bf16_search;
extern const SearchRoutines avx512_vnni_search;
#endif
#if defined(__aarch64__)
extern const Routines neon_routines;
#endif

}  // namespace xlann
