// What a run tells: a progress bar and lines for people, JSON lines for programs, metrics.jsonl for later.
#pragma once

#include <filesystem>
#include <optional>

#include "tools/tracking/jsonl_tracker.h"
#include "tools/tracking/progress_bar.h"
#include "tools/trainer/run_state.h"
#include "tools/trainer/session.h"

namespace nf {

struct StepReport {
  int64_t step = 0;
  StepResult result;
  double learning_rate = 0;
  int64_t tokens = 0;                                      // of the whole run
  std::optional<double> tokens_per_second = std::nullopt;  // not known after the first step
  std::optional<double> peak_share = std::nullopt;
};

// With --json every message is one object per line on standard output, {"event": "step", …}, and nothing
// else is printed. Otherwise the summary and the end go to standard output, what happens meanwhile to the
// terminal behind standard error. metrics.jsonl is written in both cases.
class RunReport {
 public:
  // `resumed`: the run goes on after `first_step`, and so does its metrics.jsonl.
  RunReport(const TrainSettings& settings, std::filesystem::path run, int64_t first_step, int64_t total,
            bool resumed);

  // The first lines: what is trained, on what, how much memory it takes. `seconds`: since the program
  // started.
  void begin(const TrainingSession& session, const TrainingData& data, double seconds);

  void step(const StepReport& report);
  void skipped(int64_t step, double gradient_norm);  // an update that was left out
  void evaluated(int64_t step, double loss, bool best);
  void saved(const std::filesystem::path& checkpoint);
  void note(std::string_view line);
  void profile(std::string_view table, const std::filesystem::path& trace);

  // Makes the metrics durable: before a checkpoint.
  void flush() { tracker_.flush(); }

  // The last lines: how it went, a plot of the losses, where the checkpoint is.
  void end(const RunState& run, const std::filesystem::path& checkpoint, double seconds, bool interrupted);

 private:
  std::string curves() const;

  const TrainSettings& settings_;
  std::filesystem::path run_;
  int64_t first_step_, total_;
  bool resumed_;
  JsonlTracker tracker_;
  ProgressBar bar_;
  int64_t trained_tokens_ = 0;  // since this start
  std::optional<double> last_loss_, last_validation_;
};

}  // namespace nf
