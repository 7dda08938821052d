// fused_search, on every instruction set that the machine has, against scores in f64 and a stable sort.
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>
#include <string>

#include "../kernels/candidates.h"
#include "support.h"

using namespace xlann;

namespace {

struct Shape {
  int64_t queries, rows, dimension, k;
};

// A database and queries, and what the search has to find.
struct Problem {
  Type type, query_type;
  Shape shape;
  Metric metric;
  const char* what;
  bool exact;  // all sums are, so that indices must be equal
  bool scaled;
  bool in_pairs = false;  // queries are quantised for sums in 16 bits
  Numbers database, queries, scales, half_norms;
  std::vector<double> scores;  // greater is better
  double magnitude = 0;        // of the greatest sum of absolute values: what rounding is relative to

  Problem(Type type, Type query_type, Shape shape, Metric metric, const char* what, bool exact)
      : type(type), query_type(query_type), shape(shape), metric(metric), what(what), exact(exact),
        scaled(type == Type::s8),
        database(type, shape.rows * shape.dimension), queries(query_type, shape.queries * shape.dimension),
        scales(Type::f32, shape.rows), half_norms(Type::f32, shape.rows) {}

  FusedSearch call() {
    FusedSearch call;
    call.metric = metric;
    call.type = type;
    call.database = database.data();
    call.scales = scaled ? static_cast<float*>(scales.data()) : nullptr;
    call.half_norms = metric == Metric::l2 ? static_cast<float*>(half_norms.data()) : nullptr;
    call.rows = shape.rows;
    call.dimension = shape.dimension;
    call.query_type = query_type;
    call.queries = queries.data();
    call.query_count = shape.queries;
    call.k = shape.k;
    return call;
  }

  // The query as the search sees it.
  std::vector<double> query(int64_t q) {
    const int64_t d = shape.dimension;
    std::vector<double> query(static_cast<size_t>(d));
    double greatest = 0;
    for (int64_t j = 0; j < d; ++j) {
      query[size_t(j)] = queries.get(q * d + j);
      greatest = std::max(greatest, std::fabs(query[size_t(j)]));
    }
    if (type != Type::s8) return query;
    if (in_pairs) {
      // Two neighbours of one sign reach 127, and every other two of the eight of sixteen 251.
      for (int64_t j = 0; j < d; ++j) {
        const double x = query[size_t(j)], next = j % 2 == 0 && j + 1 < d ? query[size_t(j + 1)] : 0;
        if (x * next >= 0) greatest = std::max(greatest, std::fabs(x + next));
        double sum = 0;
        for (int64_t i = j / 16 * 16; i < std::min(j / 16 * 16 + 16, d); ++i) {
          if (i / 2 % 2 == j / 2 % 2) sum += std::fabs(query[size_t(i)]);
        }
        greatest = std::max(greatest, sum * (127. / 251));
      }
    }
    const float inverse = float(127 / greatest), scale = float(greatest / 127);
    for (double& x : query) x = greatest > 0 ? double{std::nearbyint(float(x) * inverse)} * scale : 0;
    return query;
  }

  void score() {
    scores.resize(size_t(shape.queries * shape.rows));
    for (int64_t q = 0; q < shape.queries; ++q) {
      const std::vector<double> x = query(q);
      for (int64_t i = 0; i < shape.rows; ++i) {
        double sum = 0, absolute = 0;
        for (int64_t j = 0; j < shape.dimension; ++j) {
          const double product = x[size_t(j)] * database.get(i * shape.dimension + j);
          sum += product;
          absolute += std::fabs(product);
        }
        if (scaled) sum *= scales.get(i), absolute *= scales.get(i);
        if (metric == Metric::l2) sum -= half_norms.get(i), absolute += std::fabs(half_norms.get(i));
        magnitude = std::max(magnitude, absolute);
        scores[size_t(q * shape.rows + i)] = sum;
      }
    }
  }

  std::vector<int32_t> best(int64_t q) {
    const double* row = &scores[size_t(q * shape.rows)];
    std::vector<int32_t> order(size_t(shape.rows));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      if (std::isnan(row[a]) || std::isnan(row[b])) return !std::isnan(row[a]) && std::isnan(row[b]);
      return row[a] > row[b];
    });
    return order;
  }
};

int64_t searches = 0;

