// fused_search by squared distances, on every instruction set that the machine has, against differences in f64.
#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "support.h"

using namespace xlann;

namespace {

struct Shape {
  int64_t queries, rows, dimension, k, candidates;
};

// A number of row or query i, column j.
using Number = std::function<double(Random&, int64_t i, int64_t j)>;

struct Family {
  std::string name;
  Number row, query;
};

std::vector<Family> families() {
  const Number normal = [](Random& random, int64_t, int64_t) { return double(random.normal()); };
  const auto plus = [=](double offset, double scale) -> Number {
    return [=](Random& random, int64_t, int64_t) { return offset + scale * double(random.normal()); };
  };
  const auto some = [=](double special, Number number) -> Number {
    return [=](Random& random, int64_t i, int64_t j) {
      return i % 5 == 2 && (j == 0 || random.below(9) == 0) ? special : number(random, i, j);
    };
  };
  const Number column = [](Random& random, int64_t, int64_t j) { return (j == 0 ? 1e6 : 1) * double(random.normal()); };
  const Number clusters = [](Random& random, int64_t i, int64_t j) {
    return 1e6 * double((i * 7 + j * 3) % 5) + double(random.normal());
  };
  const Number integers = [](Random& random, int64_t, int64_t) { return double(random.below(17) - 8); };
  const Number decades = [](Random& random, int64_t i, int64_t) {
    return std::pow(10.0, double(i % 61) - 30) * double(random.normal());
  };
  return {{"normal", normal, normal},
          {"offset", plus(1000, 1), plus(1000, 1)},
          {"far offset", plus(1e6, 1), plus(1e6, 1)},
          {"one column large", column, column},
          {"clusters", clusters, clusters},
          {"nearly equal", plus(1, 1e-6), plus(1, 1e-6)},
          {"far queries", normal, plus(1e4, 1)},
          {"tiny", plus(0, 1e-21), plus(0, 1e-21)},
          {"subnormal", plus(0, 1e-40), plus(0, 1e-40)},
          {"large", plus(0, 1e18), plus(0, 1e18)},
          {"greatest", plus(0, 1e37), plus(0, 1e37)},
          {"decades", decades, decades},
          {"integers", integers, integers},
          {"equal rows", [](Random&, int64_t, int64_t j) { return 0.1 * double(j % 7) - 0.3; }, normal},
          {"zeros", [](Random&, int64_t, int64_t) { return 0; }, normal},
          {"far rows", some(1e30, normal), normal},
          {"nan rows", some(NAN, normal), normal},
          {"mostly nan", [=](Random& random, int64_t i, int64_t j) { return i % 9 ? NAN : normal(random, i, j); },
           normal},
          {"infinite rows", some(-INFINITY, some(INFINITY, normal)), normal},
          {"nan queries", normal, some(NAN, normal)},
          {"infinite queries", normal, some(INFINITY, normal)}};
}

struct Result {
  std::vector<double> distances;
  std::vector<int32_t> indices;

  bool operator==(const Result& other) const {
    return indices == other.indices &&
           std::memcmp(distances.data(), other.distances.data(), distances.size() * sizeof(double)) == 0;
  }
};

Result run(FusedSearch call, int threads) {
  Result result;
  result.distances.assign(size_t(call.query_count * call.k), 12345);
  result.indices.assign(size_t(call.query_count * call.k), -77);
  call.distances = result.distances.data();
  call.indices = result.indices.data();
  const Parallel parallel = on_threads(threads);
  Scratch scratch(fused_search_scratch(call, parallel));
  const FlushedSubnormals mode;
  CHECK(fused_search(call, scratch.data(), scratch.bytes(), parallel) == Status::ok, "%s", name(call.type));
  return result;
}

// Subnormal numbers as XLA's threads take them.
float flushed(float x) { return std::fabs(x) < 0x1p-126f ? 0 : x; }

struct Problem {
  Shape shape;
  Numbers rows, queries, stored, scales, half_norms, centre;
  float errors[2] = {};
  std::vector<std::vector<double>> distances;  // of each query to all rows

