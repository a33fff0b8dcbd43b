// The emulator itself: collectives against what the PTX manual says of them.
#include "tests/cuda/emulator.h"

#include <doctest/doctest.h>

#include <cmath>
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
          "#include \"warpgroup.cuh\"\nstruct {1} {{ const void* in; void* out; }};\n"
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

namespace {

std::vector<bf16> small_integers(size_t count) {
  std::vector<bf16> result(count);
  for (size_t i = 0; i < count; ++i) result[i] = to_bf16(static_cast<float>(i * 7 % 23) - 11);
  return result;
}

// The beginning of a kernel of one warpgroup: `in` holds two tiles of 64 and of `n` rows, `width` columns
// each, one after another, which are copied into shared memory.
std::string two_tiles(int n, int width) {
  return fmt::format(R"(
  constexpr int n = {}, width = {};
  const Panels<64, width> a{{dynamic_shared()}};
  const Panels<n, width> b{{a.data + a.kBytes}};
  load_panels(a, in, width, 0, 64, width);
  load_panels(b, in + 64 * width, width, 0, n, width);
  commit_copies();
  wait_copies<0>();
  __syncthreads();
  const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
  float c[n / 8][4];)",
                     n, width);
}
constexpr const char* kStoreRows = R"(
  for (int j = 0; j < n / 8; ++j)
    for (int e = 0; e < 4; ++e) out[(row + e / 2 * 8) * n + 8 * j + column + e % 2] = c[j][e];)";
uint32_t shared_of(int n, int width) { return static_cast<uint32_t>((64 + n) * width * 2); }

}  // namespace

TEST_CASE("emulator: a warpgroup multiplies rows of shared memory by rows") {
  for (const int n : {64, 128})
    for (const int width : {64, 128}) {
      const std::vector<bf16> in = small_integers(static_cast<size_t>((64 + n) * width));
      std::vector<float> out(static_cast<size_t>(64 * n));
      run(fmt::format("rows_{}_{}", n, width), two_tiles(n, width) + R"(
  fence_shared_for_products();
  begin_products(c);
  multiply_rows<width>(c, a, 0, b);
  commit_products();
  finish_products<0>(c);)" + kStoreRows,
          128, in, out, "bf16", "float", shared_of(n, width));
      int wrong = 0;
      for (int i = 0; i < 64; ++i)
        for (int j = 0; j < n; ++j) {
          float expected = 0;
          for (int k = 0; k < width; ++k)
            expected += to_float(in[static_cast<size_t>(i * width + k)]) *
                        to_float(in[static_cast<size_t>((64 + j) * width + k)]);
          wrong += out[static_cast<size_t>(i * n + j)] != expected;
        }
      CHECK(wrong == 0);
    }
}

TEST_CASE("emulator: a warpgroup multiplies registers by columns of shared memory") {
  for (const int n : {64, 128})
    for (const int width : {64, 128}) {
      std::vector<bf16> in = small_integers(static_cast<size_t>((64 + n) * width));
      std::vector<float> out(static_cast<size_t>(64 * width));
      // The left factor's element (i, k) is i - 2 k; the product is added to what the registers hold: 5.
      run(fmt::format("columns_{}_{}", n, width), two_tiles(n, width) + R"(
  float sum[width / 8][4];
  uint32_t left[n / 16][4];
  for (int j = 0; j < n / 8; ++j)
    for (int e = 0; e < 4; ++e) c[j][e] = row + e / 2 * 8 - 2 * (8 * j + column + e % 2);
  for (int j = 0; j < width / 8; ++j)
    for (int e = 0; e < 4; ++e) sum[j][e] = 5;
  pack_left(left, c);
  fence_shared_for_products();
  begin_products(sum, left);
  multiply_columns(sum, left, b);
  commit_products();
  finish_products<0>(sum);
  for (int j = 0; j < width / 8; ++j)
    for (int e = 0; e < 4; ++e) out[(row + e / 2 * 8) * width + 8 * j + column + e % 2] = sum[j][e];)",
          128, in, out, "bf16", "float", shared_of(n, width));
      int wrong = 0;
      for (int i = 0; i < 64; ++i)
        for (int j = 0; j < width; ++j) {
          float expected = 5;
          for (int k = 0; k < n; ++k)
            expected +=
                static_cast<float>(i - 2 * k) * to_float(in[static_cast<size_t>((64 + k) * width + j)]);
          wrong += out[static_cast<size_t>(i * width + j)] != expected;
        }
      CHECK(wrong == 0);
    }
}

