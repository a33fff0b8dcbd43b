// Host memory: zero pages that appear when they are first touched, huge ones for large blocks.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

#include "nf/device.h"
#include "nf/error.h"

namespace nf {
namespace {

constexpr int64_t kPage = 4096;
constexpr int64_t kHugePage = 2 << 20;
constexpr int64_t kSlabBytes = 32 << 20;
constexpr int64_t kLargeBytes = kSlabBytes / 4;  // from here on a buffer has an allocation of its own
constexpr int64_t kAlignment = 64;

}  // namespace

Buffer allocate_host_memory(int64_t bytes) {
  // Small blocks come from the heap, so that a thousand of them do not cost a system call and a page each.
  if (bytes < kHugePage) {
    void* block = nullptr;
    const auto needed = static_cast<size_t>(std::max<int64_t>(bytes, 1));
    require(posix_memalign(&block, 64, needed) == 0, "memory: {} bytes could not be allocated", bytes);
    std::fill_n(static_cast<std::byte*>(block), bytes, std::byte{0});
    return {static_cast<std::byte*>(block), [](std::byte* p) { std::free(p); }};
  }
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

Buffer Slabs::allocate(int64_t bytes) {
  if (bytes >= kLargeBytes) return device_.allocate(bytes);
  const int64_t needed = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (!slab_ || used_ + needed > kSlabBytes) {
    slab_ = device_.allocate(kSlabBytes);
    used_ = 0;
  }
  std::byte* const address = slab_.get() + used_;
  used_ += needed;
  return {slab_, address};
}

}  // namespace nf
