// The graphs of a training run: micro-step, update-step, evaluation. They share one State:
//   NAME          f32 weights           NAME@bf16   their copies for matrix products
//   grad/NAME     f32 sums of gradients            and the optimizer's own (nf/optim.h)
#pragma once

#include <memory>

#include "models/model.h"

namespace nf {

struct MicroStepOptions {
  ModelOptions model;       // training, loss
  bool accumulate = false;  // add to grad/NAME; otherwise overwrite it: the first micro-step of a step
  double head_sim_weight = 0;
};

// Forward and backward; gradients of the SUM of token losses go to grad/NAME. Outputs: "loss_sum", the sum of
// token losses (z-loss and weighted head similarity times tokens included), and "head_similarity" if it is
// computed.
// With `gradients` false only the forward pass: the training loss without its gradients.
std::unique_ptr<Graph> micro_step(const ModelConfig& config, const MicroStepOptions& options,
                                  bool gradients = true);

// "grad/NAME": the state that holds a parameter's gradient.
std::string gradient_name(const std::string& parameter);

// Clips, updates and normalises the weights, and refreshes the bf16 copies. Inputs: f32 scalars
// "learning_rate", "step" (1-based), "gradient_scale" (1 / target tokens of the step). Output
// "gradient_norm".
std::unique_ptr<Graph> update_step(const ModelConfig& config, const OptimizerOptions& optimizer,
                                   DType compute);

// Forward only. Output "loss_sum" (cross entropy alone).
std::unique_ptr<Graph> eval_step(const ModelConfig& config, const ModelOptions& options);

// Logits [B, T, V] as output "logits"; with caches: one step of generation, logits of the last position only
// [B, V].
std::unique_ptr<Graph> logits_step(const ModelConfig& config, const ModelOptions& options);

// Writes NAME@bf16 from NAME for every parameter that needs it and has both: after initialising or loading
// weights.
void copy_narrow(State& state, const std::vector<Parameter>& parameters);

}  // namespace nf
