// What kernels find wrong with the numbers they are given. They cannot throw: each leaves a word for the
// host, which says it when it next waits for the GPU.
#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "cuda/gpu.h"

namespace nf::cuda {

// The words of one executable, one per node that checks something.
class Faults {
 public:
  // Says in one line what is wrong with the value at that position.
  using Explain = std::function<std::string(int64_t position, int32_t value)>;

  // Room for so many nodes.
  Faults(Gpu& gpu, size_t most);

  // A word for report_fault() of device.cuh.
  uint64_t* add(Explain explain);
  bool empty() const { return explain_.empty(); }

  // Throws Error for the first node that has left a word, and forgets them all. Of what is still under way
  // some may show already.
  void check();

 private:
  static constexpr uint64_t kNone = std::numeric_limits<uint64_t>::max();

  Buffer memory_;
  std::span<uint64_t> words_;
  std::vector<Explain> explain_;  // of the first words
};

}  // namespace nf::cuda
