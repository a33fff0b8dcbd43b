// A Gpu that runs nothing: it collects the kernels that a device asks for. Memory is reserved and never
// touched.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "cuda/gpu.h"
#include "runtime/immediate_readback.h"

namespace nf::cuda {

class RecordingGpu : public Gpu {
 public:
  explicit RecordingGpu(GpuKind kind = {}) : kind_(kind) {}

  GpuKind kind() const override { return kind_; }
  Buffer allocate(int64_t bytes) override { return allocate_host_memory(bytes); }
  Buffer allocate_shared(int64_t bytes) override { return allocate_host_memory(bytes); }
  DeviceMemory memory() override { return {int64_t{1} << 40, int64_t{1} << 40}; }
  void write(std::byte*, std::span<const std::byte>) override {}
  void read(std::span<std::byte>, const std::byte*) override {}
  std::unique_ptr<Readback> readback(int64_t bytes) override {
    return std::make_unique<ImmediateReadback>(bytes, [](std::span<std::byte>, const std::byte*) {});
  }
  std::vector<std::shared_ptr<const CompiledKernel>> compile(std::span<const KernelSource> sources) override {
    for (const KernelSource& source : sources) kernels_.emplace(source.name, source);
    return std::vector<std::shared_ptr<const CompiledKernel>>(sources.size());
  }
  void launch(const CompiledKernel&, const LaunchShape&, std::span<const std::byte>) override {}
  Launch product(const Product&, const void*, const void*, void*, void*) override {
    return [] {};
  }
  Launch record(std::vector<Launch>) override {
    return [] {};
  }
  void synchronize() override {}

  // By name.
  const std::map<std::string, KernelSource>& kernels() const { return kernels_; }

 private:
  GpuKind kind_;
  std::map<std::string, KernelSource> kernels_;
};

}  // namespace nf::cuda
