// Which share of the results is proven, by number of candidates: where it is certified_recall, none is searched again.
//
//   certificates [--threads 2] [--set NAME] [--vectors FILE --dimension D] [--least]
//
// Rows and queries are normally distributed; or of a file, f32 and row-major, made unit vectors, the queries being some
// of its rows. --least leaves out the searches of a million rows.
#include <algorithm>
#include <cmath>
#include <string>

#include "../kernels/certify.h"
#include "../tests/support.h"

using namespace xlann;

namespace {

int threads = 2;
InstructionSet forced = InstructionSet::automatic;
constexpr int64_t queries = 256;

float gaussian(Random& random) {
  const float u = 1 - static_cast<float>(random.bits() >> 40) * 0x1p-24f, v = random.uniform();
  return std::sqrt(-2 * std::log(u)) * std::cos(3.14159265f * v);
}

struct Stored {
  std::vector<int8_t> s8;
  std::vector<uint16_t> bf16;
  std::vector<float> scales;
  std::vector<float> lost, norms;  // of each row

  Stored(const std::vector<float>& rows, int64_t dimension, Type type) {
    const int64_t count = static_cast<int64_t>(rows.size()) / dimension;
    type == Type::s8 ? s8.resize(rows.size()) : bf16.resize(rows.size());
    for (int64_t i = 0; i < count; ++i) {
      const float* const row = &rows[size_t(i * dimension)];
      float greatest = 1e-30f, lost_here = 0, norm = 0;
      // As the crate's lowering does, with one scale for 24 rows.
      const int64_t first = i / 24 * 24, last = std::min(count, first + 24);
      for (int64_t j = first * dimension; j < last * dimension; ++j) {
        greatest = std::max(greatest, std::fabs(rows[size_t(j)]));
      }
      scales.push_back(greatest / 127);
      for (int64_t j = 0; j < dimension; ++j) {
        float x;
        if (type == Type::s8) {
          s8[size_t(i * dimension + j)] = int8_t(std::nearbyint(row[j] / scales.back()));
          x = scales.back() * s8[size_t(i * dimension + j)];
        } else {
          bf16[size_t(i * dimension + j)] = bf16_of_float(row[j]);
          x = float_of_bf16(bf16[size_t(i * dimension + j)]);
        }
        lost_here += (row[j] - x) * (row[j] - x);
        norm += x * x;
      }
      lost.push_back(std::sqrt(lost_here));
      norms.push_back(std::sqrt(norm));
    }
  }
};

// The share of the k results of all queries that is proven.
double proven(const std::vector<float>& rows, int64_t count, int64_t dimension, const std::vector<float>& asked,
              const Stored& stored, int64_t k, int64_t candidates) {
  const float errors[2] = {*std::max_element(stored.lost.begin(), stored.lost.begin() + count),
                           *std::max_element(stored.norms.begin(), stored.norms.begin() + count)};
  FusedSearch call;
  call.type = stored.s8.empty() ? Type::bf16 : Type::s8;
  call.database = stored.s8.empty() ? static_cast<const void*>(stored.bf16.data()) : stored.s8.data();
  call.scales = stored.s8.empty() ? nullptr : stored.scales.data();
  call.rows = count;
  call.instruction_set = forced;
  call.dimension = dimension;
  call.queries = asked.data();
  call.query_count = queries;
  call.k = candidates;
  const Found among = search(call, threads);
  call.k = k;
  call.rerank_rows = rows.data();
  call.candidates = candidates;
  Found found = search(call, threads);
  call.errors = errors;
  call.values = found.values.data();
  int64_t sum = 0;
  for (int64_t q = 0; q < queries; ++q) {
    sum += xlann::proven(call, q, among.values[size_t((q + 1) * candidates - 1)]);
  }
  return double(sum) / double(queries * k);
}

void table(const std::vector<float>& rows, int64_t dimension, const std::vector<float>& asked) {
  const int64_t all = static_cast<int64_t>(rows.size()) / dimension;
  for (Type type : {Type::s8, Type::bf16}) {
    const Stored stored(rows, dimension, type);
    for (int64_t count = std::min<int64_t>(all, 100000); count != 0; count = count < all ? all : 0) {
      for (int64_t k : {10, 100}) {
        std::printf("%-4s n %7d d %3d k %3d:", name(type), int(count), int(dimension), int(k));
        for (double times : {1.25, 1.5, 2., 3., 4., 6., 8., 12., 16.}) {
          const int64_t candidates = static_cast<int64_t>(times * static_cast<double>(k));
          const double share = proven(rows, count, dimension, asked, stored, k, candidates);
          std::printf("  %4d %.3f", int(candidates), share);
        }
        std::printf("\n");
        std::fflush(stdout);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string file;
  int64_t file_dimension = 0, most = 1000000;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    const auto value = [&] { return i + 1 < argc ? argv[++i] : ""; };
    if (option == "--threads") threads = std::atoi(value());
    if (option == "--set") {
      const std::string set = value();
      for (InstructionSet one : all_sets) {
        if (set == name(one)) forced = one;
      }
      CHECK(set == name(forced) && supported(forced), "this machine has no instruction set %s", set.c_str());
    }
    if (option == "--vectors") file = value();
    if (option == "--dimension") file_dimension = std::atoi(value());
    if (option == "--least") most = 100000;
  }
  if (!file.empty()) {
    std::FILE* const from = std::fopen(file.c_str(), "rb");
    CHECK(from != nullptr && file_dimension > 0, "no vectors in %s", file.c_str());
    std::vector<float> rows, row(size_t(file_dimension), 0.f);
    while (std::fread(row.data(), 4, row.size(), from) == row.size()) {
      float norm = 1e-30f;
      for (float x : row) norm += x * x;
      for (float x : row) rows.push_back(x / std::sqrt(norm));
    }
    std::fclose(from);
    std::vector<float> asked;
    const int64_t count = static_cast<int64_t>(rows.size()) / file_dimension;
    for (int64_t q = 0; q < queries; ++q) {
      const auto first = rows.begin() + q * (count / queries) * file_dimension;
      asked.insert(asked.end(), first, first + file_dimension);
    }
    table(rows, file_dimension, asked);
    return 0;
  }
  for (int64_t dimension : {50, 128, 768}) {
    Random random(7);
    std::vector<float> rows(size_t(most * dimension)), asked(size_t(queries * dimension));
    for (float& x : rows) x = gaussian(random);
    for (float& x : asked) x = gaussian(random);
    table(rows, dimension, asked);
  }
}
