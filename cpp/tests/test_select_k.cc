// select_k, on every instruction set that the machine has, against a stable sort.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "support.h"

using namespace xlann;

namespace {

struct Case {
  Type type;
  int64_t rows, columns, k;
  bool least;
};

std::vector<int32_t> naive(Numbers& numbers, const Case& c, int64_t row) {
  std::vector<int32_t> order(static_cast<size_t>(c.columns));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const double x = numbers.get(row * c.columns + a), y = numbers.get(row * c.columns + b);
    if (std::isnan(x) || std::isnan(y)) return !std::isnan(x) && std::isnan(y);
    return c.least ? x < y : x > y;
  });
  return order;
}

void check(Numbers& numbers, const Case& c, const char* what) {
  std::vector<std::vector<int32_t>> expected;
  for (int64_t row = 0; row < c.rows; ++row) expected.push_back(naive(numbers, c, row));
  for (InstructionSet set : all_sets) {
    if (!supported(set)) continue;
    for (int threads : {1, 2, 5}) {
      const int64_t size = size_of(c.type);
      std::vector<char> values(static_cast<size_t>(c.rows * c.k * size));
      std::vector<int32_t> indices(static_cast<size_t>(c.rows * c.k), -1);
      SelectK call;
      call.type = c.type;
      call.operand = numbers.data();
      call.rows = c.rows;
      call.columns = c.columns;
      call.k = c.k;
      call.least = c.least;
      call.values = values.data();
      call.indices = indices.data();
      call.instruction_set = set;
      const Parallel parallel = on_threads(threads);
      Scratch scratch(select_k_scratch(call, parallel));
      {
        const FlushedSubnormals mode;
        CHECK(select_k(call, scratch.data(), scratch.bytes(), parallel) == Status::ok, "%s", what);
      }
      for (int64_t row = 0; row < c.rows; ++row) {
        for (int64_t i = 0; i < c.k; ++i) {
          const int32_t index = indices[static_cast<size_t>(row * c.k + i)];
          const int32_t wanted = expected[static_cast<size_t>(row)][static_cast<size_t>(i)];
          CHECK(index == wanted, "%s %s %s [%d, %d] k %d, %d threads, row %d rank %d: %d, not %d", name(set),
                name(c.type), what, (int)c.rows, (int)c.columns, (int)c.k, threads, (int)row, (int)i, index, wanted);
          CHECK(std::memcmp(&values[static_cast<size_t>((row * c.k + i) * size)],
                            static_cast<char*>(numbers.data()) + (row * c.columns + index) * size,
                            static_cast<size_t>(size)) == 0,
                "%s %s", name(set), what);
        }
      }
    }
  }
}

double nasty(Random& random) {
  constexpr double values[] = {NAN, -NAN, INFINITY, -INFINITY, 0.0, -0.0, 1, -1, 1e-40, -1e-40, 6e-8, 3e38, -3e38};
  return values[random.below(13)];
}

using Fill = double (*)(Random& random, int64_t column, int64_t columns);
struct Content {
  const char* what;
  Fill fill;
};

constexpr Content contents[] = {
    {"random", [](Random& random, int64_t, int64_t) { return double(random.normal()); }},
    {"ties", [](Random& random, int64_t, int64_t) { return double(random.below(5)); }},
    {"one value", [](Random&, int64_t, int64_t) { return 3.0; }},
    {"nasty", [](Random& random, int64_t, int64_t) { return nasty(random); }},
    {"few numbers",
     [](Random& random, int64_t, int64_t) { return random.below(50) == 0 ? double(random.normal()) : NAN; }},
    {"all nan", [](Random&, int64_t, int64_t) { return double(NAN); }},
    {"infinities and nan", [](Random& random, int64_t, int64_t) { return random.below(2) ? -INFINITY : double(NAN); }},
    {"zeros", [](Random& random, int64_t, int64_t) { return random.below(2) ? 0.0 : -0.0; }},
    {"subnormal", [](Random& random, int64_t, int64_t) { return 1e-45 * double(random.below(1000) - 500); }},
    {"ascending", [](Random&, int64_t column, int64_t) { return double(column); }},
    {"descending", [](Random&, int64_t column, int64_t) { return -double(column); }},
    {"ascending, nan between",
     [](Random&, int64_t column, int64_t) { return column % 3 == 0 ? double(NAN) : double(column); }},
};

}  // namespace

int main() {
  Random random(7);
  const int64_t shapes[][3] = {{1, 1, 1},    {3, 1, 1},       {2, 7, 7},       {5, 33, 4},      {1, 100, 100},
                               {4, 1000, 1}, {3, 1000, 10},   {2, 1000, 999},  {1, 5000, 100},  {2, 70000, 10},
                               {1, 70001, 3000}, {0, 5, 2},   {9, 16, 3}};
  int64_t checks = 0;
  for (Type type : {Type::f32, Type::bf16, Type::f16, Type::f64}) {
    for (const auto& shape : shapes) {
      for (const Content& content : contents) {
        Numbers numbers(type, shape[0] * shape[1]);
        for (int64_t i = 0; i < numbers.count(); ++i) {
          numbers.set(i, content.fill(random, i % shape[1], shape[1]));
        }
        for (bool least : {false, true}) {
          check(numbers, {type, shape[0], shape[1], shape[2], least}, content.what);
          ++checks;
        }
      }
    }
  }
  SelectK call;
  call.rows = 1;
  call.columns = 5;
  for (int64_t k : {int64_t{0}, int64_t{6}, int64_t{-1}}) {
    call.k = k;
    CHECK(select_k(call, nullptr, 0, {}) == Status::invalid_argument, "k %d", (int)k);
    CHECK(select_k_scratch(call, {}) == 0, "k %d", (int)k);
  }
  call.k = 2;
  CHECK(select_k(call, nullptr, 0, {}) == Status::scratch_too_small, "no scratch");
  call.type = Type::s8;
  CHECK(select_k(call, nullptr, 0, {}) == Status::invalid_argument, "s8");
  std::printf("select_k: %d cases\n", (int)checks);
}
