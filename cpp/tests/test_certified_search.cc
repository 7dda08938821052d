// fused_search with certified_recall, on every instruction set that the machine has, against the search in f32.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <string>

#include "../kernels/candidates.h"
#include "../kernels/certify.h"
#include "../kernels/routines.h"
#include "support.h"

using namespace xlann;

namespace {

struct Shape {
  int64_t queries, rows, dimension, k, candidates;
};

// Squares as XLA's threads take them: of subnormal numbers nothing is left.
float square(float x) { return std::fabs(x * x) < 0x1p-126f ? 0 : x * x; }

// Rows in f32, and as they are stored; errors as a caller would compute them, in f32.
struct Problem {
  Type type, query_type;
  Shape shape;
  Metric metric;
  std::string what;
  Numbers rows, stored, queries, rounded, scales, half_norms;
  float errors[2] = {};

  Problem(Type type, Type query_type, const Shape& shape, Metric metric, const std::string& what)
      : type(type), query_type(query_type), shape(shape), metric(metric), what(what),
        rows(Type::f32, shape.rows * shape.dimension), stored(type, shape.rows * shape.dimension),
        queries(query_type, shape.queries * shape.dimension), rounded(Type::bf16, shape.queries * shape.dimension),
        scales(Type::f32, shape.rows), half_norms(Type::f32, shape.rows) {}

  // Stores the rows, symmetrically quantised for s8 with one scale for so many of them, and measures what is lost.
  void store(int64_t of_one_scale) {
    for (int64_t i = 0; i < shape.rows; ++i) {
      const int64_t d = shape.dimension, first = i - i % of_one_scale, last = at_most(first + of_one_scale, shape.rows);
      float greatest = 0;
      for (int64_t j = first * d; j < last * d; ++j) greatest = std::fmax(greatest, std::fabs(float(rows.get(j))));
      if (!(greatest < INFINITY)) greatest = 127;
      const float scale = greatest / 127;
      scales.set(i, scale);
      for (int64_t j = 0; j < d; ++j) {
        const double x = rows.get(i * d + j);
        double number = type == Type::s8 ? std::nearbyint(float(x) / scale) : x;
        if (type == Type::s8) number = number >= -127 && number <= 127 ? number : 0;
        stored.set(i * d + j, number);
      }
    }
    measure();
  }

  void measure() {
    float greatest[2] = {};
    for (int64_t i = 0; i < shape.rows; ++i) {
      float sums[3] = {};
      for (int64_t j = 0; j < shape.dimension; ++j) {
        const float x = float(rows.get(i * shape.dimension + j));
        float y = float(stored.get(i * shape.dimension + j));
        if (type == Type::s8) y *= float(scales.get(i));
        sums[0] += square(x - y);
        sums[1] += square(y);
        sums[2] += x * x;
      }
      for (int n = 0; n < 2; ++n) {
        if (!(sums[n] <= greatest[n]) && !std::isnan(greatest[n])) greatest[n] = sums[n];
      }
      half_norms.set(i, sums[2] / 2);
    }
    for (int n = 0; n < 2; ++n) errors[n] = std::sqrt(greatest[n]);
  }

  FusedSearch in_f32() {
    FusedSearch call;
    call.metric = metric;
    call.database = rows.data();
    call.half_norms = metric == Metric::l2 ? static_cast<float*>(half_norms.data()) : nullptr;
    call.rows = shape.rows;
    call.dimension = shape.dimension;
    call.query_type = query_type;
    call.queries = queries.data();
    call.query_count = shape.queries;
    call.k = shape.k;
    return call;
  }

  // What candidates are found by: queries that are scored anew are rounded to bf16.
  FusedSearch reduced() {
    FusedSearch call = in_f32();
    call.type = type;
    call.database = stored.data();
    call.scales = type == Type::s8 ? static_cast<float*>(scales.data()) : nullptr;
    if (type == Type::bf16) {
      for (int64_t i = 0; i < queries.count(); ++i) rounded.set(i, queries.get(i));
      call.query_type = Type::bf16;
      call.queries = rounded.data();
    }
    return call;
  }

  FusedSearch reranked() {
    FusedSearch call = reduced();
    call.query_type = query_type;
    call.queries = queries.data();
    call.rerank_rows = rows.data();
    call.candidates = shape.candidates;
    return call;
  }