  // Rows, and what is stored of them less their mean, where it is to be centred.
  Problem(const Family& family, const Shape& shape, Type type, Type query_type, Type stored_type, bool centred,
          Random& random)
      : shape(shape), rows(type, shape.rows * shape.dimension), queries(query_type, shape.queries * shape.dimension),
        stored(stored_type, shape.rows * shape.dimension), scales(Type::f32, shape.rows),
        half_norms(Type::f32, shape.rows), centre(Type::f32, shape.dimension) {
    const int64_t d = shape.dimension;
    for (int64_t i = 0; i < rows.count(); ++i) rows.set(i, family.row(random, i / d, i % d));
    for (int64_t i = 0; i < queries.count(); ++i) queries.set(i, family.query(random, i / d, i % d));
    // Some queries are rows.
    for (int64_t j = 0; j < d && shape.queries > 2; ++j) queries.set(d + j, rows.get((shape.rows / 2) * d + j));
    for (int64_t j = 0; j < d && centred; ++j) {
      double sum = 0;
      for (int64_t i = 0; i < shape.rows; ++i) sum += std::isfinite(rows.get(i * d + j)) ? rows.get(i * d + j) : 0;
      centre.set(j, sum / double(shape.rows));
    }
    store(d);
    for (int64_t q = 0; q < shape.queries; ++q) {
      distances.emplace_back();
      for (int64_t i = 0; i < shape.rows; ++i) {
        double sum = 0;
        for (int64_t j = 0; j < d; ++j) {
          const double difference = queries.get(q * d + j) - rows.get(i * d + j);
          sum += difference * difference;
        }
        distances.back().push_back(sum);
      }
    }
  }

  void store(int64_t d) {
    float greatest[2] = {};
    for (int64_t i = 0; i < shape.rows; ++i) {
      std::vector<float> row;
      float largest = 0;
      for (int64_t j = 0; j < d; ++j) {
        row.push_back(flushed(float(rows.get(i * d + j)) - float(centre.get(j))));
        largest = std::fmax(largest, std::fabs(row.back()));
      }
      const float scale = largest < INFINITY ? largest / 127 : 1;
      scales.set(i, scale);
      float sums[3] = {};
      for (int64_t j = 0; j < d; ++j) {
        const bool quantised = stored.count() > 0 && type_of_stored == Type::s8;
        const double number = quantised ? std::nearbyint(double(row[size_t(j)]) / double(scale)) : row[size_t(j)];
        stored.set(i * d + j, number >= -127 || !quantised ? number : 0);
        const float x = row[size_t(j)], y = float(stored.get(i * d + j)) * (quantised ? scale : 1);
        sums[0] += flushed((x - y) * (x - y));
        sums[1] += flushed(y * y);
        sums[2] += flushed(x * x);
      }
      for (int n = 0; n < 2; ++n) {
        if (!(sums[n] <= greatest[n]) && !std::isnan(greatest[n])) greatest[n] = sums[n];
      }
      half_norms.set(i, sums[2] / 2);
    }
    for (int n = 0; n < 2; ++n) errors[n] = std::sqrt(greatest[n]);
  }

  FusedSearch differences(Type type, Type query_type) {
    FusedSearch call;
    call.metric = Metric::squared_distance;
    call.type = type;
    call.database = rows.data();
    call.rows = shape.rows;
    call.dimension = shape.dimension;
    call.query_type = query_type;
    call.queries = queries.data();
    call.query_count = shape.queries;
    call.k = shape.k;
    return call;
  }

  FusedSearch certified(Type type, Type query_type, bool centred, double recall) {
    FusedSearch call = differences(type, query_type);
    call.rerank_rows = call.database;
    call.rerank_type = type;
    call.type = type_of_stored;
    call.database = stored.data();
    call.scales = type_of_stored == Type::s8 ? static_cast<float*>(scales.data()) : nullptr;
    call.half_norms = static_cast<float*>(half_norms.data());
    call.centre = centred ? static_cast<float*>(centre.data()) : nullptr;
    call.errors = errors;
    call.candidates = shape.candidates;
    call.certified_recall = recall;
    return call;
  }