// What was wrong with a result, for the message.
std::string at(Problem& problem, InstructionSet set, Path path, int64_t q, int64_t rank, const Found& found,
               const std::vector<int32_t>& best) {
  const Shape& shape = problem.shape;
  const size_t place = size_t(q * shape.k + rank);
  char text[300];
  std::snprintf(text, sizeof text,
                "%s %s %s (%s queries) %s %s q %d n %d d %d k %d, query %d rank %d: %d, not %d; %g",
                name(set), path == Path::tile ? "tiles" : "streamed", name(problem.type), name(problem.query_type),
                problem.metric == Metric::l2 ? "l2" : "ip", problem.what, (int)shape.queries, (int)shape.rows,
                (int)shape.dimension, (int)shape.k, (int)q, (int)rank, found.indices[place], best[size_t(rank)],
                found.values[place]);
  return text;
}

void check_query(Problem& problem, InstructionSet set, Path path, int64_t q, const Found& found,
                 const std::vector<int32_t>& best) {
  const Shape& shape = problem.shape;
  const double* scores = &problem.scores[size_t(q * shape.rows)];
  const double tolerance = 1e-6 * problem.magnitude;
  for (int64_t i = 0; i < shape.k; ++i) {
    const size_t place = size_t(q * shape.k + i);
    const int32_t index = found.indices[place], wanted = best[size_t(i)];
    const double value = found.values[place];
    const double goodness = problem.metric == Metric::l2 ? -value : value;
    const auto where = [&] { return at(problem, set, path, q, i, found, best); };
    CHECK(index >= 0 && index < shape.rows, "%s", where().c_str());
    if (problem.exact) {
      CHECK(index == wanted, "%s", where().c_str());
      CHECK(goodness == scores[index] || (std::isnan(goodness) && std::isnan(scores[index])), "%s", where().c_str());
      continue;
    }
    CHECK(std::fabs(goodness - scores[index]) <= tolerance, "%s", where().c_str());
    CHECK(std::fabs(goodness - scores[wanted]) <= tolerance, "%s", where().c_str());
    if (i > 0) {
      const double before = found.values[place - 1];
      const bool ordered = problem.metric == Metric::l2 ? before < value : before > value;
      CHECK(ordered || (before == value && found.indices[place - 1] < index), "%s", where().c_str());
    }
  }
}

// Which sets sum products of s8 in 16 bits, and which in 32: both in whole numbers, whose order does not matter.
bool sums_in_pairs(InstructionSet set) {
  return set == InstructionSet::avx2 || set == InstructionSet::avx512 || set == InstructionSet::avx512_bf16;
}
bool sums_whole(InstructionSet set) {
  return sums_in_pairs(set) || set == InstructionSet::avx_vnni || set == InstructionSet::avx512_vnni;
}

void check(Problem& problem, bool in_pairs) {
  problem.in_pairs = in_pairs && problem.shape.dimension <= 65536;
  problem.score();
  std::vector<std::vector<int32_t>> best;
  for (int64_t q = 0; q < problem.shape.queries; ++q) best.push_back(problem.best(q));
  for (InstructionSet set : all_sets) {
    if (!supported(set) || (problem.type == Type::s8 && sums_in_pairs(set) != in_pairs)) continue;
    for (Path path : {Path::stream, Path::tile}) {
      FusedSearch call = problem.call();
      call.instruction_set = set;
      call.path = path;
      const Found found = search(call, 1);
      for (int threads : {2, 5}) {
        CHECK(same(found, search(call, threads)), "%s %s %s: %d threads", name(set), name(problem.type), problem.what,
              threads);
      }
      ++searches;
      for (int64_t q = 0; q < problem.shape.queries; ++q) {
        check_query(problem, set, path, q, found, best[size_t(q)]);
      }
    }
  }
}

void check(Problem& problem) {
  check(problem, false);
  if (problem.type == Type::s8) check(problem, true);
}

using Number = std::function<double(Random&, int64_t row, int64_t column)>;
struct Content {
  const char* what;
  bool exact;
  Number row, query;
  double half_norm;  // times a random integer
  bool narrow;       // f32 only
};

const double nan_value = NAN;

