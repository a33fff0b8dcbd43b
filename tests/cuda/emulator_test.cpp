// The emulator itself: collectives against what the PTX manual says of them.
#include "tests/cuda/emulator.h"

#include <doctest/doctest.h>

#include <numeric>

#include "cuda/library.h"
#include "nf/error.h"
#include "tests/cuda/emulated_gpu.h"

using namespace nf;
using namespace nf::cuda;

namespace {

struct Params {
  const void* in;
  void* out;
};

// Runs one block of `threads` threads of `body`, which sees `in` and `out`.
template <typename In, typename Out>
void run(const std::string& name, const std::string& body, uint32_t threads, const std::vector<In>& in,
         std::vector<Out>& out, const std::string& in_type, const std::string& out_type,
         uint32_t shared = 0) {
  KernelLibrary library(emulated_gpu());
  const std::string params = name + "_params";
  const KernelSource source{
      name, params,
      fmt::format(
          "#include \"tensor_core.cuh\"\nstruct {1} {{ const void* in; void* out; }};\n"
          "extern \"C\" __global__ void {0}(const __grid_constant__ {1} p) {{\n  using namespace nf::cuda;\n"
          "  const {2}* in = static_cast<const {2}*>(p.in);\n  {3}* out = "
          "static_cast<{3}*>(p.out);\n{4}\n}}\n",
          name, params, in_type, out_type, body)};
  const Launch launch =
      library.launch(source, {.threads = threads, .shared_bytes = shared}, Params{in.data(), out.data()});
  library.compile();
  launch();
}

}  // namespace

TEST_CASE("emulator: barriers order shared memory across a block") {
  std::vector<int32_t> in(96), out(96);
  std::iota(in.begin(), in.end(), 0);
  run("reverse", R"(
  __shared__ int tile[96];
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[95 - threadIdx.x];)",
      96, in, out, "int", "int");
  for (int i = 0; i < 96; ++i) CHECK(out[static_cast<size_t>(i)] == 95 - i);
}

TEST_CASE("emulator: reductions over warps and blocks") {
  std::vector<float> in(128), out(128);
  std::iota(in.begin(), in.end(), 0.0F);
  run("reduce", R"(
  __shared__ float scratch[4];
  out[threadIdx.x] = block_reduce<Sum, 128>(in[threadIdx.x], scratch) + warp_reduce<Max, 8>(in[threadIdx.x]);)",
      128, in, out, "float", "float");
  for (size_t i = 0; i < 128; ++i) CHECK(out[i] == 127 * 64 + static_cast<float>(i / 8 * 8 + 7));
}

TEST_CASE("emulator: a tensor-core product of matrices from shared memory, copied asynchronously") {
  // a [16, 16] and b^T [8, 16], both row-major; c [16, 8].
  std::vector<bf16> in(16 * 16 + 8 * 16);
  for (size_t i = 0; i < in.size(); ++i) in[i] = to_bf16(static_cast<float>(i * 7 % 23) - 11);
  std::vector<float> out(16 * 8);
  run("product", R"(
  unsigned char* shared = dynamic_shared();
  for (int i = threadIdx.x; i < 48; i += 32) copy_async(shared + 16 * i, in + 8 * i, true);
  commit_copies();
  wait_copies<0>();
  __syncthreads();
  const int lane = threadIdx.x;
  uint32_t a[4], b[4];
  load_matrices(a, shared + 32 * (lane % 16) + 16 * (lane / 16));
  load_matrices(b, shared + 512 + 32 * (lane % 8) + 16 * (lane / 8 % 2));
  float c[4] = {};
  const uint32_t b0[2] = {b[0], b[1]};
  mma_bf16(c, a, b0);
  for (int i = 0; i < 4; ++i) out[8 * (lane / 4 + i / 2 * 8) + 2 * (lane % 4) + i % 2] = c[i];)",
      32, in, out, "bf16", "float", 768);
  for (size_t i = 0; i < 16; ++i)
    for (size_t j = 0; j < 8; ++j) {
      float expected = 0;
      for (size_t k = 0; k < 16; ++k) expected += to_float(in[16 * i + k]) * to_float(in[256 + 16 * j + k]);
      CHECK(out[8 * i + j] == expected);
    }
}

TEST_CASE("emulator: a barrier that some threads never reach is an error") {
  std::vector<int32_t> in(64), out(64);
  CHECK_THROWS_AS(run("stuck", "  if (threadIdx.x < 7) __syncwarp();", 64, in, out, "int", "int"), Error);
}
