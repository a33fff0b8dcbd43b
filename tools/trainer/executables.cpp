#include "tools/trainer/executables.h"

#include <algorithm>

namespace nf {
namespace {

constexpr std::string_view kStepNames[] = {"micro", "micro+", "micro", "micro+", "eval"};

}  // namespace

Executables::Executables(const ModelConfig& model, const ExecutablesOptions& options,
                         std::shared_ptr<State> state)
    : model_(model), options_(options), state_(std::move(state)) {
  const int64_t longest = options_.longest;
  std::vector<Kind> kinds;
  for (const bool accumulate : {false, true}) {
    if (accumulate && !options_.accumulates) continue;
    if (!model_.head_sim_loss || model_.head_sim_loss_after_warmup)
      kinds.push_back(micro_kind(accumulate, false));
    if (model_.head_sim_loss) kinds.push_back(micro_kind(accumulate, true));
  }
  if (options_.evaluates) kinds.push_back(Kind::eval);

  std::vector<Plan> plans;
  for (const Kind kind : kinds) plans.push_back(plan_step({longest, kind}));
  Plan update =
      plan(*update_step(model_, options_.optimizer, options_.compute), *state_->device(), {.name = "update"});
  arena_bytes_ = update.arena_bytes();
  for (const Plan& step : plans) arena_bytes_ = std::max(arena_bytes_, step.arena_bytes());
  arena_ = state_->device()->allocate(arena_bytes_);
  for (size_t i = 0; i < plans.size(); ++i)
    steps_[{longest, kinds[i]}] =
        bind(std::move(plans[i]), std::string(kStepNames[static_cast<size_t>(kinds[i])]));
  update_ = bind(std::move(update), "update");
}

Executables::Kind Executables::micro_kind(bool accumulate, bool head_similarity) {
  if (head_similarity) return accumulate ? Kind::accumulate_similar : Kind::first_similar;
  return accumulate ? Kind::accumulate : Kind::first;
}

Plan Executables::plan_step(Key key) const {
  const auto [length, kind] = key;
  ModelOptions model{.batch = options_.batch,
                     .length = length,
                     .compute = options_.compute,
                     .training = kind != Kind::eval,
                     .documents = options_.documents,
                     .head_similarity = kind == Kind::first_similar || kind == Kind::accumulate_similar};
  const std::string name(kStepNames[static_cast<size_t>(kind)]);
  if (kind == Kind::eval) return plan(*eval_step(model_, model), *state_->device(), {.name = name});
  const MicroStepOptions micro{.model = model,
                               .accumulate = kind == Kind::accumulate || kind == Kind::accumulate_similar,
                               .head_sim_weight = model.head_similarity ? model_.head_sim_loss_weight : 0};
  return plan(*micro_step(model_, micro), *state_->device(), {.recompute = options_.recompute, .name = name});
}

std::unique_ptr<Executable> Executables::bind(Plan plan, std::string name) {
  if (plan.arena_bytes() > arena_bytes_) {  // a shorter batch can need more: fewer of its values overlap
    arena_bytes_ = plan.arena_bytes();
    arena_ = state_->device()->allocate(arena_bytes_);
  }
  auto executable = std::make_unique<Executable>(std::move(plan), state_, arena_, std::move(name));
  executable->set_profiling(profiling_);
  return executable;
}

Executable& Executables::find(Key key) {
  const auto at = steps_.find(key);
  if (at != steps_.end()) return *at->second;
  return *(steps_[key] = bind(plan_step(key), std::string(kStepNames[static_cast<size_t>(key.second)])));
}

Executable& Executables::micro(int64_t length, bool accumulate, bool head_similarity) {
  return find({length, micro_kind(accumulate, head_similarity)});
}

Executable& Executables::eval(int64_t length) { return find({length, Kind::eval}); }

std::vector<const Executable*> Executables::all() const {
  std::vector<const Executable*> executables;
  for (const auto& [key, executable] : steps_) executables.push_back(executable.get());
  executables.push_back(update_.get());
  return executables;
}

void Executables::set_profiling(bool on) {
  profiling_ = on;
  for (const auto& [key, executable] : steps_) executable->set_profiling(on);
  update_->set_profiling(on);
}

}  // namespace nf