std::vector<Content> contents() {
  const Number integers = [](Random& random, int64_t, int64_t) { return double(random.below(17) - 8); };
  const Number bits = [](Random& random, int64_t, int64_t) { return double(random.below(2)); };
  const Number normal = [](Random& random, int64_t, int64_t) { return double(random.normal()); };
  const Number one = [](Random&, int64_t, int64_t column) { return column == 0 ? 127.0 : 1.0; };
  return {
      {"random", false, normal, normal, 0.25, false},
      {"integers", true, integers, integers, 0.5, false},
      {"ties", true, bits, bits, 0, false},
      {"one row", true, [](Random&, int64_t, int64_t column) { return double(column % 3); }, integers, 0, false},
      {"nasty", true,
       [](Random& random, int64_t, int64_t) {
         const int64_t which = random.below(40);
         return which == 0 ? nan_value : which == 1 ? INFINITY : which == 2 ? -INFINITY : double(random.below(9) - 4);
       },
       bits, 0.5, false},
      {"mostly nan", true,
       [](Random& random, int64_t row, int64_t) { return row % 7 != 0 ? nan_value : double(random.below(9) - 4); },
       bits, 0.5, false},
      {"all nan", true, [](Random&, int64_t, int64_t) { return nan_value; }, bits, 0.5, false},
      {"infinite", true,
       [](Random& random, int64_t, int64_t column) {
         return column != 0 ? 0.0 : random.below(3) == 0 ? nan_value : -INFINITY;
       },
       one, 0, false},
      {"zeros", true, [](Random& random, int64_t, int64_t) { return random.below(2) ? 0.0 : -0.0; }, bits, 0, false},
      {"subnormal", true, [](Random& random, int64_t, int64_t) { return 1.4e-45 * double(random.below(200) - 100); },
       bits, 0, true},
      {"ascending", true, [](Random&, int64_t row, int64_t column) { return column == 0 ? double(row / 8) : 0; }, one,
       0, false},
      {"descending", true, [](Random&, int64_t row, int64_t column) { return column == 0 ? -double(row / 8) : 0; },
       one, 0, false},
  };
}

std::unique_ptr<Problem> make(const Content& content, Type type, Type query_type, const Shape& shape, Metric metric,
                              Random& random) {
  auto problem = std::make_unique<Problem>(type, query_type, shape, metric, content.what, content.exact);
  problem->scaled = type == Type::s8 || random.below(3) == 0;
  const int64_t of_one_scale = random.below(2) == 0 ? 1 : 24;
  for (int64_t i = 0; i < shape.rows; ++i) {
    for (int64_t j = 0; j < shape.dimension; ++j) {
      double x = content.row(random, i, j);
      if (type == Type::s8) x = content.exact ? std::max(-128.0, std::min(127.0, x)) : std::floor(40 * x);
      problem->database.set(i * shape.dimension + j, x);
    }
    const double scale = content.exact ? std::exp2(double(random.below(3))) : 0.01 + 0.001 * double(random.below(9));
    problem->scales.set(i, i % of_one_scale == 0 ? scale : problem->scales.get(i - 1));
    problem->half_norms.set(i, content.half_norm * double(random.below(9)));
  }
  for (int64_t q = 0; q < shape.queries; ++q) {
    for (int64_t j = 0; j < shape.dimension; ++j) {
      // With 127 for the greatest, and another sign beside it, integers are quantised to themselves.
      const bool kept = type == Type::s8 && content.exact;
      const double x = content.query(random, q, j);
      problem->queries.set(q * shape.dimension + j, kept && j == 0 ? 127 : kept && j == 1 ? -std::fabs(x) : x);
    }
  }
  return problem;
}

