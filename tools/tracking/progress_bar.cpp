#include "tools/tracking/progress_bar.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <vector>

#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

constexpr double kMemorySeconds = 30;  // how far back the speed behind the ETA looks
constexpr int kShortestBar = 8, kLongestBar = 40;
constexpr double kLeastPeakShare = 0.01;  // less says that the model is tiny, and nothing of the machine
constexpr int kUnlimited = 1 << 20;       // columns of a line in a file

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Columns a line takes on the screen: its characters, without escape codes.
int columns_of(std::string_view line) {
  int columns = static_cast<int>(count_characters(line));
  for (size_t at = line.find('\x1b'); at != std::string_view::npos; at = line.find('\x1b', at + 1))
    columns -= static_cast<int>(line.find('m', at) - at) + 1;
  return columns;
}

std::string repeat(std::string_view text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

// A bar of `columns`, filled to `share` in steps of half a column.
std::string draw_bar(double share, int columns, const Terminal& terminal) {
  if (!terminal.unicode) {
    const int full = static_cast<int>(std::clamp(share, 0.0, 1.0) * (columns - 2));
    return "[" + std::string(static_cast<size_t>(full), '#') +
           std::string(static_cast<size_t>(columns - 2 - full), '.') + "]";
  }
  const int halves = static_cast<int>(std::clamp(share, 0.0, 1.0) * columns * 2);
  const int full = halves / 2, half = halves % 2;
  const std::string done = repeat("━", full) + repeat("╸", half);
  const std::string rest = repeat(terminal.color ? "━" : "─", columns - full - half);
  return terminal.color ? "\x1b[36m" + done + "\x1b[90m" + rest + "\x1b[0m" : done + rest;
}

}  // namespace

ProgressBar::ProgressBar(Terminal terminal, int64_t total, ProgressBarOptions options)
    : terminal_(std::move(terminal)), total_(total), options_(std::move(options)) {
  if (!options_.clock) options_.clock = steady_seconds;
  last_drawn_ = -std::numeric_limits<double>::infinity();
}

void ProgressBar::update(const Progress& progress) {
  const double now = options_.clock();
  measure_speed(progress.step, now);
  progress_ = progress;
  pending_ = true;
  if (now - last_drawn_ >= (terminal_.interactive ? options_.redraw_seconds : options_.line_seconds)) {
    draw();
    last_drawn_ = now;
  }
}

// Steps and seconds fade with the same weight, so their ratio is an average speed from the beginning.
void ProgressBar::measure_speed(int64_t step, double now) {
  const bool first = !last_update_;
  const double seconds = now - last_update_.value_or(now);
  const auto steps = static_cast<double>(step - progress_.step);
  last_update_ = now;
  if (first || steps < 0 || seconds < 0) return;
  const double keep = std::exp(-seconds / kMemorySeconds);
  recent_steps_ = keep * recent_steps_ + steps;
  recent_seconds_ = keep * recent_seconds_ + seconds;
}

std::string ProgressBar::eta() const {
  if (total_ <= 0 || recent_steps_ <= 0 || recent_seconds_ <= 0 || progress_.step >= total_) return "";
  const auto left = static_cast<double>(std::max(int64_t{0}, total_ - progress_.step));
  return "eta " + format_duration(left * recent_seconds_ / recent_steps_);
}

// The line in at most `columns`, escape codes not counted.
std::string ProgressBar::compose(int columns) const {
  struct Piece {
    std::string text;
    int rank;  // pieces of a higher rank are left out first
  };
  std::vector<Piece> pieces;
  const auto add = [&](std::string text, int rank) {
    if (!text.empty()) pieces.push_back({std::move(text), rank});
  };
  const std::string total = total_ > 0 ? fmt::format("{}", total_) : "";
  add(total_ > 0 ? fmt::format("{} {:>{}}/{}", options_.unit, progress_.step, total.size(), total)
                 : fmt::format("{} {}", options_.unit, progress_.step),
      0);
  const double share = total_ > 0 ? static_cast<double>(progress_.step) / static_cast<double>(total_) : 0;
  if (total_ > 0) add(fmt::format("{:3.0f}%", std::floor(100 * std::clamp(share, 0.0, 1.0))), 4);
  if (progress_.loss) add(fmt::format("loss {:.4f}", *progress_.loss), 1);
  if (progress_.tokens_per_second) add(format_quantity(*progress_.tokens_per_second) + " tok/s", 3);
  if (progress_.peak_share.value_or(0) >= kLeastPeakShare)
    add(fmt::format("{:.0f}% of peak", 100 * *progress_.peak_share), 5);
  add(eta(), 2);

  const auto width = [&] {
    int sum = 2 * (static_cast<int>(pieces.size()) - 1);
    for (const Piece& piece : pieces) sum += columns_of(piece.text);
    return sum;
  };
  while (pieces.size() > 1 && width() > columns)
    pieces.erase(std::max_element(pieces.begin(), pieces.end(),
                                  [](const Piece& a, const Piece& b) { return a.rank < b.rank; }));
  if (width() > columns) return pieces[0].text.substr(0, static_cast<size_t>(std::max(0, columns)));

  std::string line = pieces[0].text;
  const int room = columns - width() - 2;
  if (terminal_.interactive && total_ > 0 && room >= kShortestBar)
    line += "  " + draw_bar(share, std::min(room, kLongestBar), terminal_);
  for (size_t i = 1; i < pieces.size(); ++i) line += "  " + pieces[i].text;
  return line;
}

// What clears the drawn line. In a window that has become narrower it is wrapped over several rows.
std::string ProgressBar::erase() {
  if (drawn_columns_ == 0) return "";
  const int rows_above = (drawn_columns_ - 1) / std::max(1, terminal_.width());
  drawn_columns_ = 0;
  return rows_above > 0 ? fmt::format("\x1b[{}A\r\x1b[J", rows_above) : "\r\x1b[K";
}

void ProgressBar::draw() {
  pending_ = false;
  if (!terminal_.interactive) {
    terminal_.write(compose(kUnlimited) + "\n");
    return;
  }
  // The last column stays free: a character there makes some terminals wrap.
  const int columns = std::max(1, terminal_.width() - 1);
  const std::string line = compose(columns);
  terminal_.write(erase() + line);
  drawn_columns_ = std::min(columns, columns_of(line));
}

void ProgressBar::print(std::string_view line) {
  const bool drawn = drawn_columns_ > 0;
  terminal_.write(erase() + std::string(line) + "\n");
  if (drawn) draw();
}

void ProgressBar::finish() {
  if (pending_) draw();
  if (drawn_columns_ > 0) terminal_.write("\n");
  drawn_columns_ = 0;
}

}  // namespace nf
