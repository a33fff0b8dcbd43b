// Plans by brute force: no two values that are alive together share a byte; states are written in place.
#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <map>

#include "passes/views.h"
#include "tests/passes/passes_support.h"

using namespace nf;

namespace {

constexpr int kForever = std::numeric_limits<int>::max();

// A value that owns bytes of the arena from the step that makes it to the last that reads it.
struct Live {
  ValueId id;
  int64_t begin, end;
  int first, last;
};

ValueId owner(const Graph& graph, ValueId id) {
  while (is_view_op(graph.node(id).op)) id = graph.node(id).inputs[0];
  return id;
}

const Place& place_of(const Plan& plan, ValueId id) {
  return plan.places[static_cast<size_t>(id.node)][static_cast<size_t>(id.output)];
}

std::vector<Live> lives(const Plan& plan) {
  const Graph& graph = *plan.graph;
  std::map<std::pair<int32_t, int32_t>, Live> live;
  const auto extend = [&](ValueId id, int time) {
    id = owner(graph, id);
    if (place_of(plan, id).region != Place::Region::arena) return;
    const int64_t begin = place_of(plan, id).offset;
    const int made = graph.node(id).op == Op::input ? -1 : time;  // inputs keep their values from run to run
    const auto [found, fresh] =
        live.try_emplace({id.node, id.output}, Live{id, begin, begin + graph.type(id).bytes(), made, time});
    found->second.last = graph.node(id).op == Op::input ? kForever : std::max(found->second.last, time);
  };
  for (int time = 0; time < static_cast<int>(plan.steps.size()); ++time) {
    const int32_t node = plan.steps[static_cast<size_t>(time)].node;
    for (ValueId input : graph.node(node).inputs) extend(input, time);
    for (int32_t i = 0; i < static_cast<int32_t>(graph.node(node).outputs.size()); ++i)
      extend({node, i}, time);
  }
  for (const Graph::Output& output : graph.outputs()) extend(output.value, kForever);
  // A concat lives from its first part on, and its parts lie in it.
  std::vector<std::pair<int32_t, int32_t>> parts;
  for (auto& [key, value] : live) {
    const Node& node = graph.node(value.id);
    if (node.op != Op::concat) continue;
    for (ValueId part : node.inputs) {
      const auto found = live.find({part.node, part.output});
      if (found == live.end() || place_of(plan, part).strides != place_of(plan, value.id).strides) continue;
      if (found->second.begin < value.begin || found->second.begin >= value.end) continue;
      value.first = std::min(value.first, found->second.first);
      parts.push_back(found->first);
    }
  }
  for (const auto& key : parts) live.erase(key);
  std::vector<Live> result;
  for (const auto& [key, value] : live) result.push_back(value);
  return result;
}

// A loop may write over what it reads last.
bool takes_over(const Plan& plan, const Live& before, const Live& after) {
  return before.last == after.first && before.begin == after.begin && before.end == after.end &&
         plan.graph->node(after.id).op == Op::loop;
}

int collisions(const Plan& plan) {
  const std::vector<Live> all = lives(plan);
  int result = 0;
  for (size_t i = 0; i < all.size(); ++i)
    for (size_t j = 0; j < i; ++j) {
      const Live &a = all[i], &b = all[j];
      const bool share_bytes = a.begin < b.end && b.begin < a.end;
      const bool share_time = a.first <= b.last && b.first <= a.last;
      if (share_bytes && share_time && !takes_over(plan, a, b) && !takes_over(plan, b, a)) ++result;
    }
  for (const Live& value : all) result += value.begin >= 0 && value.end <= plan.activation_bytes ? 0 : 1;
  return result;
}

std::vector<Plan> plans(const CompileOptions& options) {
  std::vector<Plan> result;
  const auto device = cpu_device(2);
  for (const std::string variant : test::kVariants) {
    for (const DType compute : {DType::f32, DType::bf16})
      result.push_back(plan(*test::tiny_step(variant, 3, compute, true), *device, options));
    result.push_back(plan(*update_step(test::tiny_config(variant), {}, DType::bf16), *device, options));
  }
  return result;
}

}  // namespace

TEST_CASE("plan: values that are alive together never overlap") {
  for (const bool ordered : {true, false})
    for (const Recompute::Kind kind : {Recompute::Kind::none, Recompute::Kind::layer})
      for (const Plan& planned : plans({.recompute = {kind, 0}, .schedule = ordered}))
        CHECK(collisions(planned) == 0);
}

