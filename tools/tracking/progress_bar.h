// The line one watches while a model trains.
//
//     step  1234/20000  ━━╸─────────────────    6%  loss 1.8342  12.3k tok/s  41% of peak  eta 2:13
//
// On an interactive terminal one line is redrawn in place, at most ten times a second, and always fits the
// window: what matters least is left out first. Anywhere else (a file, a CI log) a plain line is printed now
// and then.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "tools/tracking/terminal.h"

namespace nf {

struct Progress {
  int64_t step = 0;  // steps done
  std::optional<double> loss = std::nullopt;
  std::optional<double> tokens_per_second = std::nullopt;
  std::optional<double> peak_share = std::nullopt;  // of the machine's peak FLOP/s; below 1 % not shown
};

struct ProgressBarOptions {
  std::string unit = "step";  // what is counted
  double redraw_seconds = 0.1;
  double line_seconds = 10;                 // between lines when not interactive
  std::function<double()> clock = nullptr;  // seconds, never going back; by default the steady clock
};

// Not safe to call from several threads at once. While it is in use nothing else may write to the terminal
// but through print().
class ProgressBar {
 public:
  // total 0: unknown.
  ProgressBar(Terminal terminal, int64_t total, ProgressBarOptions options = {});
  ~ProgressBar() { finish(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Cheap when nothing is drawn: call it every step. The first call begins the measurement of the speed: what
  // came before (a resumed run's steps, the slow first step) does not count, and there is no ETA yet.
  void update(const Progress& progress);

  // Prints a line of its own (a validation loss, a saved checkpoint) above the bar. `line` has no line end.
  void print(std::string_view line);

  // Shows the last state and leaves the line. Called again, it does nothing until the next update().
  void finish();

 private:
  void measure_speed(int64_t step, double now);
  std::string eta() const;
  std::string compose(int columns) const;
  void draw();
  std::string erase();

  Terminal terminal_;
  int64_t total_;
  ProgressBarOptions options_;
  Progress progress_;
  std::optional<double> last_update_ = std::nullopt;
  double last_drawn_;  // time of the last drawing or line; in the distant past at first
  double recent_steps_ = 0, recent_seconds_ = 0;  // exponentially forgotten
  int drawn_columns_ = 0;                         // of the line now on the screen; 0: none
  bool pending_ = false;                          // progress_ has not been shown yet
};

}  // namespace nf