void check_reranking(Random& random) {
  const Content content = contents()[1];
  for (Metric metric : {Metric::inner_product, Metric::l2}) {
    for (const Shape& shape : {Shape{3, 400, 20, 7}, Shape{70, 400, 20, 7}, Shape{2, 9, 3, 9}}) {
      auto coarse = make(content, Type::s8, Type::f32, shape, metric, random);
      Problem fine(Type::f32, Type::f32, shape, metric, "reranked", true);
      for (int64_t i = 0; i < fine.database.count(); ++i) {
        const double row = coarse->database.get(i) * coarse->scales.get(i / shape.dimension);
        fine.database.set(i, row + double(random.below(5)));
      }
      for (int64_t i = 0; i < fine.queries.count(); ++i) fine.queries.set(i, coarse->queries.get(i));
      for (int64_t i = 0; i < shape.rows; ++i) fine.half_norms.set(i, coarse->half_norms.get(i));
      fine.score();
      for (InstructionSet set : all_sets) {
        if (!supported(set)) continue;
        for (int64_t candidates : {shape.k, std::min(2 * shape.k, shape.rows), shape.rows}) {
          FusedSearch call = coarse->call();
          call.instruction_set = set;
          call.k = candidates;
          const Found among = search(call, 1);
          call.k = shape.k;
          call.candidates = candidates;
          call.rerank_rows = static_cast<float*>(fine.database.data());
          const Found found = search(call, 2);
          for (int64_t q = 0; q < shape.queries; ++q) {
            std::vector<int32_t> wanted;
            for (int32_t index : fine.best(q)) {
              const auto from = among.indices.begin() + q * candidates;
              if (std::find(from, from + candidates, index) != from + candidates) wanted.push_back(index);
            }
            for (int64_t i = 0; i < shape.k; ++i) {
              CHECK(found.indices[size_t(q * shape.k + i)] == wanted[size_t(i)], "%s, %d candidates", name(set),
                    (int)candidates);
              const double value = found.values[size_t(q * shape.k + i)];
              CHECK((metric == Metric::l2 ? -value : value) == fine.scores[size_t(q * shape.rows + wanted[size_t(i)])],
                    "%s", name(set));
            }
          }
        }
      }
    }
  }
}

// The rows that a first threshold comes from are the best, or many of them are: too few others pass it.
void check_misleading_samples(Random& random) {
  for (const Shape& shape : {Shape{20, 33000, 3, 40}, Shape{1100, 4500, 3, 40}, Shape{70, 9000, 7, 60}}) {
    const int64_t samples = sample_size(shape.k, shape.rows, 24, 1);
    CHECK(samples > 0 && sample_rank(shape.k, samples, shape.rows) < shape.k, "no threshold to mislead");
    for (int64_t share : {1, 3}) {
      std::vector<bool> better(size_t(shape.rows));
      for (int64_t i = 0; i < samples / share; ++i) {
        better[size_t(spread(i / 24 * 24, samples, shape.rows, 24) + i % 24)] = true;
      }
      Content content = contents()[1];
      content.what = "misleading";
      content.row = [&](Random& numbers, int64_t row, int64_t) {
        return double(numbers.below(9) + (better[size_t(row)] ? 40 : 0));
      };
      // For every third, they are the worst.
      content.query = [](Random& numbers, int64_t query, int64_t) {
        return double(1 + numbers.below(9)) * (query % 3 == 0 ? -1 : 1);
      };
      for (Type type : {Type::f32, Type::s8}) {
        for (Metric metric : {Metric::inner_product, Metric::l2}) {
          check(*make(content, type, Type::f32, shape, metric, random));
        }
      }
    }
  }
}

// One scale for all rows, so that sums may be compared instead of scores: as streamed, where they are not. In wide
// rows sums have more digits than f32.
void check_scales(Random& random) {
  for (const Shape& shape : {Shape{70, 3000, 20, 10}, Shape{20, 200, 5000, 5}}) {
    const bool wide = shape.dimension > 1032;
    Content content = contents()[wide];
    if (wide) content.row = content.query = [](Random& numbers, int64_t, int64_t) { return 110 + numbers.below(9); };
    auto problem = make(content, Type::s8, Type::f32, shape, Metric::inner_product, random);
    for (float scale : {1.f, 0.f, -0.f, -1.f, 1e-45f, 1e-38f, 0x1p-100f, 0x1p-99f, 1e-25f, 1e25f, 3e38f, INFINITY,
                        -INFINITY, NAN}) {
      for (int64_t i = 0; i < shape.rows; ++i) problem->scales.set(i, scale);
      for (float size : {1e-36f, 1e-20f, 1.f, 1e20f, 1e38f}) {
        Numbers queries(Type::f32, problem->queries.count());
        for (int64_t i = 0; i < queries.count(); ++i) queries.set(i, size * problem->queries.get(i));
        for (InstructionSet set : all_sets) {
          // Others sum in f32.
          if (!supported(set) || (wide && !sums_whole(set))) continue;
          FusedSearch call = problem->call();
          call.queries = queries.data();
          call.instruction_set = set;
          call.path = Path::stream;
          const Found streamed = search(call, 1);
          call.path = Path::tile;
          CHECK(same(search(call, 2), streamed), "%s: %d wide, rows times %g, queries times %g", name(set),
                (int)shape.dimension, scale, size);
        }
      }
    }
  }
}

