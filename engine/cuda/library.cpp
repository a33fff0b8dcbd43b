#include "cuda/library.h"

#include "nf/error.h"

namespace nf::cuda {

Launch in_turn(std::vector<Launch> launches) {
  if (launches.size() == 1) return std::move(launches.front());
  return [launches = std::move(launches)] {
    for (const Launch& launch : launches) launch();
  };
}

KernelLibrary::Slot KernelLibrary::slot(KernelSource source) {
  const auto [at, is_new] = index_.try_emplace(source.name, sources_.size());
  if (!is_new) return slots_[at->second];
  sources_.push_back(std::move(source));
  slots_.push_back(std::make_shared<std::shared_ptr<const CompiledKernel>>());
  return slots_.back();
}

Launch KernelLibrary::launch(KernelSource source, const LaunchShape& shape, std::vector<std::byte> params) {
  require(params.size() <= Gpu::kMostParams, "cuda: the parameter of {} has {} bytes, {} are possible",
          source.name, params.size(), Gpu::kMostParams);
  return [gpu = gpu_, slot = slot(std::move(source)), shape, params = std::move(params)] {
    gpu->launch(**slot, shape, params);
  };
}

void KernelLibrary::compile() {
  const auto compiled = gpu_->compile(sources_);
  require(compiled.size() == slots_.size(), "cuda: {} kernels of {} were compiled", compiled.size(),
          slots_.size());
  for (size_t i = 0; i < slots_.size(); ++i) *slots_[i] = compiled[i];
}

}  // namespace nf::cuda
