// Sections made of matrix products: those of linear layers, attention, and the loss.
#include <cmath>

#include "nf/gradients.h"
#include "nf/ops.h"
#include "tools/bench/sections.h"

namespace nf {
namespace {

const std::vector<BenchColumn> kRateColumns{
    {.key = "ms", .title = "ms", .digits = 3},
    {.key = "gflops", .title = "GFLOP/s"},
    {.key = "share_of_peak", .title = "% of peak", .scale = 100},
};

// A graph over states of its own, compiled.
struct Case {
  std::shared_ptr<State> state;
  Graph graph;

  explicit Case(const Bench& bench) : state(std::make_shared<State>(bench.device)) {}
  Value operand(const char* called, DType dtype, const Shape& shape) {
    fill_uniform(*state, called, {dtype, shape});
    return nf::state(graph, called, dtype, shape);
  }
  std::unique_ptr<Executable> compile() const { return nf::compile(graph, state); }
};

void add_rate(const Bench& bench, BenchReport& report, const std::string& what, DType dtype,
              Executable& executable, double flops) {
  const Timing timing = measure(
      bench, [&] { executable.run(); }, [&] { return bench.device->peak_flops(dtype); });
  const double rate = flops / timing.seconds;
  report.row(what, name(dtype), {timing.seconds * 1e3, rate * 1e-9, rate / timing.yardstick});
}

struct Layer {
  int64_t tokens, in, out;
};
constexpr Layer kLayers[] = {{2048, 256, 1024}, {1024, 768, 2048}, {2048, 2048, 2048}};

// y = x W^T; dx = dy W; dW += dy^T x, in f32.
std::unique_ptr<Executable> forward(Case& c, const Layer& l, DType dtype) {
  const Value x = c.operand("x", dtype, {l.tokens, l.in}), w = c.operand("w", dtype, {l.out, l.in});
  c.graph.output("y", matmul(x, w, {.transpose_b = true}));
  return c.compile();
}

std::unique_ptr<Executable> input_gradient(Case& c, const Layer& l, DType dtype) {
  const Value dy = c.operand("dy", dtype, {l.tokens, l.out}), w = c.operand("w", dtype, {l.out, l.in});
  c.graph.output("dx", matmul(dy, w));
  return c.compile();
}

std::unique_ptr<Executable> weight_gradient(Case& c, const Layer& l, DType dtype) {
  const Value dy = c.operand("dy", dtype, {l.tokens, l.out}), x = c.operand("x", dtype, {l.tokens, l.in});
  const Value dw = c.operand("dw", DType::f32, {l.out, l.in});
  assign(dw, dw + matmul(dy, x, {.transpose_a = true, .dtype = DType::f32}));
  return c.compile();
}

constexpr struct {
  const char* name;
  std::unique_ptr<Executable> (*build)(Case& c, const Layer& layer, DType dtype);
} kProducts[] = {{"x W^T", forward},
                 {"input gradient dy W", input_gradient},
                 {"weight gradient += dy^T x", weight_gradient}};

}  // namespace

void bench_matmul(const Bench& bench, BenchReport& report) {
  report.section("matmul", "tokens x in x out of a linear layer", kRateColumns);
  for (const DType dtype : {DType::bf16, DType::f32})
    for (const Layer& layer : kLayers)
      for (const auto& product : kProducts) {
        Case c(bench);
        const std::unique_ptr<Executable> executable = product.build(c, layer, dtype);
        add_rate(bench, report, fmt::format("{}x{}x{} {}", layer.tokens, layer.in, layer.out, product.name),
                 dtype, *executable, flops_of(*executable, "matmul"));
      }
}

namespace {

struct AttentionShape {
  int64_t batch, heads, key_heads, width, length, window;
};
constexpr AttentionShape kAttention[] = {
    {1, 8, 2, 64, 1024, 0}, {1, 8, 2, 64, 1024, 256}, {1, 8, 2, 64, 4096, 0}, {1, 8, 2, 64, 4096, 256}};
// So many that each of a GPU's processors has work.
constexpr AttentionShape kManyHeads[] = {
    {4, 16, 16, 64, 4096, 0}, {4, 16, 16, 128, 4096, 0}, {4, 16, 4, 128, 4096, 0}};

std::unique_ptr<Executable> attention_of(Case& c, const AttentionShape& s, DType dtype, bool backward) {
  const Value q = c.operand("q", dtype, {s.batch, s.length, s.heads, s.width});
  const Value k = c.operand("k", dtype, {s.batch, s.length, s.key_heads, s.width});
  const Value v = c.operand("v", dtype, {s.batch, s.length, s.key_heads, s.width});
  const double scale = 1 / std::sqrt(static_cast<double>(s.width));
  const Value y = attention(q, k, v, {.scale = scale, .window = s.window});
  if (backward) {
    const Value dy = c.operand("dy", dtype, y.shape());
    const Value wrt[] = {q, k, v};
    const Values d = gradients(sum(y * dy), wrt);
    for (size_t i = 0; i < d.size(); ++i) c.graph.output(fmt::format("d{}", i), d[i]);
  }
  c.graph.output("y", y);
  return c.compile();
}

}  // namespace

void bench_attention(const Bench& bench, BenchReport& report) {
  report.section("attention",
                 "causal, batch x heads / those of keys x width; only work that the mask leaves counts",
                 kRateColumns);
  std::vector<AttentionShape> shapes(std::begin(kAttention), std::end(kAttention));
  if (!bench.device->shares_host_memory())
    shapes.insert(shapes.end(), std::begin(kManyHeads), std::end(kManyHeads));
  for (const AttentionShape& s : shapes)
    for (const bool backward : {false, true}) {
      Case c(bench);
      const std::unique_ptr<Executable> executable = attention_of(c, s, DType::bf16, backward);
      add_rate(bench, report,
               fmt::format("{}x{}/{}x{} T {}{}, {}", s.batch, s.heads, s.key_heads, s.width, s.length,
                           s.window > 0 ? fmt::format(" window {}", s.window) : "",
                           backward ? "with backward" : "forward"),
               DType::bf16, *executable, flops_of(*executable, "attention"));
    }
}

namespace {

// The products that the loss cannot do without, as three graphs: logits, and the gradients of hidden states
// and weight.
class LossProducts {
 public:
  LossProducts(const Bench& bench, int64_t tokens, int64_t width, int64_t vocab, DType dtype) {
    const Layer head{tokens, width, vocab};
    for (size_t i = 0; i < std::size(kProducts); ++i) {
      cases_.push_back(std::make_unique<Case>(bench));
      executables_.push_back(kProducts[i].build(*cases_.back(), head, dtype));
    }
  }
  void run() {
    for (const auto& executable : executables_) executable->run();
  }
  double flops() const {
    double total = 0;
    for (const auto& executable : executables_) total += flops_of(*executable, "matmul");
    return total;
  }

