// One optimizer step for all parameters: what is the same whatever the rule.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>

#include "nf/error.h"
#include "optim/rules.h"

namespace nf {
namespace optim {

Value StepContext::memory(std::string_view kind, const TrainedParameter& parameter) const {
  return state(*parameter.weight.graph, std::string(kind) + "/" + parameter.name, DType::f32,
               parameter.weight.shape());
}

void StepContext::remember(Value state, Value value) const { assign(state, where(applies, value, state)); }

// 1 - e^-2y = 2 T / (1 + T) with T = tanh(y): unlike 1 - exp it keeps its digits when beta^step is close
// to 1.
Value StepContext::bias_correction(double beta) const {
  if (beta == 0) return constant_like(step, 1);
  const Value t = tanh(step * (-0.5 * std::log(beta)));
  return 2.0 * t / (1.0 + t);
}

Value StepContext::decayed_weight(const TrainedParameter& parameter) const {
  if (!parameter.decay || options.weight_decay == 0) return parameter.weight;
  return parameter.weight * (1.0 - learning_rate * options.weight_decay);
}

namespace {

// The place where an optimizer joins: its value in nf/optim.h, its rule.
struct Row {
  Optimizer optimizer;
  Rule rule;
};
constexpr std::array kRules{
    Row{Optimizer::adamw, adamw},
    Row{Optimizer::sgd, sgd},
    Row{Optimizer::lion, lion},
    Row{Optimizer::muon, muon},
};

Rule rule_of(Optimizer optimizer) {
  const auto row = std::ranges::find(kRules, optimizer, &Row::optimizer);
  require(row != kRules.end(), "optimizer: there is no optimizer number {}", static_cast<int>(optimizer));
  return row->rule;
}

// In [0, 1).
void require_fraction(double value, std::string_view name) {
  require(value >= 0 && value < 1, "optimizer: {} is {}, but must be at least 0 and below 1", name, value);
}

void require_amount(double value, std::string_view name) {
  require(value >= 0 && std::isfinite(value), "optimizer: {} is {}, but must be finite and not negative",
          name, value);
}

void check(const OptimizerOptions& options) {
  require_fraction(options.beta1, "beta1");
  require_fraction(options.beta2, "beta2");
  require_fraction(options.momentum, "momentum");
  require_fraction(options.ema, "ema");
  require_amount(options.weight_decay, "weight_decay");
  require_amount(options.eps, "eps");
  require_amount(options.clip, "clip");
}

void check(const TrainedParameter& parameter) {
  const Value weight = parameter.weight, gradient = parameter.gradient;
  require(weight && weight.graph->node(weight.id).op == Op::state && weight.dtype() == DType::f32,
          "optimizer: the weight of {} must be an f32 state", parameter.name);
  require(gradient && gradient.graph == weight.graph && gradient.type() == weight.type(),
          "optimizer: the gradient of {} must be f32 {} in the same graph", parameter.name, weight.shape());
  require(parameter.normalize_axis >= -1 && parameter.normalize_axis < weight.shape().rank(),
          "optimizer: {} has no axis {} to be normalised along", parameter.name, parameter.normalize_axis);
}

void check(std::span<const TrainedParameter> parameters) {
  require(!parameters.empty(), "optimizer: there is no parameter to update");
  std::set<std::string_view> names;
  for (const TrainedParameter& parameter : parameters) {
    check(parameter);
    require(names.insert(parameter.name).second, "optimizer: parameter {} is given twice", parameter.name);
  }
}

void check(const OptimizerInputs& inputs) {
  const auto is_scalar = [](Value x) { return x && x.type() == TensorType{DType::f32, {}}; };
  require(is_scalar(inputs.learning_rate) && is_scalar(inputs.step) && is_scalar(inputs.gradient_scale),
          "optimizer: learning rate, step and gradient scale must be f32 scalars");
}

// sqrt(sum |scale g|^2), added up in the order of the parameters.
Value global_norm(std::span<const TrainedParameter> parameters, Value scale) {
  Value squares;
  for (const TrainedParameter& parameter : parameters) {
    const Value gradient = parameter.gradient * scale;
    const Value own = sum(gradient * gradient);
    squares = squares ? squares + own : own;
  }
  return sqrt(squares);
}

// min(1, clip / (norm + 1e-6))
Value clip_factor(Value norm, double clip) { return minimum(constant_like(norm, 1), clip / (norm + 1e-6)); }

// The average starts at the weight from before the first step, whatever its state held until then.
void average(const StepContext& context, const TrainedParameter& parameter, Value weight) {
  const Value old_average = context.memory("ema", parameter);
  const Value is_first = less_equal(context.step, constant_like(context.step, 1));
  const Value start = where(is_first, parameter.weight, old_average);
  const double decay = context.options.ema;
  assign(old_average, where(context.applies, decay * start + (1 - decay) * weight, start));
}

}  // namespace
}  // namespace optim

OptimizerUpdate optimizer_update(std::span<const TrainedParameter> parameters,
                                 const OptimizerOptions& options, const OptimizerInputs& inputs) {
  optim::check(options);
  optim::check(parameters);
  optim::check(inputs);
  const Scope scope(*parameters.front().weight.graph, "optimizer");

  const Value norm = optim::global_norm(parameters, inputs.gradient_scale);
  Value factor = inputs.gradient_scale;
  if (options.clip > 0) factor = factor * optim::clip_factor(norm, options.clip);
  const Value largest = constant_like(norm, static_cast<double>(std::numeric_limits<float>::max()));
  const optim::StepContext context{.options = options,
                                   .learning_rate = inputs.learning_rate,
                                   .step = inputs.step,
                                   .applies = less_equal(norm, largest)};  // false for a NaN, too

  const optim::Rule rule = optim::rule_of(options.optimizer);
  OptimizerUpdate update{.gradient_norm = norm, .weights = {}};
  for (const TrainedParameter& parameter : parameters) {
    const Scope parameter_scope = scope / parameter.name;
    Value weight = rule(context, parameter, parameter.gradient * factor);
    if (parameter.normalize_axis >= 0) weight = l2_normalize(weight, parameter.normalize_axis);
    if (options.ema > 0) optim::average(context, parameter, weight);
    weight = where(context.applies, weight, parameter.weight);
    assign(parameter.weight, weight);
    update.weights.push_back(weight);
  }
  return update;
}

}  // namespace nf
