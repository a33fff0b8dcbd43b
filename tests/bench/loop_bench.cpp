// Fused loops on the CPU: how near they come to the speed of memory, and how much one loop saves over a pass
// per op.
//
// "of_copy" is the bytes read and written per second over those of a parallel memcpy between arrays of 64
// MiB, measured in turns with it. "saved" is the time of the same body with a loop for each node over the
// time of the fused loop.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "cpu/loop.h"
#include "nf/graph.h"
#include "nf/ops.h"

using namespace nf;

namespace {

struct FreeBytes {
  void operator()(std::byte* bytes) const { std::free(bytes); }
};

// Page-aligned memory with pages of its own, filled with small floats.
class Buffer {
 public:
  explicit Buffer(int64_t bytes) : bytes_(bytes) {
    const auto size = static_cast<size_t>((bytes + 4095) / 4096 * 4096);
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(4096, size)));
    auto* floats = reinterpret_cast<float*>(data_.get());
    for (size_t i = 0; i < size / 4; ++i) floats[i] = 0.001F * static_cast<float>(i % 1999) + 0.01F;
  }
  std::byte* data() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }

 private:
  std::unique_ptr<std::byte, FreeBytes> data_;
  int64_t bytes_;
};

double seconds_of(const auto& function) {
  const auto start = std::chrono::steady_clock::now();
  function();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The time of `a` over that of `b`, each the best of `repeats` runs taken in turns.
double ratio(const auto& a, const auto& b, int repeats) {
  double best_a = 1e9, best_b = 1e9;
  for (int i = 0; i < repeats; ++i) {
    best_a = std::min(best_a, seconds_of(a));
    best_b = std::min(best_b, seconds_of(b));
  }
  return best_a / best_b;
}

// memcpy between two large arrays, on several threads.
class Copy {
 public:
  static constexpr int64_t kBytes = int64_t{64} << 20, kPiece = int64_t{1} << 20;
  void run(int threads) const {
    parallel_for(threads, kBytes / kPiece, [&](int64_t piece) {
      std::memcpy(to_.data() + piece * kPiece, from_.data() + piece * kPiece, kPiece);
    });
  }

 private:
  Buffer from_{kBytes}, to_{kBytes};
};

// A body under construction: leaves are numbered in the order they are made.
struct Body {
  Graph graph;
  Shape space;
  std::vector<TensorType> inputs;
  std::vector<int> shares;  // per output: the input whose memory it takes, or -1

  Value leaf(const Shape& shape, DType dtype = DType::f32) {
    inputs.push_back({dtype, shape});
    return graph.add(Op::input, {},
                     {{"index", static_cast<int64_t>(inputs.size()) - 1},
                      {"dtype", static_cast<int64_t>(dtype)},
                      {"shape", shape}});
  }
  void output(Value value, int shared = -1) {
    graph.output("y" + std::to_string(shares.size()), value);
    shares.push_back(shared);
  }
};

using Build = void (*)(Body& body, int64_t rows, int64_t cols);

// A body bound to memory.
class Bound {
 public:
  Bound(const Graph& graph, const Shape& space, const std::vector<TensorView>& inputs,
        const std::vector<TensorView>& outputs, int threads)
      : kernel_(graph, space, inputs, outputs),
        workspace_(static_cast<int64_t>(cpu::LoopKernel::workspace(graph, space, threads))),
        threads_(threads) {}
  void run() const { kernel_.run(workspace_.data(), threads_); }
  std::string describe() const { return kernel_.describe(); }

 private:
  cpu::LoopKernel kernel_;
  Buffer workspace_;
  int threads_;
};

struct Tensors {
  std::vector<Buffer> buffers;
  TensorView add(const TensorType& type) {
    buffers.emplace_back(type.bytes());
    return {buffers.back().data(), type.dtype, type.shape, dense_strides(type.shape)};
  }
};

// The same with a loop per node.
class Unfused {
 public:
  Unfused(const Body& body, int threads) {
    std::vector<TensorView> values;
    for (int32_t i = 0; i < body.graph.size(); ++i) {
      const Node& node = body.graph.node(i);
      values.push_back(tensors_.add(node.outputs[0]));
      if (node.op == Op::input) continue;
      auto& single = *graphs_.emplace_back(std::make_unique<Body>());
      Values operands;
      std::vector<TensorView> views;
      for (const ValueId input : node.inputs) {
        operands.push_back(single.leaf(body.graph.type(input).shape, body.graph.type(input).dtype));
        views.push_back(values[static_cast<size_t>(input.node)]);
      }
      single.output(single.graph.add(node.op, operands, node.attributes));
      loops_.emplace_back(single.graph, body.space, views, std::vector{values.back()}, threads);
    }
  }
  void run() const {
    for (const Bound& loop : loops_) loop.run();
  }

 private:
  Tensors tensors_;
  std::vector<std::unique_ptr<Body>> graphs_;
  std::vector<Bound> loops_;
};

void run_body(benchmark::State& state, Build build, bool compare) {
  const int64_t rows = state.range(0), cols = state.range(1);
  const int threads = static_cast<int>(state.range(2));
  Body body;
  body.space = {rows, cols};
  build(body, rows, cols);
  Tensors tensors;
  std::vector<TensorView> inputs, outputs;
  int64_t bytes = 0;
  for (const TensorType& type : body.inputs) {
    inputs.push_back(tensors.add(type));
    bytes += type.bytes();
  }
  for (size_t o = 0; o < body.shares.size(); ++o) {
    const TensorType& type = body.graph.type(body.graph.outputs()[o].value);
    outputs.push_back(body.shares[o] < 0 ? tensors.add(type) : inputs[static_cast<size_t>(body.shares[o])]);
    bytes += type.bytes();
  }
  const Bound loop(body.graph, body.space, inputs, outputs, threads);
  if (std::getenv("NF_VERBOSE") != nullptr) std::fputs(loop.describe().c_str(), stderr);
  for (auto _ : state) loop.run();
  state.counters["GB/s"] =
      benchmark::Counter(static_cast<double>(bytes) * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  if (compare) {
    const Unfused unfused(body, threads);
    state.counters["saved"] = ratio([&] { unfused.run(); }, [&] { loop.run(); }, 30);
  } else {
    const Copy copy;
    state.counters["of_copy"] = ratio([&] { copy.run(threads); }, [&] { loop.run(); }, 12) *
                                static_cast<double>(bytes) / static_cast<double>(2 * Copy::kBytes);
  }
}

// ---- the bodies ----

void copy(Body& b, int64_t rows, int64_t cols) { b.output(b.leaf({rows, cols})); }

void rms_norm_gain(Body& b, int64_t rows, int64_t cols) {
  b.output(rms_norm(b.leaf({rows, cols}), 1e-6, b.leaf({1, cols})));
}

void rms_norm_bf16(Body& b, int64_t rows, int64_t cols) {
  b.output(cast(rms_norm(b.leaf({rows, cols}), 1e-6, b.leaf({1, cols})), DType::bf16));
}

// The gradient of y = x r g: with respect to x, and the gain's as a column reduction.
void rms_norm_backward(Body& b, int64_t rows, int64_t cols) {
  const Value x = b.leaf({rows, cols}), dy = b.leaf({rows, cols}), gain = b.leaf({1, cols});
  const Value r = rsqrt(mean(x * x, {-1}) + 1e-6);
  const Value xhat = x * r, dh = dy * gain;
  b.output((dh - xhat * mean(dh * xhat, {-1})) * r);
  b.output(reduce_sum(dy * xhat, {0}));
}

void swiglu(Body& b, int64_t rows, int64_t cols) {
  const Value gate = b.leaf({rows, cols}), up = b.leaf({rows, cols});
  b.output(silu(gate) * up);
}

void adamw(Body& b, int64_t rows, int64_t cols) {
  const Shape shape = {rows, cols};
  const Value p = b.leaf(shape), g = b.leaf(shape), m = b.leaf(shape), v = b.leaf(shape);
  const Value rate = b.leaf({1, 1}), fix_m = b.leaf({1, 1}), fix_v = b.leaf({1, 1});
  const Value new_m = m * 0.9 + g * 0.1, new_v = v * 0.95 + g * g * 0.05;
  const Value update = (new_m * fix_m) / (sqrt(new_v * fix_v) + 1e-8) + p * 0.1;
  b.output(p - rate * update, 0);
  b.output(new_m, 2);
  b.output(new_v, 3);
}

// nGPT: h = normalize(h + alpha (normalize(a) - h))
void ngpt_update(Body& b, int64_t rows, int64_t cols) {
  const Value h = b.leaf({rows, cols}), a = b.leaf({rows, cols}), alpha = b.leaf({1, cols});
  b.output(l2_normalize(lerp(h, l2_normalize(a), alpha)));
}

void softmax_rows(Body& b, int64_t rows, int64_t cols) { b.output(softmax(b.leaf({rows, cols}))); }

void register_body(const char* name, Build build) {
  const auto large = std::string(name) + "/large", small = std::string(name) + "/cached";
  const int threads = processor_count();
  benchmark::RegisterBenchmark(large.c_str(), run_body, build, false)
      ->Args({16384, 1024, threads})
      ->UseRealTime()
      ->MinTime(0.2);
  benchmark::RegisterBenchmark(small.c_str(), run_body, build, true)
      ->Args({128, 256, 1})
      ->Args({64, 1024, 1})
      ->UseRealTime()
      ->MinTime(0.05);
}

}  // namespace

int main(int argc, char** argv) {
  register_body("copy", copy);
  register_body("rms_norm", rms_norm_gain);
  register_body("rms_norm_bf16", rms_norm_bf16);
  register_body("rms_norm_backward", rms_norm_backward);
  register_body("swiglu", swiglu);
  register_body("adamw", adamw);
  register_body("ngpt_update", ngpt_update);
  register_body("softmax", softmax_rows);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
