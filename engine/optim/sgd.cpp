// Stochastic gradient descent with momentum, optionally Nesterov's (Sutskever et al. 2013), as
// torch.optim.SGD: weight decay is added to the gradient.
//
//   g = g + wd W;  m = mu m + g;  W = W - eta (nesterov ? g + mu m : m)
#include "optim/rules.h"

namespace nf::optim {

Value sgd(const StepContext& context, const TrainedParameter& parameter, Value gradient) {
  const OptimizerOptions& options = context.options;
  if (parameter.decay && options.weight_decay > 0)
    gradient = gradient + options.weight_decay * parameter.weight;
  Value direction = gradient;
  if (options.momentum > 0) {
    const Value old_m = context.memory("momentum", parameter);
    const Value m = options.momentum * old_m + gradient;
    context.remember(old_m, m);
    direction = options.nesterov ? gradient + options.momentum * m : m;
  }
  return parameter.weight - context.learning_rate * direction;
}

}  // namespace nf::optim
