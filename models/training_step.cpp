#include "models/training_step.h"

namespace nf {
namespace {

// The gradient of a parameter is the sum over the two forms in which the graph reads it; none of a frozen
// one.
Values parameter_gradients(const ModelGraph& model, Value loss) {
  Values read;
  for (size_t i = 0; i < model.parameters.size(); ++i)
    for (const Value& value : {model.wide[i], model.narrow[i]})
      if (value && model.parameters[i].trained) read.push_back(value);
  const Values grads = gradients(loss, read);
  Values result;
  size_t next = 0;
  for (size_t i = 0; i < model.parameters.size(); ++i) {
    Value sum;
    for (const Value& value : {model.wide[i], model.narrow[i]})
      if (value && model.parameters[i].trained) {
        sum = sum ? sum + grads[next] : cast(grads[next], DType::f32);
        ++next;
      }
    result.push_back(sum);
  }
  return result;
}

}  // namespace

std::string gradient_name(const std::string& parameter) { return "grad/" + parameter; }

std::unique_ptr<Graph> micro_step(const ModelConfig& config, const MicroStepOptions& options,
                                  bool gradients) {
  auto graph = std::make_unique<Graph>();
  const ModelGraph model = build_model(*graph, config, options.model);
  Value loss = sum(model.token_losses);
  if (model.head_similarity && options.head_sim_weight != 0) {
    const Value targets = input(*graph, "targets", DType::i32, {options.model.batch, options.model.length});
    const Value ignored = cast(equal(targets, constant(*graph, kIgnoreIndex, DType::i32)), DType::f32);
    const Value tokens = sum(1.0 - ignored);
    loss = loss + model.head_similarity * tokens * options.head_sim_weight;
  }
  graph->output("loss_sum", loss);
  if (model.head_similarity) graph->output("head_similarity", model.head_similarity);
  if (!gradients) return graph;
  const Values grads = parameter_gradients(model, loss);
  for (size_t i = 0; i < grads.size(); ++i) {
    const Parameter& p = model.parameters[i];
    if (!p.trained) continue;
    const Value total = state(*graph, gradient_name(p.name), DType::f32, p.shape);
    assign(total, options.accumulate ? total + grads[i] : grads[i]);
  }
  return graph;
}

std::unique_ptr<Graph> update_step(const ModelConfig& config, const OptimizerOptions& optimizer,
                                   DType compute) {
  auto graph = std::make_unique<Graph>();
  const OptimizerInputs inputs{input(*graph, "learning_rate", DType::f32, {}),
                               input(*graph, "step", DType::f32, {}),
                               input(*graph, "gradient_scale", DType::f32, {})};
  std::vector<Parameter> parameters = model_parameters(config);
  std::erase_if(parameters, [](const Parameter& p) { return !p.trained; });
  std::vector<TrainedParameter> trained;
  for (const Parameter& p : parameters)
    trained.push_back({.name = p.name,
                       .weight = state(*graph, p.name, DType::f32, p.shape),
                       .gradient = state(*graph, gradient_name(p.name), DType::f32, p.shape),
                       .decay = p.decay,
                       .layer_matrix = p.layer_matrix,
                       .normalize_axis = p.normalize_axis});
  const OptimizerUpdate update = optimizer_update(trained, optimizer, inputs);
  for (size_t i = 0; i < parameters.size(); ++i)
    if (compute != DType::f32 && parameters[i].used_narrow)
      assign(state(*graph, narrow_name(parameters[i].name), compute, parameters[i].shape),
             cast(update.weights[i], compute));
  graph->output("gradient_norm", update.gradient_norm);
  return graph;
}

std::unique_ptr<Graph> eval_step(const ModelConfig& config, const ModelOptions& options) {
  ModelConfig plain = config;
  plain.z_loss = 0;
  auto graph = std::make_unique<Graph>();
  graph->output("loss_sum", sum(build_model(*graph, plain, options).token_losses));
  return graph;
}

std::unique_ptr<Graph> logits_step(const ModelConfig& config, const ModelOptions& options) {
  auto graph = std::make_unique<Graph>();
  ModelOptions without_loss = options;
  without_loss.loss = false;
  const Value logits = build_model(*graph, config, without_loss).logits;
  graph->output("logits",
                options.cache_length > 0 ? reshape(logits, {options.batch, config.vocab_size}) : logits);
  return graph;
}

void copy_narrow(State& state, const std::vector<Parameter>& parameters) {
  Graph graph;
  for (const Parameter& p : parameters)
    if (p.used_narrow && state.contains(p.name))
      assign(nf::state(graph, narrow_name(p.name), DType::bf16, p.shape),
             cast(nf::state(graph, p.name, DType::f32, p.shape), DType::bf16));
  if (graph.size() > 0)
    compile(graph, std::shared_ptr<State>(std::shared_ptr<State>(), &state), {.name = "copy_narrow"})->run();
}

}  // namespace nf
