// What a call frame says, made of any bytes: a call that fits, then changed.
#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "../xla_ffi.h"

using namespace xla_ffi;

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), left_(size) {}

  int64_t below(int64_t bound) { return byte() % bound; }
  bool one_of(int64_t count) { return below(count) == count - 1; }  // not where there are no more bytes
  int64_t raw() {
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | byte();
    return static_cast<int64_t>(value);
  }
  int64_t number() {
    constexpr int64_t awkward[] = {0,         -1,        INT64_MIN, INT64_MAX, INT32_MAX, INT32_MAX - 1023,
                                   int64_t{1} << 32, int64_t{1} << 26, (int64_t{1} << 26) + 1, int64_t{1} << 62,
                                   int64_t{1} << 59, int64_t{1} << 60, INT32_MIN, 1025, 2};
    const int64_t which = below(3);
    return which == 0 ? awkward[below(15)] : which == 1 ? below(20) : raw();
  }
  // Mostly a small one.
  int64_t size() { return one_of(12) ? number() : one_of(8) ? 1 + below(200) * 16 : 1 + below(24); }
  std::string text() {
    std::string text;
    for (int64_t i = below(80); i > 0; --i) text += static_cast<char>(byte());
    return text;
  }

 private:
  uint8_t byte() {
    if (left_ == 0) return 0;
    --left_;
    return *data_++;
  }

  const uint8_t* data_;
  size_t left_;
};

// What a call frame says, and whether it holds is for the handlers to find out.
struct BufferClaim {
  DataType type;
  std::vector<int64_t> dims;
  int32_t kind = buffer_argument;
  int64_t rank = -1;  // another than that of the dims, below 0

  int64_t claimed_rank() const { return rank < -1 ? rank : static_cast<int64_t>(dims.size()); }
};
struct AttributeClaim {
  std::string name;
  AttributeType type;
  DataType scalar;
  int64_t value;
  std::string text;
};
struct Claim {
  bool search;
  std::vector<BufferClaim> arguments, results;
  std::vector<AttributeClaim> attributes;
  int64_t argument_count = 0, result_count = 0, attribute_count = 0;
  Stage stage = Stage::execute;
  bool old_api = false, no_schedule = false, no_count = false, asks_for_metadata = false;
  int64_t threads = 4;  // of the pool
  int mode = 0;         // of the pool: see schedule
  uint64_t content = 0;
};

constexpr DataType types[] = {DataType::f32, DataType::bf16, DataType::f16, DataType::s8,  DataType::f64,
                              DataType::s32, DataType::pred, DataType::s64, DataType::u16, DataType(0),
                              DataType(-1),  DataType(99)};

inline AttributeClaim scalar(const char* name, DataType type, int64_t value) {
  return {name, AttributeType::scalar, type, value, ""};
}

inline AttributeClaim scalar(const char* name, double value) {
  AttributeClaim claim = scalar(name, DataType::f64, 0);
  std::memcpy(&claim.value, &value, sizeof value);
  return claim;
}

// A search by squared distances, of queries and a database that are there already.
template <class Dims>
Claim squared_distances(Bytes& bytes, Claim claim, const Dims& dims, int64_t n, int64_t k, int64_t q, int64_t d) {
  claim.attributes.push_back({"metric", AttributeType::string, DataType::f32, 0, "squared_distance"});
  constexpr DataType floats[] = {DataType::f32, DataType::bf16, DataType::f16, DataType::f64};
  claim.arguments[0].type = floats[bytes.below(4)];
  if (bytes.one_of(2)) {
    const bool few = k >= 0 && n > k && n < 255;
    const int64_t candidates = bytes.one_of(8) ? bytes.number() : few ? k + bytes.below(n - k + 1) : n;
    constexpr double recalls[] = {0.9, 1, 0.25, 0, 1.01};
    const double recall = recalls[bytes.one_of(8) ? bytes.below(5) : bytes.below(3)];
    claim.arguments.push_back({DataType::f32, dims({n})});
    claim.arguments.push_back({floats[bytes.below(3)], dims({n, d})});
    claim.arguments.push_back({DataType::f32, dims({2})});
    claim.attributes.push_back(scalar("candidates", DataType::s64, candidates));
    claim.attributes.push_back(scalar("certified_recall", recall));
    if (bytes.one_of(2)) {
      claim.arguments.push_back({DataType::f32, dims({d})});
      claim.attributes.push_back(scalar("centred", DataType::pred, 1));
    }
  } else {
    claim.arguments.resize(2);
    claim.attributes.erase(claim.attributes.begin(), claim.attributes.end() - 1);
    claim.arguments[1].type = floats[bytes.below(4)];
  }
  claim.results = {{DataType::f64, dims({q, k})}, {DataType::s32, dims({q, k})}};
  return claim;
}

