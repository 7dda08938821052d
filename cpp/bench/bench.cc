// Times the kernels beside the machine's limits, and checks what they find.
//
//   bench [--threads 2] [--repeat 7] [--cpu] [--only TEXT] [--set NAME] [--crossover] [--limits]
//
// A line has the median and the ratio to the limit (multiply-adds, or bytes read) that was measured right before it.
// --cpu counts the threads' own time instead of the clock's, for a machine that others use; limits too.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <functional>
#include <string>

#include "../kernels/candidates.h"
#include "../kernels/certify.h"
#include "../tests/support.h"
#include "peak.h"

using namespace xlann;

namespace {

int threads = 2, repeat = 7;
bool cpu_time = false;
std::string only;
InstructionSet forced = InstructionSet::automatic;

double now() {
  timespec time;
  clock_gettime(cpu_time ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return (double(time.tv_sec) + 1e-9 * double(time.tv_nsec)) / (cpu_time ? threads : 1);
}

double middle_of(std::vector<double> some) {
  std::sort(some.begin(), some.end());
  return some[some.size() / 2];
}

double median_of(const std::function<void()>& work) {
  work();
  std::vector<double> seconds;
  for (int i = 0; i < repeat; ++i) {
    const double start = now();
    work();
    seconds.push_back(now() - start);
  }
  return middle_of(seconds);
}

template <class Work>
void on_all(const Work& work) {
  const auto task = [](void* argument, int i) { (*static_cast<const Work*>(argument))(i); };
  run_on_threads(nullptr, threads, task, const_cast<Work*>(&work));
}

volatile float sink;

double least_of(const std::function<void()>& work, int times) {
  double least = 1e9;
  for (int i = 0; i < times; ++i) {
    const double start = now();
    work();
    least = std::min(least, now() - start);
  }
  return least;
}

// Multiply-adds (two operations each) a second, in 1e9.
double peak_rate(Type type) {
#if defined(__x86_64__)
  float (*work)() = nullptr;
  double lanes = 0;
  const bool s8 = type == Type::s8;
  switch (search_set(forced, type)) {
    case InstructionSet::avx2:
      work = s8 ? peak_pairs : peak_avx2, lanes = s8 ? 32 : 8;
      break;
#if defined(XLANN_AVX_VNNI)
    case InstructionSet::avx_vnni:
      work = peak_avx_vnni, lanes = 32;
      break;
#endif
    case InstructionSet::avx512:
      work = s8 ? peak_pairs_avx512 : peak_avx512, lanes = s8 ? 64 : 16;
      break;
    case InstructionSet::avx512_bf16:
      work = peak_bf16, lanes = 32;
      break;
    case InstructionSet::avx512_vnni:
      work = peak_vnni, lanes = 64;
      break;
    default:
      return NAN;
  }
  const double seconds = least_of([&] { on_all([&](int) { sink = work(); }); }, 3);
  return 2 * lanes * peak_chains * double(peak_rounds) * threads / seconds / 1e9;
#else
  (void)type;
  return NAN;
#endif
}

// Bytes read a second, in 1e9.
double read_rate(const void* memory, int64_t bytes) {
  const int64_t part = bytes / threads / 128 * 128;
  const double seconds = least_of(
      [&] {
        on_all([&](int i) { sink = float(read_all(static_cast<const char*>(memory) + i * part, part)); });
      },
      5);
  return double(part * threads) / seconds / 1e9;
}

enum class Order { random, ascending, descending, hidden };

struct Database {
  int64_t rows, dimension;
  std::vector<float> f32, half_norms, scales;
  std::vector<uint16_t> bf16;
  std::vector<int8_t> s8;

  Database(int64_t rows, int64_t dimension, Order order = Order::random) : rows(rows), dimension(dimension) {
    Random random(3);
    f32.resize(size_t(rows * dimension));
    for (float& x : f32) x = random.normal();
    if (order != Order::random) {
      // For queries of positive numbers each row is better, or worse, than the one before.
      for (int64_t i = 0; i < rows; ++i) {
        const float x = 1e-6f * float(order == Order::descending ? rows - i : i + 1);
        std::fill(f32.begin() + i * dimension, f32.begin() + (i + 1) * dimension, x);
      }
    }
    if (order == Order::hidden) {
      // Those that the search looks at first (candidates.h) are the worst: every other row passes.
      const int64_t samples = sample_size(10, rows, 24, 1);
      for (int64_t at = 0; at < samples; at += 24) {
        const auto first = f32.begin() + spread(at, samples, rows, 24) * dimension;
        std::fill(first, first + 24 * dimension, 0.f);
      }
    }
    float greatest = 0;
    for (int64_t i = 0; i < rows; ++i) {
      const float* row = &f32[size_t(i * dimension)];
      float norm = 0;
      for (int64_t j = 0; j < dimension; ++j) norm += row[j] * row[j];
      half_norms.push_back(norm / 2);
      if (i % 24 == 0) {
        // As the crate's lowering does, with one scale for 24 rows.
        greatest = 1e-30f;
        const int64_t end = std::min(i + 24, rows) * dimension;
        for (int64_t j = i * dimension; j < end; ++j) greatest = std::max(greatest, std::fabs(f32[size_t(j)]));
      }
      scales.push_back(greatest / 127);
      for (int64_t j = 0; j < dimension; ++j) {
        bf16.push_back(bf16_of_float(row[j]));
        s8.push_back(int8_t(std::nearbyint(row[j] / scales.back())));
      }
    }
  }
};

// The greatest norms of a row less what is stored of it, and of what is stored.
std::vector<float> errors_of(const Database& database, Type type) {
  double lost = 0, norm = 0;
  for (int64_t i = 0; i < database.rows; ++i) {
    double sums[2] = {};
    for (int64_t j = i * database.dimension; j < (i + 1) * database.dimension; ++j) {
      const float stored = type == Type::s8 ? database.scales[size_t(i)] * database.s8[size_t(j)]
                                            : float_of_bf16(database.bf16[size_t(j)]);
      const double difference = double(database.f32[size_t(j)]) - stored;
      sums[0] += difference * difference;
      sums[1] += double(stored) * stored;
    }
    lost = std::max(lost, sums[0]), norm = std::max(norm, sums[1]);
  }
  return {float(std::sqrt(lost)), float(std::sqrt(norm))};
}

struct Search {
  FusedSearch call;
  std::vector<float> queries, values;
  std::vector<int32_t> indices;
  std::vector<char> scratch;

  Search(const Database& database, Type type, Metric metric, int64_t count, int64_t k, bool positive = false) {
    Random random(5);
    queries.resize(size_t(count * database.dimension));
    for (float& x : queries) x = positive ? 1 + random.uniform() : random.normal();
    values.resize(size_t(count * k));
    indices.resize(size_t(count * k));
    call.metric = metric;
    call.type = type;
    call.database = type == Type::f32    ? static_cast<const void*>(database.f32.data())
                    : type == Type::bf16 ? static_cast<const void*>(database.bf16.data())
                                         : static_cast<const void*>(database.s8.data());
    if (type == Type::s8) call.scales = database.scales.data();
    if (metric == Metric::l2) call.half_norms = database.half_norms.data();
    call.rows = database.rows;
    call.dimension = database.dimension;
    call.queries = queries.data();
    call.query_count = count;
    call.k = k;
    call.values = values.data();
    call.indices = indices.data();
    call.instruction_set = forced;
  }

  void run() {
    const Parallel parallel = on_threads(threads);
    scratch.resize(fused_search_scratch(call, parallel));
    CHECK(fused_search(call, scratch.data(), scratch.size(), parallel) == Status::ok, "search");
  }

  // The share of results that the first candidates of a search with a certified recall prove.
  double proven() {
    const Found found = search(without_certificate(call), threads);
    FusedSearch among = without_certificate(call);
    among.k = call.candidates, among.candidates = 0, among.rerank_rows = nullptr;
    const Found all = search(among, threads);
    FusedSearch judged = call;
    judged.values = const_cast<float*>(found.values.data());
    int64_t count = 0;
    for (int64_t q = 0; q < call.query_count; ++q) {
      const float worst = all.values[size_t((q + 1) * call.candidates - 1)];
      count += xlann::proven(judged, q, call.metric == Metric::l2 ? -worst : worst);
    }
    return double(count) / double(call.query_count * call.k);
  }

  static FusedSearch without_certificate(FusedSearch call) {
    call.certified_recall = 0, call.errors = nullptr;
    return call;
  }

  // Against all scores of some queries, summed in f64 from the f32 rows: the share of the true k that was found.
  double recall(const Database& database) {
    const int64_t d = database.dimension;
    const int64_t asked = std::min(call.query_count, 5000000 / database.rows);
    int64_t hits = 0;
    for (int64_t q = 0; q < asked; ++q) {
      std::vector<std::pair<double, int32_t>> scores;
      for (int64_t i = 0; i < database.rows; ++i) {
        double sum = call.metric == Metric::l2 ? -database.half_norms[size_t(i)] : 0;
        for (int64_t j = 0; j < d; ++j) sum += double(queries[size_t(q * d + j)]) * database.f32[size_t(i * d + j)];
        scores.push_back({-sum, int32_t(i)});
      }
      std::partial_sort(scores.begin(), scores.begin() + call.k, scores.end());
      for (int64_t i = 0; i < call.k; ++i) {
        const auto from = indices.begin() + q * call.k;
        hits += std::count(from, from + call.k, scores[size_t(i)].second);
      }
    }
    return double(hits) / double(asked * call.k);
  }
};

bool chosen(const std::string& what) { return only.empty() || what.find(only) != std::string::npos; }

void computing(const std::string& what, const Database& database, Type type, Metric metric, int64_t count, int64_t k,
               double least_recall, bool sorted = false, int64_t candidates = 0) {
  if (!chosen(what)) return;
  Search search(database, type, metric, count, k, sorted);
  if (candidates > 0) search.call.candidates = candidates, search.call.rerank_rows = database.f32.data();
  const double peak = peak_rate(type);
  const double seconds = median_of([&] { search.run(); });
  const double rate = 2 * double(count) * double(database.rows) * double(database.dimension) / seconds / 1e9;
  const double recall = least_recall > 0 ? search.recall(database) : NAN;
  std::printf("%-46s %9.3f ms %8.1f G/s of %6.1f: %3.0f %%  recall %.3f\n", what.c_str(), 1e3 * seconds, rate, peak,
              100 * rate / peak, recall);
  std::fflush(stdout);
  CHECK(!(recall < least_recall), "%s: recall %g", what.c_str(), recall);
}

// As the crate's lowering has it, for a recall of 0.95 (src/lower/precision.rs).
int64_t candidates_of(Type type, int64_t k, int64_t dimension) {
  const bool in_pairs = search_routines(forced, type)->form == QueryForm::s8_pairs;
  const double width = type == Type::bf16 ? 1024 : 64;
  const double more = type == Type::bf16 ? 8 : in_pairs ? 16 + double(dimension) / 12 + double(k) / 4 : 16;
  const double beyond = double(k * dimension) / width + more;
  return k + int64_t(std::ceil(beyond * (1 - std::log(0.05)) / 4));
}

// Searches with a proven recall beside those in f32, in rounds in which all take turns.
void certifying(const std::string& rows, const Database& database, int64_t k) {
  const int64_t d = database.dimension;
  const std::string sizes = " ip q 1024 n " + rows + " d " + std::to_string(d) + " k " + std::to_string(k);
  if (!chosen("certified" + sizes)) return;
  struct Entry {
    Search search;
    std::vector<float> errors;
    double peak;
    std::vector<double> seconds, ratios;
  };
  std::vector<Entry> entries;
  for (Type type : {Type::f32, Type::bf16, Type::s8}) {
    entries.push_back({Search(database, type, Metric::inner_product, 1024, k), {}, peak_rate(type), {}, {}});
    Entry& entry = entries.back();
    // Moved, its arrays are where they were.
    if (type == Type::f32) continue;
    entry.errors = errors_of(database, type);
    entry.search.call.rerank_rows = database.f32.data();
    entry.search.call.candidates = candidates_of(type, k, d);
    entry.search.call.certified_recall = 0.95;
  }
  for (Entry& entry : entries) {
    if (!entry.errors.empty()) entry.search.call.errors = entry.errors.data();
  }
  for (int round = -1; round < repeat; ++round) {
    for (Entry& entry : entries) {
      const double start = now();
      entry.search.run();
      const double seconds = now() - start;
      if (round < 0) continue;
      entry.seconds.push_back(seconds);
      entry.ratios.push_back(entries[0].seconds.back() / seconds);
    }
  }
  for (Entry& entry : entries) {
    const Type type = entry.search.call.type;
    const double seconds = middle_of(entry.seconds);
    const double rate = 2 * 1024 * double(database.rows) * double(d) / seconds / 1e9;
    std::printf("%-46s %9.3f ms %8.1f G/s of %6.1f: %3.0f %%  recall %.3f  %.2f of f32's speed",
                (name(type) + sizes).c_str(), 1e3 * seconds, rate, entry.peak, 100 * rate / entry.peak,
                entry.search.recall(database), middle_of(entry.ratios));
    if (!entry.errors.empty()) {
      std::printf("  %.3f proven at once of %d candidates", entry.search.proven(), int(entry.search.call.candidates));
    }
    std::printf("\n");
    std::fflush(stdout);
  }
}

void reading(const std::string& what, const Database& database, Type type, int64_t count, int64_t k,
             double least_recall) {
  if (!chosen(what)) return;
  Search search(database, type, Metric::inner_product, count, k);
  const int64_t bytes = database.rows * database.dimension * size_of(type);
  const double peak = read_rate(search.call.database, bytes);
  const double seconds = median_of([&] { search.run(); });
  const double rate = double(bytes) / seconds / 1e9;
  const double recall = least_recall > 0 ? search.recall(database) : NAN;
  std::printf("%-46s %9.3f ms %8.1f GB/s of %5.1f: %3.0f %%  recall %.3f\n", what.c_str(), 1e3 * seconds, rate, peak,
              100 * rate / peak, recall);
  std::fflush(stdout);
  CHECK(!(recall < least_recall), "%s: recall %g", what.c_str(), recall);
}

void selecting(const std::string& what, int64_t rows, int64_t columns, int64_t k, bool least, int order) {
  if (!chosen(what)) return;
  Random random(9);
  std::vector<float> operand(size_t(rows * columns)), values(size_t(rows * k));
  std::vector<int32_t> indices(size_t(rows * k));
  for (float& x : operand) x = random.normal();
  for (int64_t row = 0; row < rows && order != 0; ++row) {
    std::sort(operand.begin() + row * columns, operand.begin() + (row + 1) * columns);
    if (order < 0) std::reverse(operand.begin() + row * columns, operand.begin() + (row + 1) * columns);
  }
  SelectK call;
  call.operand = operand.data();
  call.rows = rows;
  call.columns = columns;
  call.k = k;
  call.least = least;
  call.values = values.data();
  call.indices = indices.data();
  call.instruction_set = forced;
  const Parallel parallel = on_threads(threads);
  std::vector<char> scratch(select_k_scratch(call, parallel));
  const double peak = read_rate(operand.data(), rows * columns * 4);
  const double seconds = median_of(
      [&] { CHECK(select_k(call, scratch.data(), scratch.size(), parallel) == Status::ok, "select"); });
  for (int64_t row = 0; row < rows; ++row) {
    std::vector<float> sorted(operand.begin() + row * columns, operand.begin() + (row + 1) * columns);
    std::partial_sort(sorted.begin(), sorted.begin() + k, sorted.end(),
                      [&](float a, float b) { return least ? a < b : a > b; });
    CHECK(std::equal(sorted.begin(), sorted.begin() + k, values.begin() + row * k), "%s row %d", what.c_str(),
          (int)row);
  }
  const double rate = double(rows * columns * 4) / seconds / 1e9;
  std::printf("%-46s %9.3f ms %8.1f GB/s of %5.1f: %3.0f %%\n", what.c_str(), 1e3 * seconds, rate, peak,
              100 * rate / peak);
  std::fflush(stdout);
}

// The limits alone, in operations and bytes a second, as JSON; null where one is not known.
void limits() {
  const std::vector<char> memory(size_t{1} << 30, 1);
  const auto number = [](double rate) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", 1e9 * rate);
    return std::isnan(rate) ? std::string("null") : std::string(text);
  };
  std::printf("{\"f32\": %s, \"bf16\": %s, \"int8\": %s, \"read\": %s}\n", number(peak_rate(Type::f32)).c_str(),
              number(peak_rate(Type::bf16)).c_str(), number(peak_rate(Type::s8)).c_str(),
              number(read_rate(memory.data(), static_cast<int64_t>(memory.size()))).c_str());
}

// Both ways through the database for few queries: where they cross, and what is lost by choosing wrongly.
void crossover() {
  for (Type type : {Type::f32, Type::bf16, Type::s8}) {
    for (int64_t dimension : {16, 50, 128, 768}) {
      const Database database(4000000 / dimension, dimension);
      for (int64_t count : {1, 2, 4, 6, 8, 12, 16, 17, 20, 24, 32, 48}) {
        Search search(database, type, Metric::inner_product, count, 10);
        double seconds[3];
        for (Path path : {Path::automatic, Path::stream, Path::tile}) {
          search.call.path = path;
          seconds[int(path)] = median_of([&] { search.run(); });
        }
        std::printf("%-5s d %3d q %2d: stream %7.3f ms, tile %7.3f ms, chosen %7.3f ms (%.2f of the better)\n",
                    name(type), int(dimension), int(count), 1e3 * seconds[1], 1e3 * seconds[2], 1e3 * seconds[0],
                    seconds[0] / std::min(seconds[1], seconds[2]));
        std::fflush(stdout);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  bool cross = false, alone = false;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    const auto value = [&] { return i + 1 < argc ? argv[++i] : ""; };
    const auto count = [&] {
      const int number = std::atoi(value());
      CHECK(number >= 1, "%s must be 1 or more, got %s", option.c_str(), argv[i]);
      return number;
    };
    if (option == "--threads") {
      threads = count();
    } else if (option == "--repeat") {
      repeat = count();
    } else if (option == "--cpu") {
      cpu_time = true;
    } else if (option == "--crossover") {
      cross = true;
    } else if (option == "--limits") {
      alone = true;
    } else if (option == "--only") {
      only = value();
    } else if (option == "--set") {
      const std::string set = value();
      for (InstructionSet one : all_sets) {
        if (set == name(one)) forced = one;
      }
      CHECK(set == name(forced) && supported(forced), "this machine has no instruction set %s", set.c_str());
    } else {
      CHECK(false, "there is no option %s", option.c_str());
    }
  }
  if (alone) {
    limits();
    return 0;
  }
  if (cross) {
    crossover();
    return 0;
  }
  const Metric ip = Metric::inner_product, l2 = Metric::l2;
  if (only.find("select") == std::string::npos) {
    const Database database(100000, 128);
    computing("f32 ip q 128 n 100k d 128 k 10", database, Type::f32, ip, 128, 10, 0.999);
    computing("f32 ip q 1024 n 100k d 128 k 10", database, Type::f32, ip, 1024, 10, 0.999);
    computing("f32 l2 q 1024 n 100k d 128 k 10", database, Type::f32, l2, 1024, 10, 0.999);
    computing("f32 ip q 1024 n 100k d 128 k 100", database, Type::f32, ip, 1024, 100, 0.999);
    computing("bf16 ip q 1024 n 100k d 128 k 10", database, Type::bf16, ip, 1024, 10, 0.9);
    computing("s8 ip q 1024 n 100k d 128 k 10", database, Type::s8, ip, 1024, 10, 0.5);
    computing("s8 ip q 1024 n 100k d 128 k 10 of 40", database, Type::s8, ip, 1024, 10, 0.95, false, 40);
    certifying("100k", database, 10);
    certifying("100k", database, 100);
    constexpr const char* orders[] = {"", " ascending", " descending", " hidden"};
    for (Order order : {Order::ascending, Order::descending, Order::hidden}) {
      const std::string what = orders[int(order)];
      if (!chosen("f32 ip q 128 n 100k d 128 k 10" + what) && !chosen("f32 ip q 1024 n 100k d 128 k 10" + what)) {
        continue;
      }
      const Database sorted(100000, 128, order);
      computing("f32 ip q 128 n 100k d 128 k 10" + what, sorted, Type::f32, ip, 128, 10, 0, true);
      computing("f32 ip q 1024 n 100k d 128 k 10" + what, sorted, Type::f32, ip, 1024, 10, 0, true);
    }
  }
  for (int64_t dimension : {50, 96, 100, 768}) {
    for (int64_t k : {10, 100}) {
      const std::string certified = "certified ip q 1024 n 100k d " + std::to_string(dimension) + " k " + std::to_string(k);
      if (chosen(certified)) certifying("100k", Database(100000, dimension), k);
      const std::string what = "f32 ip q 1024 n 100k d " + std::to_string(dimension) + " k " + std::to_string(k);
      if (chosen(what)) computing(what, Database(100000, dimension), Type::f32, ip, 1024, k, 0.999);
    }
  }
  if (only.find("1M") != std::string::npos || only.empty()) {
    const Database database(1000000, 128);
    reading("f32 ip q 1 n 1M d 128 k 10", database, Type::f32, 1, 10, 0.999);
    reading("bf16 ip q 1 n 1M d 128 k 10", database, Type::bf16, 1, 10, 0.8);
    reading("s8 ip q 1 n 1M d 128 k 10", database, Type::s8, 1, 10, 0.5);
    computing("f32 ip q 1024 n 1M d 128 k 10", database, Type::f32, ip, 1024, 10, 0);
    certifying("1M", database, 10);
    certifying("1M", database, 100);
  }
  for (int64_t k : {10, 100}) {
    const std::string size = " f32[128,100000] k " + std::to_string(k);
    selecting("select greatest" + size, 128, 100000, k, false, 0);
    selecting("select least" + size, 128, 100000, k, true, 0);
    selecting("select greatest" + size + " ascending", 128, 100000, k, false, 1);
    selecting("select greatest" + size + " descending", 128, 100000, k, false, -1);
  }
  return 0;
}
