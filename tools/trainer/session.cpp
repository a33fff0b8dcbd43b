#include "tools/trainer/session.h"
#include "tools/device.h"

#include <array>
#include <cmath>

#include "tools/program.h"
#include "tools/trainer/buckets.h"

namespace nf {
namespace {

void set_scalar(Executable& executable, std::string_view name, double value) {
  const auto narrow = static_cast<float>(value);
  if (executable.has_input(name)) executable.set(name, std::span(&narrow, 1));
}

[[noreturn]] void fail_nonfinite(Executable& executable, int64_t step, float loss) {
  const std::string where = executable.find_nonfinite();
  throw RunFailed(fmt::format("step {}: the loss is {}; {}; try a lower --lr or more --warmup-steps", step,
                              std::isnan(loss) ? "not a number" : "infinite",
                              where.empty() ? "every value that led to it is finite, their sum is not"
                                            : "the first value that is not finite: " + where));
}

}  // namespace

std::shared_ptr<const Device> open_device(const TrainSettings& settings) {
  return open_device(name(settings.device), settings.threads);
}

TrainingSession::TrainingSession(const ModelConfig& model, const TrainSettings& settings, bool documents,
                                 std::shared_ptr<const Device> device, int64_t head_similarity_from)
    : model_(model),
      settings_(settings),
      options_(plan_options(model, settings, documents)),
      head_similarity_from_(head_similarity_from),
      state_(std::make_shared<State>(std::move(device))),
      parameters_(model_parameters(model)),
      executables_(std::make_unique<Executables>(model, options_, state_)) {}

void TrainingSession::initialize() {
  initialize_parameters(*state_, parameters_, static_cast<uint64_t>(settings_.seed));
  weights_changed();
}

void TrainingSession::next_batch(Batches& batches) {
  batches.next(batch_);
  if (settings_.batch_mode == BatchMode::pad)
    lengthen(batch_, bucket_length(batch_.length, options_.longest));
}

void TrainingSession::set_inputs(Executable& executable, int64_t step, int64_t micro) {
  executable.set("ids", std::span<const int32_t>(batch_.ids));
  executable.set("targets", std::span<const int32_t>(batch_.targets));
  if (executable.has_input("documents"))
    executable.set("documents", std::span<const int32_t>(batch_.documents));
  if (executable.has_input("rng")) {
    const auto seed = static_cast<uint64_t>(settings_.seed);
    const std::array<int32_t, 4> key{static_cast<int32_t>(static_cast<uint32_t>(seed)),
                                     static_cast<int32_t>(static_cast<uint32_t>(seed >> 32)),
                                     static_cast<int32_t>(step), static_cast<int32_t>(micro)};
    executable.set("rng", std::span<const int32_t>(key));
  }
}

StepResult TrainingSession::step(Batches& batches, int64_t step, double learning_rate) {
  const bool similar = model_.head_sim_loss && step >= head_similarity_from_;
  StepResult result;
  double loss_sum = 0, similarity_sum = 0;
  for (int64_t micro = 0; micro < settings_.grad_accum; ++micro) {
    next_batch(batches);
    Executable& executable = executables_->micro(batch_.length, micro > 0, similar);
    set_inputs(executable, step, micro);
    executable.run();
    const float loss = executable.scalar("loss_sum");
    if (!std::isfinite(loss)) fail_nonfinite(executable, step, loss);
    loss_sum += static_cast<double>(loss);
    if (similar) similarity_sum += static_cast<double>(executable.scalar("head_similarity"));
    result.tokens += batch_.real_target_tokens;
  }
  const double scale = 1 / static_cast<double>(std::max<int64_t>(1, result.tokens));
  Executable& update = executables_->update();
  set_scalar(update, "learning_rate", learning_rate);
  set_scalar(update, "step", static_cast<double>(step));
  set_scalar(update, "gradient_scale", scale);
  update.run();
  result.loss = loss_sum * scale;
  result.gradient_norm = static_cast<double>(update.scalar("gradient_norm"));
  if (similar) result.head_similarity = similarity_sum / static_cast<double>(settings_.grad_accum);
  return result;
}

double TrainingSession::evaluate(Batches& batches, int64_t count) {
  double loss_sum = 0;
  int64_t tokens = 0;
  for (int64_t i = 0; i < count; ++i) {
    next_batch(batches);
    Executable& executable = executables_->eval(batch_.length);
    set_inputs(executable, 0, i);
    executable.run();
    loss_sum += static_cast<double>(executable.scalar("loss_sum"));
    tokens += batch_.real_target_tokens;
  }
  return loss_sum / static_cast<double>(std::max<int64_t>(1, tokens));
}

}  // namespace nf
