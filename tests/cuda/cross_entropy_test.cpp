// The loss on the CUDA backend against the op's decomposition in double precision.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "cuda/kernels.h"
#include "nf/gradients.h"
#include "nf/ops.h"
#include "tests/cuda/emulated_gpu.h"
#include "tests/support/graphs.h"

using namespace nf;
using test::Bindings;
using test::Tensor;

namespace {

struct Case {
  const char* name;
  int64_t tokens = 13, width = 24, vocab = 50;
  CrossEntropyOptions options = {};
  bool scaled = false;
};

Bindings inputs_of(const Case& c, DType dtype) {
  const int64_t real = c.options.vocab_size > 0 ? c.options.vocab_size : c.vocab;
  Bindings inputs{{"hidden", test::random_tensor({c.tokens, c.width}, 1)},
                  {"weight", test::random_tensor({c.vocab, c.width}, 2)},
                  {"targets", test::random_integers({c.tokens}, 3, 0, real - 1)},
                  {"scale", test::random_uniform({c.vocab}, 4, 0.5, 1.5)},
                  {"grad_loss", test::random_tensor({c.tokens}, 5)}};
  for (const char* name : {"hidden", "weight"})
    for (double& x : inputs[name].data) x = test::rounded(x, dtype);
  for (const char* name : {"scale", "grad_loss"})
    for (double& x : inputs[name].data) x = test::rounded(x, DType::f32);
  for (size_t i = 0; i < inputs["targets"].data.size(); i += 5) inputs["targets"].data[i] = kIgnoreIndex;
  return inputs;
}

// Losses, and the gradients of sum(loss * grad_loss).
void build(Graph& graph, const Case& c, DType dtype) {
  const Value hidden = input(graph, "hidden", dtype, {c.tokens, c.width}),
              weight = input(graph, "weight", dtype, {c.vocab, c.width}),
              scale = input(graph, "scale", DType::f32, {c.vocab});
  CrossEntropyOptions options = c.options;
  if (c.scaled) options.scale = scale;
  const Value losses =
      linear_cross_entropy(hidden, weight, input(graph, "targets", DType::i32, {c.tokens}), options);
  graph.output("loss", losses);
  const Values wrt = c.scaled ? Values{hidden, weight, scale} : Values{hidden, weight};
  int i = 0;
  for (const Value& grad : gradients(sum(losses * input(graph, "grad_loss", DType::f32, {c.tokens})), wrt))
    graph.output(std::to_string(i++), grad);
}

// The one op of a kind in a graph, bound to host memory with chunks of so many bytes; returns its outputs.
std::vector<Tensor> run_in_chunks(const Graph& graph, const Bindings& inputs, int64_t logit_bytes) {
  const auto device = cuda::emulated_cuda_device();
  Plan planned = plan(graph, *device);
  const Graph& lowered = *planned.graph;
  const auto step = std::find_if(planned.steps.begin(), planned.steps.end(), [&](const Plan::Step& s) {
    return lowered.node(s.node).op == Op::linear_cross_entropy_backward;
  });
  REQUIRE(step != planned.steps.end());
  const Node& node = lowered.node(step->node);
  const Buffer workspace = allocate_host_memory(cuda::cross_entropy_workspace(lowered, node));
  cuda::KernelLibrary library(cuda::emulated_gpu());
  cuda::BoundNode bound{lowered, node, {}, {}, workspace.get(), library};
  std::vector<std::vector<std::byte>> memory;
  for (ValueId id : node.inputs) {
    const TensorType& type = lowered.type(id);
    memory.push_back(test::encode(inputs.at(lowered.node(id).attributes.text("name")), type.dtype));
    bound.inputs.push_back({memory.back().data(), type.dtype, type.shape, dense_strides(type.shape)});
  }
  for (const TensorType& type : node.outputs) {
    memory.emplace_back(static_cast<size_t>(type.bytes()));
    bound.outputs.push_back({memory.back().data(), type.dtype, type.shape, dense_strides(type.shape)});
  }
  const Launch launch = cuda::bind_cross_entropy_backward(bound, logit_bytes);
  library.compile();
  launch();
  std::vector<Tensor> results;
  for (size_t i = 0; i < node.outputs.size(); ++i)
    results.push_back(test::decode(memory[node.inputs.size() + i], node.outputs[i]));
  return results;
}

}  // namespace

