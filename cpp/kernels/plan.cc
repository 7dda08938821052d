#include "plan.h"

namespace xlann {
namespace {

// A row of this many bytes of blocks stays in the second-level cache beside a panel of queries.
constexpr int64_t block_bytes = 256 << 10;
// Candidates of one worker.
constexpr int64_t list_bytes = 32 << 20;

// Where workers share the queries, one goes through the rows for up to four shares of them at once: for more, it is no
// faster. A share is one panel, but where rows are many so many queries at least: fewer would read them too often.
constexpr int64_t least_share = 64, shares_together = 4;

bool is_half(Type type) { return type == Type::bf16 || type == Type::f16; }

// What a row costs each way, in half cycles, of which a multiplication takes one. Streaming: for each query, its
// products, each with a load or two, and about 16 for their sum. Tiles: a multiplication for each step of the dimension
// and vector of queries, and two at least, as broadcasts take twice as long; about 8 to compare and keep a vector; and
// what widening takes. Measured on Zen 5 (bench --crossover), where what is chosen takes at most a third longer than
// the better.
bool streaming_is_cheaper(const SearchRoutines& search, int64_t queries, int64_t dimension) {
  const int64_t parts = (dimension + search.stream_elements - 1) / search.stream_elements;
  const int64_t step = elements_in_unit(search.form);
  const int64_t vectors = (queries + search.lanes - 1) / search.lanes;
  const int64_t streaming = queries * (2 * parts + 16);
  const int64_t tiles = at_least(vectors, 2) * ((dimension + step - 1) / step + 8) +
                        (search.widened ? 3 * (dimension / search.lanes + 1) : 0);
  return streaming < tiles;
}

// Of a row as tiles take it, where it is another than that of the database; else 0.
int64_t bytes_made(const SearchRoutines& search, int64_t dimension) {
  if (search.widened) return 4 * dimension;
  return search.make_unsigned != nullptr ? (dimension + 3) / 4 * 4 : 0;
}

}  // namespace

int64_t bytes_of(Type type) {
  switch (type) {
    case Type::f64:
      return 8;
    case Type::f32:
      return 4;
    case Type::s8:
      return 1;
    default:
      return 2;
  }
}

bool by_differences(const FusedSearch& call) {
  return call.metric == Metric::squared_distance && call.half_norms == nullptr;
}

bool valid(const FusedSearch& call) {
  const bool squared = call.metric == Metric::squared_distance, differences = by_differences(call);
  const bool scaled = call.type == Type::s8 ? call.scales != nullptr && !differences
                                            : call.scales == nullptr || (call.rerank_rows == nullptr && !squared);
  const bool measured = squared || (call.half_norms != nullptr) == (call.metric == Metric::l2);
  const bool sized = call.rows >= 1 && call.rows <= most_choices && call.dimension >= 1 &&
                     call.dimension <= INT32_MAX && call.query_count >= 0 && call.query_count <= int64_t{1} << 26;
  const bool counted = call.k >= 1 && call.k <= call.rows &&
                       (call.rerank_rows == nullptr || (call.k <= call.candidates && call.candidates <= call.rows));
  const bool asked = call.query_type == Type::f32 || is_half(call.query_type) ||
                     (squared && call.query_type == Type::f64);
  const bool certifies = call.certified_recall > 0;
  const bool exact = squared ? certifies != differences && (differences ? call.centre == nullptr
                                                                        : call.rerank_type == Type::f32 ||
                                                                              is_half(call.rerank_type))
                             : call.centre == nullptr && call.rerank_type == Type::f32;
  const bool provable = call.certified_recall >= 0 && call.certified_recall <= 1 &&
                        (!certifies || call.rerank_rows != nullptr) && (call.errors != nullptr) == certifies;
  return (call.type != Type::f64 || differences) && scaled && measured && sized && counted && asked && provable &&
         exact;
}

const SearchRoutines* search_routines(const FusedSearch& call) {
  const Routines* const base = routines(call.instruction_set);
  if (base == nullptr) return nullptr;
  if (by_differences(call)) return &base->difference[static_cast<int>(call.type)];
  const SearchRoutines& in_f32 = base->search[static_cast<int>(call.type)];
  // Queries that are not scored anew are not to be rounded. Sums of products of u8 and s8 fit 32 bits so far.
  const bool rounds = call.rerank_rows != nullptr || call.query_type == Type::bf16;
  const bool fits = call.dimension <= 65536;
  if ((call.type == Type::bf16 && !rounds) || (call.type == Type::s8 && !fits)) return &in_f32;
  return search_routines(call.instruction_set, call.type);
}

void take_rank(Plan& plan, int64_t rank) {
  plan.rank = rank;
  plan.ranks_few = rank <= 128 && plan.samples / most_ranked_together >= 2 * rank;
}

Plan plan_of(const FusedSearch& call, const Parallel& parallel, bool again) {
  Plan plan = {};
  plan.base = routines(call.instruction_set);
  if (plan.base == nullptr || call.query_count == 0) return plan;
  plan.search = search_routines(call);
  const SearchRoutines& search = *plan.search;
  // Scores of squared distances have few digits.
  plan.kept = call.rerank_rows != nullptr ? call.candidates
              : by_differences(call)      ? at_most(call.k + 8, call.rows)
                                          : call.k;
  plan.list_stride = list_stride(plan.kept, call.rows);

  const int64_t threads = at_least(parallel.threads, 1);
  const int64_t panel = int64_t{search.lanes} * search.vectors;
  const int64_t query_bytes = call.dimension * unit_bytes(search.form);
  int64_t room = at_least(at_most(list_bytes / (plan.list_stride * 8), list_bytes / query_bytes), 1);
  if (room > panel) room = room / panel * panel;
  // Evenly spread, up to whole panels. What is proven of a group decides its results, which threads may not.
  const int64_t groups = (call.query_count + room - 1) / room;
  plan.group = at_most((call.query_count + groups * panel - 1) / (groups * panel) * panel, room);
  plan.group = at_most(plan.group, call.query_count);
  plan.streams = call.path == Path::automatic ? streaming_is_cheaper(search, plan.group, call.dimension)
                                              : call.path == Path::stream;

  // Where several workers share the rows, each has a list for each query, and more rows pass in all than pass one list.
  // Where they share the queries, some may have nothing to do in the end, and rows are read several times, and widened:
  // where rows are many, that must be little.
  const bool many_rows = call.rows >= threads * at_least(2048, 8 * plan.kept);
  plan.share = many_rows ? (least_share + panel - 1) / panel * panel : panel;
  const int64_t shares = (plan.group + plan.share - 1) / plan.share;
  const int64_t idle = (threads - shares % threads) % threads;
  const bool little = threads > 1 && shares >= 8 * threads && shares >= 32 * idle && !search.widened;
  plan.by_rows = again || plan.streams || room < plan.share || (many_rows ? !little : shares < 2 * threads);

  plan.made_bytes = plan.streams ? 0 : bytes_made(search, call.dimension);
  const int64_t row_bytes = plan.made_bytes > 0 ? plan.made_bytes : call.dimension * bytes_of(call.type);
  int64_t block = at_least(block_bytes / row_bytes, 24);
  if (plan.by_rows) block = at_most(block, call.rows / (4 * threads) + 1);
  plan.block = at_most((block + 23) / 24 * 24, call.rows);
  const int64_t blocks = (call.rows + plan.block - 1) / plan.block;
  const double work = static_cast<double>(call.rows) * static_cast<double>(call.dimension * plan.group);
  plan.workers = at_most(workers_for(parallel, work), plan.by_rows ? blocks : shares);
  // Streaming takes rows as fast as memory gives them, whatever passes.
  plan.samples = plan.streams ? 0 : sample_size(plan.kept, call.rows, sample_run, 1);
  take_rank(plan, plan.samples > 0 ? sample_rank(plan.kept, plan.samples, call.rows) : plan.kept);
  const int64_t together = at_most(shares_together, room / plan.share) * plan.share;
  plan.layout = layout_of(search, plan.streams, plan.by_rows ? plan.group : at_most(together, plan.group),
                          call.dimension);
  return plan;
}

}  // namespace xlann
