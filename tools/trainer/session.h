// What computes in a training run: a State, the executables over it, and one step of training.
//
//     TrainingSession session(model, settings, data.documents, device);
//     session.initialize();
//     StepResult result = session.step(*batches, 1, 3e-4);
//
// The bits that a step leaves behind depend on the State, the batches, the settings and the step's number
// alone: not on threads, gradient checkpointing, or what ran before.
#pragma once

#include <array>

#include "tools/data/batches.h"
#include "tools/trainer/executables.h"

namespace nf {

struct StepResult {
  double loss = 0;           // per target token, over all micro-batches; auxiliary losses included
  double gradient_norm = 0;  // before clipping; when it is not finite, the weights have kept their values
  int64_t tokens = 0;        // targets
  std::optional<double> head_similarity = std::nullopt;  // mean over micro-batches, where it is computed
};

class TrainingSession {
 public:
  // Compiles; `model` has its vocabulary. documents: see TrainingData. head_similarity_from: the first step
  // in which the head-similarity loss counts, for models that have one.
  TrainingSession(const ModelConfig& model, const TrainSettings& settings, bool documents,
                  std::shared_ptr<const Device> device, int64_t head_similarity_from = 0);

  // Fresh weights, drawn by the seed; of those that are trained.
  void initialize();
  // To be called after the weights in state() have been written.
  void weights_changed() {
    if (options_.compute != DType::f32) copy_narrow(*state_, parameters_);
  }

  // Takes grad_accum batches and updates the weights. Throws RunFailed for a loss that is not finite; the
  // message names the first value that is not. Allocates nothing once it has seen every length of batch.
  StepResult step(Batches& batches, int64_t step, double learning_rate) {
    require(launched_ == finished_, "session: a step is under way already");
    launch(batches, step, learning_rate);
    return finish();
  }

  // The two halves of a step. On a device that works by itself the next one may be launched before this one
  // is finished, so that the device never waits for the host; at most kMostUnderWay have been launched and
  // not finished. `batches` must live until finish(), which tells of the one launched first.
  static constexpr int64_t kMostUnderWay = 2;
  bool may_overlap() const { return !state_->device()->shares_host_memory(); }
  void launch(Batches& batches, int64_t step, double learning_rate);
  StepResult finish();

  // Mean loss per target token (cross entropy alone) of the next `count` batches; weights stay as they are.
  double evaluate(Batches& batches, int64_t count);

  State& state() { return *state_; }
  const State& state() const { return *state_; }
  const ModelConfig& model() const { return model_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  Executables& executables() { return *executables_; }
  const Executables& executables() const { return *executables_; }
  DType compute() const { return options_.compute; }

 private:
  // What is kept of a step from launch to finish.
  struct UnderWay {
    Batches* batches = nullptr;
    std::vector<BatchPosition> positions = {};  // of the micro-steps' batches
    int64_t step = 0, tokens = 0;
    bool similar = false;                    // with the head-similarity loss
    std::unique_ptr<Readback> results = {};  // see session.cpp
  };

  void next_batch(Batches& batches);
  void set_inputs(Executable& executable, int64_t step, int64_t micro);
  [[noreturn]] void fail_nonfinite(const UnderWay& failed, int64_t micro, float loss);

  ModelConfig model_;
  TrainSettings settings_;
  PlanOptions options_;
  int64_t head_similarity_from_;
  std::shared_ptr<State> state_;
  std::vector<Parameter> parameters_;
  std::unique_ptr<Executables> executables_;
  Batch batch_;
  std::array<UnderWay, kMostUnderWay> under_way_;
  int64_t launched_ = 0, finished_ = 0;
};

// The device that the settings name.
std::shared_ptr<const Device> open_device(const TrainSettings& settings);

}  // namespace nf
