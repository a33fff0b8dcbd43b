// Philox4x32-10: a counter-based random generator (Salmon et al., "Parallel random numbers: as easy as 1, 2,
// 3", 2011). Any element's bits follow from its counter alone, so recomputation, resumption and any split of
// work see the same bits.
#pragma once

#include <array>
#include <cstdint>

namespace nf {

struct PhiloxKey {
  uint32_t low = 0, high = 0;
};

// The four words of block `counter`.
constexpr std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53U} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57U} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key.low, static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key.high, static_cast<uint32_t>(a)};
    key.low += 0x9E3779B9U;
    key.high += 0xBB67AE85U;
  }
  return counter;
}

// The word of element `index` of random stream `stream`: word index % 4 of block {index / 4, stream}.
constexpr uint32_t philox_word(uint64_t index, uint64_t stream, PhiloxKey key) {
  const uint64_t block = index / 4;
  return philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                 static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)},
                key)[index % 4];
}

// The upper 24 bits as a float in [0, 1).
constexpr float philox_uniform(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24F; }

}  // namespace nf
