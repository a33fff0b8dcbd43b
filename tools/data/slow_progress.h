// A progress bar for work that is usually over before anyone would want one.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "tools/tracking/progress_bar.h"

namespace nf {

// Shows nothing for the first second. Counts in millions of bytes.
class SlowProgress {
 public:
  // total 0: unknown. `what` ends with the unit.
  explicit SlowProgress(std::string what, int64_t total_bytes = 0)
      : what_(std::move(what)), total_(total_bytes) {}

  // Cheap: a clock is read only after some more bytes.
  void update(int64_t bytes) {
    if (bytes < next_) return;
    next_ = bytes + kStep;
    if (!bar_ && Clock::now() - began_ < std::chrono::seconds(1)) return;
    if (!bar_) bar_.emplace(standard_error(), total_ / kUnit, ProgressBarOptions{.unit = what_});
    bar_->update({.step = bytes / kUnit});
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr int64_t kStep = 1 << 18, kUnit = 1'000'000;

  std::string what_;
  int64_t total_, next_ = 0;
  const Clock::time_point began_ = Clock::now();
  std::optional<ProgressBar> bar_;
};

}  // namespace nf