TEST_CASE("plan: the check above finds an overlap") {
  Plan planned = plan(*test::tiny_step("gqa"), *cpu_device(1));
  REQUIRE(collisions(planned) == 0);
  const ValueId output = planned.graph->outputs()[0].value;  // alive at the end, and so is an input
  for (int32_t i = 0; i < planned.graph->size(); ++i)
    if (planned.graph->node(i).op == Op::input)
      planned.places[static_cast<size_t>(owner(*planned.graph, output).node)][0].offset =
          place_of(planned, {i, 0}).offset;
  CHECK(collisions(planned) > 0);
}

TEST_CASE("plan: without reuse every value has memory of its own") {
  for (const Plan& planned : plans({.reuse_memory = false})) {
    std::vector<Live> all = lives(planned);
    std::sort(all.begin(), all.end(), [](const Live& a, const Live& b) { return a.begin < b.begin; });
    int shared = 0;
    for (size_t i = 0; i + 1 < all.size(); ++i) shared += all[i].end <= all[i + 1].begin ? 0 : 1;
    CHECK(shared == 0);
  }
}

TEST_CASE("plan: reuse pays") {
  const auto device = cpu_device(1);
  const auto step = test::tiny_step("gqa", 6);
  CHECK(2 * plan(*step, *device).activation_bytes <
        plan(*step, *device, {.reuse_memory = false}).activation_bytes);
}

TEST_CASE("plan: gradients, weights and moments are written in place") {
  const auto device = cpu_device(1);
  for (const std::string variant : test::kVariants)
    for (const DType compute : {DType::f32, DType::bf16}) {
      CAPTURE(variant);
      CAPTURE(name(compute));
      for (const bool accumulate : {true, false})
        CHECK(test::count_steps(plan(*test::tiny_step(variant, 2, compute, accumulate), *device),
                                Op::assign) == 0);
      const auto update = update_step(test::tiny_config(variant), {}, compute);
      CHECK(test::count_steps(plan(*update, *device), Op::assign) == 0);
    }
}

TEST_CASE("plan: an assignment that cannot be made in place is copied") {
  Graph graph;
  const Value s = state(graph, "s", DType::f32, {4, 4}), x = input(graph, "x", DType::f32, {4, 4});
  assign(s, x);  // the input keeps its own memory
  CHECK(test::count_steps(plan(graph, *cpu_device(1)), Op::assign) == 1);

  Graph flipped;
  const Value t = state(flipped, "t", DType::f32, {4, 4});
  assign(t, transpose(t, 0, 1) + 1.0);  // every element is read after another was written
  CHECK(test::count_steps(plan(flipped, *cpu_device(1)), Op::assign) == 1);
}

TEST_CASE("plan: addresses are aligned, dense where they are made, and every read has one") {
  for (const Plan& planned : plans({})) {
    const Graph& graph = *planned.graph;
    int wrong = 0;
    for (const Live& value : lives(planned)) {
      wrong += value.begin % 64 == 0 ? 0 : 1;
      wrong += is_dense(graph.type(value.id).shape, place_of(planned, value.id).strides) ? 0 : 1;
    }
    for (const Plan::Step& step : planned.steps)
      for (ValueId input : graph.node(step.node).inputs) {
        const Op op = graph.node(input).op;  // constants are written into the loops that read them
        wrong += place_of(planned, input).region != Place::Region::none || op == Op::constant ? 0 : 1;
      }
    CHECK(wrong == 0);
    CHECK(planned.activation_bytes % 256 == 0);
    int64_t hungriest = 0;
    for (const Plan::Step& step : planned.steps) hungriest = std::max(hungriest, step.workspace_bytes);
    CHECK(planned.workspace_bytes >= hungriest);
    CHECK(planned.workspace_bytes < hungriest + 64);
    CHECK(planned.arena_bytes() == planned.activation_bytes + planned.workspace_bytes);
  }
}

TEST_CASE("plan: as text") {
  Graph graph;
  const Scope scope(graph, "net");
  const Value x = input(graph, "x", DType::f32, {4, 4}), w = state(graph, "w", DType::f32, {4, 4});
  graph.output("y", matmul(x, w));
  const std::string text = to_text(plan(graph, *cpu_device(1)));
  CHECK(text.find("1 steps, activations 256 B") == 0);
  CHECK(text.find("matmul arena+0, state 0+0 -> arena+64  # net") != std::string::npos);
}
