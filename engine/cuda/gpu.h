// What the CUDA backend needs of a GPU: memory, kernels made from source text, matrix products, and one
// stream on which everything happens in the order it was asked for.
//
// There are two: the real one (gpu_real.cpp, over the CUDA runtime, NVRTC and cuBLASLt), and the tests' one,
// which compiles the same kernel sources for the host and runs their threads one after another
// (tests/cuda/emulator.h). Everything of the backend above this interface is the same for both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/product.h"
#include "nf/device.h"

namespace nf::cuda {

// A kernel as text: CUDA C++ that includes nothing but the files of engine/cuda/kernels, by their bare names.
// Its entry point is
//   extern "C" __global__ void NAME(const __grid_constant__ PARAMS params)
// and everything else of it stands in a namespace of its own, so that several texts can be compiled as one.
struct KernelSource {
  std::string name;    // of the entry point; equal names mean equal texts
  std::string params;  // the type of its parameter, a plain struct of at most Gpu::kMostParams bytes
  std::string text;
};

struct LaunchShape {
  uint32_t grid_x = 1, grid_y = 1, grid_z = 1;
  uint32_t threads = 1;       // per block
  uint32_t shared_bytes = 0;  // dynamic shared memory per block
};

// What kernels are chosen by, where one serves some GPUs better than another.
struct GpuKind {
  int capability = 80;  // ten times the compute capability: 90 for sm_90
  int processors = 1;   // streaming multiprocessors
};

// A kernel that is ready to be launched on the GPU that made it.
class CompiledKernel {
 public:
  virtual ~CompiledKernel() = default;
};

class Gpu {
 public:
  // Bytes of a kernel's parameter (since CUDA 12.1).
  static constexpr size_t kMostParams = 32764;
  // Scratch that every product may use.
  static constexpr int64_t kProductWorkspace = 32 << 20;

  virtual ~Gpu() = default;

  virtual GpuKind kind() const = 0;

  // Device memory, zeroed, aligned to 256 bytes. Throws Error when there is not enough.
  virtual Buffer allocate(int64_t bytes) = 0;
  // Memory of the host's, zeroed, that kernels can write; the host sees it after it has waited.
  virtual Buffer allocate_shared(int64_t bytes) = 0;
  virtual DeviceMemory memory() = 0;  // of the whole GPU, now
  // Copies between host and device in the stream's order. `from` and `to` may be used again when they return.
  virtual void write(std::byte* to, std::span<const std::byte> from) = 0;
  virtual void read(std::span<std::byte> to, const std::byte* from) = 0;
  virtual std::unique_ptr<Readback> readback(int64_t bytes) = 0;

  // Compiles kernels, or takes them from the cache on disk; one result per source. Throws Error with the
  // compiler's words.
  virtual std::vector<std::shared_ptr<const CompiledKernel>> compile(
      std::span<const KernelSource> sources) = 0;
  // Appends a launch to the stream.
  virtual void launch(const CompiledKernel& kernel, const LaunchShape& shape,
                      std::span<const std::byte> params) = 0;
  // Whether product() can do it: both operands f32 and so the result, or both bf16 and the result either; one
  // of the operands' two strides 1 (f32 operands are multiplied as such: no TF32).
  static bool multiplies(const Product& product);
  // The product of matrices at these addresses, its algorithm chosen now. `workspace` holds kProductWorkspace
  // bytes of the device's memory, at a multiple of 256.
  virtual Launch product(const Product& product, const void* a, const void* b, void* c, void* workspace) = 0;

  // One launch for many: what they put on the stream is recorded once, here, and replayed as a whole. Each of
  // them must have run before.
  virtual Launch record(std::vector<Launch> launches) = 0;
  // Waits for everything on the stream; throws Error if anything of it failed.
  virtual void synchronize() = 0;
};

// The CUDA backend on the GPU that `open` gives; it is called once, when memory is first asked for: planning
// needs none.
std::shared_ptr<const Device> gpu_device(std::function<std::shared_ptr<Gpu>()> open);

}  // namespace nf::cuda
