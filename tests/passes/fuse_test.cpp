// What becomes one loop, that loops obey their contract, and that fusing keeps the meaning.
#include <doctest/doctest.h>

#include "graph/loop.h"
#include "tests/passes/passes_support.h"
#include "tests/support/graphs.h"

using namespace nf;
using test::only;

namespace {

std::string steps_of(Value value) {
  value.graph->output("value", value);
  return test::steps_of(plan(*value.graph, *cpu_device(1)));
}

const std::string kOneLoop = "loop";

// A loop that computes nothing: it only moves what it reads.
bool is_copy(const Node& loop) {
  const Graph& body = *loop.attributes.body("body");
  bool reads = false;
  for (int32_t i = 0; i < body.size(); ++i) {
    const OpKind k = kind(body.node(i).op);
    if (k == OpKind::elementwise || k == OpKind::reduce) return false;
    reads = reads || body.node(i).op == Op::input;
  }
  return reads;
}

}  // namespace

TEST_CASE("fuse: an RMSNorm with its gain and casts is one loop") {
  Graph graph;
  const Value x = input(graph, "x", DType::bf16, {2, 8, 32});
  const Value gain = input(graph, "gain", DType::f32, {32});
  CHECK(steps_of(cast(rms_norm(x, 1e-6, gain), DType::bf16)) == kOneLoop);
}

TEST_CASE("fuse: softmax is one loop") {
  Graph graph;
  CHECK(steps_of(softmax(input(graph, "x", DType::f32, {4, 32}))) == kOneLoop);
}

TEST_CASE("fuse: the middle of a SwiGLU is one loop") {
  Graph graph;
  const Value gate = input(graph, "gate", DType::bf16, {16, 64}),
              up = input(graph, "up", DType::bf16, {16, 64});
  CHECK(steps_of(cast(silu(gate) * up, DType::bf16)) == kOneLoop);
}

TEST_CASE("fuse: the gradients of a SwiGLU start from its narrow operands, not from what was widened") {
  Graph graph;
  const Value gate = input(graph, "gate", DType::bf16, {64, 32}),
              up = input(graph, "up", DType::bf16, {64, 32}),
              weight = input(graph, "weight", DType::bf16, {32, 32});
  const Value left = matmul(gate, weight), right = matmul(up, weight);
  const Value wide = cast(left, DType::f32);
  const Value middle = cast(wide * sigmoid(wide) * cast(right, DType::f32), DType::bf16);
  const Value loss = sum(cast(matmul(middle, weight), DType::f32));
  graph.output("loss", loss);
  const Values wrt{left, right};
  for (const Value& gradient : gradients(loss, wrt)) graph.output("gradient", gradient);
  const GraphPtr loops = test::fused(graph);
  for (int32_t i = 0; i < loops->size(); ++i)
    if (loops->node(i).op == Op::loop)
      for (const TensorType& output : loops->node(i).outputs)
        CHECK((output.dtype == DType::bf16 || output.shape.elements() < 64 * 32));
}

TEST_CASE("fuse: nGPT's queries, rotated, normalised and scaled, are one loop without copies") {
  Graph graph;
  const Value flat = input(graph, "flat", DType::bf16, {2, 8, 4 * 16});
  const Value cos = input(graph, "cos", DType::f32, {8, 16}), sin = input(graph, "sin", DType::f32, {8, 16});
  const Value scale = input(graph, "scale", DType::f32, {4 * 16});
  const Value q = rope(reshape(flat, {2, 8, 4, 16}), cos, sin);
  CHECK(steps_of(cast(l2_normalize(q) * reshape(scale, {4, 16}), DType::bf16)) == kOneLoop);
}

TEST_CASE("fuse: nGPT's move along the sphere is one loop") {
  Graph graph;
  const Value h = input(graph, "h", DType::f32, {2, 8, 32}),
              proposal = input(graph, "p", DType::bf16, {2, 8, 32});
  const Value rate = input(graph, "rate", DType::f32, {32});
  CHECK(steps_of(l2_normalize(lerp(l2_normalize(h), l2_normalize(proposal), rate))) == kOneLoop);
}

TEST_CASE("fuse: the gradients of an RMSNorm, its gain's a column reduction, are one loop") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {8, 32}), gain = input(graph, "gain", DType::f32, {32});
  const Value seed = input(graph, "seed", DType::f32, {8, 32});
  const Values wrt = {x, gain};
  const Values grads = gradients(sum(rms_norm(x, 1e-6, gain) * seed), wrt);
  graph.output("dx", grads[0]);
  graph.output("dgain", grads[1]);
  const Plan planned = plan(graph, *cpu_device(1));
  REQUIRE(test::steps_of(planned) == kOneLoop);
  const Node& loop = only(*planned.graph, Op::loop);
  int columns = 0;
  const Graph& body = *loop.attributes.body("body");
  for (int32_t i = 0; i < body.size(); ++i)
    columns += column_axes(body.node(i), loop.attributes.list("space")) > 0 ? 1 : 0;
  CHECK(columns == 1);
}

