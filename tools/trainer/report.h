// What a run tells: a progress bar and lines for people, JSON lines for programs; for later, metrics.jsonl,
// report.html, and what else --track names.
#pragma once

#include <filesystem>
#include <optional>

#include "tools/report/page.h"
#include "tools/tracking/progress_bar.h"
#include "tools/trainer/run_state.h"
#include "tools/trainer/session.h"

namespace nf {

struct StepReport {
  int64_t step = 0;
  StepResult result;
  double learning_rate = 0;
  int64_t tokens = 0;                                      // of the whole run
  double seconds = 0;                                      // in steps, since this start
  std::optional<double> tokens_per_second = std::nullopt;  // not known after the first step
  std::optional<double> peak_share = std::nullopt;
};

// How a run among others differs from one by itself.
struct RunOptions {
  bool brief = false;     // no summary, no plot, and none of the lines at the end
  bool keep_best = true;  // save the weights whenever the validation loss is the lowest so far
  std::shared_ptr<const Device> device = nullptr;  // to be used instead of the one that the settings name
};

// With --json every message is one object per line on standard output, {"event": "step", …}, and nothing
// else is printed. Otherwise the summary and the end go to standard output, what happens meanwhile to the
// terminal behind standard error. The trackers and report.html, which is renewed while the run goes on, are
// written in both cases.
class RunReport {
 public:
  // `resumed`: the run goes on after `first_step`, and so does its metrics.jsonl.
  RunReport(const TrainSettings& settings, std::filesystem::path run, int64_t first_step, int64_t total,
            bool resumed, const RunOptions& options = {});

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
  void flush() { trackers_.flush(); }

  // The last lines: how it went, a plot of the losses, where the checkpoint is.
  void end(const RunState& run, const std::filesystem::path& checkpoint, double seconds, bool interrupted);

  const RunHistory& history() const { return history_; }

 private:
  void add_trackers();  // those that --track names
  void log(int64_t step, std::span<const Metric> metrics);
  void write_page(RunStatus status);
  void print_end(const RunState& run, const std::filesystem::path& checkpoint, double seconds,
                 bool interrupted);
  std::string curves() const;

  const TrainSettings& settings_;
  std::filesystem::path run_;
  int64_t first_step_, total_;
  bool resumed_;
  RunOptions options_;
  TrackerList trackers_;
  RunHistory history_;
  RunFacts facts_;
  std::string subtitle_;  // of the page
  PageWriter page_;
  bool page_failed_ = false;  // told once
  double seconds_before_;     // in steps, before this start
  double memory_told_ = 0;    // in steps, when the memory was last logged
  ProgressBar bar_;
  int64_t trained_tokens_ = 0;  // since this start
  std::optional<double> last_loss_, last_validation_;
};

// What is known of a run before its first step.
// `model` has its vocabulary, `settings` the run's steps; memory_bytes: of its tensors and arena.
RunFacts run_facts(const ModelConfig& model, const TrainSettings& settings, int64_t memory_bytes);

}  // namespace nf
