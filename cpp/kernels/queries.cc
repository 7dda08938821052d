#include "queries.h"

#include <cmath>

#include "convert.h"
#include "plan.h"

namespace xlann {
namespace {

int64_t vectors_of(const QueryLayout& layout, int64_t queries) { return (queries + layout.lanes - 1) / layout.lanes; }

// The first vector of a panel; of the panel after the last, their number.
int64_t first_vector(const QueryLayout& layout, int64_t queries, int64_t panel) {
  const int64_t vectors = vectors_of(layout, queries), panels = panel_count(layout, queries);
  return panel * (vectors / panels) + at_most(panel, vectors % panels);
}

double element(const FusedSearch& call, int64_t at) {
  switch (call.query_type) {
    case Type::bf16:
      return float_of_bf16(static_cast<const uint16_t*>(call.queries)[at]);
    case Type::f16:
      return float_of_f16(static_cast<const uint16_t*>(call.queries)[at]);
    case Type::f64:
      return static_cast<const double*>(call.queries)[at];
    default:
      return static_cast<const float*>(call.queries)[at];
  }
}

// Element j of a query, less the centre, for products with the stored rows.
double centred(const FusedSearch& call, int64_t start, int64_t j) {
  return element(call, start + j) - (call.centre == nullptr ? 0 : double{call.centre[j]});
}

bool rounds_to_bf16(const FusedSearch& call) { return call.type == Type::bf16 && call.rerank_rows != nullptr; }

double greater_of(double a, double b) { return b > a ? b : a; }

// Of form s8_pairs.
constexpr int64_t elements_together = 4 * pairs_together;

// What a query of a quantised search is multiplied by, to have numbers in [-127, 127].
//
// For sums in 16 bits (inner_pairs.inc), the numbers of one sign of each two are to sum to at most 128, and the magnitudes
// of those whose products are summed there, 2 pairs_together, to 255. Rounding adds a half to each, and so the sums before
// it are to be 127 and 251.
struct Quantiser {
  float scale;
  float inverse;

  Quantiser(const FusedSearch& call, int64_t start, bool in_pairs) {
    double greatest = 0, pair = 0, together = 0;
    double signs[2] = {}, sums[2] = {};
    bool finite = true;
    for (int64_t j = 0; j < call.dimension; ++j) {
      const float x = static_cast<float>(centred(call, start, j));
      const double magnitude = std::fabs(x);
      finite = finite && magnitude < INFINITY;
      greatest = greater_of(greatest, magnitude);
      if (!in_pairs) continue;
      if (j % 2 == 0) signs[0] = signs[1] = 0;
      if (j % elements_together == 0) sums[0] = sums[1] = 0;
      pair = greater_of(pair, signs[x < 0] += magnitude);
      together = greater_of(together, sums[j / 2 % 2] += magnitude);
    }
    constexpr double most_together = 255 - pairs_together;
    const double reach = greater_of(greater_of(greatest, pair), together * (127 / most_together));
    scale = finite ? static_cast<float>(reach / 127) : NAN;
    inverse = finite && reach > 0 ? static_cast<float>(127 / reach) : 0;
    // There is no inverse of a magnitude below 127 / 2^128, 3.7e-37: such a query is taken for 0.
    if (!(inverse < INFINITY)) scale = inverse = 0;
  }

