// Scores as integers in the order of kernels.h: greater is better.
//
// Functions are static: files of different instruction sets include this, and must not share compiled code.
#pragma once

#include <cstdint>
#include <cstring>

namespace xlann {

template <class Key>
struct KeyOf;
template <>
struct KeyOf<int32_t> {
  using Value = float;
};
template <>
struct KeyOf<int64_t> {
  using Value = double;
};

// Below the key of every score: what a list that is not full has for a threshold.
template <class Key>
static constexpr Key lowest_key() {
  return sizeof(Key) == 4 ? static_cast<Key>(INT32_MIN) : static_cast<Key>(INT64_MIN);
}

template <class Key>
static constexpr Key nan_key() {
  return lowest_key<Key>() + 1;
}

// The bits of a float are ordered as its magnitude: those of negative ones are turned over. The keys of the two zeros
// are made one.
template <class Key>
static inline Key key_of(typename KeyOf<Key>::Value value) {
  if (value != value) return nan_key<Key>();
  if (value == 0) return 0;
  Key bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits < 0 ? static_cast<Key>(bits ^ ~lowest_key<Key>()) : bits;
}

// Of nan_key and of lowest_key a NaN: a comparison with it is how "everything passes" is said.
template <class Key>
static inline typename KeyOf<Key>::Value value_of(Key key) {
  const Key bits = key < 0 ? static_cast<Key>(key ^ ~lowest_key<Key>()) : key;
  typename KeyOf<Key>::Value value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace xlann
