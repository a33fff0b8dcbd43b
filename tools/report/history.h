// A run's metrics in memory, for its page and for comparisons: a tracker that keeps what it is told.
#pragma once

#include <filesystem>

#include "tools/report/curves.h"
#include "tools/tracking/tracker.h"

namespace nf {

class RunHistory final : public Tracker {
 public:
  RunHistory();

  // Records with "val_loss" are validations; they stand where the last training step did.
  void log(int64_t step, std::span<const Metric> metrics) override;

  // What metrics.jsonl holds. Throws Error when it cannot be read.
  void read(const std::filesystem::path& metrics);

  // Columns step, tokens, seconds; then loss, lr, grad_norm, tokens_per_second, memory.
  const Curves& training() const { return training_; }
  // Columns step, tokens, seconds; then val_loss.
  const Curves& validation() const { return validation_; }

  int64_t step() const { return step_; }       // the last one; 0: none
  double tokens() const { return tokens_; }    // learned from until then
  double seconds() const { return seconds_; }  // spent in steps until then

 private:
  Curves training_, validation_;
  int64_t step_ = 0;
  double tokens_ = 0, seconds_ = 0;
};

}  // namespace nf
