// A first Ctrl-C asks the run to stop after the step at hand and to save; a second one ends the process.
#pragma once

namespace nf {

// Catches SIGINT, and SIGTERM alike, while it lives; one at a time. After the first signal the usual action
// is back in place, so that the next one ends the process at once.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  bool requested() const;
};

}  // namespace nf
