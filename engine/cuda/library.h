// The kernels of one executable: asked for while its steps are bound, compiled all at once.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "cuda/faults.h"

namespace nf::cuda {

// One launch that makes these, one after another.
Launch in_turn(std::vector<Launch> launches);

class KernelLibrary {
 public:
  // Room for `checks` nodes that check their numbers.
  explicit KernelLibrary(std::shared_ptr<Gpu> gpu, size_t checks = 0)
      : gpu_(std::move(gpu)), faults_(std::make_shared<Faults>(*gpu_, checks)) {}

  Gpu& gpu() const { return *gpu_; }
  // They must live as long as the launches.
  const std::shared_ptr<Faults>& faults() const { return faults_; }

  // A launch of that kernel; it may run once compile() has returned.
  template <typename Params>
  Launch launch(KernelSource source, const LaunchShape& shape, const Params& params) {
    static_assert(std::is_trivially_copyable_v<Params> && sizeof(Params) <= Gpu::kMostParams);
    const auto bytes = std::as_bytes(std::span(&params, 1));
    return launch(std::move(source), shape, std::vector(bytes.begin(), bytes.end()));
  }

  // The same with the bytes of the parameter.
  Launch launch(KernelSource source, const LaunchShape& shape, std::vector<std::byte> params);

  void compile();

 private:
  using Slot = std::shared_ptr<std::shared_ptr<const CompiledKernel>>;  // filled by compile()

  Slot slot(KernelSource source);

  std::shared_ptr<Gpu> gpu_;
  std::shared_ptr<Faults> faults_;
  std::vector<KernelSource> sources_;
  std::vector<Slot> slots_;
  std::map<std::string, size_t> index_;  // name -> position in both
};

}  // namespace nf::cuda
