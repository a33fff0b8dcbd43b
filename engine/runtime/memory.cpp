#include <cstdlib>

#include "nf/device.h"
#include "nf/error.h"

namespace nf {

Buffer allocate_host_memory(int64_t bytes) {
  constexpr int64_t kAlignment = 64;
  // calloc hands out untouched zero pages for large blocks, so memory that is never used never becomes
  // resident.
  auto* block = static_cast<std::byte*>(std::calloc(1, static_cast<size_t>(bytes + kAlignment)));
  require(block != nullptr, "memory: {:.1f} MiB could not be allocated",
          static_cast<double>(bytes) / (1 << 20));
  const auto address = reinterpret_cast<uintptr_t>(block);
  std::byte* const aligned = block + (kAlignment - address % kAlignment) % kAlignment;
  return {aligned, [block](std::byte*) { std::free(block); }};
}

}  // namespace nf
