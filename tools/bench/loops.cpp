// Loops that the compiler fuses, on arrays beyond the caches: they can be no faster than memory.
#include "nf/gradients.h"
#include "nf/ops.h"
#include "nf/optim.h"
#include "tools/bench/sections.h"

namespace nf {
namespace {

constexpr int64_t kRows = 16384, kColumns = 1024;

class LoopCase {
 public:
  explicit LoopCase(const Bench& bench) : state_(std::make_shared<State>(bench.device)) {}

  Graph& graph() { return graph_; }
  // The array `called`, filled.
  Value array(const char* called, DType dtype) {
    fill_uniform(*state_, called, {dtype, {kRows, kColumns}});
    return state(graph_, called, dtype, {kRows, kColumns});
  }
  Value gain() {
    fill_uniform(*state_, "gain", {DType::f32, {kColumns}});
    return state(graph_, "gain", DType::f32, {kColumns});
  }
  // A result in an array of its own.
  void result(const char* called, Value value) {
    assign(state(graph_, called, value.dtype(), value.shape()), value);
  }
  std::unique_ptr<Executable> compile() const { return nf::compile(graph_, state_); }

 private:
  std::shared_ptr<State> state_;
  Graph graph_;
};

void residual_rms_norm(LoopCase& c) {
  const Value h = c.array("h", DType::f32), sum = h + c.array("a", DType::bf16);
  assign(h, sum);
  c.result("y", cast(rms_norm(sum, 1e-6, c.gain()), DType::bf16));
}

void swiglu(LoopCase& c) {
  c.result("y", cast(silu(c.array("gate", DType::bf16)) * c.array("up", DType::bf16), DType::bf16));
}

// h = normalize(h + alpha (normalize(a) - h)), Loshchilov et al., arXiv 2410.01131
void ngpt_update(LoopCase& c) {
  const Value h = c.array("h", DType::f32);
  const Value next = l2_normalize(lerp(h, l2_normalize(c.array("a", DType::bf16)), c.gain()));
  assign(h, next);
  c.result("y", cast(next, DType::bf16));
}

void adamw(LoopCase& c) {
  const TrainedParameter parameter{
      .name = "w", .weight = c.array("w", DType::f32), .gradient = c.array("g", DType::f32), .decay = true};
  const auto scalar = [&](const char* called) { return input(c.graph(), called, DType::f32, {}); };
  const OptimizerInputs inputs{scalar("learning_rate"), scalar("step"), scalar("gradient_scale")};
  const OptimizerUpdate update = optimizer_update(std::span(&parameter, 1), {}, inputs);
  c.result("w@bf16", cast(update.weights[0], DType::bf16));
}

// The gradients with regard to `inputs`, from the gradient of y as bf16.
Values backward(LoopCase& c, Value y, const Values& inputs) {
  const Value dy = cast(c.array("dy", DType::bf16), DType::f32);
  return gradients(reduce_sum(cast(y, DType::f32) * dy, {0, 1}), inputs);
}

void rms_norm_backward(LoopCase& c) {
  const Value x = c.array("h", DType::f32), gain = c.gain(), dh = c.array("dh", DType::f32);
  const Values gradient = backward(c, rms_norm(x, 1e-6, gain), {x, gain});
  assign(dh, dh + gradient[0]);
  c.result("dgain", gradient[1]);
}

void swiglu_backward(LoopCase& c) {
  const Value gate = c.array("gate", DType::bf16), up = c.array("up", DType::bf16);
  const Values gradient = backward(c, silu(gate) * up, {gate, up});
  c.result("dgate", cast(gradient[0], DType::bf16));
  c.result("dup", cast(gradient[1], DType::bf16));
}

void ngpt_update_backward(LoopCase& c) {
  const Value h = c.array("h", DType::f32), a = c.array("a", DType::bf16), alpha = c.gain();
  const Values gradient = backward(c, l2_normalize(lerp(h, l2_normalize(a), alpha)), {h, a, alpha});
  c.result("dh", gradient[0]);
  c.result("da", cast(gradient[1], DType::bf16));
  c.result("dalpha", gradient[2]);
}

// bytes: of an element, those of each array that has to be read and of each that has to be written.
constexpr struct {
  const char* name;
  void (*build)(LoopCase& c);
  int bytes;
} kLoops[] = {
    {"residual + RMSNorm", residual_rms_norm, 4 + 2 + 4 + 2},
    {"SwiGLU", swiglu, 2 + 2 + 2},
    {"nGPT's update", ngpt_update, 4 + 2 + 4 + 2},
    {"RMSNorm, backward", rms_norm_backward, 4 + 2 + 4 + 4},
    {"SwiGLU, backward", swiglu_backward, 3 * 2 + 2 * 2},
    {"nGPT's update, backward", ngpt_update_backward, 4 + 2 + 2 + 4 + 2},
    // The norm for clipping has to be known first, so the gradient is read twice.
    {"AdamW, with clipping and a bf16 copy", adamw, 4 + 4 * 4 + 3 * 4 + 2},
};

}  // namespace

void bench_loops(const Bench& bench, BenchReport& report) {
  report.section("loops", fmt::format("fused by the compiler, arrays [{}, {}]", kRows, kColumns),
                 {{.key = "ms", .title = "ms", .digits = 2},
                  {.key = "gb_per_second", .title = "GB/s"},
                  {.key = "share_of_copy", .title = "% of copy", .scale = 100}});
  MemoryCopy memory(bench);
  for (const auto& loop : kLoops) {
    LoopCase c(bench);
    loop.build(c);
    const std::unique_ptr<Executable> executable = c.compile();
    for (const char* scalar : {"learning_rate", "step", "gradient_scale"}) {
      const float one = 1e-3F;
      if (executable->has_input(scalar)) executable->set(scalar, std::span(&one, 1));
    }
    const Timing timing = measure(
        bench, [&] { executable->run(); }, [&] { return memory.bytes_per_second(); });
    const double rate = static_cast<double>(loop.bytes * kRows * kColumns) / timing.seconds;
    report.row(loop.name, "", {timing.seconds * 1e3, rate * 1e-9, rate / timing.yardstick});
  }
}

}  // namespace nf
