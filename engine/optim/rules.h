// What the optimizers share: one rule per optimizer, each in a file of its name, and the table in update.cpp
// that picks one. A rule adds its arithmetic for one parameter to the graph; clipping, the skip of steps that
// are not finite, normalisation and the moving average are the same for all and stay in update.cpp.
#pragma once

#include "nf/ops.h"
#include "nf/optim.h"

namespace nf::optim {

// What a rule knows of the step. The scalars are made once: equal nodes of a graph are one node.
struct StepContext {
  const OptimizerOptions& options;
  Value learning_rate;  // f32 scalar
  Value step;           // f32 scalar: 1, 2, …
  Value applies;        // boolean scalar: false when the step is skipped

  // f32 zeros in the first step, kept as "KIND/NAME".
  Value memory(std::string_view kind, const TrainedParameter& parameter) const;
  // The state holds `value` from now on, unless the step is skipped.
  void remember(Value state, Value value) const;
  // 1 - beta^step, with a few ulp of relative error at any step.
  Value bias_correction(double beta) const;
  // The weight after weight decay, where it applies: W (1 - eta wd).
  Value decayed_weight(const TrainedParameter& parameter) const;
};

// Adds the update of one parameter and what it remembers; `gradient` is scaled and clipped, f32. Returns the
// new weight.
using Rule = Value (*)(const StepContext& context, const TrainedParameter& parameter, Value gradient);

Value adamw(const StepContext& context, const TrainedParameter& parameter, Value gradient);
Value sgd(const StepContext& context, const TrainedParameter& parameter, Value gradient);
Value lion(const StepContext& context, const TrainedParameter& parameter, Value gradient);
Value muon(const StepContext& context, const TrainedParameter& parameter, Value gradient);

}  // namespace nf::optim
