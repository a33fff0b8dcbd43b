// Host memory: zero pages that appear when they are first touched, huge ones but for small blocks.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "nf/device.h"
#include "nf/error.h"

namespace nf {
namespace {

constexpr int64_t kPage = 4096;
constexpr int64_t kHugePage = 2 << 20;
constexpr int64_t kSmall = 128 << 10;  // from there on the heap would ask the system for each block
constexpr int64_t kSlab = 8 * kHugePage;
constexpr int64_t kAlignment = 64;

Buffer from_heap(int64_t bytes) {
  void* block = nullptr;
  const auto needed = static_cast<size_t>(std::max<int64_t>(bytes, 1));
  require(posix_memalign(&block, kAlignment, needed) == 0, "memory: {} bytes could not be allocated", bytes);
  std::fill_n(static_cast<std::byte*>(block), bytes, std::byte{0});
  return {static_cast<std::byte*>(block), [](std::byte* p) { std::free(p); }};
}

Buffer from_system(int64_t bytes) {
  const int64_t size = (bytes + kPage - 1) / kPage * kPage;
  void* block =
      mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  require(block != MAP_FAILED, "memory: {:.1f} MiB could not be allocated",
          static_cast<double>(bytes) / (1 << 20));
#ifdef MADV_HUGEPAGE
  madvise(block, static_cast<size_t>(size),
          MADV_HUGEPAGE);  // a wish: first touches and address look-ups get cheaper
#endif
  return {static_cast<std::byte*>(block), [size](std::byte* p) { munmap(p, static_cast<size_t>(size)); }};
}

// Blocks too small for a huge page of their own are cut from a slab of many, one behind the other and never
// twice; the last of its blocks frees the slab.
Buffer from_slab(int64_t bytes) {
  static std::mutex mutex;
  static Buffer slab;
  static int64_t used = kSlab;
  const std::lock_guard lock(mutex);
  if (used + bytes > kSlab) {
    slab = from_system(kSlab);
    used = 0;
  }
  const Buffer block(slab, slab.get() + used);
  used += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return block;
}

}  // namespace

Buffer allocate_host_memory(int64_t bytes) {
  if (bytes < kSmall) return from_heap(bytes);
  return bytes < kHugePage ? from_slab(bytes) : from_system(bytes);
}

}  // namespace nf
