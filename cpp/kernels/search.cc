// Search: how queries are packed, work is split, and candidates become results.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>

#include "certify.h"
#include "parallel.h"
#include "queries.h"
#include "routines.h"

namespace xlann {
namespace {

// A row of this many bytes of blocks stays in the second-level cache beside a panel of queries.
constexpr int64_t block_bytes = 256 << 10;
// Candidates of one worker.
constexpr int64_t list_bytes = 32 << 20;

// Rows of a sample that stand together: as many as are a multiple of every tile's height.
constexpr int64_t sample_run = 24;

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

bool valid(const FusedSearch& call) {
  const bool scaled = call.type == Type::s8 ? call.scales != nullptr
                                            : call.scales == nullptr || call.rerank_rows == nullptr;
  const bool measured = (call.half_norms != nullptr) == (call.metric == Metric::l2);
  const bool sized = call.rows >= 1 && call.rows <= most_choices && call.dimension >= 1 &&
                     call.dimension <= INT32_MAX && call.query_count >= 0 && call.query_count <= int64_t{1} << 26;
  const bool counted = call.k >= 1 && call.k <= call.rows &&
                       (call.rerank_rows == nullptr || (call.k <= call.candidates && call.candidates <= call.rows));
  const bool asked = call.query_type == Type::f32 || call.query_type == Type::bf16 || call.query_type == Type::f16;
  const bool certifies = call.certified_recall > 0;
  const bool provable = call.certified_recall >= 0 && call.certified_recall <= 1 &&
                        (!certifies || call.rerank_rows != nullptr) && (call.errors != nullptr) == certifies;
  return call.type != Type::f64 && scaled && measured && sized && counted && asked && provable;
}

// Everything about a call that its sizes decide.
struct Plan {
  const Routines* base;
  const SearchRoutines* search;
  int64_t kept;        // candidates of each query
  bool streams;        // few queries: rows are read as they are
  bool by_rows;        // workers share the rows, and have lists for all queries; else they share the queries
  int64_t group;       // queries at a time
  int64_t workers;
  int64_t block;       // rows
  int64_t samples;     // rows that a first threshold is taken from
  int64_t list_stride;
  QueryLayout layout;  // of a group
};

// What a row costs each way, in half cycles, of which a multiplication takes one. Streaming: for each query, its
// products, each with a load or two, and about 16 for their sum. Tiles: a multiplication for each step of the dimension
// and vector of queries, and two at least, as broadcasts take twice as long; about 8 to compare and keep a vector; and
// what widening takes. Measured on Zen 5 (bench --crossover), where what is chosen takes at most a third longer than
// the better.
bool streaming_is_cheaper(const SearchRoutines& search, int64_t queries, int64_t dimension) {
  const int64_t parts = (dimension + search.stream_elements - 1) / search.stream_elements;
  const int64_t step = search.form == QueryForm::f32 ? 1 : search.form == QueryForm::bf16 ? 2 : 4;
  const int64_t vectors = (queries + search.lanes - 1) / search.lanes;
  const int64_t streaming = queries * (2 * parts + 16);
  const int64_t tiles = at_least(vectors, 2) * ((dimension + step - 1) / step + 8) +
                        (search.widened ? 3 * (dimension / search.lanes + 1) : 0);
  return streaming < tiles;
}

Plan plan_of(const FusedSearch& call, const Parallel& parallel) {
  Plan plan = {};
  plan.base = routines(call.instruction_set);
  plan.search = search_routines(call.instruction_set, call.type);
  if (plan.base == nullptr || call.query_count == 0) return plan;
  // Sums of products of u8 and s8 fit 32 bits so far.
  if (plan.search->form == QueryForm::s8 && call.dimension > 65536) {
    plan.search = &plan.base->search[static_cast<int>(Type::s8)];
  }
  const SearchRoutines& search = *plan.search;
  plan.kept = call.rerank_rows != nullptr ? call.candidates : call.k;
  plan.list_stride = list_stride(plan.kept, call.rows);

  const int64_t threads = at_least(parallel.threads, 1);
  const int64_t room = list_bytes / (plan.list_stride * 8);
  const int64_t panel = int64_t{search.lanes} * search.vectors;
  const int64_t query_bytes = call.dimension * 4;
  int64_t group = at_least(at_most(room, list_bytes / query_bytes), 1);
  if (group > panel) group = group / panel * panel;
  plan.group = at_most(group, call.query_count);
  plan.streams = call.path == Path::automatic ? streaming_is_cheaper(search, plan.group, call.dimension)
                                              : call.path == Path::stream;

  const int64_t panels = (plan.group + panel - 1) / panel;
  plan.by_rows = plan.streams || panels < 2 * threads || call.rows >= threads * at_least(2048, 8 * plan.kept);

  const int64_t row_bytes = call.dimension * (search.widened && !plan.streams ? 4 : bytes_of(call.type));
  int64_t block = at_least(block_bytes / row_bytes, 24);
  if (plan.by_rows) block = at_most(block, call.rows / (4 * threads) + 1);
  plan.block = at_most((block + 23) / 24 * 24, call.rows);
  const int64_t blocks = (call.rows + plan.block - 1) / plan.block;
  const double work = static_cast<double>(call.rows) * static_cast<double>(call.dimension * plan.group);
  plan.workers = at_most(workers_for(parallel, work), plan.by_rows ? blocks : panels);
  // Streaming takes rows as fast as memory gives them, whatever passes.
  plan.samples = plan.streams ? 0 : sample_size(plan.kept, call.rows, sample_run, 1);
  plan.layout = layout_of(search, plan.streams, plan.group, call.dimension);
  return plan;
}

// One worker's own memory.
struct Worker {
  Candidates candidates;
  int32_t* keys;
  int32_t* indices;
  float* widened;
  uint64_t* ranked;
  float* query;
};

struct Memory {
  PackedQueries queries;
  int32_t* shared;
  Worker* workers;
};

Memory lay_out(const Plan& plan, const FusedSearch& call, Arena& arena) {
  Memory memory;
  memory.queries = take_queries(plan.layout, arena);
  memory.shared = arena.take<int32_t>(plan.group);
  memory.workers = arena.take<Worker>(plan.workers);
  const int64_t lanes = plan.search->lanes;
  const int64_t panel = lanes * plan.search->vectors;
  const int64_t lists = plan.by_rows ? (plan.group + lanes - 1) / lanes * lanes : panel;
  for (int64_t w = 0; w < plan.workers; ++w) {
    Worker worker;
    worker.candidates.lists = arena.take<List<int32_t>>(lists);
    worker.candidates.thresholds = arena.take<float>(lists);
    worker.candidates.shared = plan.by_rows ? memory.shared : nullptr;
    worker.keys = arena.take<int32_t>(at_most(lists, plan.group) * plan.list_stride);
    worker.indices = arena.take<int32_t>(at_most(lists, plan.group) * plan.list_stride);
    worker.widened = arena.take<float>(plan.search->widened && !plan.streams ? plan.block * call.dimension : 0);
    worker.ranked = arena.take<uint64_t>(2 * plan.kept);
    worker.query = arena.take<float>(call.rerank_rows != nullptr ? call.dimension : 0);
    if (memory.workers != nullptr) memory.workers[w] = worker;
  }
  return memory;
}

// Lists of `queries` queries, and of the lanes after the last, which nothing passes.
void reset_lists(const Plan& plan, Worker& worker, int64_t first, int64_t queries, int64_t rows) {
  const int64_t lanes = plan.search->lanes, end = first + queries;
  const int64_t padded = (end + lanes - 1) / lanes * lanes;
  for (int64_t q = first; q < padded; ++q) {
    List<int32_t>& list = worker.candidates.lists[q];
    const int64_t start = (q < end ? q : 0) * plan.list_stride;
    reset(list, plan.kept, rows, worker.keys + start, worker.indices + start);
    worker.candidates.thresholds[q] = value_of(list.threshold);
    if (q >= end) {
      list.threshold = INT32_MAX;
      worker.candidates.thresholds[q] = INFINITY;
    }
  }
}

Block block_at(const Plan& plan, const FusedSearch& call, int64_t first, int64_t rows, Worker& worker) {
  Block block;
  block.count = at_most(rows, call.rows - first);
  block.dimension = call.dimension;
  block.first = static_cast<int32_t>(first);
  block.scales = call.scales == nullptr ? nullptr : call.scales + first;
  block.half_norms = call.half_norms == nullptr ? nullptr : call.half_norms + first;
  block.rows = static_cast<const char*>(call.database) + first * call.dimension * bytes_of(call.type);
  block.ahead = reinterpret_cast<uintptr_t>(block.rows);
  block.ahead_bytes = 0;
  if (plan.search->widened && !plan.streams) {
    plan.base->widen[static_cast<int>(call.type)](block.rows, worker.widened, block.count * call.dimension);
    block.rows = worker.widened;
  }
  return block;
}

// A threshold for each query of a panel, from rows spread over the database: with it, a database in order is no worse
// than another. Leaves empty lists that have it.
void draw_sample(const Plan& plan, const FusedSearch& call, const Panel& panel, Worker& worker) {
  Candidates& candidates = worker.candidates;
  reset_lists(plan, worker, panel.first, panel.queries, call.rows);
  if (plan.samples == 0) return;
  int32_t* const shared = candidates.shared;
  candidates.shared = nullptr;
  for (int64_t at = 0; at < plan.samples; at += sample_run) {
    const int64_t first = spread(at, plan.samples, call.rows, sample_run);
    plan.search->tile(block_at(plan, call, first, sample_run, worker), panel, candidates);
  }
  candidates.shared = shared;
  for (int32_t q = panel.first; q < panel.first + panel.queries; ++q) {
    plan.base->use_as_sample(candidates.lists[q]);
    candidates.thresholds[q] = value_of(candidates.lists[q].threshold);
  }
}

// A key and an index as one number: greater is better, and of equal keys the lower index is.
uint64_t ranked(int32_t key, int32_t index) {
  return uint64_t{static_cast<uint32_t>(key) ^ 0x80000000u} << 32 | (UINT32_MAX - static_cast<uint32_t>(index));
}
int32_t key_of_ranked(uint64_t rank) { return static_cast<int32_t>(static_cast<uint32_t>(rank >> 32) ^ 0x80000000u); }
int32_t index_of_ranked(uint64_t rank) { return static_cast<int32_t>(UINT32_MAX - static_cast<uint32_t>(rank)); }

// The results of a query from its candidates in the lists of `count` workers. Where it is given, `failed` becomes
// whether too few of them are proven.
void finish_query(const Plan& plan, const FusedSearch& call, const Worker* workers, int64_t count, int64_t place,
                  int64_t query, Worker& worker, bool* failed) {
  uint64_t* const best = worker.ranked;
  int64_t found = 0;
  for (int64_t w = 0; w < count; ++w) {
    List<int32_t>& list = workers[w].candidates.lists[place];
    plan.base->compact(list, 0, 0);
    for (int32_t i = 0; i < list.count; ++i) best[found++] = ranked(list.keys[i], list.indices[i]);
    if (found > plan.kept) {
      std::nth_element(best, best + plan.kept - 1, best + found, std::greater<uint64_t>());
      found = plan.kept;
    }
  }
  const float worst = failed == nullptr ? NAN : value_of(key_of_ranked(*std::min_element(best, best + found)));
  if (call.rerank_rows != nullptr) {
    const bool l2 = call.metric == Metric::l2;
    read_query(call, query, worker.query);
    for (int64_t i = 0; i < found; ++i) {
      const int32_t index = index_of_ranked(best[i]);
      float score = plan.base->dot(worker.query, call.rerank_rows + index * call.dimension, call.dimension);
      if (l2) score -= call.half_norms[index];
      best[i] = ranked(key_of<int32_t>(score), index);
    }
  }
  if (found > 2 * call.k) std::nth_element(best, best + call.k - 1, best + found, std::greater<uint64_t>());
  std::sort(best, best + (found > 2 * call.k ? call.k : found), std::greater<uint64_t>());
  for (int64_t i = 0; i < call.k; ++i) {
    const float score = value_of(key_of_ranked(best[i]));
    call.values[query * call.k + i] = call.metric == Metric::l2 ? 0 - score : score;
    call.indices[query * call.k + i] = index_of_ranked(best[i]);
  }
  if (failed != nullptr) *failed = !certified(call, query, worst);
}

// `failed` has a place for each query of the group, or is null.
void search_group(const Plan& plan, const FusedSearch& call, const Parallel& parallel, const Memory& memory,
                  const Group& group, bool* failed) {
  const PackedQueries& packed = memory.queries;
  const int64_t queries = group.queries;
  const int64_t panels = panel_count(plan.layout, queries);
  {
    std::atomic<int64_t> next{0};
    auto pack = [&](int) {
      for (int64_t p; (p = next.fetch_add(1, std::memory_order_relaxed)) < panels;) {
        pack_panel(plan.layout, call, group, p, packed);
      }
    };
    for_each_task(parallel, static_cast<int>(at_most(plan.workers, panels)), pack);
  }
  const BlockRoutine routine = plan.streams ? plan.search->stream : plan.search->tile;
  if (plan.by_rows) {
    std::fill(memory.shared, memory.shared + queries, lowest_key<int32_t>());
    if (plan.samples > 0) {
      std::atomic<int64_t> drawn{0};
      auto draw = [&](int w) {
        for (int64_t p; (p = drawn.fetch_add(1, std::memory_order_relaxed)) < panels;) {
          const Panel panel = panel_at(plan.layout, packed, queries, p);
          const Candidates& candidates = memory.workers[w].candidates;
          draw_sample(plan, call, panel, memory.workers[w]);
          for (int32_t q = panel.first; q < panel.first + panel.queries; ++q) {
            memory.shared[q] = candidates.lists[q].threshold;
          }
        }
      };
      for_each_task(parallel, static_cast<int>(at_most(plan.workers, panels)), draw);
    }
    std::atomic<int64_t> next{0};
    auto work = [&](int w) {
      Worker& worker = memory.workers[w];
      reset_lists(plan, worker, 0, queries, call.rows);
      const auto claim = [&] { return next.fetch_add(plan.block, std::memory_order_relaxed); };
      for (int64_t first = claim(), then; first < call.rows; first = then) {
        Block block = block_at(plan, call, first, plan.block, worker);
        // The block after this one comes from memory while all panels go through this one. At once it would take longer
        // than one panel, which then waits.
        then = claim();
        const int64_t row_bytes = call.dimension * bytes_of(call.type);
        if (then < call.rows) {
          block.ahead = reinterpret_cast<uintptr_t>(call.database) + static_cast<uintptr_t>(then * row_bytes);
          block.ahead_bytes = (row_bytes + panels - 1) / panels;
        }
        if (worker.candidates.shared != nullptr) {
          for (int32_t q = 0; q < queries; ++q) share_threshold(worker.candidates, q);
        }
        for (int64_t p = 0; p < panels; ++p) {
          routine(block, panel_at(plan.layout, packed, queries, p), worker.candidates);
          block.ahead += static_cast<uintptr_t>(block.ahead_bytes * plan.block);
        }
      }
    };
    for_each_task(parallel, static_cast<int>(plan.workers), work);
    std::atomic<int64_t> done{0};
    auto finish = [&](int w) {
      for (int64_t q; (q = done.fetch_add(1, std::memory_order_relaxed)) < queries;) {
        finish_query(plan, call, memory.workers, plan.workers, q, group.query(q), memory.workers[w],
                     failed == nullptr ? nullptr : failed + q);
      }
    };
    for_each_task(parallel, static_cast<int>(at_most(plan.workers, queries)), finish);
    return;
  }
  std::atomic<int64_t> next{0};
  auto work = [&](int w) {
    Worker& worker = memory.workers[w];
    for (int64_t p; (p = next.fetch_add(1, std::memory_order_relaxed)) < panels;) {
      Panel panel = panel_at(plan.layout, packed, queries, p);
      const int64_t start = panel.first, count = panel_queries(plan.layout, queries, p);
      panel.first = 0;
      draw_sample(plan, call, panel, worker);
      for (int64_t first = 0; first < call.rows; first += plan.block) {
        routine(block_at(plan, call, first, plan.block, worker), panel, worker.candidates);
      }
      for (int64_t q = 0; q < count; ++q) {
        finish_query(plan, call, &worker, 1, q, group.query(start + q), worker,
                     failed == nullptr ? nullptr : failed + start + q);
      }
    }
  };
  for_each_task(parallel, static_cast<int>(plan.workers), work);
}

// All rows are scored as in f32 where all are candidates.
bool certifies(const FusedSearch& call) { return call.certified_recall > 0 && call.candidates < call.rows; }

// Queries whose results are not proven, to be searched again in f32. As each pass goes through the whole database, they
// wait until they are as many as such a search takes at a time. It is planned for all queries of the call, so that its
// sums are those that a search of them all would have.
struct Repeats {
  FusedSearch call;
  Plan plan;
  bool* failed = nullptr;  // for each query of the group at hand; null where nothing is certified
  int32_t* waiting = nullptr;
  int64_t count = 0;  // of those that wait

