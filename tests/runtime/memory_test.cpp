// Buffers that are cut from slabs.
#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "nf/device.h"

using namespace nf;

TEST_CASE("memory: buffers of all sizes, cut from slabs, are zeroed, aligned, and apart") {
  const auto device = cpu_device(1);
  Slabs slabs(*device);
  std::vector<std::pair<Buffer, int64_t>> blocks;
  for (int round = 0; round < 30; ++round)
    for (const int64_t bytes : {0, 100, 130 << 10, (1 << 20) + 7, 9 << 20}) {
      // Half of the blocks go at once: nothing that is left may notice.
      if (round % 2 == 1) blocks.erase(blocks.begin());
      const Buffer block = slabs.allocate(bytes);
      CHECK(reinterpret_cast<uintptr_t>(block.get()) % 64 == 0);
      CHECK(std::all_of(block.get(), block.get() + bytes, [](std::byte b) { return b == std::byte{0}; }));
      std::fill_n(block.get(), bytes, std::byte(round + 1));
      blocks.emplace_back(block, bytes);
    }
  for (const auto& [block, bytes] : blocks)
    CHECK(std::all_of(block.get(), block.get() + bytes,
                      [first = block.get()](std::byte b) { return b == *first; }));
}