  FusedSearch certified(double recall) {
    FusedSearch call = reranked();
    call.certified_recall = recall;
    call.errors = errors;
    return call;
  }

  // How far scores that were summed in f32 in other orders may be from each other.
  double tolerance(int64_t query) {
    const int64_t d = shape.dimension;
    double norm = 0, greatest = 0;
    for (int64_t j = 0; j < d; ++j) norm += std::pow(queries.get(query * d + j), 2);
    for (int64_t i = 0; i < shape.rows; ++i) {
      double row = 0;
      for (int64_t j = 0; j < d; ++j) row += std::pow(rows.get(i * d + j), 2);
      greatest = std::max(greatest, row);
    }
    const double product = std::sqrt(norm * greatest);
    return 0x1p-23 * ((double(d) + 2) * product + (metric == Metric::l2 ? product + greatest : 0)) + 1e-42;
  }
};

int64_t searches = 0, widened = 0, lent = 0;

using Run = std::function<Found(FusedSearch call, int64_t k, int threads)>;

// What is found among so many candidates, and how many results of each query are proven.
struct Among {
  int64_t candidate_count = 0;
  Found reranked, candidates;
  std::vector<int64_t> proven;

  Among() {}
  Among(Problem& problem, const Run& run, InstructionSet set, int64_t candidate_count)
      : candidate_count(candidate_count) {
    FusedSearch call = problem.reranked();
    call.candidates = candidate_count;
    reranked = run(call, problem.shape.k, 1), candidates = run(problem.reduced(), candidate_count, 1);
    call = problem.certified(1);
    call.instruction_set = set;
    call.values = reranked.values.data();
    for (int64_t q = 0; q < problem.shape.queries; ++q) {
      const float last = candidates.values[size_t((q + 1) * candidate_count - 1)];
      const bool whole = candidate_count == problem.shape.rows;
      this->proven.push_back(whole ? problem.shape.k
                                   : xlann::proven(call, q, problem.metric == Metric::l2 ? -last : last));
    }
  }

