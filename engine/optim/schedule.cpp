// Learning-rate schedules: plain numbers, no graph.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "nf/error.h"
#include "nf/optim.h"

namespace nf {
namespace {

double ratio(int64_t part, int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(std::max<int64_t>(whole, 1));
}

// How far `step` is on the way from `first` to `last`, in [0, 1].
double progress(int64_t step, int64_t first, int64_t last) {
  return step >= last ? 1 : std::clamp(ratio(step - first, last - first), 0.0, 1.0);
}

double cosine(const ScheduleOptions& options, int64_t step) {
  const double done = progress(step, options.warmup_steps, options.total_steps);
  return options.min_lr_ratio + (1 - options.min_lr_ratio) * 0.5 * (1 + std::cos(std::numbers::pi * done));
}

double warmup_stable_decay(const ScheduleOptions& options, int64_t step) {
  const int64_t last = options.total_steps;
  const int64_t decay_steps = std::llround(options.decay_fraction * static_cast<double>(last));
  const int64_t first = std::max(last - decay_steps, options.warmup_steps);
  if (step <= first) return 1;
  const double done = progress(step, first, last);
  return 1 - (options.decay_shape == DecayShape::linear ? done : std::sqrt(done));
}

void check(const ScheduleOptions& options, int64_t step) {
  require(step >= 0, "schedule: step {} is negative", step);
  require(options.warmup_steps >= 0, "schedule: warmup_steps is {}, but must not be negative",
          options.warmup_steps);
  require(options.total_steps >= 1, "schedule: total_steps is {}, but must be positive", options.total_steps);
  require(options.min_lr_ratio >= 0 && options.min_lr_ratio <= 1,
          "schedule: min_lr_ratio is {}, but must be in [0, 1]", options.min_lr_ratio);
  require(options.decay_fraction >= 0 && options.decay_fraction <= 1,
          "schedule: decay_fraction is {}, but must be in [0, 1]", options.decay_fraction);
}

}  // namespace

double learning_rate_factor(const ScheduleOptions& options, int64_t step) {
  check(options, step);
  if (step < options.warmup_steps) return ratio(step, options.warmup_steps);
  switch (options.schedule) {
    case Schedule::constant: return 1;
    case Schedule::linear: return 1 - progress(step, options.warmup_steps, options.total_steps);
    case Schedule::cosine: return cosine(options, step);
    case Schedule::wsd: return warmup_stable_decay(options, step);
  }
  fail("schedule: there is no schedule number {}", static_cast<int>(options.schedule));
}

}  // namespace nf
