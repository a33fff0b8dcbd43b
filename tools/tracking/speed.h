// How fast something goes just now.
#pragma once

#include <optional>

namespace nf {

// Tokens (or whatever is counted) per second over the last steps, older ones exponentially forgotten. The
// first step is left out: it touches memory for the first time and is far slower than all that follow.
class Speed {
 public:
  void add(double count, double seconds) {
    if (!started_) {
      started_ = true;
      return;
    }
    count_ = kKept * count_ + count;
    seconds_ = kKept * seconds_ + seconds;
  }

  std::optional<double> per_second() const {
    return seconds_ > 0 ? std::optional(count_ / seconds_) : std::nullopt;
  }

 private:
  static constexpr double kKept = 0.9;  // weight of the steps before

  bool started_ = false;
  double count_ = 0, seconds_ = 0;
};

}  // namespace nf
