#include "tools/trainer/session.h"
#include "tools/device.h"

#include <array>
#include <cmath>
#include <cstring>

#include "tools/program.h"
#include "tools/trainer/buckets.h"

namespace nf {
namespace {

void set_scalar(Executable& executable, std::string_view name, double value) {
  const auto narrow = static_cast<float>(value);
  if (executable.has_input(name)) executable.set(name, std::span(&narrow, 1));
}

// Of a step are read back, as floats: the loss and the head similarity of every micro-step, then the norm.
constexpr int64_t kFloat = sizeof(float);
int64_t loss_at(int64_t micro) { return 2 * micro * kFloat; }
int64_t similarity_at(int64_t micro) { return (2 * micro + 1) * kFloat; }
int64_t norm_at(int64_t micro_steps) { return 2 * micro_steps * kFloat; }
int64_t result_bytes(int64_t micro_steps) { return (2 * micro_steps + 1) * kFloat; }

float float_at(std::span<const std::byte> bytes, int64_t at) {
  float value = 0;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
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
      executables_(std::make_unique<Executables>(model, options_, state_)) {
  for (UnderWay& step : under_way_) {
    step.positions.resize(static_cast<size_t>(settings_.grad_accum));
    step.results = state_->device()->readback(result_bytes(settings_.grad_accum));
  }
}

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

void TrainingSession::launch(Batches& batches, int64_t step, double learning_rate) {
  require(launched_ - finished_ < kMostUnderWay, "session: {} steps are under way already", kMostUnderWay);
  UnderWay& now = under_way_[static_cast<size_t>(launched_ % kMostUnderWay)];
  now.batches = &batches;
  now.step = step;
  now.tokens = 0;
  now.similar = model_.head_sim_loss && step >= head_similarity_from_;
  for (int64_t micro = 0; micro < settings_.grad_accum; ++micro) {
    now.positions[static_cast<size_t>(micro)] = batches.position();
    next_batch(batches);
    Executable& executable = executables_->micro(batch_.length, micro > 0, now.similar);
    set_inputs(executable, step, micro);
    executable.run();
    executable.read_later("loss_sum", *now.results, loss_at(micro));
    if (now.similar) executable.read_later("head_similarity", *now.results, similarity_at(micro));
    now.tokens += batch_.real_target_tokens;
  }
  Executable& update = executables_->update();
  set_scalar(update, "learning_rate", learning_rate);
  set_scalar(update, "step", static_cast<double>(step));
  set_scalar(update, "gradient_scale", 1 / static_cast<double>(std::max<int64_t>(1, now.tokens)));
  update.run();
  update.read_later("gradient_norm", *now.results, norm_at(settings_.grad_accum));
  ++launched_;
}

StepResult TrainingSession::finish() {
  require(finished_ < launched_, "session: no step is under way");
  const UnderWay& done = under_way_[static_cast<size_t>(finished_ % kMostUnderWay)];
  const std::span<const std::byte> results = done.results->wait();
  ++finished_;
  double loss_sum = 0, similarity_sum = 0;
  for (int64_t micro = 0; micro < settings_.grad_accum; ++micro) {
    const float loss = float_at(results, loss_at(micro));
    if (!std::isfinite(loss)) fail_nonfinite(done, micro, loss);
    loss_sum += static_cast<double>(loss);
    similarity_sum += static_cast<double>(float_at(results, similarity_at(micro)));
  }
  StepResult result{.loss = loss_sum / static_cast<double>(std::max<int64_t>(1, done.tokens)),
                    .gradient_norm = static_cast<double>(float_at(results, norm_at(settings_.grad_accum))),
                    .tokens = done.tokens};
  if (done.similar) result.head_similarity = similarity_sum / static_cast<double>(settings_.grad_accum);
  return result;
}

// The weights are those that the loss was computed with where its gradients are not finite either, since then
// no update is made, and where the next step has not changed them.
void TrainingSession::fail_nonfinite(const UnderWay& failed, int64_t micro, float loss) {
  failed.batches->seek(failed.positions[static_cast<size_t>(micro)]);
  next_batch(*failed.batches);
  Executable& executable = executables_->micro(batch_.length, false, failed.similar);
  set_inputs(executable, failed.step, micro);
  const std::string where = executable.find_nonfinite();
  throw RunFailed(fmt::format("step {}: the loss is {}; {}; try a lower --lr or more --warmup-steps",
                              failed.step, std::isnan(loss) ? "not a number" : "infinite",
                              where.empty() ? "every value that led to it is finite, their sum is not"
                                            : "the first value that is not finite: " + where));
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
