// How fast attention runs, against the peak of the same products measured in the same run.
//   attention_bench [threads] [part of a shape's name] [f32|bf16]
// With one thread times are its processor time, so that other work on the machine disturbs little.
// A line per shape: milliseconds of forward, backward and both, GFLOP/s of the visible scores alone (4 and 10
// times d per score), and that as a share of the peak: VDPBF16PS for bf16 where the CPU has it, else f32 FMA.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include "base/parallel.h"
#include "base/philox.h"
#include "cpu/attention.h"
#include "cpu/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using namespace nf;
using namespace nf::cpu;

clockid_t g_clock = CLOCK_MONOTONIC;

double seconds() {
  timespec now{};
  clock_gettime(g_clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Shortest of several runs, after one that warms up.
template <typename Body>
double shortest(Body body) {
  body();
  double best = 1e30;
  const double begin = seconds();
  for (int i = 0; i < 3 || (i < 200 && seconds() - begin < 0.6); ++i) {
    const double start = seconds();
    body();
    best = std::min(best, seconds() - start);
  }
  return best;
}

constexpr int64_t kSpins = 2'000'000;
constexpr int kSums = 16;  // independent sums: more than the latency of an addition hides

#if defined(__x86_64__)
[[gnu::target("avx512f,avx512bf16")]] float spin_bf16() {
  __m512 sum[kSums];
  for (auto& s : sum) s = _mm512_setzero_ps();
  auto x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f803f80));
  for (int64_t i = 0; i < kSpins; ++i) {
#pragma GCC unroll 16
    for (auto& s : sum) s = _mm512_dpbf16_ps(s, x, x);
    asm volatile("" : "+v"(x));
  }
  for (int i = 1; i < kSums; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  return sum[0][0];
}

[[gnu::target("avx512f")]] float spin_avx512() {
  __m512 sum[kSums];
  for (auto& s : sum) s = _mm512_setzero_ps();
  __m512 x = _mm512_set1_ps(1.0F);
  for (int64_t i = 0; i < kSpins; ++i) {
#pragma GCC unroll 16
    for (auto& s : sum) s = _mm512_fmadd_ps(x, x, s);
    asm volatile("" : "+v"(x));
  }
  for (int i = 1; i < kSums; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  return sum[0][0];
}

[[gnu::target("avx2,fma")]] float spin_avx2() {
  __m256 sum[12];
  for (auto& s : sum) s = _mm256_setzero_ps();
  __m256 x = _mm256_set1_ps(1.0F);
  for (int64_t i = 0; i < kSpins; ++i) {
#pragma GCC unroll 12
    for (auto& s : sum) s = _mm256_fmadd_ps(x, x, s);
    asm volatile("" : "+x"(x));
  }
  for (int i = 1; i < 12; ++i) sum[0] = _mm256_add_ps(sum[0], sum[i]);
  return sum[0][0];
}
#endif

volatile float g_sink = 0.0F;

// FLOP/s of the best instruction for this dtype on `threads` threads at once; 0 where it is not known.
double peak([[maybe_unused]] DType dtype, [[maybe_unused]] int threads) {
#if defined(__x86_64__)
  const CpuFeatures& features = cpu_features();
  float (*spin)() = nullptr;
  double flops = 0.0;
  if (dtype == DType::bf16 && features.avx512_bf16) {
    spin = spin_bf16;
    flops = 64.0 * kSums * kSpins;
  } else if (features.avx512) {
    spin = spin_avx512;
    flops = 32.0 * kSums * kSpins;
  } else if (features.avx2) {
    spin = spin_avx2;
    flops = 16.0 * 12 * kSpins;
  }
  if (spin == nullptr) return 0.0;
  const double time = shortest([&] { parallel_for(threads, threads, [&](int64_t) { g_sink = spin(); }); });
  return flops * threads / time;
#else
  return 0.0;
#endif
}

struct Buffer {
  std::vector<char> memory;
  TensorView view;

  Buffer(const Shape& shape, DType dtype, uint64_t stream)
      : memory(static_cast<size_t>(shape.elements() * size_of(dtype))),
        view{memory.data(), dtype, shape, dense_strides(shape)} {
    for (int64_t i = 0; i < shape.elements(); ++i) {
      const float x = 2.0F * philox_uniform(philox_word(static_cast<uint64_t>(i), stream, {1, 2})) - 1.0F;
      if (dtype == DType::f32)
        view.as<float>()[i] = x;
      else
        view.as<bf16>()[i] = to_bf16(x);
    }
  }
};

int64_t visible_scores(const AttentionConfig& c) {
  int64_t count = 0;
  for (int64_t i = 0; i < c.queries; ++i) {
    const int64_t position = i + c.keys - c.queries;
    const int64_t last = c.causal || c.window > 0 ? position + 1 : c.keys;
    count += last - (c.window > 0 ? std::max<int64_t>(0, position - c.window + 1) : 0);
  }
  return count * c.batch * c.heads;
}

struct Shapes {
  const char* name;
  int64_t batch, queries, keys, heads, kv_heads, width, window;
  bool causal, backward;
};

void measure(const Shapes& s, DType dtype, int threads, double peak_flops) {
  AttentionConfig c;
  c.batch = s.batch;
  c.queries = s.queries;
  c.keys = s.keys;
  c.heads = s.heads;
  c.kv_heads = s.kv_heads;
  c.key_width = c.value_width = s.width;
  c.causal = s.causal;
  c.window = s.window;
  c.scale = 1.0F / std::sqrt(static_cast<float>(s.width));
  const Shape q_shape{s.batch, s.queries, s.heads, s.width}, k_shape{s.batch, s.keys, s.kv_heads, s.width};
  Buffer q(q_shape, dtype, 1), k(k_shape, dtype, 2), v(k_shape, dtype, 3), out(q_shape, dtype, 4),
      go(q_shape, dtype, 5);
  Buffer gq(q_shape, dtype, 6), gk(k_shape, dtype, 7), gv(k_shape, dtype, 8);
  std::vector<float> lse(static_cast<size_t>(s.batch * s.heads * s.queries));
  const size_t bytes = std::max(attention_forward_workspace(c, dtype, threads),
                                attention_backward_workspace(c, dtype, threads));
  std::vector<char> workspace(bytes + 64);
  void* aligned = workspace.data() + (64 - reinterpret_cast<uintptr_t>(workspace.data()) % 64) % 64;
  AttentionInputs inputs{q.view, k.view, v.view, nullptr, nullptr, nullptr, nullptr};

  const double forward =
      shortest([&] { attention_forward(c, inputs, out.view, lse.data(), aligned, threads); });
  const double scores = static_cast<double>(visible_scores(c)), d = static_cast<double>(s.width);
  if (!s.backward) {
    const double read = static_cast<double>(k.view.bytes() + v.view.bytes());
    std::printf("%-28s %-4s forward %9.4f ms  %6.2f GB/s of keys and values\n", s.name,
                std::string(name(dtype)).c_str(), 1e3 * forward, read / forward * 1e-9);
    return;
  }
  const double backward = shortest([&] {
    attention_backward(c, inputs, out.view, lse.data(), go.view, gq.view, gk.view, gv.view, aligned, threads);
  });
  const double total = 14.0 * scores * d / (forward + backward);
  std::printf(
      "%-28s %-4s %8.3f + %8.3f = %8.3f ms  %7.1f GFLOP/s  forward %4.1f %%  backward %4.1f %%  both %4.1f "
      "%%  workspace %5.1f MB\n",
      s.name, std::string(name(dtype)).c_str(), 1e3 * forward, 1e3 * backward, 1e3 * (forward + backward),
      total * 1e-9, 100 * 4 * scores * d / forward / peak_flops,
      100 * 10 * scores * d / backward / peak_flops, 100 * total / peak_flops,
      static_cast<double>(bytes) * 1e-6);
}

constexpr Shapes kShapes[] = {
    {"T256 d32 B8 causal", 8, 256, 256, 8, 2, 32, 0, true, true},
    {"T256 d64 B8 causal", 8, 256, 256, 8, 2, 64, 0, true, true},
    {"T256 d64 B8 full", 8, 256, 256, 8, 2, 64, 0, false, true},
    {"T4096 d64 B1 causal", 1, 4096, 4096, 8, 2, 64, 0, true, true},
    {"T4096 d64 B1 window 256", 1, 4096, 4096, 8, 2, 64, 256, true, true},
    {"T1024 d128 B2 causal", 2, 1024, 1024, 8, 8, 128, 0, true, true},
    {"decode S8192 d64 H8 K2", 1, 1, 8192, 8, 2, 64, 0, true, false},
    {"decode S8192 d64 H8 K8", 1, 1, 8192, 8, 8, 64, 0, true, false},
    {"decode S131072 d64 H8 K2", 1, 1, 131072, 8, 2, 64, 0, true, false},
};

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
  const std::string_view filter = argc > 2 ? argv[2] : "";
  if (threads == 1) g_clock = CLOCK_THREAD_CPUTIME_ID;
  for (DType dtype : {DType::bf16, DType::f32}) {
    if (argc > 3 && name(dtype) != argv[3]) continue;
    const double flops = peak(dtype, threads);
    std::printf("%s peak on %d threads: %.1f GFLOP/s\n", std::string(name(dtype)).c_str(), threads,
                flops * 1e-9);
    for (const Shapes& s : kShapes)
      if (std::string_view(s.name).find(filter) != std::string_view::npos) measure(s, dtype, threads, flops);
  }
  return 0;
}
