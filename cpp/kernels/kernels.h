// The kernels: top-k of scores, and search fused with it. Plain functions over pointers and sizes.
//
// They allocate nothing and throw nothing: the caller asks how much scratch memory a call needs and hands it over.
// They start no thread: the caller's Parallel does, or nothing does. Results do not depend on the number of threads.
//
// Order of scores, for greatest and least alike: equal ones by index, the lower first; -0.0 equals 0.0; NaN comes
// after everything else, by index among themselves.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xlann {

enum class Status {
  ok,
  invalid_argument,
  unsupported_instruction_set,
  scratch_too_small,
};

enum class Type { f32, bf16, f16, f64, s8 };

// What the kernels are compiled for. avx2 takes FMA and F16C too, avx512 the subsets F, BW, DQ, VL and CD. avx_vnni is
// avx2 but for s8 databases, and avx512_bf16 and avx512_vnni are avx512 but for bf16 and s8 ones. automatic is the best
// of the machine's for the type at hand.
enum class InstructionSet { automatic, portable, avx2, avx_vnni, avx512, avx512_bf16, avx512_vnni, neon };

// Whether this build and this machine can run it.
bool supported(InstructionSet set);
const char* name(InstructionSet set);

// Elements of a row of scores, or rows of a database: indices, and counts a little beyond, are of 32 bits.
constexpr int64_t most_choices = (int64_t{1} << 31) - 1024;

// How work is spread. `run` calls task(argument, i) once for each i < tasks, on any threads in any order, and returns
// when all have returned. Tasks never wait for one another, so that one thread may run them all. Without a `run` they
// run on the calling thread.
struct Parallel {
  int threads = 1;
  // Multiplications, or scores read, that another thread is worth.
  int64_t least_work = 1 << 17;
  void* context = nullptr;
  void (*run)(void* context, int tasks, void (*task)(void* argument, int index), void* argument) = nullptr;
};

// The k greatest or least of each row of `operand`, best first. Indices are into the row.
struct SelectK {
  Type type = Type::f32;          // f32, bf16, f16 or f64
  const void* operand = nullptr;  // [rows, columns]
  int64_t rows = 0;
  int64_t columns = 0;  // at most most_choices
  int64_t k = 0;        // 1 <= k <= columns
  bool least = false;
  void* values = nullptr;      // [rows, k], of the operand's type, copied bit by bit
  int32_t* indices = nullptr;  // [rows, k]
  InstructionSet instruction_set = InstructionSet::automatic;
};

// Bytes of scratch, of any alignment; 0 where the arguments are refused.
size_t select_k_scratch(const SelectK& call, const Parallel& parallel);
Status select_k(const SelectK& call, void* scratch, size_t scratch_bytes, const Parallel& parallel);

// How the database is gone through. With tiles, a product has a query in each lane, and many queries share what is read
// of a row; streaming, a lane has an element of a row. automatic counts which takes fewer instructions.
enum class Path { automatic, stream, tile };

enum class Metric {
  inner_product,     // the greatest query . row
  l2,                // the least half_norms[row] - query . row
  squared_distance,  // the least sum of (query - row)^2, to 2^-20 of it
};

