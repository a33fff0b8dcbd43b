// Optimizer steps run in one line.
#pragma once

#include <functional>

#include "nf/optim.h"
#include "tests/support/graphs.h"

namespace nf::test {

// What one step of a single parameter "w" is given.
struct OptimizerStep {
  Tensor gradient;
  double learning_rate = 1e-3;
  int64_t step = 1;
  double gradient_scale = 1;
};

// The graph of optimizer_update for parameters of the given shapes, named "w", "w1", …, whose gradients are
// the inputs "g", "g1", …; output "norm" and, per parameter, "new.w", ….
using Adjust = std::function<void(TrainedParameter&)>;
void build_update(Graph& graph, const std::vector<Shape>& shapes, const OptimizerOptions& options,
                  const Adjust& adjust = {});

// Runs one step of a single parameter and updates `state`; states it lacks start at zero. Returns the norm.
double run_step(const std::shared_ptr<const Device>& device, const OptimizerOptions& options,
                const OptimizerStep& step, Bindings& state, const Adjust& adjust = {});

}  // namespace nf::test
