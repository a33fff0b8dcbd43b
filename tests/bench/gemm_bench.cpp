// Speed of the CPU matrix product on the shapes of training and decoding.
//
//   gemm_bench [threads] [seconds per shape]
//
// One line per shape: GFLOP/s of the best run and its share of the peak, which is measured beside it
// (register-only arithmetic on as many threads); for products bound by memory, GB/s of the weights and its
// share of the bandwidth at which the same threads sum an array of that size. With OpenBLAS and oneDNN at
// hand their figures follow.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "cpu/gemm.h"

#if defined(NF_BENCH_OPENBLAS) && __has_include(<cblas-openblas.h>)
#include <cblas-openblas.h>
#endif
#if defined(NF_BENCH_ONEDNN) && __has_include(<dnnl.hpp>)
#include <dnnl.hpp>
#endif

namespace {

using namespace nf;
using namespace nf::cpu;

enum class Kind { forward, input_gradient, weight_gradient };

struct Case {
  const char* label;
  Kind kind;
  DType dtype, c_dtype;
  int64_t batch, m, n, k;
};

const std::vector<Case> kCases{
    {"forward x W^T", Kind::forward, DType::bf16, DType::f32, 1, 2048, 1024, 256},
    {"forward x W^T", Kind::forward, DType::bf16, DType::bf16, 1, 2048, 1024, 256},
    {"input gradient dy W", Kind::input_gradient, DType::bf16, DType::f32, 1, 2048, 256, 1024},
    {"weight gradient dy^T x", Kind::weight_gradient, DType::bf16, DType::f32, 1, 1024, 256, 2048},
    {"weight gradient dy^T x", Kind::weight_gradient, DType::bf16, DType::f32, 1, 768, 768, 8192},
    {"square", Kind::forward, DType::bf16, DType::f32, 1, 2048, 2048, 2048},
    {"square", Kind::input_gradient, DType::bf16, DType::bf16, 1, 2048, 2048, 2048},
    {"square", Kind::weight_gradient, DType::bf16, DType::f32, 1, 2048, 2048, 2048},
    {"logits", Kind::forward, DType::bf16, DType::f32, 1, 512, 32768, 384},
    {"attention scores", Kind::forward, DType::bf16, DType::f32, 96, 256, 256, 64},
    {"small", Kind::forward, DType::bf16, DType::f32, 512, 64, 64, 64},
    {"forward x W^T", Kind::forward, DType::f32, DType::f32, 1, 2048, 1024, 256},
    {"input gradient dy W", Kind::input_gradient, DType::f32, DType::f32, 1, 2048, 256, 1024},
    {"weight gradient dy^T x", Kind::weight_gradient, DType::f32, DType::f32, 1, 1024, 256, 2048},
    {"square", Kind::forward, DType::f32, DType::f32, 1, 2048, 2048, 2048},
    {"square", Kind::input_gradient, DType::f32, DType::f32, 1, 2048, 2048, 2048},
    {"square", Kind::weight_gradient, DType::f32, DType::f32, 1, 2048, 2048, 2048},
    {"decode, row of 1", Kind::forward, DType::bf16, DType::f32, 1, 1, 65536, 1024},
    {"decode, rows of 4", Kind::forward, DType::bf16, DType::f32, 1, 4, 65536, 1024},
    {"decode, row of 1", Kind::forward, DType::f32, DType::f32, 1, 1, 32768, 1024},
    {"decode, in cache", Kind::forward, DType::bf16, DType::f32, 1, 1, 1024, 1024},
    {"decode, plain W", Kind::input_gradient, DType::bf16, DType::f32, 1, 1, 65536, 1024},
};

template <typename Body>
double best_seconds(double budget, Body&& body) {
  using Clock = std::chrono::steady_clock;
  double best = 1e30;
  const auto begin = Clock::now();
  for (int run = 0; run < 3 || std::chrono::duration<double>(Clock::now() - begin).count() < budget; ++run) {
    const auto start = Clock::now();
    body();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

// Memory of small values that repeat with a long period; fresh for every case.
std::vector<char> filled(DType dtype, int64_t elements) {
  std::vector<char> bytes(static_cast<size_t>(elements * size_of(dtype)));
  for (int64_t i = 0; i < elements; ++i) {
    const float value = static_cast<float>(i * 7919 % 1009 - 504) * 0x1p-9F;
    if (dtype == DType::f32)
      reinterpret_cast<float*>(bytes.data())[i] = value;
    else
      reinterpret_cast<bf16*>(bytes.data())[i] = to_bf16(value);
  }
  return bytes;
}

double read_seconds(const std::vector<char>& bytes, int threads, double budget) {
  const auto* words = reinterpret_cast<const uint64_t*>(bytes.data());
  const auto count = static_cast<int64_t>(bytes.size() / 8);
  std::vector<uint64_t> totals(static_cast<size_t>(threads));
  volatile uint64_t sink = 0;
  return best_seconds(budget, [&] {
    parallel_for(threads, threads, [&](int64_t task) {
      uint64_t sums[8] = {};
      for (int64_t i = count * task / threads; i < count * (task + 1) / threads; ++i) sums[i % 8] += words[i];
      totals[static_cast<size_t>(task)] = std::accumulate(std::begin(sums), std::end(sums), uint64_t{0});
    });
    sink = std::accumulate(totals.begin(), totals.end(), uint64_t{0});
  });
}

std::string peers([[maybe_unused]] const GemmArgs& args, [[maybe_unused]] int threads,
                  [[maybe_unused]] double budget) {
  std::string text;
  [[maybe_unused]] const double flops = 2e-9 * static_cast<double>(args.batch) * static_cast<double>(args.m) *
                                        static_cast<double>(args.n * args.k);
#if defined(OPENBLAS_VERSION)
  if (args.a.dtype == DType::f32 && args.batch == 1) {
    openblas_set_num_threads(threads);
    const bool a_transposed = args.a.col_stride != 1, b_transposed = args.b.col_stride != 1;
    const double seconds = best_seconds(budget, [&] {
      cblas_sgemm(CblasRowMajor, a_transposed ? CblasTrans : CblasNoTrans,
                  b_transposed ? CblasTrans : CblasNoTrans, static_cast<int>(args.m),
                  static_cast<int>(args.n), static_cast<int>(args.k), 1,
                  static_cast<const float*>(args.a.data),
                  static_cast<int>(a_transposed ? args.a.col_stride : args.a.row_stride),
                  static_cast<const float*>(args.b.data),
                  static_cast<int>(b_transposed ? args.b.col_stride : args.b.row_stride), 0,
                  static_cast<float*>(args.c), static_cast<int>(args.c_row_stride));
    });
    text += fmt::format("  OpenBLAS {:.0f}", flops / seconds);
  }
#endif
#if defined(DNNL_VERSION_MAJOR)
  namespace dn = dnnl;
  const auto type = [](DType dtype) {
    return dtype == DType::f32 ? dn::memory::data_type::f32 : dn::memory::data_type::bf16;
  };
  const dn::engine engine(dn::engine::kind::cpu, 0);
  dn::stream stream(engine);
  const auto describe = [&](DType dtype, int64_t rows, int64_t columns, int64_t batch_stride,
                            int64_t row_stride, int64_t col_stride) {
    return dn::memory::desc({args.batch, rows, columns}, type(dtype),
                            dn::memory::dims{batch_stride, row_stride, col_stride});
  };
  const auto a =
      describe(args.a.dtype, args.m, args.k, args.a_batch_stride, args.a.row_stride, args.a.col_stride);
  const auto b =
      describe(args.b.dtype, args.k, args.n, args.b_batch_stride, args.b.row_stride, args.b.col_stride);
  const auto c = describe(args.c_dtype, args.m, args.n, args.c_batch_stride, args.c_row_stride, 1);
#if DNNL_VERSION_MAJOR >= 3
  const dn::matmul::primitive_desc description(engine, a, b, c);
#else
  const dn::matmul::primitive_desc description({a, b, c}, engine);
#endif
  const dn::matmul product(description);
  const dn::memory a_memory(a, engine, const_cast<void*>(args.a.data)), c_memory(c, engine, args.c);
  const dn::memory b_memory(b, engine, const_cast<void*>(args.b.data));
  const double seconds = best_seconds(budget, [&] {
    product.execute(stream,
                    {{DNNL_ARG_SRC, a_memory}, {DNNL_ARG_WEIGHTS, b_memory}, {DNNL_ARG_DST, c_memory}});
    stream.wait();
  });
  text += fmt::format("  oneDNN {:.0f}", flops / seconds);
#endif
  return text;
}

void run(const Case& test, int threads, double budget) {
  const auto& [label, kind, dtype, c_dtype, batch, m, n, k] = test;
  const std::vector<char> a = filled(dtype, batch * m * k), b = filled(dtype, batch * k * n);
  std::vector<char> c(static_cast<size_t>(batch * m * n * size_of(c_dtype)));
  GemmArgs args{.batch = batch, .m = m, .n = n, .k = k};
  args.a = {a.data(), dtype, k, 1};
  args.b = {b.data(), dtype, n, 1};
  if (kind == Kind::forward) args.b = {b.data(), dtype, 1, k};
  if (kind == Kind::weight_gradient) args.a = {a.data(), dtype, 1, m};
  args.a_batch_stride = m * k;
  args.b_batch_stride = k * n;
  args.c = c.data();
  args.c_dtype = c_dtype;
  args.c_row_stride = n;
  args.c_batch_stride = m * n;
  args.accumulate = kind == Kind::weight_gradient;

  std::vector<char> workspace(gemm_workspace(args, threads));
  const double seconds = best_seconds(budget, [&] { gemm(args, workspace.data(), threads); });
  const double gflops =
      2e-9 * static_cast<double>(batch) * static_cast<double>(m) * static_cast<double>(n * k) / seconds;
  double peak = 0;
  for (int i = 0; i < 3; ++i) peak = std::max(peak, measure_peak_gflops(dtype, threads));
  std::string line = fmt::format(
      "{:<23} {:>4} -> {:<4} {:>3} x {:>5} x {:>5} x {:>5}  {:<11} {:7.1f} GFLOP/s {:4.0f} %", label,
      name(dtype), name(c_dtype), batch, m, n, k, gemm_kernel_name(args), gflops, 100 * gflops / peak);
  if (m < 16) {
    const double rate = static_cast<double>(b.size()) * 1e-9;
    const double bandwidth = rate / read_seconds(b, threads, budget);
    line += fmt::format("  {:5.1f} GB/s of {:5.1f}", rate / seconds, bandwidth);
  }
  fmt::print("{}{}\n", line, peers(args, threads, budget));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : processor_count();
  const double budget = argc > 2 ? std::atof(argv[2]) : 0.3;
  fmt::print("{} threads; peak f32 {:.0f}, bf16 {:.0f} GFLOP/s\n", threads,
             measure_peak_gflops(DType::f32, threads), measure_peak_gflops(DType::bf16, threads));
  for (const Case& test : kCases) run(test, threads, budget);
  return 0;
}
