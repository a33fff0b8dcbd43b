#include "tests/optim/update_support.h"

#include "nf/executable.h"
#include "nf/ops.h"

namespace nf::test {

void build_update(Graph& graph, const std::vector<Shape>& shapes, const OptimizerOptions& options,
                  const Adjust& adjust) {
  std::vector<TrainedParameter> parameters;
  for (size_t i = 0; i < shapes.size(); ++i) {
    const std::string number = i == 0 ? "" : std::to_string(i);
    TrainedParameter parameter{.name = "w" + number,
                               .weight = state(graph, "w" + number, DType::f32, shapes[i]),
                               .gradient = input(graph, "g" + number, DType::f32, shapes[i]),
                               .decay = true,
                               .layer_matrix = shapes[i].rank() == 2};
    if (adjust) adjust(parameter);
    parameters.push_back(parameter);
  }
  const OptimizerUpdate update =
      optimizer_update(parameters, options,
                       {.learning_rate = input(graph, "learning_rate", DType::f32, {}),
                        .step = input(graph, "step", DType::f32, {}),
                        .gradient_scale = input(graph, "gradient_scale", DType::f32, {})});
  graph.output("norm", update.gradient_norm);
  for (size_t i = 0; i < parameters.size(); ++i) graph.output("new." + parameters[i].name, update.weights[i]);
}

double run_step(const std::shared_ptr<const Device>& device, const OptimizerOptions& options,
                const OptimizerStep& step, Bindings& state, const Adjust& adjust) {
  Graph graph;
  const Shape shape = step.gradient.shape;
  build_update(graph, {shape}, options, adjust);
  verify(graph);
  const Tensor zeros{shape, std::vector<double>(step.gradient.data.size())};
  for (const char* name : {"w", "adamw.m/w", "adamw.v/w", "momentum/w", "ema/w"}) state.emplace(name, zeros);
  const Bindings inputs{{"g", step.gradient},
                        {"learning_rate", {{}, {step.learning_rate}}},
                        {"step", {{}, {static_cast<double>(step.step)}}},
                        {"gradient_scale", {{}, {step.gradient_scale}}}};
  return run_on(device, graph, inputs, state)[0].data[0];
}

}  // namespace nf::test