  Repeats(const FusedSearch& original, const Parallel& parallel, int64_t group, Arena& arena) : call(original) {
    if (!certifies(original)) return;
    call.type = Type::f32;
    call.database = original.rerank_rows;
    call.scales = call.rerank_rows = call.errors = nullptr;
    call.certified_recall = 0;
    plan = plan_of(call, parallel);
    failed = arena.take<bool>(group);
    waiting = arena.take<int32_t>(group + plan.group);
  }

  // Takes those of a group that failed, and searches what waits where it is enough, or `all` of it.
  void search(const Parallel& parallel, const Group& group, Arena arena, bool all) {
    for (int64_t i = 0; i < group.queries; ++i) {
      if (failed[i]) waiting[count++] = static_cast<int32_t>(group.query(i));
    }
    const int64_t least = all ? 1 : plan.group;
    if (count < least) return;
    const Memory memory = lay_out(plan, call, arena);
    while (count >= least) {
      const int64_t queries = at_most(count, plan.group);
      count -= queries;
      search_group(plan, call, parallel, memory, {0, queries, waiting + count}, nullptr);
    }
  }
};

}  // namespace

size_t fused_search_scratch(const FusedSearch& call, const Parallel& parallel) {
  if (!valid(call)) return 0;
  const Plan plan = plan_of(call, parallel);
  if (plan.base == nullptr) return 0;
  Arena arena;
  if (call.query_count == 0) return arena.needed();
  const Repeats repeats(call, parallel, plan.group, arena);
  Arena again = arena;
  lay_out(plan, call, arena);
  if (!certifies(call)) return arena.needed();
  // The two searches take turns on the same memory.
  lay_out(repeats.plan, repeats.call, again);
  return std::max(arena.needed(), again.needed());
}

Status fused_search(const FusedSearch& call, void* scratch, size_t scratch_bytes, const Parallel& parallel) {
  if (!valid(call)) return Status::invalid_argument;
  const Plan plan = plan_of(call, parallel);
  if (plan.base == nullptr) return Status::unsupported_instruction_set;
  if (call.query_count == 0) return Status::ok;
  if (scratch == nullptr || scratch_bytes < fused_search_scratch(call, parallel)) return Status::scratch_too_small;
  Arena arena(scratch);
  Repeats repeats(call, parallel, plan.group, arena);
  for (int64_t first = 0; first < call.query_count; first += plan.group) {
    const Group group = {first, at_most(plan.group, call.query_count - first), nullptr};
    Arena rest = arena;
    search_group(plan, call, parallel, lay_out(plan, call, rest), group, repeats.failed);
    if (repeats.failed != nullptr) {
      repeats.search(parallel, group, arena, first + group.queries == call.query_count);
    }
  }
  return Status::ok;
}

}  // namespace xlann
