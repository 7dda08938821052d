// xlann_fused_search: the k best rows of a database for each query, without the scores in memory.
//
// Operands, in this order:
// - queries [..., q, d], of f32, bf16 or f16; of f64, too, for squared distances
// - database [..., n, d], of f32, bf16, f16 or s8, with the same leading sizes: a search for each of them; of f32, bf16, f16
//   or f64 for squared distances without candidates
// - scales f32[..., n], for a database of s8, whose rows are their scales times their numbers, and with the attribute
//   `scaled`: what products are multiplied by
// - half_norms f32[..., n], for the metric l2, and for squared distances with candidates
// - rows f32[..., n, d], with the attribute `candidates`: what the candidates are scored against anew; of bf16 or f16, too,
//   for squared distances
// - errors f32[..., 2], with the attribute `certified_recall`: the greatest Euclidean norms of a row less the stored
//   row, and of a stored row (a row of the database in f32, for s8 times its scale); NaN where one of them is
// - centre f32[..., d], with the attribute `centred`: what the rows of the database are those of `rows` less
// Results: values f32[..., q, k], f64 of squared distances, and indices s32[..., q, k]; k is read off them.
// Attributes: `metric` ("inner_product", the default: the greatest query . row; "l2": the least half_norm - query . row;
// or "squared_distance": the least sum of (query - row)^2), `scaled` (a truth value; false, the default: only rows of s8
// have scales), `candidates` (an integer; 0, the default: none are scored anew), `certified_recall` (an f64 or f32 from 0
// to 1; 0, the default: nothing is certified), `centred` (a truth value; false, the default), and those of Execution.
// Squared distances with candidates are certified, and nothing else is centred.
//
// With certified_recall, at least that share of a search's results, of all its queries together, is proven to be among
// those of a search of `rows` in f32; where it cannot be, queries are searched again, at last so.
#include <algorithm>
#include <atomic>

#include "../kernels/parallel.h"
#include "handlers.h"
#include "scratch.h"
#include "thread_pool.h"

