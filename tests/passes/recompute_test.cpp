// Gradient checkpointing: the same bits in less memory, within the budget or an error that says the least.
#include <doctest/doctest.h>

#include "tests/passes/passes_support.h"

using namespace nf;

namespace {

CompileOptions with(Recompute::Kind kind, int64_t bytes = 0) { return {.recompute = {kind, bytes}}; }

}  // namespace

TEST_CASE("recompute: gradients have the same bits whatever is dropped") {
  const auto device = cpu_device(1);
  for (const std::string variant : test::kVariants) {
    CAPTURE(variant);
    const auto step = test::tiny_step(variant, 2, DType::bf16);
    const ModelConfig config = test::tiny_config(variant, 2);
    const int64_t most = plan(*step, *device).arena_bytes();
    const int64_t least = plan(*step, *device, with(Recompute::Kind::layer)).arena_bytes();
    const auto expected = test::run_tiny_step(*step, config, 1, {});
    CHECK(test::run_tiny_step(*step, config, 1, with(Recompute::Kind::layer)) == expected);
    const CompileOptions half = with(Recompute::Kind::budget, std::max(least, (least + most) / 2));
    CHECK(test::run_tiny_step(*step, config, 1, half) == expected);
  }
}

TEST_CASE("recompute: by layers a deep model keeps about a third") {
  const auto device = cpu_device(1);
  MicroStepOptions options;
  options.model = {.batch = 4, .length = 256, .compute = DType::bf16, .training = true};
  for (const std::string variant : test::kVariants) {
    CAPTURE(variant);
    ModelConfig config;
    config.attention_type = test::tiny_config(variant).attention_type;
    config.vocab_size = 512;
    config.num_hidden_layers = 12;
    const auto step = micro_step(resolve(config), options);
    const int64_t kept = plan(*step, *device).activation_bytes;
    const int64_t least = plan(*step, *device, with(Recompute::Kind::layer)).activation_bytes;
    CAPTURE(kept);
    CAPTURE(least);
    CHECK(8 * least <= 3 * kept);
    if (variant == "mha" || variant == "gqa") CHECK(3 * least <= kept);
  }
}

TEST_CASE("recompute: a budget is kept to the byte, and not undercut without need") {
  const auto device = cpu_device(1);
  const auto step = test::tiny_step("gqa", 4);
  const int64_t most = plan(*step, *device).arena_bytes();
  const int64_t least = plan(*step, *device, with(Recompute::Kind::layer)).arena_bytes();
  REQUIRE(least < most);
  for (const int64_t budget : {least, least + 1, (least + most) / 2, most - 1, most})
    CHECK(plan(*step, *device, with(Recompute::Kind::budget, budget)).arena_bytes() <= budget);
  const auto is_copy = [](const Plan& planned) {
    for (int32_t i = 0; i < planned.graph->size(); ++i)
      if (planned.graph->node(i).generation != 0) return true;
    return false;
  };
  CHECK_FALSE(is_copy(plan(*step, *device, with(Recompute::Kind::budget, most))));
  CHECK(is_copy(plan(*step, *device, with(Recompute::Kind::budget, most - 1))));
}

TEST_CASE("recompute: an impossible budget is an error that says the least") {
  const auto device = cpu_device(1);
  const auto step = test::tiny_step("gqa");
  const int64_t least = plan(*step, *device, with(Recompute::Kind::layer)).arena_bytes();
  CHECK_NOTHROW(plan(*step, *device, with(Recompute::Kind::budget, least)));
  const std::string message = fmt::format(
      "gradient_checkpointing: {} bytes are not enough for the activations, {} is the least; "
      "lower the batch size or the sequence length",
      least - 1, least);
  CHECK_THROWS_WITH_AS(plan(*step, *device, with(Recompute::Kind::budget, least - 1)), message.c_str(),
                       Error);
}

TEST_CASE("recompute: copies belong to the backward pass and to layers, and only those are made") {
  const auto step = test::tiny_step("mla");
  const GraphPtr simple = simplify(*step);
  CHECK(recompute(*simple, 0)->hash() == simple->hash());
  const int64_t candidates = recompute_candidates(*simple);
  REQUIRE(candidates > 0);
  const GraphPtr all = recompute(*simple, candidates);
  verify(*all);
  int copies = 0;
  for (int32_t i = 0; i < all->size(); ++i) {
    const Node& node = all->node(i);
    if (node.generation == 0) continue;
    ++copies;
    CHECK(node.backward);
    CHECK(all->scope_name(node).find("layers.") != std::string::npos);
  }
  CHECK(copies > 0);
  CHECK(recompute(*simple, candidates + 5)->hash() == all->hash());
}

TEST_CASE("recompute: without layers there is nothing to drop") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {4, 8});
  const Values wrt = {x};
  graph.output("dx", gradients(sum(exp(tanh(x))), wrt)[0]);
  CHECK(recompute_candidates(graph) == 0);
}