// For each query the k best rows of the database, best first.
//
// Products are summed in f32. For the types:
// - f32, f16: rows and queries as they are.
// - bf16: queries of bf16 as they are; others are rounded to bf16 where candidates are scored anew, and else not, where
//   rows are made f32. avx512_bf16 takes subnormal numbers for 0 (its instruction does), others do not.
// - s8: a row is scales[row] times its numbers; least work where each 24 rows, from the first on, have the same.
//   Queries are quantised likewise, to 127 steps of their greatest magnitude, and are taken for 0 where that is below
//   3.7e-37. With avx2 and avx512 steps are longer where sums of a few products might not fit 16 bits (queries.cc):
//   for normally distributed numbers about twice as long. Sums of products are exact up to a dimension of 1032, and of
//   65536 with these and avx_vnni and avx512_vnni until they are made f32. A query that is not finite has scores of NaN.
// The sum of one score is taken in an order that depends on the instruction set, the path and the dimension, and on
// nothing else. The path that is chosen depends on these and on how many queries are searched at a time: all, unless
// the dimension, or k and the number of rows, are so large that the scratch memory has no room for as many.
//
// Squared distances are sums of squared differences in f64, for rows and queries of whatever size, as long as they are
// below 2^1017. Without half norms, the search is by them alone: `database` is of f32, bf16, f16 or f64, and nothing is
// given of what follows below. With half norms, candidates are found as by l2, in rows that are near the true ones, less a
// centre; a bound on all that is lost on the way proves which of the results are right, and queries of which too few are
// are searched again, at last by differences (certify.cc). Of rows whose squared distances differ by less than 2^-20 of
// them either may be found. Rows whose distance is NaN are not found: where there are too few others, the last results
// have the index -1 and the distance NaN.
struct FusedSearch {
  Metric metric = Metric::inner_product;
  Type type = Type::f32;              // f32, bf16, f16 or s8; f64 by differences
  const void* database = nullptr;     // [rows, dimension]
  const float* scales = nullptr;      // [rows]; of products: needed for s8, not with re-scored others
  const float* half_norms = nullptr;  // [rows]; of true rows, less the centre; not for inner products
  int64_t rows = 0;                   // at most most_choices
  int64_t dimension = 0;              // at most 2^31 - 1
  Type query_type = Type::f32;    // f32, bf16 or f16; f64 with squared distances
  const void* queries = nullptr;  // [query_count, dimension]
  int64_t query_count = 0;  // at most 2^26
  int64_t k = 0;  // 1 <= k <= rows
  // Where given, the best `candidates` (k <= candidates <= rows) are found as above, then scored against these rows
  // and the unrounded queries, and the k best of them returned.
  const void* rerank_rows = nullptr;  // [rows, dimension]
  Type rerank_type = Type::f32;       // bf16 and f16 too, with squared distances
  int64_t candidates = 0;
  // With squared distances: what the rows of the database are less by, and queries are made less by; or null.
  const float* centre = nullptr;  // [dimension]
  // Where above 0, at least this share of the results of all queries together is proven, by a bound on what the types
  // may have cost, to be among those of a search in f32. Where the candidates prove less, the queries of which they
  // prove least are searched again: a few among eight times as many, others, and those of which these prove too little,
  // as if `type` were f32, with the same results; and so are all, where they are many and products are f32's. So what a query finds depends on what is proven of others; with a
  // share of 1, that is no more than which of two rows it has whose scores differ by less than sums in f32 round.
  // Nothing that is not finite is proven. Needs rerank_rows. Squared distances: see above.
  double certified_recall = 0;  // from 0 to 1
  // [2], with certified_recall: the greatest Euclidean norms of a row (less the centre, in f32) less the stored row, and
  // of a stored row (in f32, for s8 times its scale). They may be rounded as sums in f32 are.
  const float* errors = nullptr;
  float* values = nullptr;      // [query_count, k]; -0.0 is returned as 0.0
  double* distances = nullptr;  // the same, where these are squared distances
  int32_t* indices = nullptr;  // [query_count, k]
  InstructionSet instruction_set = InstructionSet::automatic;
  Path path = Path::automatic;
};

// Bytes of scratch, of any alignment; 0 where the arguments are refused. At most about 64 MiB for a thread, but for
// k in the millions (16 bytes for each of 2 k), an eighth as many candidates that are to be certified, and dimensions
// in the ten thousands.
size_t fused_search_scratch(const FusedSearch& call, const Parallel& parallel);
Status fused_search(const FusedSearch& call, void* scratch, size_t scratch_bytes, const Parallel& parallel);

}  // namespace xlann
