#include "tools/trainer/plans.h"

#include <algorithm>

#include "tools/data/batches.h"

namespace nf {
namespace {

Recompute recompute_of(const GradientCheckpointing& checkpointing) {
  switch (checkpointing.mode) {
    case GradientCheckpointing::Mode::none: return {};
    case GradientCheckpointing::Mode::layer: return {.kind = Recompute::Kind::layer};
    case GradientCheckpointing::Mode::bytes:
      return {.kind = Recompute::Kind::budget, .bytes = checkpointing.bytes};
  }
  return {};
}

// Batches that are padded end at a multiple of kLengthMultiple, which may lie beyond seq_len.
int64_t longest_batch(const TrainSettings& settings) {
  if (settings.batch_mode == BatchMode::pack) return settings.seq_len;
  return (settings.seq_len + kLengthMultiple - 1) / kLengthMultiple * kLengthMultiple;
}

// Whether something that happens every so many steps happens before the last one. A run whose length the text
// decides is taken for a long one.
bool before_the_end(const TrainSettings& settings, int64_t every) {
  return every > 0 && (settings.steps == 0 || every < settings.steps);
}

}  // namespace

OptimizerOptions optimizer_options(const TrainSettings& s) {
  return {.optimizer = s.optimizer,
          .weight_decay = s.weight_decay,
          .beta1 = s.beta1,
          .beta2 = s.beta2,
          .eps = s.eps,
          .momentum = s.momentum,
          .nesterov = s.nesterov,
          .muon_scaling = s.muon_scaling,
          .clip = s.clip,
          .ema = s.ema};
}

PlanOptions plan_options(const ModelConfig& model, const TrainSettings& settings, bool documents) {
  return {.batch = settings.batch_size,
          .longest = longest_batch(settings),
          .compute = settings.dtype == ComputeType::bf16 ? DType::bf16 : DType::f32,
          .documents = documents,
          .accumulates = settings.grad_accum > 1,
          .evaluates = settings.eval_every > 0 && settings.val_fraction > 0,
          .saves_midway = before_the_end(settings, settings.save_every) ||
                          (settings.val_fraction > 0 && before_the_end(settings, settings.eval_every)),
          .recompute = recompute_of(model.gradient_checkpointing),
          .optimizer = optimizer_options(settings)};
}

std::string_view name(StepKind kind) {
  constexpr std::string_view kNames[] = {"micro", "micro+", "micro", "micro+", "eval", "update"};
  return kNames[static_cast<size_t>(kind)];
}

StepKind micro_kind(bool accumulate, bool head_similarity) {
  if (head_similarity) return accumulate ? StepKind::accumulate_similar : StepKind::first_similar;
  return accumulate ? StepKind::accumulate : StepKind::first;
}

std::vector<StepKind> kinds_of_run(const ModelConfig& model, const PlanOptions& options) {
  std::vector<StepKind> kinds;
  for (const bool accumulate : {false, true}) {
    if (accumulate && !options.accumulates) continue;
    if (!model.head_sim_loss || model.head_sim_loss_after_warmup)
      kinds.push_back(micro_kind(accumulate, false));
    if (model.head_sim_loss) kinds.push_back(micro_kind(accumulate, true));
  }
  if (options.evaluates) kinds.push_back(StepKind::eval);
  kinds.push_back(StepKind::update);
  return kinds;
}

Plan plan_step(const ModelConfig& model, const PlanOptions& options, const Device& device, StepKind kind,
               int64_t length) {
  const std::string called(name(kind));
  if (kind == StepKind::update)
    return plan(*update_step(model, options.optimizer, options.compute), device, {.name = called});
  // A padded batch is longer than seq_len by less than kLengthMultiple, all of it padding.
  ModelConfig wide = model;
  wide.max_position_embeddings = std::max(model.max_position_embeddings, options.longest);
  const ModelOptions graph{
      .batch = options.batch,
      .length = length,
      .compute = options.compute,
      .training = kind != StepKind::eval,
      .documents = options.documents,
      .head_similarity = kind == StepKind::first_similar || kind == StepKind::accumulate_similar};
  if (kind == StepKind::eval) return plan(*eval_step(wide, graph), device, {.name = called});
  const MicroStepOptions micro{
      .model = graph,
      .accumulate = kind == StepKind::accumulate || kind == StepKind::accumulate_similar,
      .head_sim_weight = graph.head_similarity ? model.head_sim_loss_weight : 0};
  return plan(*micro_step(wide, micro), device, {.recompute = options.recompute, .name = called});
}

}  // namespace nf
