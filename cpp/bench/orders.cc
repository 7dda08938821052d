// What the order of the rows costs: the time of searches and selections whose scores come in ascending or descending
// order, or are not numbers half of the time, or of which those are the best that a first threshold comes from, beside
// that of random ones, which is at most 3 times as short.
//
//   orders [--threads 1] [--repeat 7] [--only TEXT]
//
// In the time that all threads have computed.
#include <algorithm>
#include <cmath>
#include <ctime>
#include <functional>
#include <string>

#include "../kernels/candidates.h"
#include "../tests/support.h"

using namespace xlann;

namespace {

int threads = 1, repeat = 7;
std::string only;

double median_of(const std::function<void()>& work) {
  work();
  std::vector<double> seconds;
  for (int i = 0; i < repeat; ++i) {
    timespec start, end;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
    work();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    seconds.push_back(double(end.tv_sec - start.tv_sec) + 1e-9 * double(end.tv_nsec - start.tv_nsec));
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

constexpr const char* orders[] = {"random", "ascending", "descending", "half nan", "misleading"};

// Element `place` of `count`.
float element(int order, Random& random, int64_t place, int64_t count) {
  if (order == 1) return 1e-6f * float(place + 1);
  if (order == 2) return 1e-6f * float(count - place);
  return order == 3 && place % 2 == 0 ? NAN : random.normal();
}

void compare(const std::string& what, int last_order, const std::function<double(int order)>& seconds) {
  if (what.find(only) == std::string::npos) return;
  const double random = seconds(0);
  std::printf("%-40s %9.3f ms", what.c_str(), 1e3 * random);
  for (int order = 1; order <= last_order; ++order) {
    const double ratio = seconds(order) / random;
    std::printf("  %s %5.2f", orders[order], ratio);
    std::fflush(stdout);
    CHECK(ratio <= 3, "%s %s: %.2f times the random case", what.c_str(), orders[order], ratio);
  }
  std::printf("\n");
}

void searching(int64_t rows, int64_t dimension, int64_t count, int64_t k) {
  const std::string what = "search n " + std::to_string(rows) + " d " + std::to_string(dimension) + " q " +
                           std::to_string(count) + " k " + std::to_string(k);
  compare(what, 4, [&](int order) {
    Random random(3);
    std::vector<float> database(size_t(rows * dimension)), queries(size_t(count * dimension));
    for (int64_t i = 0; i < rows; ++i) {
      const float x = element(order, random, i, rows);
      for (int64_t j = 0; j < dimension; ++j) {
        database[size_t(i * dimension + j)] = order % 4 == 0 || (order == 3 && !std::isnan(x)) ? random.normal() : x;
      }
    }
    const int64_t samples = order == 4 ? sample_size(k, rows, 24, 1) : 0;
    for (int64_t at = 0; at < samples; at += 24) {
      // All different: few are above a threshold that few of these are above.
      for (int64_t i = 0; i < 24; ++i) {
        const auto row = database.begin() + (spread(at, samples, rows, 24) + i) * dimension;
        std::fill(row, row + dimension, 10 + random.uniform());
      }
    }
    // Of positive numbers: each row is better, or worse, than the one before.
    for (float& x : queries) x = order == 0 || order == 3 ? random.normal() : 1 + random.uniform();
    std::vector<float> values(size_t(count * k));
    std::vector<int32_t> indices(size_t(count * k));
    FusedSearch call;
    call.database = database.data();
    call.rows = rows;
    call.dimension = dimension;
    call.queries = queries.data();
    call.query_count = count;
    call.k = k;
    call.values = values.data();
    call.indices = indices.data();
    const Parallel parallel = on_threads(threads);
    std::vector<char> scratch(fused_search_scratch(call, parallel));
    return median_of([&] {
      CHECK(fused_search(call, scratch.data(), scratch.size(), parallel) == Status::ok, "search");
    });
  });
}

void selecting(int64_t rows, int64_t columns, int64_t k) {
  const std::string what =
      "select f32[" + std::to_string(rows) + "," + std::to_string(columns) + "] k " + std::to_string(k);
  compare(what, 3, [&](int order) {
    Random random(9);
    std::vector<float> operand(size_t(rows * columns)), values(size_t(rows * k));
    std::vector<int32_t> indices(size_t(rows * k));
    for (int64_t i = 0; i < rows * columns; ++i) operand[size_t(i)] = element(order, random, i % columns, columns);
    SelectK call;
    call.operand = operand.data();
    call.rows = rows;
    call.columns = columns;
    call.k = k;
    call.values = values.data();
    call.indices = indices.data();
    const Parallel parallel = on_threads(threads);
    std::vector<char> scratch(select_k_scratch(call, parallel));
    return median_of([&] {
      CHECK(select_k(call, scratch.data(), scratch.size(), parallel) == Status::ok, "select");
    });
  });
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; i += 2) {
    const std::string option = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    if (option == "--threads") threads = std::atoi(value.c_str());
    if (option == "--repeat") repeat = std::atoi(value.c_str());
    if (option == "--only") only = value;
    const bool counted = (option == "--threads" && threads > 0) || (option == "--repeat" && repeat > 0);
    CHECK(counted || option == "--only", "there is no %s %s", argv[i], value.c_str());
  }
  for (int64_t rows : {1000, 2000, 5000, 30000, 100000}) {
    for (int64_t dimension : {4, 16, 32, 64, 128}) searching(rows, dimension, 1024, 10);
  }
  for (int64_t rows : {500, 1500}) searching(rows, 64, 1024, 100);
  for (int64_t k : {1, 100, 1000, 10000}) searching(100000, 64, 1024, k);
  for (int64_t count : {1, 8, 128, 256}) searching(100000, 16, count, 10);
  for (int64_t rows : {5000, 30000, 100000}) searching(rows, 4, 256, 10);
  for (int64_t columns : {500, 2000, 8000, 30000, 100000, 1000000}) selecting(128, columns, 10);
  for (int64_t k : {1, 100, 1000, 4000}) selecting(128, 8000, k);
  for (int64_t k : {1, 100, 1000, 10000}) selecting(16, 100000, k);
  return 0;
}
