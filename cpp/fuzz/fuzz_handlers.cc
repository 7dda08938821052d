// Calls the handlers with call frames made of any bytes: sizes, types, ranks and counts that are negative, huge or do
// not fit, attributes of any names and types, buffers of any content, older APIs. A model of what they take says which
// calls must be refused; what is taken must have indices within bounds.
//
// With -fsanitize=fuzzer -DXLANN_LIBFUZZER it is a target of libFuzzer's; else a program that makes up the bytes:
// fuzz_handlers [INPUTS [SEED]].
#include <memory>
#include <string>

#include "../handlers/handlers.h"
#include "../tests/support.h"

using namespace xla_ffi;

namespace {

constexpr int64_t most_bytes = 1 << 18;  // of a buffer
constexpr int64_t most_work = 1 << 21;   // multiplications of a call

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
    constexpr int64_t awkward[] = {0,         -1,        INT64_MIN, INT64_MAX, INT32_MAX, int64_t{INT32_MAX} + 1,
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

AttributeClaim attribute(const char* name, AttributeType type, DataType scalar, int64_t value, std::string text = "") {
  return {name, type, scalar, value, std::move(text)};
}

// A call that fits, as long as its sizes do.
Claim fitting(Bytes& bytes) {
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
    if (bytes.one_of(2)) {
      claim.attributes.push_back(attribute("least", AttributeType::scalar, DataType::pred, bytes.below(3)));
    }
  } else {
    const int64_t q = bytes.size(), d = bytes.size();
    const DataType type = types[bytes.below(4)];
    claim.arguments = {{types[bytes.below(3)], dims({q, d})}, {type, dims({n, d})}};
    if (type == DataType::s8) claim.arguments.push_back({DataType::f32, dims({n})});
    if (bytes.one_of(2)) {
      claim.arguments.push_back({DataType::f32, dims({n})});
      claim.attributes.push_back(attribute("metric", AttributeType::string, DataType::f32, 0, "l2"));
    }
    if (bytes.one_of(2)) {
      const bool few = k >= 0 && n > k && n < 255;
      const int64_t candidates = bytes.one_of(8) ? bytes.number() : few ? k + bytes.below(n - k + 1) : n;
      if (candidates != 0) claim.arguments.push_back({DataType::f32, dims({n, d})});
      claim.attributes.push_back(attribute("candidates", AttributeType::scalar, DataType::s64, candidates));
    }
    claim.results = {{DataType::f32, dims({q, k})}, {DataType::s32, dims({q, k})}};
  }
  return claim;
}

void change(Claim& claim, Bytes& bytes) {
  auto& list = bytes.one_of(3) ? claim.results : claim.arguments;
  BufferClaim none{DataType::f32, {}};
  BufferClaim& buffer = list.empty() ? none : list[size_t(bytes.below(int64_t(list.size())))];
  switch (bytes.below(12)) {
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
      } else if (list.size() < 7) {
        list.push_back(list.empty() ? none : list.back());
      }
      break;
    case 7:
    case 8: {
      constexpr const char* names[] = {"threads", "instruction_set", "metric", "candidates", "least", "best", ""};
      constexpr const char* texts[] = {"automatic",   "portable", "avx2",          "avx512", "avx512_bf16",
                                       "avx512_vnni", "neon",     "inner_product", "l2",     "cosine", ""};
      AttributeClaim added = attribute(names[bytes.below(7)], AttributeType(1 + bytes.below(4)), types[bytes.below(12)],
                                       bytes.number(), texts[bytes.below(11)]);
      if (bytes.one_of(4)) added.name = bytes.text();
      if (bytes.one_of(4)) added.text = bytes.text();
      if (bytes.one_of(2)) {  // likely of the right type
        added.type = added.name == "instruction_set" || added.name == "metric" ? AttributeType::string
                                                                               : AttributeType::scalar;
        added.scalar = added.name == "least" ? DataType::pred : bytes.one_of(2) ? DataType::s32 : DataType::s64;
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
    default:
      claim.stage = static_cast<Stage>(bytes.below(5));
      claim.asks_for_metadata = bytes.one_of(4);
      break;
  }
}

// What the handlers take, told another way.
struct Sizes {
  DataType type;
  int64_t batch = 1, rows = 1, columns = 1;
};

bool sizes(const BufferClaim& buffer, int trailing, Sizes& sizes) {
  if (buffer.kind != buffer_argument || buffer.claimed_rank() < trailing) return false;
  long double elements = 1;
  for (int64_t dim : buffer.dims) {
    if (dim < 0) return false;
    elements *= dim > 0 ? static_cast<long double>(dim) : 1;
  }
  if (elements >= 0x1p60L) return false;
  sizes = {buffer.type};
  const size_t rank = buffer.dims.size();
  sizes.columns = buffer.dims[rank - 1];
  if (trailing == 2) sizes.rows = buffer.dims[rank - 2];
  for (size_t i = 0; i + size_t(trailing) < rank; ++i) sizes.batch *= buffer.dims[i];
  return true;
}

bool is(const Sizes& sizes, DataType type, int64_t batch, int64_t rows, int64_t columns) {
  return sizes.type == type && sizes.batch == batch && sizes.rows == rows && sizes.columns == columns;
}

bool is_float(DataType type) { return type == DataType::f32 || type == DataType::bf16 || type == DataType::f16; }

const AttributeClaim* find(const Claim& claim, const char* name) {
  for (const AttributeClaim& each : claim.attributes) {
    if (claim.attribute_count >= 0 && each.name == name) return &each;
  }
  return nullptr;
}

// An integer; false where it is something else.
bool integer(const Claim& claim, const char* name, int64_t& value) {
  const AttributeClaim* const found = find(claim, name);
  if (found == nullptr) return true;
  if (found->type != AttributeType::scalar) return false;
  value = found->scalar == DataType::s32 ? static_cast<int32_t>(found->value) : found->value;
  return found->scalar == DataType::s32 || found->scalar == DataType::s64;
}

// Whether a call has to be taken; then also how many elements a row has to choose from, and what it costs.
bool fits(const Claim& claim, int64_t& choices, long double& work) {
  if (claim.argument_count != 0 || claim.result_count != 0 || claim.results.size() != 2) return false;
  if (claim.attribute_count >= 0) {
    for (const AttributeClaim& each : claim.attributes) {
      const bool shared = each.name == "threads" || each.name == "instruction_set";
      const bool own = claim.search ? each.name == "metric" || each.name == "candidates" : each.name == "least";
      if (!shared && !own) return false;
    }
  }
  int64_t threads = 0, candidates = 0;
  if (!integer(claim, "threads", threads) || threads < 0 || !integer(claim, "candidates", candidates)) return false;
  if (const AttributeClaim* const set = find(claim, "instruction_set")) {
    bool found = set->text == "automatic";
    for (xlann::InstructionSet each : xlann::all_sets) {
      found = found || (set->text == xlann::name(each) && supported(each));
    }
    if (!found || set->type != AttributeType::string) return false;
  }
  const AttributeClaim* const least = find(claim, "least");
  if (least != nullptr && (least->type != AttributeType::scalar || least->scalar != DataType::pred)) return false;
  Sizes values, indices;
  const int trailing = claim.search ? 2 : 1;
  if (!sizes(claim.results[0], trailing, values) || !sizes(claim.results[1], trailing, indices)) return false;
  const int64_t k = values.columns;
  Sizes operand;
  if (!claim.search) {
    if (claim.arguments.size() != 1 || !sizes(claim.arguments[0], 1, operand)) return false;
    choices = operand.columns;
    work = static_cast<long double>(operand.batch) * static_cast<long double>(choices);
    return (is_float(operand.type) || operand.type == DataType::f64) &&
           is(values, operand.type, operand.batch, 1, k) && is(indices, DataType::s32, operand.batch, 1, k) &&
           k <= choices && choices <= INT32_MAX;
  }
  const AttributeClaim* const metric = find(claim, "metric");
  if (metric != nullptr && metric->type != AttributeType::string) return false;
  if (metric != nullptr && metric->text != "l2" && metric->text != "inner_product") return false;
  const bool l2 = metric != nullptr && metric->text == "l2";
  Sizes queries, database;
  if (claim.arguments.size() < 2 || !sizes(claim.arguments[0], 2, queries) || !sizes(claim.arguments[1], 2, database)) {
    return false;
  }
  const int64_t batch = queries.batch, q = queries.rows, n = database.rows, d = queries.columns;
  size_t next = 2;
  if (!is_float(queries.type) || (!is_float(database.type) && database.type != DataType::s8) ||
      !is(database, database.type, batch, n, d)) {
    return false;
  }
  if (claim.arguments.size() != next + (database.type == DataType::s8) + l2 + (candidates != 0)) return false;
  for (; next < claim.arguments.size() - (candidates != 0); ++next) {
    if (!sizes(claim.arguments[next], 1, operand) || !is(operand, DataType::f32, batch, 1, n)) return false;
  }
  if (candidates != 0 &&
      (!sizes(claim.arguments[next], 2, operand) || !is(operand, DataType::f32, batch, n, d))) {
    return false;
  }
  choices = n;
  work = static_cast<long double>(batch) * static_cast<long double>(q) * static_cast<long double>(n) *
         static_cast<long double>(d);
  if (!is(values, DataType::f32, batch, q, k) || !is(indices, DataType::s32, batch, q, k) || n > INT32_MAX || k > n ||
      (candidates != 0 && (candidates < k || candidates > n))) {
    return false;
  }
  return batch == 0 || q == 0 || k == 0 || (d > 0 && d <= INT32_MAX && q <= int64_t{1} << 26);
}

// XLA's side of a call.
struct ExecutionState {
  const Claim* claim;
  int64_t scheduled;
  std::vector<std::pair<void (*)(void*), void*>> later;
  std::vector<std::thread> threads;
};
ExecutionState* state;
bool refused;
ErrorCode code;
std::string message;
Error* const an_error = reinterpret_cast<Error*>(&message);

Error* create_error(ErrorCreate* create) {
  CHECK(create->size == sizeof(ErrorCreate) && create->message != nullptr, "error");
  refused = true;
  code = create->code;
  message = create->message;
  return an_error;
}

void destroy_error(ErrorDestroy* destroy) { CHECK(destroy->error == an_error, "another error"); }

Error* schedule(ThreadPoolSchedule* ask) {
  const int64_t turn = state->scheduled++;
  switch (state->claim->mode == 4 ? turn % 4 : state->claim->mode) {
    case 0:
      ask->task(ask->data);
      return nullptr;
    case 1:
      state->later.push_back({ask->task, ask->data});
      return nullptr;
    case 2:
      state->threads.emplace_back(ask->task, ask->data);
      return nullptr;
    default:
      return an_error;
  }
}

Error* count_threads(ThreadPoolNumThreads* ask) {
  *ask->threads = state->claim->threads;
  return state->claim->threads == 3 ? an_error : nullptr;
}

int64_t bytes_of(DataType type) {
  switch (type) {
    case DataType::f64:
    case DataType::s64:
      return 8;
    case DataType::bf16:
    case DataType::f16:
    case DataType::u16:
      return 2;
    case DataType::s8:
    case DataType::pred:
      return 1;
    default:
      return 4;
  }
}

// A list of buffers in a frame, each in memory of its own and of exactly its size.
struct Memory {
  std::vector<std::unique_ptr<char[]>> data;
  std::vector<std::vector<int64_t>> dims;
  std::vector<Buffer> buffers;
  std::vector<void*> pointers;
  std::vector<int32_t> kinds;

  // False where that is too much.
  bool fill(const std::vector<BufferClaim>& claims, xlann::Random& random, bool needed) {
    buffers.reserve(claims.size());
    for (const BufferClaim& claim : claims) {
      long double bytes = static_cast<long double>(bytes_of(claim.type));
      bool none = false;
      for (int64_t dim : claim.dims) {
        bytes *= static_cast<long double>(dim);
        none = none || dim <= 0;
      }
      if (needed && !none && bytes > most_bytes) return false;
      data.emplace_back();
      if (!none && bytes <= most_bytes) {
        data.back().reset(new char[static_cast<size_t>(bytes)]);
        for (int64_t i = 0; i < static_cast<int64_t>(bytes); ++i) data.back()[size_t(i)] = char(random.bits() >> 56);
      }
      dims.push_back(claim.dims);
      buffers.push_back({sizeof(Buffer), nullptr, claim.type, data.back().get(), claim.claimed_rank(),
                         dims.back().empty() ? nullptr : dims.back().data()});
      kinds.push_back(claim.kind);
    }
    for (Buffer& buffer : buffers) pointers.push_back(&buffer);
    return true;
  }

  Buffers list(int64_t other_count) {
    const auto count = static_cast<int64_t>(buffers.size());
    return {sizeof(Buffers), nullptr, other_count != 0 ? other_count : count, kinds.data(), pointers.data()};
  }
};

int64_t taken_calls = 0, refused_calls = 0;

void check_indices(const Claim& claim, const Memory& results, int64_t choices) {
  const Buffer& indices = results.buffers[1];
  int64_t count = 1;
  for (int64_t dim : claim.results[1].dims) count *= dim;
  if (count == 0) return;
  const int64_t k = claim.results[1].dims.back();
  std::vector<int64_t> seen(static_cast<size_t>(choices), -1);
  for (int64_t i = 0; i < count; ++i) {
    const int32_t index = static_cast<const int32_t*>(indices.data)[i];
    CHECK(index >= 0 && index < choices, "index %d of %lld", index, static_cast<long long>(choices));
    CHECK(seen[size_t(index)] != i / k, "index %d twice", index);
    seen[size_t(index)] = i / k;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes(data, size);
  Claim claim = fitting(bytes);
  claim.content = static_cast<uint64_t>(bytes.raw());
  claim.mode = static_cast<int>(bytes.below(5));
  claim.threads = bytes.one_of(4) ? bytes.number() : 1 + bytes.below(6);
  for (int64_t changes = bytes.below(4); changes > 0; --changes) change(claim, bytes);

  int64_t choices = 0;
  long double work = 0;
  const bool executes = claim.stage == Stage::execute && !claim.asks_for_metadata;
  const bool taken = executes && fits(claim, choices, work);
  if (taken && work > static_cast<long double>(most_work)) return 0;
  xlann::Random random(claim.content);
  Memory arguments, results;
  if (!arguments.fill(claim.arguments, random, taken) || !results.fill(claim.results, random, taken)) return 0;

  std::vector<Text> names;
  std::vector<Text> texts;
  std::vector<Scalar> scalars;
  std::vector<AttributeType> kinds;
  std::vector<Text*> name_pointers;
  std::vector<void*> values;
  const size_t count = claim.attributes.size();
  names.reserve(count), texts.reserve(count), scalars.reserve(count);
  for (AttributeClaim& each : claim.attributes) {
    names.push_back({each.name.empty() ? nullptr : each.name.data(), each.name.size()});
    texts.push_back({each.text.empty() ? nullptr : each.text.data(), each.text.size()});
    scalars.push_back({each.scalar, &each.value});
    kinds.push_back(each.type);
    name_pointers.push_back(&names.back());
    // Arrays and dictionaries: to a handler that does not want them, opaque.
    values.push_back(each.type == AttributeType::string   ? static_cast<void*>(&texts.back())
                     : each.type == AttributeType::scalar ? static_cast<void*>(&scalars.back())
                                                          : static_cast<void*>(&each.value));
  }

  Api api{};
  api.size = claim.old_api ? offsetof(Api, thread_pool_schedule) : sizeof(Api);
  api.error_create = create_error;
  api.error_destroy = destroy_error;
  api.thread_pool_schedule = claim.no_schedule ? nullptr : schedule;
  api.thread_pool_num_threads = claim.no_count ? nullptr : count_threads;
  // No larger than it says.
  const std::unique_ptr<char[]> own_api(new char[api.size]);
  std::memcpy(own_api.get(), &api, api.size);
  Metadata metadata{};
  MetadataExtension asks{{sizeof(MetadataExtension), metadata_extension, nullptr}, &metadata};
  Extension other{sizeof(Extension), 77, claim.asks_for_metadata ? &asks.base : nullptr};
  ExecutionState own{&claim, 0, {}, {}};
  state = &own;
  CallFrame frame{};
  frame.size = sizeof frame;
  frame.extensions = &other;
  frame.api = reinterpret_cast<const Api*>(own_api.get());
  frame.stage = claim.stage;
  frame.arguments = arguments.list(claim.argument_count);
  frame.results = results.list(claim.result_count);
  const int64_t attributes = claim.attribute_count != 0 ? claim.attribute_count : static_cast<int64_t>(count);
  frame.attributes = {sizeof frame.attributes, nullptr, attributes, kinds.data(), name_pointers.data(), values.data()};
  refused = false;
  message.clear();
  Error* const error = claim.search ? xlann_fused_search_handler(&frame) : xlann_select_k_handler(&frame);
  for (std::thread& thread : own.threads) thread.join();
  for (const auto& [task, data] : own.later) task(data);

  CHECK((error != nullptr) == refused, "an error that is not returned");
  if (!executes) {
    CHECK(!refused, "%s", message.c_str());
    CHECK(!claim.asks_for_metadata || metadata.version.minor == api_minor, "metadata");
    return 0;
  }
  const char* const handler = claim.search ? "xlann_fused_search: " : "xlann_select_k: ";
  CHECK(refused != taken, "%s%s", handler, refused ? message.c_str() : "takes what does not fit");
  if (refused) {
    CHECK(code == ErrorCode::invalid_argument && message.rfind(handler, 0) == 0, "%s", message.c_str());
  } else {
    check_indices(claim, results, choices);
  }
  ++(refused ? refused_calls : taken_calls);
  return 0;
}

#ifndef XLANN_LIBFUZZER
int main(int argc, char** argv) {
  const int64_t inputs = argc > 1 ? std::atoll(argv[1]) : 100000;
  xlann::Random random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  std::vector<uint8_t> bytes;
  for (int64_t i = 0; i < inputs; ++i) {
    bytes.resize(static_cast<size_t>(random.below(200)));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.bits() >> 56);
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  CHECK(taken_calls > inputs / 10 && refused_calls > inputs / 10, "%d taken, %d refused", (int)taken_calls,
        (int)refused_calls);
  std::printf("handlers: %d calls taken, %d refused\n", (int)taken_calls, (int)refused_calls);
}
#endif
