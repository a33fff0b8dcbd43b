// Composites become primitives, reductions take the two forms of loops, sums of gradients join their kernels.
#include <doctest/doctest.h>

#include "passes/rewriter.h"
#include "tests/passes/passes_support.h"
#include "tests/support/graphs.h"

using namespace nf;

namespace {

bool none(const Graph&, const Node&) { return false; }
bool all(const Graph&, const Node&) { return true; }

// Every reduction is over the last axis alone or over leading axes.
bool is_canonical(const Graph& graph) {
  const std::vector<bool> live = live_nodes(graph);
  for (int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    if (!live[static_cast<size_t>(i)] || kind(node.op) != OpKind::reduce) continue;
    const Shape& axes = node.attributes.list("axes");
    const int last = graph.type(node.inputs[0]).shape.rank() - 1;
    if (axes.rank() == 1 && axes[0] == last) continue;
    for (int axis = 0; axis < axes.rank(); ++axis)
      if (axes[axis] != axis || axis == last) return false;
  }
  return true;
}

struct Sum {
  Graph graph;
  Value s = state(graph, "s", DType::f32, {8, 4});
  Value a = input(graph, "a", DType::f32, {8, 16}), b = input(graph, "b", DType::f32, {16, 4});
  Value product = matmul(a, b);
};

test::Bindings sum_inputs() {
  return {{"a", test::random_tensor({8, 16}, 1)}, {"b", test::random_tensor({16, 4}, 2)}};
}

}  // namespace

TEST_CASE("lower: without kernels nothing composite is left, and the meaning stays") {
  for (const std::string variant : {"gqa", "ngpt", "mla"}) {
    CAPTURE(variant);
    const auto step = test::tiny_step(variant, 1);
    const GraphPtr lowered = lower(*step, none);
    verify(*lowered);
    CHECK(is_canonical(*lowered));
    for (int32_t i = 0; i < lowered->size(); ++i) CHECK(kind(lowered->node(i).op) != OpKind::composite);
    test::Bindings state;
    for (int32_t i = 0; i < step->size(); ++i)
      if (const Node& node = step->node(i); node.op == Op::state)
        state[node.attributes.text("name")] = test::random_uniform(node.outputs[0].shape, 40 + i, -0.5, 0.5);
    const test::Bindings inputs = {{"ids", test::random_integers({2, 16}, 1, 0, 63)},
                                   {"targets", test::random_integers({2, 16}, 2, 0, 63)}};
    test::Bindings expected = state, got = state;
    reference::evaluate(*step, inputs, expected);
    reference::evaluate(*lowered, inputs, got);
    for (const auto& [name, tensor] : expected) {
      CAPTURE(name);
      CHECK(test::relative_error(got.at(name), tensor) < 1e-10);
    }
  }
}

TEST_CASE("lower: reductions over any axes take one of two forms") {
  const Shape shape = {3, 1, 4, 5, 2};
  for (uint32_t bits = 1; bits < 32; ++bits) {
    Shape axes;
    for (int axis = 0; axis < 5; ++axis)
      if ((bits >> axis & 1U) != 0) axes.push_back(axis);
    CAPTURE(fmt::format("{}", axes));
    Graph graph;
    const Value x = input(graph, "x", DType::f32, shape);
    graph.output("sum", reduce_sum(x, axes));
    graph.output("max", reduce_max(x, axes));
    const GraphPtr lowered = lower(graph, all);
    verify(*lowered);
    CHECK(is_canonical(*lowered));
    const test::Bindings inputs = {{"x", test::random_tensor(shape, bits)}};
    const auto expected = test::run_reference(graph, inputs), got = test::run_reference(*lowered, inputs);
    CHECK(test::largest_error(got[0], expected[0]) < 1e-13);
    CHECK(test::largest_error(got[1], expected[1]) == 0);
  }
}