// Queries whose numbers come as near to what sums of 16 bits hold as they can, and rows that make the most of it.
void check_extremes(Random& random) {
  constexpr int64_t queries = 40, rows = 90;
  for (int64_t d : {1, 2, 3, 4, 5, 6, 7, 8, 13, 15, 16, 17, 23, 31, 32, 33, 48, 63, 64, 65, 100, 127, 128, 770}) {
    Problem problem(Type::s8, Type::f32, {queries, rows, d, 5}, Metric::inner_product, "extreme", false);
    for (int64_t q = 0; q < queries; ++q) {
      const int64_t alone = random.below(d);
      for (int64_t j = 0; j < d; ++j) {
        const double sign = random.below(2) ? 1 : -1;
        // The last but one are rounded up, nearly all.
        const double numbers[] = {1,           j % 2 ? -1. : 1,           j / 2 % 2 ? -1. : 1,
                                  double(j == alone), j % 8 < 4 ? 1. : -1,       31.5001 * sign,
                                  sign * (31.49 + 0.02 * double(random.below(2))), double(random.normal())};
        problem.queries.set(q * d + j, numbers[q % 8]);
      }
    }
    for (int64_t i = 0; i < rows; ++i) {
      problem.scales.set(i, i < 45 ? 1 : 0.5);
      for (int64_t j = 0; j < d; ++j) {
        const bool positive = problem.queries.get(i % queries * d + j) > 0;
        const double x = i < queries ? (positive ? 127 : -128) : (positive ? -128 : 127);
        problem.database.set(i * d + j, i == 80 ? 127 : i == 81 ? -128 : i > 81 && j % 4 == i % 4 ? 0 : x);
      }
    }
    check(problem);
    for (InstructionSet set : all_sets) {
      if (!supported(set) || !sums_whole(set)) continue;
      FusedSearch call = problem.call();
      call.instruction_set = set;
      call.path = Path::stream;
      const Found streamed = search(call, 1);
      call.path = Path::tile;
      CHECK(same(search(call, 1), streamed), "%s: extreme, %d wide", name(set), (int)d);
    }
  }
}

void check_queries_that_are_not_finite() {
  const int8_t rows[6] = {1, 2, 3, 4, 5, 6};
  const float scales[3] = {1, 1, 1}, queries[4] = {INFINITY, 1, 1, 1};
  for (InstructionSet set : all_sets) {
    if (!supported(set)) continue;
    for (Path path : {Path::stream, Path::tile}) {
      FusedSearch call;
      call.type = Type::s8;
      call.database = rows;
      call.scales = scales;
      call.rows = 3;
      call.dimension = 2;
      call.queries = queries;
      call.query_count = 2;
      call.k = 2;
      call.instruction_set = set;
      call.path = path;
      const Found found = search(call, 1);
      CHECK(std::isnan(found.values[0]) && found.indices[0] == 0 && found.indices[1] == 1, "%s", name(set));
      CHECK(found.indices[2] == 2 && found.indices[3] == 1, "%s", name(set));
    }
  }
}

