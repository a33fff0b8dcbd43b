#include "tools/trainer/executables.h"

#include <algorithm>

#include "tools/trainer/memory.h"

namespace nf {

Executables::Executables(const ModelConfig& model, const PlanOptions& options, std::shared_ptr<State> state)
    : model_(model), options_(options), state_(std::move(state)) {
  const std::vector<StepKind> kinds = kinds_of_run(model_, options_);
  std::vector<Plan> plans;
  for (const StepKind kind : kinds) {
    plans.push_back(plan_step(model_, options_, *state_->device(), kind, options_.longest));
    arena_bytes_ = std::max(arena_bytes_, plans.back().arena_bytes());
  }
  const Device& device = *state_->device();
  if (const auto shortage =
          memory_shortage(sum_memory(plans, kinds), model_, options_, device, memory_around(device)))
    fail("{}", *shortage);
  arena_ = state_->device()->allocate(arena_bytes_);
  for (size_t i = 0; i < kinds.size(); ++i) {
    auto executable = bind(std::move(plans[i]), std::string(name(kinds[i])));
    (kinds[i] == StepKind::update ? update_ : steps_[{options_.longest, kinds[i]}]) = std::move(executable);
  }
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
  const auto [length, kind] = key;
  return *(steps_[key] =
               bind(plan_step(model_, options_, *state_->device(), kind, length), std::string(name(kind))));
}

Executable& Executables::micro(int64_t length, bool accumulate, bool head_similarity) {
  return find({length, micro_kind(accumulate, head_similarity)});
}

Executable& Executables::eval(int64_t length) { return find({length, StepKind::eval}); }

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
