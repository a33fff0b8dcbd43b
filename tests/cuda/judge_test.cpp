// What the emulator refuses, and what it must not: kernels with one fault each, and the same without it, in
// all orders of threads.
#include "tests/cuda/judge.h"

#include <doctest/doctest.h>

#include "cuda/library.h"
#include "nf/error.h"
#include "tests/cuda/emulated_gpu.h"

using namespace nf;
using namespace nf::cuda;

namespace {

constexpr uint32_t kThreads = 64;

struct Params {
  float* out;  // [4 kThreads]
};

struct Kernel {
  std::string name, body;
  std::string wrong = {};  // in the error's text; empty: it is right
  uint32_t blocks = 1;
};

// A thread is `t`, its neighbour in the other warp `far`.
KernelSource source_of(const Kernel& kernel) {
  const std::string params = kernel.name + "_params";
  return {kernel.name, params,
          fmt::format("#include \"device.cuh\"\nstruct {1} {{ float* out; }};\n"
                      "extern \"C\" __global__ void {0}(const __grid_constant__ {1} p) {{\n"
                      "  using namespace nf::cuda;\n  __shared__ float tile[64];\n  float* out = p.out;\n"
                      "  const int t = threadIdx.x, far = (t + 32) % 64, near = t ^ 1;\n{2}\n}}\n",
                      kernel.name, params, kernel.body)};
}

std::string error_of(const Launch& launch) {
  try {
    launch();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

const std::vector<Kernel> kKernels = {
    {"barrier", "tile[t] = t; __syncthreads(); out[t] = tile[far];"},
    {"no_barrier", "tile[t] = t; out[t] = tile[far];", "shared memory that"},
    {"late_write", "tile[t] = t; __syncthreads(); out[t] = tile[far]; tile[t] = 0;",
     "shared memory that another"},
    {"warp", "tile[t] = t; __syncwarp(); out[t] = tile[near];"},
    {"shuffle", "tile[t] = t; __shfl_xor_sync(~0u, t, 1); out[t] = tile[near];", "shared memory that"},
    {"warp_for_block", "tile[t] = t; __syncwarp(); out[t] = tile[far];", "shared memory that"},
    {"part",
     "tile[t] = t; nf_emulated_sync_threads(1, 64); out[t] = tile[far]; nf_emulated_sync_threads(1, 64);"},
    {"many_readers",
     "if (t == 0) tile[0] = 1; __syncthreads(); out[t] = tile[0]; __syncthreads(); tile[0] = 2;",
     "shared memory that another thread writes"},
    {"unwritten", "if (t < 63) tile[t] = t; __syncthreads(); out[t] = tile[far];", "nobody has written"},
    {"atomics", "if (t == 0) tile[0] = 0; __syncthreads(); atomicAdd(&tile[0], 1.0f);"},
    {"atomic_and_not",
     "if (t == 0) tile[0] = 0; __syncthreads(); atomicAdd(&tile[0], 1.0f); out[t] = tile[0];",
     "shared memory that another"},
    {"halves", "reinterpret_cast<bf16*>(out)[t] = to_bf16(float(t));", "", 1},
    {"global", "out[t] = t; out[far] = 1;", "global memory that another"},
    {"own_block", "out[t + 64 * blockIdx.x] = t;", "", 4},
    {"other_block", "if (t == 0) out[0] = 1;", "global memory that another", 2},
    {"read_by_other_block", "if (blockIdx.x == 0) out[t] = 1; else out[64 + t] = out[t];",
     "global memory that another", 2},
    {"vectors", "load_vector<4>(out + 4 * t);"},
    {"misaligned", "out[t] = load_vector<4>(out + 2 + 4 * (t % 8)).items[0];", "no multiple of 16"},
    {"misaligned_copy", "if (t == 0) copy_async(tile, out + 1, true);", "no multiple of 16"},
    {"returned", "if (t == 63) return; __syncthreads();", "wait for each other"},
    {"half_a_warp", "if (t % 32 < 16) __shfl_xor_sync(~0u, t, 1);", "wait for each other"},
    {"half_a_mask", "__shfl_xor_sync(0xFFFFu, t, 1);", "a collective of lanes"},
    {"apart", "if (t % 2 == 0) __syncwarp(); else __ballot_sync(~0u, true);", "different collectives"},
};

}  // namespace

TEST_CASE("emulator: what a GPU would not forgive is an error, in whatever order the threads run") {
  for (const Order order : kOrders) {
    CAPTURE(static_cast<int>(order));
    KernelLibrary library(emulated_gpu({}, order));
    std::vector<float> out(size_t{4} * kThreads);
    std::vector<Launch> launches;
    for (const Kernel& kernel : kKernels)
      launches.push_back(library.launch(source_of(kernel), {.grid_x = kernel.blocks, .threads = kThreads},
                                        Params{out.data()}));
    library.compile();
    for (size_t i = 0; i < kKernels.size(); ++i) {
      CAPTURE(kKernels[i].name);
      const std::string error = error_of(launches[i]);
      CAPTURE(error);
      CHECK(error.empty() == kKernels[i].wrong.empty());
      CHECK(error.find(kKernels[i].wrong) != std::string::npos);
    }
  }
}

TEST_CASE("emulator: a launch asks for no more than the GPU has") {
  const Kernel kernel{"frugal", "out[t % 64] = 0;"};
  const auto error = [&](GpuKind kind, const LaunchShape& shape) {
    KernelLibrary library(emulated_gpu(kind));
    std::vector<float> out(kThreads);
    const Launch launch = library.launch(source_of(kernel), shape, Params{out.data()});
    library.compile();
    return error_of(launch);
  };
  CHECK(error({.capability = 80}, {.threads = 64, .shared_bytes = 163 << 10}).empty());
  CHECK(error({.capability = 90}, {.threads = 64, .shared_bytes = 227 << 10}).empty());
  CHECK_FALSE(error({.capability = 80}, {.threads = 64, .shared_bytes = (163 << 10) + 1}).empty());
  CHECK_FALSE(error({.capability = 86}, {.threads = 64, .shared_bytes = 100 << 10}).empty());
  CHECK_FALSE(error({.capability = 90}, {.threads = 1025}).empty());
  CHECK_FALSE(error({.capability = 90}, {.grid_y = 65536, .threads = 64}).empty());
  CHECK_FALSE(error({.capability = 90}, {.grid_z = 65536, .threads = 64}).empty());
}