  // Of some queries those that are searched again: as few as will do, that of the others such a share is proven.
  std::vector<int64_t> left(std::vector<int64_t> queries, double recall, int64_t k) const {
    std::stable_sort(queries.begin(), queries.end(), [&](int64_t a, int64_t b) {
      return proven[size_t(a)] > proven[size_t(b)];
    });
    for (size_t count = queries.size();; --count) {
      int64_t sum = 0;
      for (size_t i = 0; i < count; ++i) sum += proven[size_t(queries[i])];
      if (double(sum) >= recall * double(k) * double(count)) return {queries.begin() + int64_t(count), queries.end()};
    }
  }
};

Found row_of(const Found& found, int64_t query, int64_t k) {
  const auto values = found.values.begin() + query * k;
  const auto indices = found.indices.begin() + query * k;
  return {{values, values + k}, {indices, indices + k}};
}

bool contains(const std::vector<int64_t>& some, int64_t query) {
  return std::find(some.begin(), some.end(), query) != some.end();
}

bool close(float a, float b, double tolerance) {
  return a == b || (std::isnan(a) && std::isnan(b)) || std::fabs(double{a} - double{b}) <= tolerance;
}

const std::vector<InstructionSet> every_set(std::begin(all_sets), std::end(all_sets));

// On every set and path; the number of queries that were searched again, on the last.
int64_t check(Problem& problem, double recall = 1, const std::vector<InstructionSet>& sets = every_set) {
  const Shape& shape = problem.shape;
  const int64_t k = shape.k;
  const bool l2 = problem.metric == Metric::l2;
  std::vector<double> tolerances;
  for (int64_t q = 0; q < shape.queries; ++q) tolerances.push_back(problem.tolerance(q));
  int64_t repeated = 0;
  for (InstructionSet set : sets) {
    if (!supported(set)) continue;
    for (Path path : {Path::stream, Path::tile}) {
      const auto run = [&](FusedSearch call, int64_t count, int threads) {
        call.instruction_set = set;
        call.path = path;
        call.k = count;
        return search(call, threads);
      };
      FusedSearch call = problem.certified(recall);
      const Found found = run(call, k, 1);
      char where[200];
      std::snprintf(where, sizeof where, "%s %s %s %s %s q %d n %d d %d k %d of %d, recall %g", name(set),
                    path == Path::tile ? "tiles" : "streamed", name(problem.type), l2 ? "l2" : "ip",
                    problem.what.c_str(), (int)shape.queries, (int)shape.rows, (int)shape.dimension, (int)k,
                    (int)shape.candidates, recall);
      for (int threads : {2, 5}) CHECK(same(found, run(call, k, threads)), "%s: %d threads", where, threads);
      ++searches;
      const bool in_f32 = path == Path::tile && search_routines(set, problem.type)->widened;
      if (in_f32 && shape.queries >= 256 && shape.candidates < shape.rows) {
        CHECK(same(found, run(problem.in_f32(), k, 1)), "%s: not as in f32", where);
        continue;
      }
      const Among few(problem, run, set, shape.candidates), none;
      std::vector<int64_t> queries(size_t(shape.queries), 0);
      std::iota(queries.begin(), queries.end(), 0);
      const std::vector<int64_t> left = few.left(queries, recall, k);
      const int64_t failures = int64_t(left.size());
      // Of few queries more candidates are looked at.
      const int64_t more = 8 * shape.candidates;
      const bool widens = failures > 0 && 8 * failures < shape.queries + 8 && more <= shape.rows / 8;
      const Among many = widens ? Among(problem, run, set, more) : none;
      const std::vector<int64_t> last = widens ? many.left(left, recall, k) : left;
      const Found exact = run(problem.in_f32(), k, 1);
      Found all;  // where it is needed
      std::vector<float> scores(size_t(shape.rows));
      repeated = failures;
      int64_t all_right = 0;
      for (int64_t q = 0; q < shape.queries; ++q) {
        const Found here = row_of(found, q, k), wanted = row_of(exact, q, k);
        const bool whole = shape.candidates == shape.rows;
        if (contains(last, q)) {
          CHECK(same(here, wanted), "%s: query %d", where, (int)q);
          all_right += k;
          continue;
        }
        const bool again = contains(left, q);
        const Among& among = again ? many : few;
        widened += again;
        CHECK(same(here, row_of(among.reranked, q, k)), "%s: query %d", where, (int)q);
        if (all.indices.empty()) all = run(problem.in_f32(), shape.rows, 1);
        for (int64_t i = 0; i < shape.rows; ++i) {
          scores[size_t(all.indices[size_t(q * shape.rows + i)])] = all.values[size_t(q * shape.rows + i)];
        }
        // Sums in another order differ: indices are the same but where scores are so close.
        const double tolerance = tolerances[size_t(q)];
        int64_t right = 0;
        for (int64_t i = 0; i < k; ++i) {
          const float score = scores[size_t(here.indices[size_t(i)])], worst = wanted.values[size_t(k - 1)];
          CHECK(close(here.values[size_t(i)], score, tolerance), "%s: query %d rank %d: %g, not %g", where, (int)q,
                (int)i, here.values[size_t(i)], score);
          right += close(score, worst, 2 * tolerance) || std::isnan(worst) || (l2 ? score < worst : score > worst);
          if (recall == 1 || whole) {
            CHECK(close(score, wanted.values[size_t(i)], 2 * tolerance), "%s: query %d rank %d: row %d, not %d", where,
                  (int)q, (int)i, here.indices[size_t(i)], wanted.indices[size_t(i)]);
          }
        }
        const int64_t proven = among.proven[size_t(q)];
        CHECK(right >= proven, "%s: query %d: %d right of %d", where, (int)q, (int)right, (int)proven);
        lent += double(proven) < recall * double(k);
        all_right += right;
        if (recall < 1 || whole) continue;
        // However close: the search in f32 has all of them before every row that is no candidate.
        float worst = INFINITY;
        for (int32_t index : here.indices) {
          worst = std::fmin(worst, l2 ? -scores[size_t(index)] : scores[size_t(index)]);
        }
        for (int32_t index : row_of(among.candidates, q, among.candidate_count).indices) scores[size_t(index)] = NAN;
        for (const float score : scores) {
          CHECK(!((l2 ? -score : score) >= worst), "%s: query %d: %g and %g", where, (int)q, score, worst);
        }
      }
      CHECK(double(all_right) >= recall * double(k * shape.queries), "%s: %d right", where, (int)all_right);
    }
  }
  return repeated;
}

using Number = std::function<double(Random&, int64_t row, int64_t column)>;
struct Content {
  const char* what;
  Number row, query;
};

std::vector<Content> contents() {
  const Number normal = [](Random& random, int64_t, int64_t) { return double(random.normal()); };
  const Number integers = [](Random& random, int64_t, int64_t) { return double(random.below(17) - 8); };
  const auto times = [=](double scale, const Number& number) -> Number {
    return [=](Random& random, int64_t i, int64_t j) { return scale * number(random, i, j); };
  };
  const auto some = [=](double special, const Number& number) -> Number {
    return [=](Random& random, int64_t i, int64_t j) {
      return i % 5 == 2 && (j == 0 || random.below(9) == 0) ? special : number(random, i, j);
    };
  };
  const Number offset = [](Random& random, int64_t, int64_t) { return 1000 + 0.01 * double(random.normal()); };
  // What bf16 and s8 store without loss, so that only queries are rounded.
  const Number stored = [](Random& random, int64_t, int64_t j) {
    return j == 0 ? 127.0 : double(random.below(255) - 127);
  };
  // Without loss by all but s8, so that sums are rounded and nothing else.
  const Number steps = [](Random& random, int64_t, int64_t) { return double(1000 + 4 * random.below(3)); };
  // For l2, of half norms that are all the same, and so great that little is left of products.
  const Number signs = [](Random& random, int64_t, int64_t j) {
    return (random.below(2) ? 1 : -1) * (1000 + 0.37 * double(j));
  };
  const Number far = [](Random& random, int64_t i, int64_t) {
    return (i % 11 == 0 ? 100.0 : 1.0) * double(random.normal());
  };
  return {
      {"random", normal, normal},
      {"integers", integers, integers},
      {"offset", offset, normal},
      {"offset in both", offset, offset},
      {"stored without loss", stored, normal},
      {"sums rounded", steps, steps},
      {"differences rounded", steps, times(1e-3, steps)},
      {"half norms equal", signs, times(1e-4, normal)},
      {"some rows far", far, normal},
      {"rows equal", [](Random&, int64_t, int64_t j) { return 0.1 * double(j % 7) - 0.3; }, normal},
      {"nearly equal", [](Random& random, int64_t, int64_t j) { return double(j % 3) + 1e-7 * random.normal(); },
       normal},
      {"zero rows", [](Random&, int64_t, int64_t) { return 0; }, normal},
      {"zero queries", normal, [=](Random& random, int64_t i, int64_t j) { return i % 2 ? 0 : normal(random, i, j); }},
      {"nan rows", some(NAN, normal), normal},
      {"infinite rows", some(-INFINITY, some(INFINITY, normal)), normal},
      {"nan queries", normal, some(NAN, normal)},
      {"infinite queries", normal, some(INFINITY, normal)},
      {"overflow", times(1e30, normal), times(1e15, normal)},
      {"tiny", times(1e-21, normal), times(1e-10, normal)},
      {"subnormal", times(1e-39, normal), times(1e-3, normal)},
      {"scales underflow", times(1e-39, normal), times(1e36, normal)},
  };
}

std::unique_ptr<Problem> make(const Content& content, Type type, Type query_type, const Shape& shape, Metric metric,
                              Random& random) {
  auto problem = std::make_unique<Problem>(type, query_type, shape, metric, content.what);
  const int64_t d = shape.dimension;
  for (int64_t i = 0; i < shape.rows * d; ++i) problem->rows.set(i, content.row(random, i / d, i % d));
  for (int64_t i = 0; i < shape.queries * d; ++i) problem->queries.set(i, content.query(random, i / d, i % d));
  problem->store(random.below(2) == 0 ? 1 : 24);
  return problem;
}

// Stored rows as far off as they can be, all in the direction of the query, for or against: the bound is tight.
void check_adversaries(Random& random) {
  for (Metric metric : {Metric::inner_product, Metric::l2}) {
    for (Type type : {Type::bf16, Type::f16}) {
      for (int64_t candidates : {5, 7, 20}) {
        Problem problem(type, Type::f32, {3, 60, 4, 5, candidates}, metric, "adversarial");
        for (int64_t q = 0; q < 3; ++q) problem.queries.set(4 * q + q, 1);
        for (int64_t i = 0; i < 60; ++i) {
          for (int64_t j = 0; j < 4; ++j) {
            const double x = double(random.below(64)) / 4, wrong = i % 2 ? -2 : 2;
            problem.rows.set(4 * i + j, x);
            problem.stored.set(4 * i + j, j == i / 2 % 3 ? x + wrong : x);
          }
        }
        problem.measure();
        check(problem);
        check(problem, 0.5);
      }
    }
  }
  // The first of two is found, the other is as good, or better by the least there is.
  for (float better : {10.f, std::nextafter(10.f, 11.f), 11.f}) {
    Problem problem(Type::f16, Type::f32, {1, 2, 1, 1, 1}, Metric::inner_product, "two");
    problem.queries.set(0, 1);
    for (int64_t i = 0; i < 2; ++i) problem.rows.set(i, i == 0 ? 10 : better), problem.stored.set(i, 5);
    problem.measure();
    CHECK(check(problem) == 1, "%g", better);
    const Found found = search(problem.certified(1), 1);
    CHECK(found.indices[0] == (better > 10), "%g", better);
  }
}

// How many queries are searched again, where that can be told; in few cases where it has to be quick.
void check_repeats(Random& random, bool quick) {
  const std::vector<Content> all = contents();
  const auto content = [&](const char* what) -> const Content& {
    for (const Content& each : all) {
      if (!std::strcmp(each.what, what)) return each;
    }
    std::abort();
  };
  const auto repeated = [&](const char* what, Type type, const Shape& shape, Metric metric) {
    return check(*make(content(what), type, Type::f32, shape, metric, random));
  };
  if (quick) {
    const Shape shape = {40, 500, 32, 10, 40};
    CHECK(repeated("rows equal", Type::s8, shape, Metric::l2) == 40, "rows equal");
    CHECK(repeated("nan queries", Type::s8, shape, Metric::inner_product) == 8, "nan queries");
    CHECK(repeated("random", Type::bf16, shape, Metric::l2) == 0, "random");
    return;
  }
  for (Type type : {Type::bf16, Type::f16, Type::s8}) {
    for (Metric metric : {Metric::inner_product, Metric::l2}) {
      const Shape shape = {40, 2000, 32, 10, 40};
      for (const char* what : {"offset in both", "rows equal", "nan rows", "infinite rows", "overflow"}) {
        CHECK(repeated(what, type, shape, metric) == 40, "%s %s", what, name(type));
      }
      CHECK(repeated("random", type, shape, metric) == 0, "%s", name(type));
      CHECK(repeated("nan queries", type, shape, metric) == 8, "%s", name(type));
      CHECK(repeated("rows equal", type, {40, 40, 32, 10, 40}, metric) == 0, "%s", name(type));
    }
    // Of these products are all equal, or nearly, but half norms differ, and are exact.
    CHECK(repeated("offset", type, {40, 2000, 32, 10, 40}, Metric::inner_product) == 40, "%s", name(type));
    CHECK(repeated("zero queries", type, {40, 2000, 32, 10, 40}, Metric::inner_product) == 20, "%s", name(type));
    CHECK(repeated("zero queries", type, {40, 2000, 32, 10, 40}, Metric::l2) == 0, "%s", name(type));
  }
  // Two workers share the queries, and not the many rows.
  CHECK(repeated("nan queries", Type::s8, {1280, 4500, 3, 5, 250}, Metric::l2) == 256, "of many queries");
  // More than are searched at a time: some wait for the next, or are enough for a second search in f32.
  for (const char* what : {"zero queries", "rows equal"}) {
    const Shape shape = {1500, 6000, 3, 3000, 5000};
    auto problem = make(content(what), Type::bf16, Type::f32, shape, Metric::inner_product, random);
    const int64_t count = check(*problem, 1, {InstructionSet::automatic});
    CHECK(count == (*what == 'z' ? 750 : 1500), "%s: %d", what, (int)count);
  }
}

// Queries that are searched at several times, and wait for one another.
void check_groups(Random& random) {
  int64_t again = 0;
  for (double recall : {0.9, 0.99, 0.995}) {
    const Shape shape = {1500, 6000, 3, 3000, 3020};
    auto problem = make(contents()[0], Type::bf16, Type::f32, shape, Metric::inner_product, random);
    FusedSearch call = problem->certified(recall), in_f32 = problem->in_f32();
    // Tiles that make rows f32 would search all in f32.
    if (search_routines(call.instruction_set, call.type)->widened) call.path = in_f32.path = Path::stream;
    const Found found = search(call, 2), exact = search(in_f32, 2);
    CHECK(same(found, search(call, 1)), "recall %g", recall);
    int64_t right = 0, differ = 0;
    for (int64_t q = 0; q < shape.queries; ++q) {
      const float worst = exact.values[size_t((q + 1) * shape.k - 1)];
      for (int64_t i = 0; i < shape.k; ++i) {
        right += found.values[size_t(q * shape.k + i)] >= worst - 1e-5f;
      }
      differ += !same(row_of(found, q, shape.k), row_of(exact, q, shape.k));
    }
    again += differ < shape.queries;
    CHECK(double(right) >= recall * double(shape.k * shape.queries), "recall %g: %d right", recall, (int)right);
    CHECK(differ > 0, "recall %g: all were searched again", recall);
  }
  CHECK(again > 0, "none was searched again");
}

void check_errors(Random& random) {
  const Shape shape = {5, 300, 8, 3, 30};
  auto problem = make(contents()[0], Type::s8, Type::f32, shape, Metric::inner_product, random);
  CHECK(check(*problem) == 0, "good errors");
  const float good[2] = {problem->errors[0], problem->errors[1]};
  for (float bad : {NAN, INFINITY, -INFINITY, -1.f, std::numeric_limits<float>::max()}) {
    for (int i = 0; i < 2; ++i) {
      problem->errors[i] = bad;
      CHECK(check(*problem) == 5, "errors[%d] = %g", i, bad);
      problem->errors[i] = good[i];
    }
  }
  // So is what the half norms make infinite.
  for (const float infinite : {INFINITY, -INFINITY}) {
    auto l2 = make(contents()[0], Type::s8, Type::f32, shape, Metric::l2, random);
    CHECK(check(*l2) == 0, "half norms");
    for (int64_t i = 0; i < (infinite > 0 ? 280 : 1); ++i) l2->half_norms.set(i, infinite);
    CHECK(check(*l2) == 5, "half norms of %g", infinite);
    CHECK(check(*l2, 0.5) == (infinite > 0 ? 5 : 0), "half norms of %g", infinite);
  }
  // Nor are infinite scores, where errors do not say that a row is.
  auto infinite = make(contents()[0], Type::bf16, Type::f32, shape, Metric::inner_product, random);
  infinite->rows.set(0, INFINITY), infinite->stored.set(0, INFINITY);
  int64_t found = 0;
  for (int64_t q = 0; q < shape.queries; ++q) found += infinite->queries.get(q * shape.dimension) > 0;
  CHECK(found > 0 && check(*infinite) == found, "%d infinite results", (int)found);
  // The first row is the best, but its sum overflows before it comes back.
  Problem overflows(Type::bf16, Type::bf16, {1, 3, 2, 1, 2}, Metric::inner_product, "overflow in between");
  const float queries[2] = {10, 10.125}, rows[6] = {-0x1p126f, 0x1p126f, 0, 0x1p120f, 0, 0x1p117f};
  for (int64_t i = 0; i < 2; ++i) overflows.queries.set(i, queries[i]);
  for (int64_t i = 0; i < 6; ++i) overflows.rows.set(i, rows[i]), overflows.stored.set(i, rows[i]);
  overflows.errors[1] = 0x1.8p126f;
  CHECK(check(overflows) == 1, "overflow");
}

// So many rows exceed the first threshold that one less for it would be enough, however work is split.
void check_misleading_sample() {
  const Shape shape = {100, 2000, 40, 5, 25};
  Problem problem(Type::f32, Type::f32, shape, Metric::inner_product, "misleading");
  const int64_t samples = sample_size(shape.candidates, shape.rows, 24, 1);
  CHECK(samples > 0 && sample_rank(shape.candidates, samples, shape.rows) <= 18, "no threshold to mislead");
  for (int64_t i = 0; i < problem.queries.count(); ++i) problem.queries.set(i, 1);
  for (int64_t i = 0; i < shape.rows; ++i) problem.rows.set(i * shape.dimension, 1);
  const int64_t first = spread(0, samples, shape.rows, 24);
  for (int64_t i = 0; i < 18; ++i) problem.rows.set((first + i) * shape.dimension, 1 + 0x1p-23);
  for (int64_t i = 0; i < 5; ++i) {
    // Between the parts of the sample.
    const int64_t row = first + 24 + i;
    for (int64_t j = 0; j < shape.dimension; ++j) {
      problem.rows.set(row * shape.dimension + j, 1.25 + 0.001 * double(i * j));
    }
  }
  for (int64_t i = 0; i < problem.rows.count(); ++i) problem.stored.set(i, problem.rows.get(i));
  problem.measure();
  for (InstructionSet set : all_sets) {
    if (!supported(set)) continue;
    for (double recall : {1.0, 0.1}) {
      FusedSearch call = problem.certified(recall);
      call.instruction_set = set;
      call.path = Path::tile;
      const Found found = search(call, 1);
      for (int threads : {2, 5}) CHECK(same(found, search(call, threads)), "%s: %d threads", name(set), threads);
      for (int64_t q = 0; q < shape.queries; ++q) CHECK(found.indices[size_t(5 * q)] == first + 28, "%s", name(set));
    }
  }
}

void check_refusals(Random& random) {
  auto problem = make(contents()[0], Type::s8, Type::f32, {1, 9, 4, 2, 3}, Metric::inner_product, random);
  const auto refused = [&](const char* what, double recall, bool candidates, bool errors) {
    FusedSearch call = candidates ? problem->reranked() : problem->reduced();
    call.certified_recall = recall;
    call.errors = errors ? problem->errors : nullptr;
    CHECK(fused_search(call, nullptr, 0, {}) == Status::invalid_argument, "%s", what);
    CHECK(fused_search_scratch(call, {}) == 0, "%s", what);
  };
  CHECK(fused_search(problem->certified(0.5), nullptr, 0, {}) == Status::scratch_too_small, "good");
  refused("nan", NAN, true, true);
  refused("below 0", -0.1, true, true);
  refused("above 1", 1.1, true, true);
  refused("no candidates", 0.5, false, true);
  refused("no errors", 0.5, true, false);
  refused("errors for nothing", 0, true, true);
}

}  // namespace

