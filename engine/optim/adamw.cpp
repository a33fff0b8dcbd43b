// AdamW: Adam with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101), as torch.optim.AdamW.
//
//   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   W = W (1 - eta wd) - eta / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
#include "optim/rules.h"

namespace nf::optim {

Value adamw(const StepContext& context, const TrainedParameter& parameter, Value gradient) {
  const OptimizerOptions& options = context.options;
  const Value old_m = context.memory("adamw.m", parameter), old_v = context.memory("adamw.v", parameter);
  const Value m = options.beta1 * old_m + (1 - options.beta1) * gradient;
  const Value v = options.beta2 * old_v + (1 - options.beta2) * (gradient * gradient);
  context.remember(old_m, m);
  context.remember(old_v, v);
  const Value step_size = context.learning_rate / context.bias_correction(options.beta1);
  const Value root_scale = 1.0 / sqrt(context.bias_correction(options.beta2));
  return context.decayed_weight(parameter) - step_size * m / (sqrt(v) * root_scale + options.eps);
}

}  // namespace nf::optim