void check_refusals() {
  const float row[4] = {1, 2, 3, 4};
  FusedSearch good;
  good.database = row;
  good.rows = 2;
  good.dimension = 2;
  good.queries = row;
  good.query_count = 2;
  good.k = 1;
  CHECK(fused_search_scratch(good, {}) > 0, "good");
  CHECK(fused_search(good, nullptr, 0, {}) == Status::scratch_too_small, "no scratch");
  const auto refused = [&](const char* what, void (*change)(FusedSearch&, const float*)) {
    FusedSearch bad = good;
    change(bad, row);
    CHECK(fused_search(bad, nullptr, 0, {}) == Status::invalid_argument, "%s", what);
    CHECK(fused_search_scratch(bad, {}) == 0, "%s", what);
  };
  refused("k 0", [](FusedSearch& c, const float*) { c.k = 0; });
  refused("k 3", [](FusedSearch& c, const float*) { c.k = 3; });
  refused("no rows", [](FusedSearch& c, const float*) { c.rows = 0; });
  refused("many rows", [](FusedSearch& c, const float*) { c.rows = most_choices + 1; });
  refused("no dimension", [](FusedSearch& c, const float*) { c.dimension = 0; });
  refused("sizes overflow", [](FusedSearch& c, const float*) { c.dimension = INT64_MAX / 2; });
  refused("f64", [](FusedSearch& c, const float*) { c.type = Type::f64; });
  refused("s8 without scales", [](FusedSearch& c, const float*) { c.type = Type::s8; });
  refused("re-scored with scales", [](FusedSearch& c, const float* row) {
    c.rerank_rows = c.scales = row;
    c.candidates = 1;
  });
  refused("l2 without half norms", [](FusedSearch& c, const float*) { c.metric = Metric::l2; });
  refused("half norms", [](FusedSearch& c, const float* row) { c.half_norms = row; });
  refused("few candidates", [](FusedSearch& c, const float* row) { c.rerank_rows = row; });
  refused("queries of f64", [](FusedSearch& c, const float*) { c.query_type = Type::f64; });
  good.query_count = 0;
  CHECK(fused_search(good, nullptr, 0, {}) == Status::ok, "no query");
  for (InstructionSet set : all_sets) {
    good.instruction_set = set;
    if (!supported(set)) CHECK(fused_search(good, nullptr, 0, {}) == Status::unsupported_instruction_set, "forced");
  }
}

}  // namespace

int main(int argc, char** argv) {
  // One case of seven, for slow machines.
  const bool quick = argc > 1 && !std::strcmp(argv[1], "--quick");
  int64_t cases = 0;
  Random random(11);
  const std::vector<Shape> shapes = {{1, 1, 1, 1},      {1, 1000, 128, 10}, {3, 77, 5, 77},   {8, 500, 33, 7},
                                     {17, 300, 64, 300}, {40, 1000, 50, 10}, {100, 800, 3, 5}, {130, 400, 100, 20},
                                     {49, 1500, 16, 100}, {700, 30, 7, 3},   {65, 2100, 9, 10}, {2, 9000, 4, 10},
                                     {300, 1, 1, 1},     {5, 60, 1500, 3}};

  for (const Content& content : contents()) {
    for (const Shape& shape : shapes) {
      for (Type type : {Type::f32, Type::bf16, Type::f16, Type::s8}) {
        if (content.narrow && type != Type::f32) continue;
        if (type == Type::s8 && std::isnan(content.row(random, 1, 0))) continue;
        const bool finite = std::strcmp(content.what, "nasty") != 0 && std::strcmp(content.what, "infinite") != 0;
        if (type == Type::s8 && !finite) continue;
        for (Metric metric : {Metric::inner_product, Metric::l2}) {
          if (quick && ++cases % 7 != 0) continue;
          const Type query_types[] = {Type::f32, Type::bf16, Type::f16};
          const Type query_type = query_types[content.exact ? random.below(3) : 0];
          check(*make(content, type, query_type, shape, metric, random));
        }
      }
    }
  }
  for (int i = 0; i < (quick ? 30 : 300); ++i) {
    const std::vector<Content> all = contents();
    const Content& content = all[size_t(random.below(3))];
    const Type types[] = {Type::f32, Type::bf16, Type::f16, Type::s8};
    const int64_t rows = 1 + random.below(200);
    const Shape shape = {1 + random.below(120), rows, 1 + random.below(140), 1 + random.below(rows)};
    check(*make(content, types[random.below(4)], Type::f32, shape, random.below(2) ? Metric::l2 : Metric::inner_product,
                random));
  }
  for (const Content& content : contents()) {
    // Long enough for a threshold from a sample.
    if (!quick) check(*make(content, Type::f32, Type::f32, {20, 33000, 3, 5}, Metric::l2, random));
  }
  // Enough queries for two workers to share them, and not the many rows.
  for (Type type : {Type::f32, Type::s8}) {
    check(*make(contents()[1], type, Type::f32, {1280, 4500, 3, 5}, Metric::inner_product, random));
    if (quick) break;
  }
  check(*make(contents()[1], Type::s8, Type::f32, {2, 30, 70000, 3}, Metric::inner_product, random));
  check_reranking(random);
  if (!quick) check_misleading_samples(random);
  check_scales(random);
  check_extremes(random);
  check_queries_that_are_not_finite();
  check_refusals();
  std::printf("fused_search: %d searches on 1, 2 and 5 threads\n", (int)searches);
}
