// Calls the handlers with call frames made of any bytes: sizes, types, ranks and counts that are negative, huge or do
// not fit, attributes of any names and types, buffers of any content, older APIs. A model of what they take says which
// calls must be refused; what is taken must have indices within bounds.
//
// With -fsanitize=fuzzer -DXLANN_LIBFUZZER it is a target of libFuzzer's; else a program that makes up the bytes:
// fuzz_handlers [INPUTS [SEED]].
#include <memory>

#include "../handlers/handlers.h"
#include "../tests/support.h"
#include "claims.h"

namespace {

constexpr int64_t most_bytes = 1 << 18;  // of a buffer
constexpr int64_t most_work = 1 << 21;   // multiplications of a call

// What the handlers take, told another way.
struct Sizes {
  DataType type;
  int64_t batch = 1, rows = 1, columns = 1;
  std::vector<int64_t> leading;  // whose product the batch is
};

bool sizes(const BufferClaim& buffer, int trailing, Sizes& sizes) {
  if (buffer.kind != buffer_argument || buffer.claimed_rank() < trailing) return false;
  long double elements = 1;
  for (int64_t dim : buffer.dims) {
    if (dim < 0) return false;
    elements *= dim > 0 ? static_cast<long double>(dim) : 1;
  }
  if (elements >= 0x1p60L) return false;
  sizes = Sizes{};
  sizes.type = buffer.type;
  const size_t rank = buffer.dims.size();
  sizes.columns = buffer.dims[rank - 1];
  if (trailing == 2) sizes.rows = buffer.dims[rank - 2];
  sizes.leading.assign(buffer.dims.begin(), buffer.dims.end() - trailing);
  for (int64_t dim : sizes.leading) sizes.batch *= dim;
  return true;
}

bool is(const Sizes& sizes, DataType type, const Sizes& other, int64_t rows, int64_t columns) {
  return sizes.type == type && sizes.leading == other.leading && sizes.rows == rows && sizes.columns == columns;
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

// A number, likewise.
bool real(const Claim& claim, const char* name, double& value) {
  const AttributeClaim* const found = find(claim, name);
  if (found == nullptr) return true;
  float narrow;
  std::memcpy(&narrow, &found->value, sizeof narrow);
  std::memcpy(&value, &found->value, sizeof value);
  if (found->scalar == DataType::f32) value = narrow;
  return found->type == AttributeType::scalar && (found->scalar == DataType::f32 || found->scalar == DataType::f64);
}

// A truth value, likewise.
bool truth(const Claim& claim, const char* name, bool& value) {
  const AttributeClaim* const found = find(claim, name);
  if (found == nullptr) return true;
  value = (found->value & 255) != 0;
  return found->type == AttributeType::scalar && found->scalar == DataType::pred;
}

// Whether a call has to be taken; then also how many elements a row has to choose from, and what it costs.
bool fits(const Claim& claim, int64_t& choices, long double& work) {
  if (claim.argument_count != 0 || claim.result_count != 0 || claim.results.size() != 2) return false;
  if (claim.attribute_count >= 0) {
    for (const AttributeClaim& each : claim.attributes) {
      const bool shared = each.name == "threads" || each.name == "instruction_set";
      const bool of_search = each.name == "metric" || each.name == "scaled" || each.name == "candidates" ||
                             each.name == "certified_recall" || each.name == "centred";
      const bool own = claim.search ? of_search : each.name == "least";
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
  bool least = false, scaled = false, centred = false;
  double recall = 0;
  if (!truth(claim, "least", least) || !truth(claim, "scaled", scaled) || !truth(claim, "centred", centred) ||
      !real(claim, "certified_recall", recall) ||
      !(recall >= 0 && recall <= 1) || (recall > 0 && candidates == 0)) {
    return false;
  }
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
           is(values, operand.type, operand, 1, k) && is(indices, DataType::s32, operand, 1, k) &&
           k <= choices && choices <= xlann::most_choices;
  }
  const AttributeClaim* const metric = find(claim, "metric");
  if (metric != nullptr && metric->type != AttributeType::string) return false;
  if (metric != nullptr && metric->text != "l2" && metric->text != "inner_product" &&
      metric->text != "squared_distance") {
    return false;
  }
  const bool squared = metric != nullptr && metric->text == "squared_distance", differences = squared && candidates == 0;
  const bool measured = (metric != nullptr && metric->text == "l2") || (squared && !differences);
  if (squared && (differences ? scaled : recall == 0)) return false;
  if (centred && (!squared || differences)) return false;
  Sizes queries, database;
  if (claim.arguments.size() < 2 || !sizes(claim.arguments[0], 2, queries) || !sizes(claim.arguments[1], 2, database)) {
    return false;
  }
  const int64_t batch = queries.batch, q = queries.rows, n = database.rows, d = queries.columns;
  size_t next = 2;
  if ((!is_float(queries.type) && !(squared && queries.type == DataType::f64)) ||
      (!is_float(database.type) && database.type != (differences ? DataType::f64 : DataType::s8)) ||
      !is(database, database.type, queries, n, d)) {
    return false;
  }
  const bool quantised = database.type == DataType::s8;
  if (claim.arguments.size() !=
      next + (quantised || scaled) + measured + (candidates != 0) + (recall > 0) + centred) {
    return false;
  }
  for (const size_t last = next + (quantised || scaled) + measured; next < last; ++next) {
    if (!sizes(claim.arguments[next], 1, operand) || !is(operand, DataType::f32, queries, 1, n)) return false;
  }
  if (candidates != 0 && (!sizes(claim.arguments[next], 2, operand) || (scaled && !quantised) ||
                          !is(operand, squared && is_float(operand.type) ? operand.type : DataType::f32, queries, n,
                              d))) {
    return false;
  }
  if (recall > 0 && (!sizes(claim.arguments[next + 1], 1, operand) || !is(operand, DataType::f32, queries, 1, 2))) {
    return false;
  }
  if (centred && (!sizes(claim.arguments[next + 2], 1, operand) || !is(operand, DataType::f32, queries, 1, d))) {
    return false;
  }
  choices = n;
  work = static_cast<long double>(batch) * static_cast<long double>(q) * static_cast<long double>(n) *
         static_cast<long double>(d);
  if (!is(values, squared ? DataType::f64 : DataType::f32, queries, q, k) || !is(indices, DataType::s32, queries, q, k) ||
      n > xlann::most_choices || k > n || (candidates != 0 && (candidates < k || candidates > n))) {
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
    // What is no neighbour, of squared distances.
    if (index == -1 && claim.results[0].type == DataType::f64) continue;
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
