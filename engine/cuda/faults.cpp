#include "cuda/faults.h"

#include <algorithm>
#include <atomic>

#include "nf/error.h"

namespace nf::cuda {

Faults::Faults(Gpu& gpu, size_t most)
    : memory_(gpu.allocate_shared(static_cast<int64_t>(most * sizeof(uint64_t)))),
      words_(reinterpret_cast<uint64_t*>(memory_.get()), most) {
  std::fill(words_.begin(), words_.end(), kNone);
}

uint64_t* Faults::add(Explain explain) {
  require(explain_.size() < words_.size(), "cuda: an executable with more than {} checks", words_.size());
  explain_.push_back(std::move(explain));
  return &words_[explain_.size() - 1];
}

void Faults::check() {
  for (size_t i = 0; i < explain_.size(); ++i) {
    const uint64_t word = std::atomic_ref(words_[i]).load(std::memory_order_relaxed);
    if (word == kNone) continue;
    std::fill(words_.begin(), words_.end(), kNone);
    fail("{}", explain_[i](static_cast<int64_t>(word >> 32), static_cast<int32_t>(word & 0xFFFFFFFF)));
  }
}

}  // namespace nf::cuda