 private:
  std::vector<std::unique_ptr<Case>> cases_;
  std::vector<std::unique_ptr<Executable>> executables_;
};

}  // namespace

void bench_loss(const Bench& bench, BenchReport& report) {
  constexpr int64_t kTokens = 2048, kWidth = 256, kVocab = 50304;
  constexpr DType kType = DType::bf16;
  report.section("loss", "linear cross entropy, forward + backward; GFLOP/s of its three matrix products",
                 {{.key = "ms", .title = "ms"},
                  {.key = "gflops", .title = "GFLOP/s"},
                  {.key = "share_of_peak", .title = "% of peak", .scale = 100},
                  {.key = "time_over_products", .title = "x products", .digits = 2}});
  Case c(bench);
  const Value hidden = c.operand("hidden", kType, {kTokens, kWidth});
  const Value weight = c.operand("weight", kType, {kVocab, kWidth});
  const Value targets = input(c.graph, "targets", DType::i32, {kTokens});
  const Value loss = sum(linear_cross_entropy(hidden, weight, targets));
  const Value wrt[] = {hidden, weight};
  const Values d = gradients(loss, wrt);
  c.graph.output("loss", loss);
  c.graph.output("d_hidden", d[0]);
  const Value dw = c.operand("dw", DType::f32, {kVocab, kWidth});
  assign(dw, dw + d[1]);
  const std::unique_ptr<Executable> executable = c.compile();
  std::vector<int32_t> ids(kTokens);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 7919 % kVocab);
  executable->set("targets", std::span<const int32_t>(ids));

  LossProducts products(bench, kTokens, kWidth, kVocab, kType);
  products.run();  // warms up
  double peak = 0;
  const Timing timing = measure(
      bench, [&] { executable->run(); },
      [&] {
        peak = std::max(peak, bench.device->peak_flops(kType));
        return seconds_of(*bench.device, [&] { products.run(); });
      });
  const double rate = products.flops() / timing.seconds;
  report.row(fmt::format("{} tokens, width {}, vocabulary {}", kTokens, kWidth, kVocab), name(kType),
             {timing.seconds * 1e3, rate * 1e-9, rate / peak, timing.seconds / timing.yardstick});
}

}  // namespace nf
