// Random numbers that are a function of where they are used, so that any point of a run can be reached at
// once.
//
// random_bits(seed, stream, counter) depends on nothing else: no state, no order of calls, the same on every
// machine. Mixing is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
// Generators, OOPSLA 2014) applied once per argument.
#pragma once

#include <cstdint>
#include <span>
#include <utility>

namespace nf {

constexpr uint64_t mix_bits(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

constexpr uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t counter) {
  return mix_bits(mix_bits(mix_bits(seed) ^ stream) ^ counter);
}

// Uniform in 0 … bound - 1 (bias below bound / 2^64); bound > 0.
constexpr int64_t random_below(int64_t bound, uint64_t seed, uint64_t stream, uint64_t counter) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<int64_t>((Wide{random_bits(seed, stream, counter)} * static_cast<uint64_t>(bound)) >>
                              64);
}

// Permutes in place (Fisher and Yates), allocating nothing.
template <typename T>
constexpr void shuffle(std::span<T> items, uint64_t seed, uint64_t stream) {
  for (size_t left = items.size(); left > 1; --left) {
    const int64_t pick = random_below(static_cast<int64_t>(left), seed, stream, left);
    std::swap(items[left - 1], items[static_cast<size_t>(pick)]);
  }
}

}  // namespace nf
