// Search: how work is done as it is planned, and candidates become results.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>

#include "certify.h"
#include "plan.h"

namespace xlann {
namespace {

struct Neighbour {
  double distance;
  int32_t index;
};

// One worker's own memory.
struct Worker {
  PackedQueries queries;  // shared with all where they share the rows
  Candidates candidates;
  int32_t* keys;
  int32_t* indices;
  void* made;  // a block of rows as tiles take them
  float* best;  // of each few rows of a sample, for each query of a panel
  uint64_t* ranked;
  Neighbour* neighbours;  // of squared distances
  double* query;          // of floats, but for squared distances
  float* row;
};

struct Memory {
  int32_t* shared;
  Worker* workers;
};

Memory lay_out(const Plan& plan, const FusedSearch& call, Arena& arena) {
  Memory memory;
  memory.shared = arena.take<int32_t>(plan.by_rows ? plan.group : 0);
  memory.workers = arena.take<Worker>(plan.workers);
  const int64_t lanes = plan.search->lanes, queries = plan.layout.queries;
  const int64_t lists = (queries + lanes - 1) / lanes * lanes;
  Worker worker;
  for (int64_t w = 0; w < plan.workers; ++w) {
    if (w == 0 || !plan.by_rows) worker.queries = take_queries(plan.layout, arena);
    worker.candidates.lists = arena.take<List<int32_t>>(lists);
    worker.candidates.thresholds = arena.take<float>(lists);
    const bool late = call.scales != nullptr && call.half_norms == nullptr && !plan.streams;
    worker.candidates.bounds = late ? arena.take<float>(lists) : worker.candidates.thresholds;
    worker.candidates.scales = late ? worker.queries.scales : nullptr;
    worker.candidates.shared = plan.by_rows ? memory.shared : nullptr;
    worker.keys = arena.take<int32_t>(queries * plan.list_stride);
    worker.indices = arena.take<int32_t>(queries * plan.list_stride);
    worker.made = arena.take<char>(plan.block * plan.made_bytes);
    worker.best = arena.take<float>(plan.ranks_few ? plan.rank * lanes * plan.search->vectors : 0);
    worker.ranked = arena.take<uint64_t>(2 * plan.kept);
    const bool squared = call.metric == Metric::squared_distance;
    worker.neighbours = arena.take<Neighbour>(squared ? plan.kept : 0);
    worker.query = arena.take<double>(squared || call.rerank_rows != nullptr ? call.dimension : 0);
    worker.row = arena.take<float>(squared ? call.dimension : 0);
    if (memory.workers != nullptr) memory.workers[w] = worker;
  }
  return memory;
}

// Lists of the best k for `queries` queries, and of the lanes after the last, which nothing passes.
void reset_lists(const Plan& plan, Worker& worker, int64_t first, int64_t queries, int64_t rows, int64_t k) {
  const int64_t lanes = plan.search->lanes, end = first + queries;
  const int64_t padded = (end + lanes - 1) / lanes * lanes;
  for (int64_t q = first; q < padded; ++q) {
    List<int32_t>& list = worker.candidates.lists[q];
    const int64_t start = (q < end ? q : 0) * plan.list_stride;
    reset(list, k, rows, worker.keys + start, worker.indices + start);
    if (q < end) {
      spread_threshold(worker.candidates, static_cast<int32_t>(q));
    } else {
      list.threshold = INT32_MAX;
      worker.candidates.thresholds[q] = worker.candidates.bounds[q] = INFINITY;
    }
  }
}

uintptr_t address_of(const FusedSearch& call, int64_t row) {
  const int64_t row_bytes = call.dimension * bytes_of(call.type);
  return reinterpret_cast<uintptr_t>(call.database) + static_cast<uintptr_t>(row * row_bytes);
}

Block block_at(const Plan& plan, const FusedSearch& call, int64_t first, int64_t rows, Worker& worker) {
  Block block;
  block.count = at_most(rows, call.rows - first);
  block.dimension = call.dimension;
  block.first = static_cast<int32_t>(first);
  block.scales = call.scales == nullptr ? nullptr : call.scales + first;
  block.half_norms = call.half_norms == nullptr ? nullptr : call.half_norms + first;
  block.ahead = address_of(call, first);
  block.rows = reinterpret_cast<const void*>(block.ahead);
  block.ahead_bytes = 0;
  if (plan.made_bytes > 0) {
    if (plan.search->widened) {
      const auto widen = plan.base->widen[static_cast<int>(call.type)];
      widen(block.rows, static_cast<float*>(worker.made), block.count * call.dimension);
    } else {
      const int8_t* const rows = static_cast<const int8_t*>(block.rows);
      plan.search->make_unsigned(rows, static_cast<uint8_t*>(worker.made), block.count, call.dimension);
    }
    block.rows = worker.made;
  }
  return block;
}

// A threshold for each query of a panel, from rows spread over the database: with it, a database in order is no worse
// than another. Leaves empty lists that have it.
void draw_sample(const Plan& plan, const FusedSearch& call, const Panel& panel, Worker& worker) {
  Candidates& candidates = worker.candidates;
  if (plan.samples == 0) return reset_lists(plan, worker, panel.first, panel.queries, call.rows, plan.kept);
  reset_lists(plan, worker, panel.first, panel.queries, call.rows, plan.rank);
  const int64_t width = int64_t{plan.search->lanes} * panel.vectors;
  if (plan.ranks_few) std::fill(worker.best, worker.best + plan.rank * width, -INFINITY);
  int32_t* const shared = candidates.shared;
  candidates.shared = nullptr;
  const auto place = [&](int64_t at) { return spread(at, plan.samples, call.rows, sample_run); };
  for (int64_t at = 0; at < plan.samples; at += sample_run) {
    Block block = block_at(plan, call, place(at), sample_run, worker);
    block.ahead = address_of(call, place(at_most(at + sample_run, plan.samples - 1)));
    block.ahead_bytes = call.dimension * bytes_of(call.type);
    if (plan.ranks_few) {
      plan.search->rank_block(block, panel, worker.best, plan.rank);
    } else {
      plan.search->tile(block, panel, candidates);
    }
  }
  candidates.shared = shared;
  for (int32_t q = panel.first; q < panel.first + panel.queries; ++q) {
    List<int32_t>& list = candidates.lists[q];
    int32_t threshold = lowest_key<int32_t>();
    if (plan.ranks_few) {
      const float score = worker.best[(plan.rank - 1) * width + q - panel.first];
      if (score > -INFINITY) threshold = key_of<int32_t>(score) - 1;
    } else {
      plan.base->use_as_sample(list);
      threshold = list.threshold;
    }
    reset(list, plan.kept, call.rows, list.keys, list.indices);
    raise(list, threshold);
    spread_threshold(candidates, q);
  }
}

// A key and an index as one number: greater is better, and of equal keys the lower index is.
uint64_t ranked(int32_t key, int32_t index) {
  return uint64_t{static_cast<uint32_t>(key) ^ 0x80000000u} << 32 | (UINT32_MAX - static_cast<uint32_t>(index));
}
int32_t key_of_ranked(uint64_t rank) { return static_cast<int32_t>(static_cast<uint32_t>(rank >> 32) ^ 0x80000000u); }
int32_t index_of_ranked(uint64_t rank) { return static_cast<int32_t>(UINT32_MAX - static_cast<uint32_t>(rank)); }

// All rows are scored as in f32 where all are candidates.
bool certifies(const FusedSearch& call) { return call.certified_recall > 0 && call.candidates < call.rows; }

// A row that candidates are scored by.
const void* exact_row(const FusedSearch& call, int64_t index) {
  const bool anew = call.rerank_rows != nullptr;
  const int64_t row_bytes = call.dimension * bytes_of(anew ? call.rerank_type : call.type);
  return static_cast<const char*>(anew ? call.rerank_rows : call.database) + index * row_bytes;
}

void prefetch_row(const FusedSearch& call, int64_t index) {
  const char* const row = static_cast<const char*>(exact_row(call, index));
  for (int64_t i = 0; i < call.dimension * 4; i += 64) __builtin_prefetch(row + i);
}

double squared_distance(const Routines& base, const FusedSearch& call, int64_t index, const Worker& worker) {
  const Type type = call.rerank_rows != nullptr ? call.rerank_type : call.type;
  const void* const row = exact_row(call, index);
  if (type == Type::f64) {
    return base.squared_distance_f64(worker.query, static_cast<const double*>(row), call.dimension);
  }
  if (type == Type::f32) {
    return base.squared_distance(worker.query, static_cast<const float*>(row), call.dimension);
  }
  base.widen[static_cast<int>(type)](row, worker.row, call.dimension);
  return base.squared_distance(worker.query, worker.row, call.dimension);
}

// The nearest of the first `found` candidates; as finish_query.
int32_t finish_distances(const Plan& plan, const FusedSearch& call, int64_t found, int64_t query, float worst,
                         Worker& worker) {
  read_query(call, query, worker.query);
  for (int64_t i = 0; i < found; ++i) {
    const int32_t index = index_of_ranked(worker.ranked[i]);
    if (i + 4 < found) prefetch_row(call, index_of_ranked(worker.ranked[i + 4]));
    worker.neighbours[i] = {squared_distance(*plan.base, call, index, worker), index};
  }
  std::sort(worker.neighbours, worker.neighbours + found, [](const Neighbour& a, const Neighbour& b) {
    const bool last = std::isnan(a.distance), other_last = std::isnan(b.distance);
    if (last != other_last) return other_last;
    return a.distance < b.distance || (!(b.distance < a.distance) && a.index < b.index);
  });
  for (int64_t i = 0; i < call.k; ++i) {
    const Neighbour& each = worker.neighbours[i];
    call.distances[query * call.k + i] = each.distance;
    call.indices[query * call.k + i] = std::isnan(each.distance) ? -1 : each.index;
  }
  return static_cast<int32_t>(certifies(call) ? proven_distances(call, query, worst) : call.k);
}

// The results of a query from its candidates in the lists of `count` workers. How many of them are proven; -1 where
// candidates are too few.
int32_t finish_query(const Plan& plan, const FusedSearch& call, const Worker* workers, int64_t count, int64_t place,
                     int64_t query, Worker& worker) {
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
  if (found < plan.kept) return -1;
  const float worst = value_of(key_of_ranked(*std::min_element(best, best + found)));
  if (call.metric == Metric::squared_distance) return finish_distances(plan, call, found, query, worst, worker);
  if (call.rerank_rows != nullptr) {
    const bool l2 = call.metric == Metric::l2;
    float* const query_of_floats = reinterpret_cast<float*>(worker.query);
    read_query(call, query, query_of_floats);
    for (int64_t i = 0; i < found; ++i) {
      const int32_t index = index_of_ranked(best[i]);
      // They stand anywhere in memory.
      if (i + 4 < found) prefetch_row(call, index_of_ranked(best[i + 4]));
      const float* const row = static_cast<const float*>(exact_row(call, index));
      float score = plan.base->dot(query_of_floats, row, call.dimension);
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
  return static_cast<int32_t>(certifies(call) ? proven(call, query, worst) : call.k);
}

// A block of rows goes through all panels that the worker has lists for. Meanwhile the block from row `then` on is
// asked of memory, a part with each panel: with one, that panel would wait for it.
void search_block(const Plan& plan, const FusedSearch& call, int64_t queries, int64_t first, int64_t then,
                  Worker& worker) {
  const int64_t panels = panel_count(plan.layout, queries);
  Block block = block_at(plan, call, first, plan.block, worker);
  if (then < call.rows) {
    block.ahead = address_of(call, then);
    block.ahead_bytes = (call.dimension * bytes_of(call.type) + panels - 1) / panels;
  }
  const BlockRoutine routine = plan.streams ? plan.search->stream : plan.search->tile;
  for (int64_t p = 0; p < panels; ++p) {
    routine(block, panel_at(plan.layout, worker.queries, queries, p), worker.candidates);
    block.ahead += static_cast<uintptr_t>(block.ahead_bytes * plan.block);
  }
}

// All workers search for all queries of the group, each among some of the rows. `outcomes` become how many results of
// each query are proven, ranked with its place in the group.
void search_by_rows(const Plan& plan, const FusedSearch& call, const Parallel& parallel, const Memory& memory,
                    const Group& group, uint64_t* outcomes) {
  const int64_t queries = group.queries, panels = panel_count(plan.layout, queries);
  std::fill(memory.shared, memory.shared + queries, lowest_key<int32_t>());
  std::atomic<int64_t> prepared{0};
  auto prepare = [&](int w) {
    Worker& worker = memory.workers[w];
    for (int64_t p; (p = prepared.fetch_add(1, std::memory_order_relaxed)) < panels;) {
      pack_panel(plan.layout, call, group, p, worker.queries);
      if (plan.samples == 0) continue;
      const Panel panel = panel_at(plan.layout, worker.queries, queries, p);
      draw_sample(plan, call, panel, worker);
      for (int32_t q = panel.first; q < panel.first + panel.queries; ++q) {
        // Whoever takes it takes one less.
        memory.shared[q] = worker.candidates.lists[q].threshold + 1;
      }
    }
  };
  for_each_task(parallel, static_cast<int>(at_most(plan.workers, panels)), prepare);
  std::atomic<int64_t> next{0};
  auto work = [&](int w) {
    Worker& worker = memory.workers[w];
    reset_lists(plan, worker, 0, queries, call.rows, plan.kept);
    const auto claim = [&] { return next.fetch_add(plan.block, std::memory_order_relaxed); };
    for (int64_t first = claim(), then; first < call.rows; first = then) {
      then = claim();
      for (int32_t q = 0; q < queries; ++q) share_threshold(worker.candidates, q);
      search_block(plan, call, queries, first, then, worker);
    }
  };
  for_each_task(parallel, static_cast<int>(plan.workers), work);
  std::atomic<int64_t> done{0};
  auto finish = [&](int w) {
    for (int64_t q; (q = done.fetch_add(1, std::memory_order_relaxed)) < queries;) {
      outcomes[q] = ranked(
          finish_query(plan, call, memory.workers, plan.workers, q, group.query(q), memory.workers[w]),
          static_cast<int32_t>(q));
    }
  };
  for_each_task(parallel, static_cast<int>(at_most(plan.workers, queries)), finish);
}

// As search_by_rows, but each worker searches for some of the queries, among all rows. The group has no list: for
// queries that another search leaves over, workers share the rows.
void search_by_queries(const Plan& plan, const FusedSearch& call, const Parallel& parallel, const Memory& memory,
                       const Group& group, uint64_t* outcomes) {
  std::atomic<int64_t> next{0};
  auto work = [&](int w) {
    Worker& worker = memory.workers[w];
    for (;;) {
      // Fewer towards the end, so that all workers have enough to do until then.
      int64_t start = next.load(std::memory_order_relaxed), queries;
      do {
        const int64_t left = group.queries - start, round = 2 * plan.workers * plan.share;
        queries = at_most(at_most((left + round - 1) / round * plan.share, plan.layout.queries), left);
        if (queries == 0) return;
      } while (!next.compare_exchange_weak(start, start + queries, std::memory_order_relaxed));
      const Group part = {group.first + start, queries, nullptr};
      for (int64_t p = 0; p < panel_count(plan.layout, queries); ++p) {
        pack_panel(plan.layout, call, part, p, worker.queries);
        draw_sample(plan, call, panel_at(plan.layout, worker.queries, queries, p), worker);
      }
      for (int64_t first = 0; first < call.rows; first += plan.block) {
        search_block(plan, call, queries, first, first + plan.block, worker);
      }
      for (int64_t q = 0; q < queries; ++q) {
        const int32_t outcome = finish_query(plan, call, &worker, 1, q, part.query(q), worker);
        outcomes[start + q] = ranked(outcome, static_cast<int32_t>(start + q));
      }
    }
  };
  for_each_task(parallel, static_cast<int>(plan.workers), work);
}

// So many times as many candidates are looked at for queries of which too few are proven, where these are at most about
// one in so many of the queries, and the candidates of the rows.
constexpr int64_t times_as_wide = 8;

// A search of the rows that candidates would be scored by.
FusedSearch exact(FusedSearch call) {
  call.type = call.rerank_type;
  call.database = call.rerank_rows;
  call.scales = call.errors = nullptr;
  call.rerank_rows = nullptr;
  call.certified_recall = 0;
  if (call.metric == Metric::squared_distance) call.half_norms = call.centre = nullptr;
  return call;
}

// What is searched for a call: where tiles take rows that are made f32, candidates cost more than they save, once queries
// are so many that the time goes into products, and not into reading rows.
FusedSearch searched(const FusedSearch& call, const Parallel& parallel) {
  constexpr int64_t many_queries = 256;
  if (!certifies(call) || call.metric == Metric::squared_distance || call.query_count < many_queries) return call;
  const Plan plan = plan_of(call, parallel);
  return plan.base != nullptr && plan.search->widened && !plan.streams ? exact(call) : call;
}

// A search of all queries, and those that repeat it for some: those of which too few rows pass the first threshold, and
// those of which the fewest results are proven, so many that of all others' results the share that is asked for is. The
// last is one that cannot fail. As each pass goes through the whole database, queries wait until they are as many as
// their search takes at a time. It is planned for all queries of the call, so that its sums are those that a search of
// them all would have.
class Stages {
 public:
  Stages(const FusedSearch& call, const Plan& plan, const Parallel& parallel, Arena& arena) : parallel_(parallel) {
    add(call, plan);
    if (certifies(call)) {
      FusedSearch again = call;
      again.candidates = times_as_wide * call.candidates;
      if (again.candidates <= call.rows / times_as_wide) add(again, plan_of(again, parallel, true));
      again = exact(call);
      add(again, plan_of(again, parallel, true));
    } else if (plan.rank < plan.kept) {
      add(call, plan_of(call, parallel, true));
    }
    if (count_ > 1) take_rank(stages_[count_ - 1].plan, stages_[count_ - 1].plan.kept);
    int64_t groups = 0, largest = 0;
    for (int i = 0; i < count_; ++i) {
      Stage& stage = stages_[i];
      groups += stage.plan.group;
      largest = std::max(largest, stage.plan.group);
      stage.waiting = i > 0 ? arena.take<int32_t>(groups) : nullptr;
    }
    outcomes_ = arena.take<uint64_t>(largest);
    arena_ = arena;
  }

  size_t needed() const {
    size_t most = 0;
    for (int i = 0; i < count_; ++i) {
      Arena arena = arena_;
      lay_out(stages_[i].plan, stages_[i].call, arena);
      most = std::max(most, arena.needed());
    }
    return most;
  }

  void search() {
    const int64_t queries = stages_[0].call.query_count, group = stages_[0].plan.group;
    for (int64_t first = 0; first < queries; first += group) {
      run(0, {first, at_most(group, queries - first), nullptr});
    }
    for (int i = 1; i < count_; ++i) search_waiting(i, 1);
  }

 private:
  struct Stage {
    FusedSearch call;
    Plan plan;
    int32_t* waiting;  // null of the first
    int64_t count;     // of those that wait
  };

  void add(const FusedSearch& call, const Plan& plan) { stages_[count_++] = {call, plan, nullptr, 0}; }

  void run(int at, const Group& group) {
    const Stage& stage = stages_[at];
    Arena arena = arena_;
    const auto search = stage.plan.by_rows ? search_by_rows : search_by_queries;
    search(stage.plan, stage.call, parallel_, lay_out(stage.plan, stage.call, arena), group, outcomes_);
    if (at + 1 == count_) return;
    const int64_t accepted = accept(stage.call, group.queries), failures = group.queries - accepted;
    // Where many fail, more candidates would not help them all.
    const int then = failures * times_as_wide < group.queries + times_as_wide ? at + 1 : count_ - 1;
    Stage& next = stages_[then];
    for (int64_t i = accepted; i < group.queries; ++i) {
      next.waiting[next.count++] = static_cast<int32_t>(group.query(index_of_ranked(outcomes_[i])));
    }
    search_waiting(then, next.plan.group);
  }

  // How many queries need not be searched again, which become the first of the outcomes: as many as have, all in all,
  // the share of their results proven.
  int64_t accept(const FusedSearch& call, int64_t queries) {
    std::sort(outcomes_, outcomes_ + queries, std::greater<uint64_t>());
    const double share = call.certified_recall * static_cast<double>(call.k);
    int64_t accepted = 0, proven = 0;
    for (; accepted < queries; ++accepted) {
      const int32_t here = key_of_ranked(outcomes_[accepted]);
      proven += here;
      if (here < 0 || static_cast<double>(proven) < share * static_cast<double>(accepted + 1)) break;
    }
    return accepted;
  }

  // Searches queries that wait, where they are so many.
  void search_waiting(int at, int64_t least) {
    Stage& stage = stages_[at];
    while (stage.count >= least) {
      const int64_t queries = at_most(stage.count, stage.plan.group);
      stage.count -= queries;
      run(at, {0, queries, stage.waiting + stage.count});
    }
  }

  const Parallel& parallel_;
  Arena arena_;  // what is left for the search at hand
  Stage stages_[3];
  int count_ = 0;
  uint64_t* outcomes_;  // of the queries of the group at hand
};

}  // namespace

size_t fused_search_scratch(const FusedSearch& asked, const Parallel& parallel) {
  if (!valid(asked)) return 0;
  const FusedSearch call = searched(asked, parallel);
  const Plan plan = plan_of(call, parallel);
  if (plan.base == nullptr) return 0;
  Arena arena;
  if (call.query_count == 0) return arena.needed();
  return Stages(call, plan, parallel, arena).needed();
}

Status fused_search(const FusedSearch& asked, void* scratch, size_t scratch_bytes, const Parallel& parallel) {
  if (!valid(asked)) return Status::invalid_argument;
  const FusedSearch call = searched(asked, parallel);
  const Plan plan = plan_of(call, parallel);
  if (plan.base == nullptr) return Status::unsupported_instruction_set;
  if (call.query_count == 0) return Status::ok;
  if (scratch == nullptr || scratch_bytes < fused_search_scratch(asked, parallel)) return Status::scratch_too_small;
  Arena arena(scratch);
  Stages(call, plan, parallel, arena).search();
  return Status::ok;
}

}  // namespace xlann