TEST_CASE("emulator: results of products are there when they have been waited for") {
  const std::vector<bf16> in = small_integers(128 * 64);
  std::vector<float> out(64 * 64);
  // Two groups: the first is over, the second is not.
  run("two_groups",
      two_tiles(64, 64) + R"(
  float later[8][4];
  fence_shared_for_products();
  begin_products(c, later);
  multiply_rows<width>(c, a, 0, b);
  commit_products();
  multiply_rows<width>(later, a, 0, b);
  commit_products();
  finish_products<1>(c);
  for (int j = 0; j < n / 8; ++j) c[j][3] = later[j][3];)" +
          kStoreRows,
      128, in, out, "bf16", "float", shared_of(64, 64));
  for (size_t i = 0; i < 64; ++i)
    for (size_t j = 0; j < 64; ++j) CHECK(std::isnan(out[64 * i + j]) == (i % 16 >= 8 && j % 2 == 1));
}

TEST_CASE("emulator: products that would be wrong on some GPU are errors") {
  const std::vector<bf16> in = small_integers(128 * 64);
  std::vector<float> out(64 * 64);
  const auto error_of = [&](const char* name, const std::string& body) -> std::string {
    try {
      run(name, two_tiles(64, 64) + body, 128, in, out, "bf16", "float", shared_of(64, 64));
    } catch (const Error& error) {
      return error.what();
    }
    return "none";
  };
  CHECK(error_of("no_fence", R"(
  fence_shared_for_products();
  multiply_rows<width>(c, a, 0, b);)")
            .find("no fence came after") != std::string::npos);
  CHECK(error_of("unknown_copies", R"(
  begin_products(c);
  multiply_rows<width>(c, a, 0, b);)")
            .find("no fence showed") != std::string::npos);
  CHECK(error_of("overwritten", R"(
  fence_shared_for_products();
  begin_products(c);
  multiply_rows<width>(c, a, 0, b);
  commit_products();
  __syncthreads();
  *reinterpret_cast<bf16*>(b.piece(threadIdx.x / 2, 0)) = to_bf16(99);
  finish_products<0>(c);)")
            .find("overwritten") != std::string::npos);
}

TEST_CASE("emulator: warpgroups take turns") {
  // Each thread writes its warpgroup where the turn says; turns count through both.
  std::vector<int32_t> in(1), out(8 * 128);
  run("turns", R"(
  __shared__ int turn;
  const int mine = threadIdx.x / 128, thread = threadIdx.x % 128;
  if (threadIdx.x == 0) turn = 0;
  __syncthreads();
  if (mine == 0) arrive_threads(2, 256);
  for (int i = 0; i < 4; ++i) {
    sync_threads(2 + mine, 256);
    out[turn * 128 + thread] = mine;
    sync_threads(1 + 3 * mine, 128);
    if (thread == 0) ++turn;
    arrive_threads(3 - mine, 256);
  }
  if (mine == 0) sync_threads(2, 256);)",
      256, in, out, "int", "int");
  for (size_t i = 0; i < out.size(); ++i) CHECK(out[i] == static_cast<int32_t>(i / 128 % 2));
}