namespace xlann {
namespace {

using xla_ffi::DataType;

struct Operands {
  Matrix queries, database, scales, half_norms, rows, errors, centre, values, indices;
};

// What the attributes ask for.
struct Request {
  Metric metric;
  bool scaled, rerank, certify, centred;
};

bool read(Frame& frame, const Request& asked, Operands& x) {
  int64_t next = 2;
  const bool rerank = asked.rerank, squared = asked.metric == Metric::squared_distance;
  const bool measured = asked.metric == Metric::l2 || (squared && rerank);
  // The type of the database says how many operands there are.
  const int64_t given = frame.frame().arguments.count;
  if (given >= 2 && given <= 7 && !frame.argument(1, "database", 2, x.database)) return false;
  const bool differences = squared && !rerank;
  const bool scaled = asked.scaled || (x.database.type == DataType::s8 && !differences);
  const DataType last = differences ? DataType::f64 : DataType::s8;
  if (!frame.counts({"queries", "database", scaled ? "scales" : nullptr, measured ? "half_norms" : nullptr,
                     rerank ? "rows" : nullptr, asked.certify ? "errors" : nullptr,
                     asked.centred ? "centre" : nullptr}, 2) ||
      !frame.argument(0, "queries", 2, x.queries) ||
      !(squared ? frame.has_type("queries", x.queries, {DataType::f32, DataType::bf16, DataType::f16, DataType::f64})
                : frame.has_type("queries", x.queries, {DataType::f32, DataType::bf16, DataType::f16})) ||
      !frame.has_type("database", x.database, {DataType::f32, DataType::bf16, DataType::f16, last})) {
    return false;
  }
  const int64_t leading = x.queries.rank - 2, n = x.database.rows, d = x.queries.columns;
  if (!frame.has_sizes("database", x.database, x.queries, leading, {n, d})) return false;
  const auto vector = [&](const char* name, int64_t size, Matrix& matrix) {
    return frame.argument(next++, name, 1, matrix) && frame.has_type(name, matrix, {DataType::f32}) &&
           frame.has_sizes(name, matrix, x.queries, leading, {size});
  };
  if (scaled && !vector("scales", n, x.scales)) return false;
  if (measured && !vector("half_norms", n, x.half_norms)) return false;
  if (rerank && (!frame.argument(next++, "rows", 2, x.rows) ||
                 !(squared ? frame.has_type("rows", x.rows, {DataType::f32, DataType::bf16, DataType::f16})
                           : frame.has_type("rows", x.rows, {DataType::f32})) ||
                 !frame.has_sizes("rows", x.rows, x.queries, leading, {n, d}))) {
    return false;
  }
  if (asked.certify && !vector("errors", 2, x.errors)) return false;
  if (asked.centred && !vector("centre", d, x.centre)) return false;
  return frame.result(0, "the values", 2, x.values) &&
         frame.has_type("the values", x.values, {squared ? DataType::f64 : DataType::f32}) &&
         frame.result(1, "the indices", 2, x.indices) && frame.has_type("the indices", x.indices, {DataType::s32}) &&
         frame.has_sizes("the values", x.values, x.queries, leading + 1, {x.values.columns}) &&
         frame.has_sizes("the indices", x.indices, x.queries, leading + 1, {x.values.columns});
}

template <class T>
T* at(const Matrix& matrix, int64_t element) {
  return static_cast<T*>(const_cast<void*>(matrix.data)) + element;
}

int64_t size_of(DataType type) {
  switch (type) {
    case DataType::s8:
      return 1;
    case DataType::bf16:
    case DataType::f16:
      return 2;
    case DataType::f64:
      return 8;
    default:
      return 4;
  }
}

bool run(Frame& frame) {
  xla_ffi::Text metric{"inner_product", 13};
  bool scaled = false, centred = false;
  int64_t candidates = 0;
  double certified_recall = 0;
  Execution execution;
  if (!frame.attributes({"metric", "scaled", "candidates", "certified_recall", "centred", "threads",
                         "instruction_set"}) ||
      !frame.attribute("metric", metric) || !frame.attribute("scaled", scaled) || !frame.attribute("centred", centred) ||
      !frame.attribute("candidates", candidates) || !frame.attribute("certified_recall", certified_recall) ||
      !read_execution(frame, execution)) {
    return false;
  }
  const bool l2 = equal(metric, "l2"), squared = equal(metric, "squared_distance");
  if (!l2 && !squared && !equal(metric, "inner_product")) {
    const int size = metric.size > 64 ? 64 : static_cast<int>(metric.size);
    return frame.refuse("metric must be inner_product, l2 or squared_distance, got %.*s", size, metric.data);
  }
  if (!(certified_recall >= 0 && certified_recall <= 1)) {
    return frame.refuse("certified_recall must be from 0 to 1, got %g", certified_recall);
  }
  if (certified_recall > 0 && candidates == 0) {
    return frame.refuse("certified_recall must be 0 without candidates, got %g", certified_recall);
  }
  if (squared && candidates != 0 && certified_recall == 0) {
    return frame.refuse("certified_recall must be above 0 with candidates for squared distances, got 0");
  }
  if (squared && candidates == 0 && scaled) {
    return frame.refuse("scaled must be false for squared distances without candidates");
  }
  if (centred && !(squared && candidates != 0)) {
    return frame.refuse("centred must be false, but for squared distances with candidates");
  }
  const Request asked = {l2        ? Metric::l2
                         : squared ? Metric::squared_distance
                                   : Metric::inner_product,
                         scaled, candidates != 0, certified_recall > 0, centred};
  Operands x;
  if (!read(frame, asked, x)) return false;
  const int64_t n = x.database.rows, d = x.queries.columns, q = x.queries.rows, k = x.values.columns;
  if (n > most_choices) {
    return frame.refuse("database must be of at most %lld rows, got %lld", static_cast<long long>(most_choices),
                        static_cast<long long>(n));
  }
  if (k > n) {
    return frame.refuse("k must be at most the database's %lld rows, got %lld", static_cast<long long>(n),
                        static_cast<long long>(k));
  }
  if (candidates != 0 && (candidates < k || candidates > n)) {
    return frame.refuse("candidates must be from k (%lld) to the database's %lld rows, got %lld",
                        static_cast<long long>(k), static_cast<long long>(n), static_cast<long long>(candidates));
  }
  if (scaled && candidates != 0 && x.database.type != DataType::s8) {
    return frame.refuse("scaled must be false with candidates from a database of %s", name(x.database.type));
  }
  if (x.queries.batch == 0 || q == 0 || k == 0) return true;
  if (d == 0) return frame.refuse("database must be of 1 column or more, got 0");
  if (d > INT32_MAX || q > int64_t{1} << 26) {
    return frame.refuse("queries must be at most 2^26 rows of less than 2^31, got %lld of %lld",
                        static_cast<long long>(q), static_cast<long long>(d));
  }
  ThreadPool pool(frame.frame(), execution.threads);
  const Parallel parallel = pool.parallel();
  FusedSearch common;
  common.metric = asked.metric;
  common.type = type_of(x.database.type);
  common.rows = n;
  common.dimension = d;
  common.query_type = type_of(x.queries.type);
  common.query_count = q;
  common.k = k;
  common.candidates = candidates;
  common.certified_recall = certified_recall;
  common.rerank_type = candidates == 0 ? Type::f32 : type_of(x.rows.type);
  common.instruction_set = execution.instruction_set;
  const auto search = [&](int64_t batch) {
    FusedSearch call = common;
    call.queries = at<char>(x.queries, batch * q * d * size_of(x.queries.type));
    call.database = at<char>(x.database, batch * n * d * size_of(x.database.type));
    call.scales = x.scales.data == nullptr ? nullptr : at<float>(x.scales, batch * n);
    call.half_norms = x.half_norms.data == nullptr ? nullptr : at<float>(x.half_norms, batch * n);
    call.rerank_rows = candidates == 0 ? nullptr : at<char>(x.rows, batch * n * d * size_of(x.rows.type));
    call.errors = certified_recall > 0 ? at<float>(x.errors, batch * 2) : nullptr;
    call.centre = centred ? at<float>(x.centre, batch * d) : nullptr;
    call.values = squared ? nullptr : at<float>(x.values, batch * q * k);
    call.distances = squared ? at<double>(x.values, batch * q * k) : nullptr;
    call.indices = at<int32_t>(x.indices, batch * q * k);
    return call;
  };
  // Searches that are worth fewer threads than they are many go side by side, each on one.
  const double work = static_cast<double>(q) * static_cast<double>(n) * static_cast<double>(d);
  const int64_t searches = x.queries.batch;
  const int64_t tasks = std::min(searches, workers_for(parallel, static_cast<double>(searches) * work));
  if (tasks > workers_for(parallel, work)) {
    const Parallel alone;
    const size_t each = fused_search_scratch(search(0), alone);
    return with_scratch(frame, static_cast<size_t>(tasks) * each, [&](void* scratch, size_t) {
      std::atomic<int64_t> next{0};
      std::atomic<Status> status{Status::ok};
      auto take_some = [&](int task) {
        char* const own = static_cast<char*>(scratch) + static_cast<size_t>(task) * each;
        for (int64_t batch; (batch = next.fetch_add(1, std::memory_order_relaxed)) < searches;) {
          const Status one = fused_search(search(batch), own, each, alone);
          if (one != Status::ok) status = one;
        }
      };
      for_each_task(parallel, static_cast<int>(tasks), take_some);
      return status.load();
    });
  }
  return with_scratch(frame, fused_search_scratch(search(0), parallel), [&](void* scratch, size_t bytes) {
    Status status = Status::ok;
    for (int64_t batch = 0; batch < searches && status == Status::ok; ++batch) {
      status = fused_search(search(batch), scratch, bytes, parallel);
    }
    return status;
  });
}

}  // namespace
}  // namespace xlann

extern "C" xla_ffi::Error* xlann_fused_search_handler(xla_ffi::CallFrame* frame) {
  return xlann::handle(frame, "xlann_fused_search", xlann::run);
}
