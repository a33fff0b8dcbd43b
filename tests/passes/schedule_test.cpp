// Orders: complete, inputs first, old values of states read before they are overwritten, and few bytes alive.
#include <doctest/doctest.h>

#include "passes/rewriter.h"
#include "passes/views.h"
#include "tests/passes/passes_support.h"

using namespace nf;

namespace {

// The place of each node in the order; -1 for those that are not in it.
std::vector<int> places(const Graph& graph, const std::vector<int32_t>& order) {
  std::vector<int> place(static_cast<size_t>(graph.size()), -1);
  for (size_t i = 0; i < order.size(); ++i) {
    CHECK(place[static_cast<size_t>(order[i])] == -1);
    place[static_cast<size_t>(order[i])] = static_cast<int>(i);
  }
  return place;
}

void check_order(const Graph& graph, const std::vector<int32_t>& order) {
  const std::vector<int> place = places(graph, order);
  const std::vector<bool> live = live_nodes(graph);
  const auto at = [&](int32_t node) { return place[static_cast<size_t>(node)]; };
  std::unordered_map<int32_t, int> assigned;  // state leaf -> when
  for (int32_t effect : graph.effects())
    if (graph.node(effect).op == Op::assign) assigned[graph.node(effect).inputs[0].node] = at(effect);
  int misplaced = 0;
  for (int32_t i = 0; i < graph.size(); ++i) {
    misplaced += live[static_cast<size_t>(i)] == (at(i) >= 0) ? 0 : 1;
    if (at(i) < 0) continue;
    for (ValueId input : graph.node(i).inputs) misplaced += at(input.node) < at(i) ? 0 : 1;
    if (is_view_op(graph.node(i).op)) continue;
    for (ValueId input : graph.node(i).inputs) {
      while (is_view_op(graph.node(input).op)) input = graph.node(input).inputs[0];
      const auto found = assigned.find(input.node);
      if (found != assigned.end()) misplaced += at(i) <= found->second ? 0 : 1;
    }
  }
  CHECK(misplaced == 0);
}

}  // namespace

TEST_CASE("schedule: training and update steps in valid orders") {
  for (const std::string variant : test::kVariants) {
    CAPTURE(variant);
    const GraphPtr micro = test::fused(*test::tiny_step(variant, 2, DType::f32, true));
    const GraphPtr update = test::fused(*update_step(test::tiny_config(variant), {.ema = 0.9}, DType::bf16));
    for (const bool enabled : {true, false}) {
      check_order(*micro, schedule(*micro, enabled));
      check_order(*update, schedule(*update, enabled));
    }
  }
}

TEST_CASE("schedule: what can be finished early is") {
  Graph graph;  // eight large values, each needed for one small one only
  const Value x = input(graph, "x", DType::f32, {64, 1}), w = input(graph, "w", DType::f32, {1, 64});
  Values large, small;
  for (int i = 0; i < 8; ++i) large.push_back(matmul(x * (1.0 + i), w));
  for (const Value& value : large) small.push_back(matmul(value, x));
  graph.output("all", concat(small, 1));
  const auto device = cpu_device(1);
  const int64_t greedy = plan(graph, *device).activation_bytes;
  const int64_t as_written = plan(graph, *device, {.schedule = false}).activation_bytes;
  CHECK(as_written > 8 * 64 * 64 * 4);
  CHECK(greedy < 3 * 64 * 64 * 4);
}

TEST_CASE("schedule: training steps need no more memory than in the order they were written") {
  const auto device = cpu_device(1);
  for (const std::string variant : test::kVariants) {
    CAPTURE(variant);
    const auto step = test::tiny_step(variant, 4, DType::bf16);
    CHECK(plan(*step, *device).activation_bytes <=
          plan(*step, *device, {.schedule = false}).activation_bytes);
  }
}

TEST_CASE("schedule: states assigned from each other in a circle are an error") {
  Graph graph;
  const Value a = state(graph, "a", DType::f32, {4}), b = state(graph, "b", DType::f32, {4});
  assign(a, b);
  assign(b, a);
  CHECK_THROWS_WITH_AS(
      schedule(graph, true),
      "schedule: states are assigned from each other's old values in a circle that no order satisfies",
      Error);
}

TEST_CASE("schedule and plan: orders and addresses change no bits") {
  for (const std::string variant : test::kVariants) {
    CAPTURE(variant);
    const auto step = test::tiny_step(variant, 2, DType::bf16);
    const ModelConfig config = test::tiny_config(variant);
    const auto expected = test::run_tiny_step(*step, config, 1, {});
    CHECK(test::run_tiny_step(*step, config, 1, {.schedule = false}) == expected);
    CHECK(test::run_tiny_step(*step, config, 1, {.reuse_memory = false}) == expected);
    CHECK(test::run_tiny_step(*step, config, 1, {.schedule = false, .reuse_memory = false}) == expected);
    CHECK(test::run_tiny_step(*step, config, 3, {}) == expected);
  }
}
