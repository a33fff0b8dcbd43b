#include "tests/passes/passes_support.h"

#include <doctest/doctest.h>

#include "tests/support/graphs.h"

namespace nf::test {
namespace {

constexpr int kBatch = 2, kLength = 16, kVocabulary = 64;

}  // namespace

ModelConfig tiny_config(std::string_view variant, int layers) {
  return parse_model_config(
      fmt::format(R"({{"attention_type": "{}", "vocab_size": {}, "hidden_size": 32, "num_hidden_layers": {},
                       "intermediate_size": 64, "num_attention_heads": 4}})",
                  variant, kVocabulary, layers),
      "tiny");
}

std::unique_ptr<Graph> tiny_step(std::string_view variant, int layers, DType compute, bool accumulate) {
  MicroStepOptions options;
  options.model = {.batch = kBatch, .length = kLength, .compute = compute, .training = true};
  options.accumulate = accumulate;
  return micro_step(tiny_config(variant, layers), options);
}

std::vector<std::byte> run_tiny_step(const Graph& graph, const ModelConfig& config, int threads,
                                     const CompileOptions& options) {
  const auto state = std::make_shared<State>(cpu_device(threads));
  const auto step = compile(graph, state, options);
  const std::vector<Parameter> parameters = model_parameters(config);
  initialize_parameters(*state, parameters, 1);
  copy_narrow(*state, parameters);
  step->set_bytes("ids", encode(random_integers({kBatch, kLength}, 2, 0, kVocabulary - 1), DType::i32));
  step->set_bytes("targets", encode(random_integers({kBatch, kLength}, 3, 0, kVocabulary - 1), DType::i32));
  step->run();
  std::vector<std::byte> result(sizeof(float));
  step->get_bytes("loss_sum", result);
  for (const Parameter& p : parameters) {
    const auto gradient = std::as_const(*state).memory(gradient_name(p.name));
    result.insert(result.end(), gradient.begin(), gradient.end());
  }
  return result;
}

int count(const Graph& graph, Op op) {
  int result = 0;
  for (int32_t i = 0; i < graph.size(); ++i) result += graph.node(i).op == op ? 1 : 0;
  return result;
}

int count_steps(const Plan& plan, Op op) {
  int result = 0;
  for (const Plan::Step& step : plan.steps) result += plan.graph->node(step.node).op == op ? 1 : 0;
  return result;
}

std::string steps_of(const Plan& plan) {
  std::vector<std::string_view> ops;
  for (const Plan::Step& step : plan.steps) ops.push_back(name(plan.graph->node(step.node).op));
  return fmt::format("{}", fmt::join(ops, " "));
}

const Node& only(const Graph& graph, Op op) {
  REQUIRE(count(graph, op) == 1);
  int32_t index = 0;
  while (graph.node(index).op != op) ++index;
  return graph.node(index);
}

GraphPtr fused(const Graph& graph) {
  const auto device = cpu_device(1);
  const GraphPtr simple = simplify(graph);
  const GraphPtr lowered =
      lower(*simple, [&](const Graph& g, const Node& node) { return device->supports(g, node); });
  return fuse(*lowered, true);
}

}  // namespace nf::test