TEST_CASE("cuda: loss and gradients, with every option") {
  const Case cases[] = {
      {.name = "plain"},
      {.name = "one token", .tokens = 1, .vocab = 7},
      {.name = "logit scale", .options = {.logit_scale = 0.3}},
      {.name = "soft cap", .options = {.cap = 3, .cap_type = CapType::soft}},
      {.name = "hard cap", .options = {.cap = 3, .cap_type = CapType::hard}},
      {.name = "z-loss", .options = {.z_loss = 0.01}},
      {.name = "padding", .options = {.vocab_size = 43}},
      {.name = "scale", .scaled = true},
      {.name = "scale, many tokens", .tokens = 300, .width = 8, .vocab = 21, .scaled = true},
      {.name = "scale and hard cap", .options = {.cap = 3, .cap_type = CapType::hard}, .scaled = true},
      {.name = "everything",
       .options = {.logit_scale = 0.7, .cap = 4, .cap_type = CapType::soft, .z_loss = 0.01, .vocab_size = 41},
       .scaled = true},
      {.name = "a large vocabulary", .tokens = 3, .width = 8, .vocab = 4099},
  };
  for (const Case& c : cases)
    for (const DType dtype : {DType::f32, DType::bf16}) {
      CAPTURE(c.name);
      Graph graph;
      build(graph, c, dtype);
      const Bindings inputs = inputs_of(c, dtype);
      Bindings state;
      const auto expected = test::run_reference(graph, inputs);
      const auto results = test::run_on(cuda::emulated_cuda_device(), graph, inputs, state);
      for (size_t i = 0; i < results.size(); ++i)
        CHECK(test::relative_error(results[i], expected[i]) < (i == 0 || dtype == DType::f32 ? 1e-5 : 1e-2));
    }
}

TEST_CASE("emulator: chunks of tokens give what one would") {
  const Case c{
      .name = "chunks", .tokens = 11, .width = 8, .vocab = 21, .options = {.z_loss = 0.01}, .scaled = true};
  Graph graph;
  build(graph, c, DType::f32);
  const Bindings inputs = inputs_of(c, DType::f32);
  const auto expected = run_in_chunks(graph, inputs, 1 << 20);
  for (const int64_t tokens : {1, 4, 5}) {
    const auto results = run_in_chunks(graph, inputs, tokens * 24 * 4);
    for (size_t i = 0; i < results.size(); ++i) CHECK(test::relative_error(results[i], expected[i]) < 1e-6);
  }
}

TEST_CASE("cuda: a target out of range makes its token's loss NaN") {
  Graph graph;
  graph.output("loss", linear_cross_entropy(input(graph, "hidden", DType::f32, {3, 4}),
                                            input(graph, "weight", DType::f32, {5, 4}),
                                            input(graph, "targets", DType::i32, {3}), {}));
  Bindings state;
  const Tensor loss = test::run_on(cuda::emulated_cuda_device(), graph,
                                   {{"hidden", test::random_tensor({3, 4}, 1)},
                                    {"weight", test::random_tensor({5, 4}, 2)},
                                    {"targets", {{3}, {5, 2, -1}}}},
                                   state)[0];
  CHECK(std::isnan(loss.data[0]));
  CHECK(std::isfinite(loss.data[1]));
  CHECK(std::isnan(loss.data[2]));
}