  int32_t operator()(float x) const {
    // To nearest, ties to even: of these, f32 holds whole numbers only. Neither infinity nor NaN has an inverse.
    constexpr float whole = 0x1.8p23f;
    const float rounded = inverse == 0 ? 0 : (x * inverse + whole) - whole;
    return static_cast<int32_t>(rounded < -127 ? -127 : rounded > 127 ? 127 : rounded);
  }
};

// Writes one query, element j to place(j).
template <class Place>
void pack_query(const QueryLayout& layout, const FusedSearch& call, int64_t query, int64_t slot,
                const PackedQueries& packed, Place place) {
  const int64_t dimension = call.dimension, start = query * dimension;
  char* const bytes = static_cast<char*>(packed.packed);
  if (layout.form == QueryForm::f64) {
    for (int64_t j = 0; j < dimension; ++j) reinterpret_cast<double*>(bytes)[place(j)] = element(call, start + j);
    packed.scales[slot] = 1;
    return;
  }
  if (call.type != Type::s8) {
    const bool rounds = rounds_to_bf16(call);
    for (int64_t j = 0; j < dimension; ++j) {
      const float x = static_cast<float>(centred(call, start, j));
      if (layout.form == QueryForm::bf16) {
        reinterpret_cast<uint16_t*>(bytes)[place(j)] = bf16_of_float(x);
      } else {
        reinterpret_cast<float*>(bytes)[place(j)] = rounds ? float_of_bf16(bf16_of_float(x)) : x;
      }
    }
    packed.scales[slot] = 1;
    return;
  }
  const Quantiser quantise(call, start, layout.form == QueryForm::s8_pairs);
  int32_t sum = 0;
  for (int64_t j = 0; j < dimension; ++j) {
    const int32_t x = quantise(static_cast<float>(centred(call, start, j)));
    if (layout.form == QueryForm::f32) {
      reinterpret_cast<float*>(bytes)[place(j)] = static_cast<float>(x);
      continue;
    }
    reinterpret_cast<int8_t*>(bytes)[place(j)] = static_cast<int8_t>(x);
    sum += x;
  }
  packed.scales[slot] = quantise.scale;
  packed.offsets[slot] = -128 * sum;
}

// Of form s8_pairs in tiles: the unit that has an element; and the one before all whose products are summed with its, that
// has what these sums start from.
int64_t unit_in_pairs(int64_t j) { return j / 4 + j / elements_together + 1; }
int64_t start_of_pairs(int64_t j) { return j / elements_together * (pairs_together + 1); }

}  // namespace

QueryLayout layout_of(const SearchRoutines& search, bool streams, int64_t queries, int64_t dimension) {
  QueryLayout layout;
  layout.form = search.form;
  layout.streams = streams;
  layout.lanes = search.lanes;
  layout.vectors = search.vectors;
  layout.queries = queries;
  const int64_t unit = elements_in_unit(search.form);
  layout.units = search.form == QueryForm::s8_pairs ? unit_in_pairs(dimension - 1) + 1 : (dimension + unit - 1) / unit;
  layout.stride = (dimension + search.stream_elements - 1) / search.stream_elements * search.stream_elements;
  return layout;
}

PackedQueries take_queries(const QueryLayout& layout, Arena& arena) {
  const int64_t padded = vectors_of(layout, layout.queries) * layout.lanes;
  PackedQueries packed;
  const int64_t unit = unit_bytes(layout.form);
  const int64_t bytes = layout.streams ? layout.queries * layout.stride * (unit / elements_in_unit(layout.form))
                                       : padded * layout.units * unit;
  packed.packed = arena.take<char>(bytes);
  packed.scales = arena.take<float>(padded);
  packed.offsets = arena.take<int32_t>(padded);
  return packed;
}

int64_t panel_count(const QueryLayout& layout, int64_t queries) {
  return layout.streams ? 1 : (vectors_of(layout, queries) + layout.vectors - 1) / layout.vectors;
}

Panel panel_at(const QueryLayout& layout, const PackedQueries& packed, int64_t queries, int64_t panel) {
  const int64_t vector = layout.streams ? 0 : first_vector(layout, queries, panel);
  const int64_t first = vector * layout.lanes;
  Panel at;
  at.packed = static_cast<char*>(packed.packed) + first * layout.units * unit_bytes(layout.form);
  at.scales = packed.scales + first;
  at.offsets = packed.offsets + first;
  at.vectors = layout.streams ? 0 : static_cast<int32_t>(first_vector(layout, queries, panel + 1) - vector);
  const int64_t left = queries - first;
  at.queries = static_cast<int32_t>(layout.streams ? left : at_most(at.vectors * layout.lanes, left));
  at.first = static_cast<int32_t>(first);
  at.stride = layout.stride;
  return at;
}

void pack_panel(const QueryLayout& layout, const FusedSearch& call, const Group& group, int64_t panel,
                const PackedQueries& packed) {
  const Panel at = panel_at(layout, packed, group.queries, panel);
  const int64_t unit = elements_in_unit(layout.form);
  const int64_t lanes = layout.streams ? at.queries : at.vectors * layout.lanes;
  const int64_t bytes = layout.streams ? at.queries * layout.stride * (unit_bytes(layout.form) / unit)
                                       : lanes * layout.units * unit_bytes(layout.form);
  const int64_t whole = call.dimension / unit;
  PackedQueries here = packed;
  here.packed = const_cast<void*>(at.packed);
  std::memset(here.packed, 0, static_cast<size_t>(bytes));
  for (int64_t q = at.queries; q < lanes; ++q) {
    packed.scales[at.first + q] = 0;
    packed.offsets[at.first + q] = 0;
  }
  for (int64_t q = 0; q < at.queries; ++q) {
    const int64_t query = group.query(at.first + q);
    if (layout.streams) {
      pack_query(layout, call, query, at.first + q, here, [&](int64_t j) { return q * layout.stride + j; });
    } else if (layout.form == QueryForm::s8_pairs) {
      const auto place = [&](int64_t j) { return (unit_in_pairs(j) * lanes + q) * unit + j % unit; };
      pack_query(layout, call, query, at.first + q, here, place);
      const int8_t* const numbers = static_cast<int8_t*>(here.packed);
      for (int64_t j = 0; j < call.dimension; ++j) {
        int16_t* const start = static_cast<int16_t*>(here.packed) + (start_of_pairs(j) * lanes + q) * 2 + j / 2 % 2;
        *start = static_cast<int16_t>(*start - 128 * numbers[place(j)]);
      }
    } else {
      pack_query(layout, call, query, at.first + q, here, [&](int64_t j) {
        const bool overlaps = layout.form == QueryForm::s8 && whole > 0 && j >= whole * unit;
        const int64_t in_unit = overlaps ? j - (call.dimension - unit) : j % unit;
        return (j / unit * lanes + q) * unit + in_unit;
      });
    }
  }
}

int64_t elements_in_unit(QueryForm form) {
  switch (form) {
    case QueryForm::bf16:
      return 2;
    case QueryForm::s8:
    case QueryForm::s8_pairs:
      return 4;
    default:
      return 1;
  }
}

int64_t unit_bytes(QueryForm form) { return form == QueryForm::f64 ? 8 : 4; }

void read_query(const FusedSearch& call, int64_t query, float* to) {
  for (int64_t j = 0; j < call.dimension; ++j) to[j] = static_cast<float>(element(call, query * call.dimension + j));
}

void read_query(const FusedSearch& call, int64_t query, double* to) {
  for (int64_t j = 0; j < call.dimension; ++j) to[j] = element(call, query * call.dimension + j);
}

QueryNorms norms_of(const FusedSearch& call, int64_t query) {
  const int64_t start = query * call.dimension;
  const SearchRoutines* const search = call.type == Type::s8 ? search_routines(call) : nullptr;
  const Quantiser quantise(call, start, search != nullptr && search->form == QueryForm::s8_pairs);
  double whole = 0, lost = 0;
  for (int64_t j = 0; j < call.dimension; ++j) {
    const double x = centred(call, start, j);
    const float single = static_cast<float>(x);
    double packed = single;
    if (rounds_to_bf16(call)) packed = float_of_bf16(bf16_of_float(single));
    if (call.type == Type::s8) packed = double{quantise.scale} * quantise(single);
    whole += x * x;
    lost += (x - packed) * (x - packed);
  }
  return {std::sqrt(whole), std::sqrt(lost)};
}

}  // namespace xlann
