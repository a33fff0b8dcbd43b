// A program that embeds the engine: it trains a small network to tell two spirals apart.
#include <nf/nf.h>

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  using namespace nf;
  constexpr int kPoints = 512, kWidth = 64, kSteps = 300;

  // The network is a function of its inputs and of named states.
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {kPoints, 2});
  const Value spiral = input(graph, "spiral", DType::i32, {kPoints});
  const Value w1 = state(graph, "w1", DType::f32, {kWidth, 2}), b1 = state(graph, "b1", DType::f32, {kWidth});
  const Value w2 = state(graph, "w2", DType::f32, {kWidth, kWidth}),
              b2 = state(graph, "b2", DType::f32, {kWidth});
  const Value w3 = state(graph, "w3", DType::f32, {2, kWidth});
  const Value hidden = silu(linear(silu(linear(x, w1, b1)), w2, b2));
  const Value loss = mean(linear_cross_entropy(hidden, w3, spiral), {0}, false);

  // The backward pass and the optimizer are more nodes of the same graph.
  const Values weights = {w1, b1, w2, b2, w3};
  const Values grads = gradients(loss, weights);
  const char* const names[] = {"w1", "b1", "w2", "b2", "w3"};
  std::vector<TrainedParameter> trained;
  for (size_t i = 0; i < weights.size(); ++i)
    trained.push_back({.name = names[i], .weight = weights[i], .gradient = grads[i]});
  optimizer_update(trained, {.optimizer = Optimizer::adamw},
                   {.learning_rate = constant(graph, 0.01),
                    .step = input(graph, "step", DType::f32, {}),
                    .gradient_scale = constant(graph, 1)});
  graph.output("loss", loss);

  // Compiled for this processor, it runs in memory that is planned beforehand; the states outlive it.
  const auto memory = std::make_shared<State>(cpu_device());
  const auto step = compile(graph, memory);
  for (const char* name : {"w1", "w2", "w3"})
    fill_normal(*memory, name, 1 / std::sqrt(memory->type(name).shape.back()), /*seed=*/1);

  std::vector<float> points;
  std::vector<int32_t> spirals;
  for (int i = 0; i < kPoints; ++i) {
    const double along = (i / 2 + 0.5) / (kPoints / 2), angle = 9 * along + (i % 2) * M_PI;
    points.push_back(static_cast<float>(2 * along * std::cos(angle)));
    points.push_back(static_cast<float>(2 * along * std::sin(angle)));
    spirals.push_back(i % 2);
  }
  step->set<float>("x", points);
  step->set<int32_t>("spiral", spirals);
  float first = 0, last = 0;
  for (int i = 1; i <= kSteps; ++i) {
    const float number = static_cast<float>(i);
    step->set<float>("step", {&number, 1});
    step->run();
    last = step->scalar("loss");
    if (i == 1) first = last;
    if (i == 1 || i % 50 == 0) std::printf("step %3d  loss %.4f\n", i, last);
  }
  return last < first / 10 ? 0 : 1;
}
