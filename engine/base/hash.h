// 64-bit content hashes (xxHash's XXH3): node identity, file integrity, cache keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

namespace nf {

uint64_t hash_bytes(const void* data, size_t size, uint64_t seed = 0);
inline uint64_t hash(std::string_view text, uint64_t seed = 0) {
  return hash_bytes(text.data(), text.size(), seed);
}

// Mixes one more word into a running hash.
inline uint64_t hash_combine(uint64_t seed, uint64_t value) {
  const uint64_t mixed = (seed ^ value) * 0x9E3779B97F4A7C15ULL;
  return (mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9ULL + value;
}

}  // namespace nf