TEST_CASE("lower: a product that is added to its state accumulates there") {
  for (const bool state_first : {true, false}) {
    Sum sum;
    assign(sum.s, state_first ? sum.s + sum.product : sum.product + sum.s);
    const GraphPtr lowered = lower(sum.graph, all);
    verify(*lowered);
    CHECK(test::count(*lowered, Op::add) == 0);
    const Node& product = test::only(*lowered, Op::matmul);
    REQUIRE(product.inputs.size() == 3);
    CHECK(lowered->node(product.inputs[2]).op == Op::state);
    CHECK(product.attributes.integer("accumulate") == 1);
  }
}

TEST_CASE("lower: gradients of weights, embeddings and losses accumulate, in every compute type") {
  for (const DType compute : {DType::f32, DType::bf16}) {
    CAPTURE(name(compute));
    const Plan planned = plan(*test::tiny_step("gqa", 1, compute, true), *cpu_device(1));
    for (const Op op : {Op::embedding_backward, Op::linear_cross_entropy_backward})
      CHECK(test::only(*planned.graph, op).attributes.integer("accumulate") == 1);
    for (const Plan::Step& step : planned.steps) {
      const Node& node = planned.graph->node(step.node);
      if (node.op != Op::matmul) continue;
      const bool is_weight_gradient = node.backward && node.attributes.integer("transpose_a") != 0;
      if (is_weight_gradient) CHECK(node.attributes.integer("accumulate") == 1);
    }
  }
}

TEST_CASE("lower: a sum, a product or an old state that something else reads stays apart") {
  const auto check = [](Sum& sum) {
    test::Bindings state = {{"s", test::random_tensor({8, 4}, 3)}}, expected = state;
    const auto outputs = test::run_on(cpu_device(1), sum.graph, sum_inputs(), state);
    const auto exact = reference::evaluate(sum.graph, sum_inputs(), expected);
    CHECK(test::relative_error(state.at("s"), expected.at("s")) < 1e-6);
    for (size_t i = 0; i < outputs.size(); ++i) CHECK(test::relative_error(outputs[i], exact[i]) < 1e-6);
  };
  SUBCASE("the sum") {
    Sum sum;
    const Value total = sum.s + sum.product;
    assign(sum.s, total);
    sum.graph.output("twice", total * 2.0);
    CHECK(test::count(*lower(sum.graph, all), Op::add) == 1);
    check(sum);
  }
  SUBCASE("the product") {
    Sum sum;
    assign(sum.s, sum.s + sum.product);
    sum.graph.output("twice", sum.product * 2.0);
    CHECK(test::count(*lower(sum.graph, all), Op::add) == 1);
    check(sum);
  }
  SUBCASE("the old state, in a loop") {
    Sum sum;
    assign(sum.s, sum.s + sum.product);
    sum.graph.output("twice", sum.s * 2.0);
    check(sum);
  }
  SUBCASE("the old state, late") {
    Sum sum;
    assign(sum.s, sum.s + sum.product);
    sum.graph.output("late", matmul(sum.s, matmul(sum.product, sum.a, {.transpose_a = true})));
    check(sum);
  }
}

TEST_CASE("lower: the loss comes from its backward kernel where one runs anyway") {
  const auto step = test::tiny_step("gqa", 1);
  CHECK(test::count(*lower(*step, all), Op::linear_cross_entropy) == 0);
  CHECK(test::count(*lower(*step, all), Op::linear_cross_entropy_backward) == 1);

  Graph graph;  // here the gradient depends on the loss
  const Value hidden = input(graph, "hidden", DType::f32, {8, 4}),
              weight = input(graph, "w", DType::f32, {6, 4});
  const Value losses = linear_cross_entropy(hidden, weight, input(graph, "targets", DType::i32, {8}));
  const Values wrt = {hidden};
  graph.output("loss", sum(losses * losses));
  graph.output("dh", gradients(sum(losses * losses), wrt)[0]);
  CHECK(test::count(*lower(graph, all), Op::linear_cross_entropy) == 1);
}