int main(int argc, char** argv) {
  // One case of seven, for slow machines.
  const bool quick = argc > 1 && !std::strcmp(argv[1], "--quick");
  int64_t cases = 0;
  Random random(23);
  // Of the last, those that few candidates do not prove are looked for among more.
  const std::vector<Shape> shapes = {{1, 1, 1, 1, 1},       {1, 1000, 128, 10, 20}, {20, 500, 33, 7, 7},
                                     {60, 400, 50, 10, 80}, {3, 77, 5, 77, 77},     {5, 60, 300, 3, 60},
                                     {100, 300, 3, 100, 200}, {17, 200, 1, 5, 11},
                                     {30, 2000, 20, 5, 25}, {9, 900, 9, 3, 7}};
  for (const Content& content : contents()) {
    for (const Shape& shape : shapes) {
      for (Type type : {Type::f32, Type::bf16, Type::f16, Type::s8}) {
        if (quick && ++cases % 7 != 0) continue;
        // Where sums overflow, what is left of them depends on their order. Of few candidates nothing is proven.
        if (!std::strcmp(content.what, "overflow") && shape.candidates == shape.rows) continue;
        const Type query_types[] = {Type::f32, Type::bf16, Type::f16};
        const Metric metric = random.below(2) == 0 ? Metric::inner_product : Metric::l2;
        auto problem = make(content, type, query_types[random.below(3)], shape, metric, random);
        check(*problem);
        check(*problem, random.below(2) == 0 ? 0.95 : 0.5);
      }
    }
  }
  CHECK(quick || widened > 0, "no query was looked for among more candidates");
  CHECK(quick || lent > 0, "no query had a smaller share of its results proven than all have");
  check_adversaries(random);
  check_repeats(random, quick);
  check_errors(random);
  check_misleading_sample();
  check_groups(random);
  check_refusals(random);
  std::printf("certified_search: %d searches on 1, 2 and 5 threads\n", (int)searches);
}