TEST_CASE("emulator: barriers of some threads that would hang or mislead a GPU are errors") {
  std::vector<int32_t> in(1), out(1);
  CHECK_THROWS_AS(run("left_over", "  arrive_threads(1, 128);", 64, in, out, "int", "int"), Error);
  CHECK_THROWS_AS(
      run("two_counts", "  if (threadIdx.x < 32) arrive_threads(1, 64);\n  else sync_threads(1, 96);", 64, in,
          out, "int", "int"),
      Error);
}

TEST_CASE("emulator: a thread that ends before its copies do is an error") {
  const std::vector<bf16> in = small_integers(8 * 32);
  std::vector<float> out(1);
  const std::string copy = "  copy_async(dynamic_shared() + 16 * threadIdx.x, in + 8 * threadIdx.x, true);";
  CHECK_THROWS_AS(run("left_copies", copy, 32, in, out, "bf16", "float", 512), Error);
  run("finished_copies", copy + "  commit_copies();  wait_copies<0>();", 32, in, out, "bf16", "float", 512);
}

TEST_CASE("emulator: a ring of buffers between warpgroups") {
  // One warpgroup copies 5 tiles of 64 rows into 2 buffers, the other adds them up.
  const std::vector<bf16> in = small_integers(5 * 64 * 64);
  std::vector<float> out(64 * 64);
  run("ring", R"(
  using Tile = Panels<64, 64>;
  __shared__ uint64_t phases[Ring<2>::kPhases];
  Ring<2> ring(phases);
  if (threadIdx.x == 0) ring.begin(4);
  __syncthreads();
  if (threadIdx.x < 128) {
    for (int tile = 0; tile < 5; ++tile) {
      ring.wait_empty();
      load_panels(Tile{dynamic_shared() + ring.buffer * Tile::kBytes}, in, 64, 64 * tile, 64 * tile + 64, 64);
      ring.filled();
    }
    ring.drain();
  } else {
    const int thread = threadIdx.x - 128;
    float sums[32] = {};
    for (int tile = 0; tile < 5; ++tile) {
      ring.wait_full();
      for (int i = 0; i < 32; ++i) {
        const int row = 2 * i + thread / 64, column = thread % 64;
        const Tile from{dynamic_shared() + ring.buffer * Tile::kBytes};
        sums[i] += to_float(reinterpret_cast<const bf16*>(from.piece(row, column))[column % 8]);
      }
      ring.release();
    }
    for (int i = 0; i < 32; ++i) out[128 * i + thread] = sums[i];
  })",
      256, in, out, "bf16", "float", 2 * 64 * 64 * 2);
  for (size_t i = 0; i < 64 * 64; ++i) {
    float expected = 0;
    for (size_t tile = 0; tile < 5; ++tile) expected += to_float(in[4096 * tile + i]);
    CHECK(out[i] == expected);
  }
}

TEST_CASE("emulator: exceptions pass through a thread as through any function") {
  std::vector<int32_t> in(64), out(64);
  std::iota(in.begin(), in.end(), 0);
  run("caught", R"(
  // Where exceptions lie is memory that the threads have one after another.
  const auto thrown = [](int x) NF_UNWATCHED {
    try {
      if (x % 3 == 0) throw x;
    } catch (int caught) {
      return caught;
    }
    return 0;
  };
  const int got = thrown(in[threadIdx.x]);
  __syncthreads();
  out[threadIdx.x] = got;)",
      64, in, out, "int", "int");
  for (int i = 0; i < 64; ++i) CHECK(out[static_cast<size_t>(i)] == (i % 3 == 0 ? i : 0));

  const std::string body = R"(
  __syncthreads();
  if (in[threadIdx.x] == 40) throw in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = 1;)";
  CHECK_THROWS_AS(run("thrown", body, 64, in, out, "int", "int"), int);
  in[40] = 0;
  run("thrown", body, 64, in, out, "int", "int");
  for (int32_t x : out) CHECK(x == 1);
}
