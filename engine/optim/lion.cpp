// Lion: the sign of an interpolated momentum (Chen et al., arXiv 2302.06675).
//
//   W = W (1 - eta wd) - eta sign(b1 m + (1 - b1) g);  m = b2 m + (1 - b2) g
#include "optim/rules.h"

namespace nf::optim {
namespace {

Value sign(Value x) {
  const Value zero = constant_like(x, 0), one = constant_like(x, 1);
  return where(less(zero, x), one, where(less(x, zero), -one, zero));
}

}  // namespace

Value lion(const StepContext& context, const TrainedParameter& parameter, Value gradient) {
  const OptimizerOptions& options = context.options;
  const Value m = context.memory("momentum", parameter);
  const Value direction = sign(options.beta1 * m + (1 - options.beta1) * gradient);
  context.remember(m, options.beta2 * m + (1 - options.beta2) * gradient);
  return context.decayed_weight(parameter) - context.learning_rate * direction;
}

}  // namespace nf::optim