// A call that fits, as long as its sizes do.
inline Claim fitting(Bytes& bytes) {
  Claim claim;
  claim.search = bytes.one_of(2);
  std::vector<int64_t> batch;
  for (int64_t i = bytes.below(3); i > 0; --i) batch.push_back(bytes.one_of(12) ? bytes.number() : 1 + bytes.below(3));
  const auto dims = [&](std::initializer_list<int64_t> last) {
    std::vector<int64_t> all = batch;
    all.insert(all.end(), last);
    return all;
  };
  const int64_t n = bytes.size();
  const int64_t k = bytes.one_of(20) ? bytes.number() : n > 0 && n < 1 << 16 ? 1 + bytes.below(n < 256 ? n : 255) : 1;
  if (!claim.search) {
    constexpr DataType operands[] = {DataType::f32, DataType::bf16, DataType::f16, DataType::f64};
    const DataType type = operands[bytes.below(4)];
    claim.arguments = {{type, dims({n})}};
    claim.results = {{type, dims({k})}, {DataType::s32, dims({k})}};
    if (bytes.one_of(2)) claim.attributes.push_back(scalar("least", DataType::pred, bytes.below(3)));
  } else {
    const int64_t q = bytes.size(), d = bytes.size();
    const DataType type = types[bytes.below(4)];
    claim.arguments = {{types[bytes.below(3)], dims({q, d})}, {type, dims({n, d})}};
    const bool scaled = bytes.one_of(4);
    if (scaled) claim.attributes.push_back(scalar("scaled", DataType::pred, 1 + bytes.below(2)));
    if (scaled || type == DataType::s8) claim.arguments.push_back({DataType::f32, dims({n})});
    const int64_t metric = bytes.below(3);
    if (metric == 2) return squared_distances(bytes, claim, dims, n, k, q, d);
    if (metric == 1) {
      claim.arguments.push_back({DataType::f32, dims({n})});
      claim.attributes.push_back({"metric", AttributeType::string, DataType::f32, 0, "l2"});
    }
    if (bytes.one_of(2)) {
      const bool few = k >= 0 && n > k && n < 255;
      const int64_t candidates = bytes.one_of(8) ? bytes.number() : few ? k + bytes.below(n - k + 1) : n;
      if (candidates != 0) claim.arguments.push_back({DataType::f32, dims({n, d})});
      claim.attributes.push_back(scalar("candidates", DataType::s64, candidates));
      if (bytes.one_of(2)) {
        constexpr double recalls[] = {0.9, 1, 0.25, 0, -0.0, -0.1, 1.01, NAN, INFINITY};
        const double recall = recalls[bytes.below(9)];
        if (recall > 0) claim.arguments.push_back({DataType::f32, dims({2})});
        claim.attributes.push_back(scalar("certified_recall", recall));
      }
    }
    claim.results = {{DataType::f32, dims({q, k})}, {DataType::s32, dims({q, k})}};
  }
  return claim;
}

inline void change(Claim& claim, Bytes& bytes) {
  auto& list = bytes.one_of(3) ? claim.results : claim.arguments;
  BufferClaim none{DataType::f32, {}};
  BufferClaim& buffer = list.empty() ? none : list[size_t(bytes.below(int64_t(list.size())))];
  switch (bytes.below(13)) {
    case 0:
    case 1:
      if (!buffer.dims.empty()) buffer.dims[size_t(bytes.below(int64_t(buffer.dims.size())))] = bytes.number();
      break;
    case 2:
      if (!buffer.dims.empty() && bytes.one_of(2)) {
        buffer.dims.pop_back();
      } else {
        buffer.dims.insert(buffer.dims.begin(), bytes.one_of(2) ? bytes.number() : 1);
      }
      break;
    case 3:
      buffer.type = types[bytes.below(12)];
      break;
    case 4:
      buffer.kind = static_cast<int32_t>(bytes.number());
      break;
    case 5:
      buffer.rank = bytes.raw() | INT64_MIN;
      break;
    case 6:
      if (!list.empty() && bytes.one_of(2)) {
        list.pop_back();
      } else if (list.size() < 8) {
        list.push_back(list.empty() ? none : list.back());
      }
      break;
    case 7:
    case 8: {
      constexpr const char* names[] = {"threads", "instruction_set", "metric",           "candidates",
                                       "least",   "scaled",          "certified_recall", "centred", ""};
      constexpr const char* texts[] = {"automatic",   "portable", "avx2",          "avx512", "avx512_bf16",
                                       "avx512_vnni", "neon",     "inner_product", "l2",     "squared_distance",
                                       "avx_vnni",    ""};
      AttributeClaim added = {names[bytes.below(9)], AttributeType(1 + bytes.below(4)), types[bytes.below(12)],
                              bytes.number(), texts[bytes.below(12)]};
      if (bytes.one_of(4)) added.name = bytes.text();
      if (bytes.one_of(4)) added.text = bytes.text();
      if (bytes.one_of(2)) {  // likely of the right type
        added.type = added.name == "instruction_set" || added.name == "metric" ? AttributeType::string
                                                                               : AttributeType::scalar;
        added.scalar = bytes.one_of(2) ? DataType::s32 : DataType::s64;
        if (added.name == "least" || added.name == "scaled" || added.name == "centred") added.scalar = DataType::pred;
        if (added.name == "certified_recall") added.scalar = bytes.one_of(2) ? DataType::f32 : DataType::f64;
      }
      claim.attributes.insert(bytes.one_of(2) ? claim.attributes.begin() : claim.attributes.end(), added);
      break;
    }
    case 9:
      // Of arrays that long there are none: such a count must be refused, or means that there is nothing.
      (bytes.one_of(2) ? claim.result_count : claim.argument_count) = bytes.raw() | int64_t{1} << 40;
      if (bytes.one_of(3)) claim.attribute_count = bytes.raw() | INT64_MIN;
      break;
    case 10:
      claim.old_api = bytes.one_of(2);
      claim.no_schedule = bytes.one_of(2);
      claim.no_count = bytes.one_of(2);
      break;
    case 11:
      // Of the same product.
      if (buffer.dims.size() > 1) std::swap(buffer.dims[0], buffer.dims[1]);
      break;
    default:
      claim.stage = static_cast<Stage>(bytes.below(5));
      claim.asks_for_metadata = bytes.one_of(4);
      break;
  }
}