TEST_CASE("cuda: a NaN reaches the loss through every cap") {
  for (const CapType cap : {CapType::none, CapType::soft, CapType::hard}) {
    Graph graph;
    graph.output("loss",
                 linear_cross_entropy(input(graph, "hidden", DType::f32, {2, 4}),
                                      input(graph, "weight", DType::f32, {5, 4}),
                                      input(graph, "targets", DType::i32, {2}), {.cap = 3, .cap_type = cap}));
    Bindings inputs{{"hidden", test::random_tensor({2, 4}, 1)},
                    {"weight", test::random_tensor({5, 4}, 2)},
                    {"targets", {{2}, {1, 1}}}};
    inputs["hidden"].data[0] = std::nan("");
    Bindings state;
    const Tensor loss = test::run_on(cuda::emulated_cuda_device(), graph, inputs, state)[0];
    CHECK(std::isnan(loss.data[0]));
    CHECK(std::isfinite(loss.data[1]));
  }
}

TEST_CASE("cuda: a logit of minus infinity counts as nothing") {
  Graph graph;
  graph.output("loss", linear_cross_entropy(input(graph, "hidden", DType::f32, {1, 4}),
                                            input(graph, "weight", DType::f32, {5, 4}),
                                            input(graph, "targets", DType::i32, {1}), {}));
  Bindings inputs{{"hidden", {{1, 4}, {1e30, 0, 0, 0}}},
                  {"weight", {{5, 4}, std::vector<double>(20, 0.0)}},
                  {"targets", {{1}, {1}}}};
  inputs["weight"].data[0] = -1e30;
  Bindings state;
  const Tensor loss = test::run_on(cuda::emulated_cuda_device(), graph, inputs, state)[0];
  CHECK(loss.data[0] == doctest::Approx(std::log(4.0)));
}

TEST_CASE("cuda: a product of minus infinity has no gradient, and spoils no other's") {
  for (const CapType cap : {CapType::none, CapType::soft, CapType::hard})
    for (const bool scaled : {false, true})
      for (const DType dtype : {DType::f32, DType::bf16}) {
        CAPTURE(static_cast<int>(cap));
        CAPTURE(scaled);
        const Case c{.name = "-inf",
                     .tokens = 3,
                     .width = 4,
                     .vocab = 70,
                     .options = {.logit_scale = 0.5, .cap = 3, .cap_type = cap, .z_loss = 0.01},
                     .scaled = scaled};
        Graph graph;
        build(graph, c, dtype);
        // Of token 1 alone; its target is another.
        Bindings inputs = inputs_of(c, dtype);
        inputs["targets"].data = {3, 5, kIgnoreIndex};
        for (size_t row = 0; row < 70; ++row) inputs["weight"].data[row * 4] = 0;
        for (const size_t row : {0, 33, 69}) inputs["weight"].data[row * 4] = test::rounded(-1e30, dtype);
        for (size_t token = 0; token < 3; ++token) inputs["hidden"].data[token * 4] = 0;
        inputs["hidden"].data[4] = test::rounded(1e30, dtype);
        const std::vector<Tensor> expected = test::run_reference(graph, inputs);
        Bindings state;
        const std::vector<Tensor> results = test::run_on(cuda::emulated_cuda_device(), graph, inputs, state);
        for (size_t i = 0; i < results.size(); ++i) {
          CAPTURE(i);
          // Of what is not huge; the column of 1e30 makes gradients of its size.
          double largest = 0;
          for (const double wanted : expected[i].data)
            if (std::abs(wanted) < 1e6) largest = std::max(largest, std::abs(wanted));
          const double tolerance = i == 0 || dtype == DType::f32 ? 1e-5 : 2e-2;
          for (size_t j = 0; j < results[i].data.size(); ++j) {
            CAPTURE(j);
            const double got = results[i].data[j], wanted = expected[i].data[j];
            REQUIRE(std::isfinite(got));
            CHECK(std::abs(got - wanted) <= tolerance * std::max(largest, std::abs(wanted)));
          }
        }
      }
}
