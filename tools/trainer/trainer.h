// A training run from its settings to its last checkpoint.
//
//     Trainer trainer(parse_command_line(argc, argv, Program::train));
//     const StopSignal stop;
//     return trainer.run([&] { return stop.requested(); });
//
//     RUN/config.json  tokenizer.json   what is trained, for --resume and for the other programs
//     RUN/metrics.jsonl  report.html    every step's numbers, and their curves
//     RUN/checkpoint-N  best            see checkpoint.h
//     RUN/trace.json                    with --profile
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "tools/tracking/speed.h"
#include "tools/trainer/checkpoint_writer.h"
#include "tools/trainer/report.h"

namespace nf {

class Trainer {
 public:
  // Reads the text, builds and compiles the model, makes or restores the weights. Throws Error for bad input;
  // nothing has been written then.
  explicit Trainer(const CommandLine& command, const RunOptions& options = {});

  // Trains until the last step, or until `stop` returns true: it is asked whenever a step has been launched;
  // what is under way is finished, and the run is saved before this returns. Returns the exit status. Throws
  // RunFailed.
  int run(const std::function<bool()>& stop);

  int64_t step() const { return run_state_.step; }
  int64_t total() const { return total_; }
  const TrainSettings& settings() const { return settings_; }
  const TrainingSession& session() const { return *session_; }
  const TrainingData& data() const { return data_; }
  // What this run has measured; none before run().
  const RunHistory* history() const { return report_ ? &report_->history() : nullptr; }

 private:
  struct Launched {
    int64_t step = 0;
    double learning_rate = 0;
    BatchPosition position;  // after it
    std::chrono::steady_clock::time_point start;
  };

  void open_run();
  void settle_tokenizer(const Tokenizer* tokenizer);
  void settle_base();
  void start_weights();

  void train(const std::function<bool()>& stop);
  void train_step();
  bool waits_for(int64_t step) const;  // something follows that step and needs its end
  void launch_step();
  void finish_step();
  bool evaluation_due() const;
  void evaluate(int64_t batches);  // with keep_best saves and marks the checkpoint of the lowest loss
  void save(bool best = false);    // unless this step is saved
  void measure_peak();
  void profile();

  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  TrainSettings settings_;
  RunOptions options_;
  std::filesystem::path folder_;
  std::optional<Checkpoint> checkpoint_;  // to resume from
  std::vector<std::string> notes_;
  TrainingData data_;
  std::unique_ptr<Batches> batches_, validation_;
  int64_t total_ = 0;
  ScheduleOptions schedule_;
  std::unique_ptr<TrainingSession> session_;
  std::string identity_;
  std::filesystem::path base_;  // the frozen weights' folder, with adapters
  RunState run_state_;          // as of the last step that is finished
  int64_t first_step_ = 0;
  std::unique_ptr<RunReport> report_;

  std::unique_ptr<CheckpointWriter> writer_;
  std::vector<Launched> launched_;  // and not finished, the oldest first
  std::chrono::steady_clock::time_point last_finish_ = began_;

  int64_t saved_step_ = -1;
  std::filesystem::path saved_;  // the newest checkpoint
  double seconds_ = 0;           // spent in steps
  Speed speed_;                  // in tokens
  std::optional<double> peak_flops_;
};

}  // namespace nf