TEST_CASE("fuse: heads are split, joined and transposed for products and attention without copies") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {2, 8, 32}), w = input(graph, "w", DType::f32, {96, 32});
  const Value qkv = linear(x, w);
  const auto heads = [&](int part) { return reshape(slice(qkv, 2, 32 * part, 32), {2, 8, 4, 8}); };
  const Value out = attention(heads(0), heads(1), heads(2), {});
  const Value back = matmul(reshape(out, {2, 8, 32}), w, {.transpose_b = true});
  CHECK(steps_of(transpose(back, 1, 2) * 1.5) == "matmul attention matmul loop");
}

TEST_CASE("fuse: in training steps no movement takes a step but for the joins of wider heads") {
  // diff joins the pairs of heads; mla the two parts of queries and keys, and their gradients.
  const std::unordered_map<std::string, int> concats_per_layer = {{"diff", 2}, {"mla", 5}};
  for (const std::string variant : test::kVariants)
    for (const DType compute : {DType::f32, DType::bf16}) {
      CAPTURE(variant);
      CAPTURE(name(compute));
      constexpr int kLayers = 2;
      const Plan planned = plan(*test::tiny_step(variant, kLayers, compute), *cpu_device(1));
      int concats = 0, copies = 0, others = 0;
      for (const Plan::Step& step : planned.steps) {
        const Node& node = planned.graph->node(step.node);
        if (node.op == Op::concat)
          ++concats;
        else if (kind(node.op) == OpKind::movement)
          ++others;
        else if (node.op == Op::loop && is_copy(node))
          ++copies;
      }
      const auto known = concats_per_layer.find(variant);
      CHECK(concats <= (known == concats_per_layer.end() ? 0 : known->second * kLayers));
      CHECK(copies == 0);
      CHECK(others == 0);
    }
}

TEST_CASE("fuse: loops obey their contract, fused or not") {
  const auto device = cpu_device(1);
  for (const std::string variant : test::kVariants)
    for (const bool enabled : {true, false}) {
      CAPTURE(variant);
      CAPTURE(enabled);
      const Plan planned = plan(*test::tiny_step(variant), *device, {.fuse = enabled});
      verify(*planned.graph);
      for (int32_t i = 0; i < planned.graph->size(); ++i) {
        const Node& node = planned.graph->node(i);
        if (node.op == Op::loop) CHECK_NOTHROW(verify_loop(*planned.graph, node));
        CHECK(kind(node.op) != OpKind::elementwise);
        CHECK(kind(node.op) != OpKind::reduce);
      }
    }
}

TEST_CASE("fuse: switched off, each op is a loop of its own") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {4, 8});
  graph.output("y", exp(x) * x + 1.0);
  CHECK(test::steps_of(plan(graph, *cpu_device(1), {.fuse = false})) == "loop loop loop");
  CHECK(test::steps_of(plan(graph, *cpu_device(1))) == kOneLoop);
}

TEST_CASE("fuse: a value that a loop and a product read is computed once and kept") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {4, 8}), w = input(graph, "w", DType::f32, {8, 8});
  const Value normed = rms_norm(x, 1e-6);
  graph.output("y", matmul(normed, w) + normed);
  const Plan planned = plan(graph, *cpu_device(1));
  CHECK(test::steps_of(planned) == "loop matmul loop");
}

TEST_CASE("fuse: the meaning stays") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {3, 5, 8}), gain = input(graph, "gain", DType::f32, {8});
  const Values wrt = {x, gain};
  const Value y = softmax(rms_norm(transpose(x, 0, 1), 1e-6, gain));
  const Values grads = gradients(sum(y * y), wrt);
  graph.output("y", y);
  graph.output("dx", grads[0]);
  graph.output("dgain", grads[1]);
  const test::Bindings inputs = {{"x", test::random_tensor({3, 5, 8}, 1)},
                                 {"gain", test::random_tensor({8}, 2)}};
  const auto expected = test::run_reference(graph, inputs),
             got = test::run_reference(*test::fused(graph), inputs);
  for (size_t i = 0; i < expected.size(); ++i) CHECK(test::relative_error(got[i], expected[i]) < 1e-12);
}
