// The graphs of a training run, planned but not bound: what the trainer executes and nf-estimate measures.
#pragma once

#include <vector>

#include "models/training_step.h"
#include "tools/settings.h"

namespace nf {

struct PlanOptions {
  int64_t batch = 1;
  int64_t longest = 1;  // batches are at most so long
  DType compute = DType::f32;
  bool documents = false;
  bool accumulates = false;  // steps have more than one micro-batch
  bool evaluates = false;
  bool saves_midway = false;  // checkpoints are written while the run goes on, not at its end alone
  Recompute recompute = {};
  OptimizerOptions optimizer = {};
};

OptimizerOptions optimizer_options(const TrainSettings& settings);

// documents: see TrainingData.
PlanOptions plan_options(const ModelConfig& model, const TrainSettings& settings, bool documents);

// Micro-steps, which overwrite the gradients or add to them, without and with the head-similarity loss;
// evaluation; the update of the weights.
enum class StepKind : uint8_t { first, accumulate, first_similar, accumulate_similar, eval, update };

std::string_view name(StepKind kind);
StepKind micro_kind(bool accumulate, bool head_similarity);

// Those that the run needs. Only one runs at a time, so all share one arena.
std::vector<StepKind> kinds_of_run(const ModelConfig& model, const PlanOptions& options);

// For batches of that length, which does not matter to the update.
Plan plan_step(const ModelConfig& model, const PlanOptions& options, const Device& device, StepKind kind,
               int64_t length);

}  // namespace nf