  static Type type_of_stored;
};
Type Problem::type_of_stored = Type::f32;

int64_t searches = 0;

// Each result at its own distance, best first, and so large a share of all right.
void check(const Problem& problem, const Result& result, double recall, const std::string& what) {
  const int64_t k = problem.shape.k;
  int64_t right = 0;
  for (int64_t q = 0; q < problem.shape.queries; ++q) {
    const std::vector<double>& distances = problem.distances[size_t(q)];
    std::vector<double> sorted;
    for (double distance : distances) {
      if (!std::isnan(distance)) sorted.push_back(distance);
    }
    std::sort(sorted.begin(), sorted.end());
    std::vector<int32_t> seen;
    double before = 0;
    for (int64_t i = 0; i < k; ++i) {
      const int32_t index = result.indices[size_t(q * k + i)];
      const double distance = result.distances[size_t(q * k + i)];
      const auto context = [&] {
        return what + ", query " + std::to_string(q) + " result " + std::to_string(i) + ": row " +
               std::to_string(index) + " at " + std::to_string(distance);
      };
      if (i >= int64_t(sorted.size())) {
        CHECK(index == -1 && std::isnan(distance), "%s", context().c_str());
        ++right;
        continue;
      }
      CHECK(index >= 0 && index < problem.shape.rows, "%s", context().c_str());
      const double own = distances[size_t(index)];
      CHECK(distance == own || std::fabs(distance - own) <= 1e-12 * own, "%s, not %g", context().c_str(), own);
      CHECK(distance >= before, "%s after %g", context().c_str(), before);
      before = distance;
      seen.push_back(index);
      right += own <= sorted[size_t(std::min(k, int64_t(sorted.size())) - 1)] * (1 + 0x1p-20);
    }
    std::sort(seen.begin(), seen.end());
    CHECK(std::adjacent_find(seen.begin(), seen.end()) == seen.end(), "%s: a row twice", what.c_str());
  }
  CHECK(double(right) >= recall * double(k * problem.shape.queries), "%s: %d right of %d", what.c_str(), int(right),
        int(k * problem.shape.queries));
}

void check_everywhere(const Problem& problem, FusedSearch call, double recall, const std::string& what) {
  for (InstructionSet set : all_sets) {
    if (!supported(set)) continue;
    for (Path path : {Path::stream, Path::tile}) {
      call.instruction_set = set;
      call.path = path;
      const std::string where = what + (path == Path::tile ? ", tile, " : ", stream, ") + name(set);
      const Result alone = run(call, 1);
      check(problem, alone, recall, where);
      for (int threads : {2, 5}) CHECK(alone == run(call, threads), "%s: %d threads", where.c_str(), threads);
      ++searches;
    }
  }
}

void check_refusals(Random& random) {
  Problem problem(families()[0], {2, 20, 4, 3, 5}, Type::f32, Type::f32, Type::f32, true, random);
  const FusedSearch good = problem.certified(Type::f32, Type::f32, true, 1);
  const auto refused = [&](const char* what, const std::function<void(FusedSearch&)>& change) {
    FusedSearch call = good;
    change(call);
    CHECK(fused_search(call, nullptr, 0, {}) == Status::invalid_argument, "%s", what);
  };
  CHECK(fused_search(good, nullptr, 0, {}) == Status::scratch_too_small, "good");
  refused("no certificate", [](FusedSearch& call) { call.certified_recall = 0, call.errors = nullptr; });
  refused("no half norms", [](FusedSearch& call) { call.half_norms = nullptr; });
  refused("no rows", [](FusedSearch& call) { call.rerank_rows = nullptr; });
  refused("rows of s8", [](FusedSearch& call) { call.rerank_type = Type::s8; });
  refused("candidates of f64", [](FusedSearch& call) { call.type = Type::f64; });
  refused("a centre of l2", [](FusedSearch& call) { call.metric = Metric::l2; });
  refused("queries of s8", [](FusedSearch& call) { call.query_type = Type::s8; });
}

}  // namespace

int main(int argc, char** argv) {
  const bool quick = argc > 1 && !std::strcmp(argv[1], "--quick");
  Random random(5);
  int64_t cases = 0;
  const Shape shapes[] = {{5, 300, 33, 7, 12},  {40, 400, 24, 10, 16}, {1, 700, 128, 10, 16},
                          {70, 90, 3, 10, 90},  {3, 9, 1, 9, 9},       {20, 2000, 5, 3, 11}};
  const Type floats[] = {Type::f32, Type::bf16, Type::f16};
  for (const Family& family : families()) {
    for (const Shape& shape : shapes) {
      for (Type stored : {Type::f32, Type::bf16, Type::s8}) {
        if (quick && ++cases % 5 != 0) continue;
        Problem::type_of_stored = stored;
        const Type type = floats[random.below(4) == 0 ? random.below(3) : 0];
        const Type query_type = random.below(3) == 0 ? Type::f64 : floats[random.below(3)];
        const bool centred = random.below(2) == 0;
        Problem problem(family, shape, type, query_type, stored, centred, random);
        const std::string what = family.name + ", rows " + name(type) + ", queries " + name(query_type) + ", stored " +
                                 name(stored) + (centred ? ", centred" : "");
        for (double recall : {1.0, 0.8}) {
          check_everywhere(problem, problem.certified(type, query_type, centred, recall), recall, what);
        }
      }
      if (quick && ++cases % 5 != 0) continue;
      const Type types[] = {Type::f32, Type::bf16, Type::f16, Type::f64};
      for (Type type : types) {
        const Type query_type = types[random.below(4)];
        Problem problem(family, shape, type, query_type, Type::f32, false, random);
        check_everywhere(problem, problem.differences(type, query_type), 1,
                         family.name + ", differences, rows " + name(type) + ", queries " + name(query_type));
      }
    }
  }
  check_refusals(random);
  std::printf("squared_distances: %d searches on 1, 2 and 5 threads\n", (int)searches);
}
