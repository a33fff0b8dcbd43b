#include "tools/tracking/plot.h"

#include <fmt/format.h>
#include <nf/error.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

constexpr std::array kColors = {"\x1b[36m", "\x1b[33m", "\x1b[35m", "\x1b[32m"};
constexpr const char* kReset = "\x1b[0m";

// The values an axis shows and the marks on it.
struct Axis {
  double low, high;
  std::vector<double> ticks;
  bool scientific = false;
  int digits = 0;  // significant ones when scientific, else after the point

  double share(double value) const { return (value - low) / (high - low); }  // 0 … 1

  std::string label(double tick) const {
    // A tick next to zero is zero, not -1e-17.
    const double value = std::abs(tick) < (high - low) * 1e-9 ? 0.0 : tick;
    return scientific ? fmt::format("{:.{}g}", value, digits) : fmt::format("{:.{}f}", value, digits);
  }
};

struct Bounds {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();

  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }

  // Bounds that are not one value, for there must be something to divide.
  Bounds widened() const {
    if (high - low > 1e-9 * std::max(std::abs(low), std::abs(high))) return *this;
    const double room = low == 0 ? 1 : 0.1 * std::abs(low);
    return {low - room, high + room};
  }
};

// An axis with a tick at every multiple of `step`.
Axis with_ticks(double low, double high, double step) {
  Axis axis{low, high, {}};
  const double first = std::ceil(low / step - 1e-9), last = std::floor(high / step + 1e-9);
  for (double i = first; i <= last; ++i) axis.ticks.push_back(i * step);
  const double magnitude = std::max(std::abs(low), std::abs(high));
  axis.scientific = magnitude >= 1e7 || step < 1e-4;
  axis.digits = axis.scientific ? static_cast<int>(std::log10(magnitude / step) + 1e-9) + 1
                                : std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9)));
  return axis;
}

constexpr std::array kNiceSteps = {1.0, 2.0, 5.0, 10.0, 20.0, 50.0};  // times a power of ten

// The axis along x: exactly the values there are, with at most one tick for ten columns.
Axis make_x_axis(const Bounds& x, int columns) {
  const double least = (x.high - x.low) * 10 / columns;
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (const double nice : kNiceSteps)
    if (nice * power >= least) return with_ticks(x.low, x.high, nice * power);
  return with_ticks(x.low, x.high, x.high - x.low);
}

// The axis along y: its ticks stand on the middle of rows, two to four rows apart, and the values fill what
// is left.
Axis make_y_axis(const Bounds& y, int rows) {
  const double least = (y.high - y.low) / (rows - 1);  // what a row must cover
  const double power = std::pow(10, std::floor(std::log10(least)));
  double best_row = std::numeric_limits<double>::infinity(), best_low = 0, best_step = 0;
  for (const double nice : kNiceSteps) {
    for (const int rows_per_tick : {2, 3, 4}) {
      const double step = nice * power, row = step / rows_per_tick,
                   low = std::floor(y.low / row + 1e-9) * row;
      if (row >= best_row || low + row * (rows - 1) < y.high - 1e-9 * row) continue;
      best_row = row;
      best_low = low;
      best_step = step;
    }
  }
  // Rows that stay free: half of them below, but not below zero without need.
  const double free_rows = std::floor((best_low + best_row * (rows - 1) - y.high) / best_row / 2 + 1e-9);
  for (double i = 0; i < free_rows && (best_low < 0 || best_low >= best_row * (1 - 1e-9)); ++i)
    best_low -= best_row;
  Axis axis = with_ticks(best_low, best_low + best_row * (rows - 1), best_step);
  axis.low -= best_row / 2;
  axis.high += best_row / 2;
  return axis;
}

// The drawing area: dots by cell, and which series a cell belongs to.
class Canvas {
 public:
  Canvas(int columns, int rows, bool unicode)
      : columns_(columns), rows_(rows), unicode_(unicode), cells_(static_cast<size_t>(columns * rows)) {}

  int columns() const { return columns_; }
  int column_of(int dot) const { return unicode_ ? dot / 2 : dot; }
  int row_of(int dot) const { return unicode_ ? dot / 4 : dot; }
  int dots_across() const { return unicode_ ? columns_ * 2 : columns_; }
  int dots_down() const { return unicode_ ? rows_ * 4 : rows_; }

  // y counts from the top.
  void dot(int x, int y, int series) {
    // Braille numbers its dots down the left, then the right column, and the bottom row last.
    static constexpr uint8_t kBits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    Cell& cell = at(column_of(x), row_of(y));
    cell.dots |= unicode_ ? kBits[y % 4][x % 2] : uint8_t{1};
    cell.series = series;
  }

  void mark(int x, int y, int series) {
    Cell& cell = at(column_of(x), row_of(y));
    cell.marked = true;
    cell.series = series;
  }

  // From a to b, leaving no hole.
  void line(int xa, int ya, int xb, int yb, int series) {
    const int steps = std::max({std::abs(xb - xa), std::abs(yb - ya), 1});
    for (int i = 0; i <= steps; ++i) {
      const double share = static_cast<double>(i) / steps;
      dot(static_cast<int>(std::lround(xa + share * (xb - xa))),
          static_cast<int>(std::lround(ya + share * (yb - ya))), series);
    }
  }

  std::string row(int y, bool color) const {
    std::string out;
    int last = columns_;
    while (last > 0 && empty(at(last - 1, y))) --last;
    int painted = -1;  // the series whose colour is on
    for (int x = 0; x < last; ++x) {
      const Cell& cell = at(x, y);
      if (color && !empty(cell) && cell.series != painted) {
        out += kColors[static_cast<size_t>(cell.series) % kColors.size()];
        painted = cell.series;
      }
      append_cell(out, cell);
    }
    if (painted >= 0) out += kReset;
    return out;
  }

 private:
  struct Cell {
    uint8_t dots = 0;
    bool marked = false;
    int series = 0;
  };
  static bool empty(const Cell& cell) { return cell.dots == 0 && !cell.marked; }
  void append_cell(std::string& out, const Cell& cell) const {
    if (empty(cell))
      out += ' ';
    else if (cell.marked)
      out += unicode_ ? "●" : "o";
    else if (unicode_)
      append_utf8(out, U'\u2800' + cell.dots);
    else
      out += '*';
  }
  Cell& at(int x, int y) { return cells_[static_cast<size_t>(y * columns_ + x)]; }
  const Cell& at(int x, int y) const { return cells_[static_cast<size_t>(y * columns_ + x)]; }

  int columns_, rows_;
  bool unicode_;
  std::vector<Cell> cells_;
};

int place(double share, int dots) {
  return static_cast<int>(std::clamp(std::floor(share * dots), 0.0, static_cast<double>(dots - 1)));
}

bool is_finite(const PlotSeries& series, size_t i) {
  return std::isfinite(series.x[i]) && std::isfinite(series.y[i]);
}

void draw_points(Canvas& canvas, const PlotSeries& series, const Axis& x, const Axis& y, int number) {
  for (size_t i = 0; i < series.x.size(); ++i)
    if (is_finite(series, i))
      canvas.mark(place(x.share(series.x[i]), canvas.dots_across()),
                  place(1 - y.share(series.y[i]), canvas.dots_down()), number);
}

void draw_line(Canvas& canvas, const PlotSeries& series, const Axis& x, const Axis& y, int number) {
  struct Column {
    double sum = 0;
    int64_t count = 0;
    bool gap = false;
  };
  std::vector<Column> columns(static_cast<size_t>(canvas.dots_across()));
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (!std::isfinite(series.x[i])) continue;
    Column& column = columns[static_cast<size_t>(place(x.share(series.x[i]), canvas.dots_across()))];
    if (std::isfinite(series.y[i])) {
      column.sum += series.y[i];
      ++column.count;
    } else {
      column.gap = true;
    }
  }
  int last_x = -1, last_y = 0;  // of the dots drawn before; -1: none, or a gap since
  for (int i = 0; i < canvas.dots_across(); ++i) {
    const Column& column = columns[static_cast<size_t>(i)];
    if (column.count == 0) {
      if (column.gap) last_x = -1;
      continue;
    }
    const int height = place(1 - y.share(column.sum / static_cast<double>(column.count)), canvas.dots_down());
    canvas.line(last_x < 0 ? i : last_x, last_x < 0 ? height : last_y, i, height, number);
    last_x = i;
    last_y = height;
  }
}

std::string centered(std::string_view text, int indent, int columns) {
  const int free = columns - static_cast<int>(count_characters(text));
  return std::string(static_cast<size_t>(std::max(0, indent + free / 2)), ' ') + std::string(text) + "\n";
}

// The line under the plot with its ticks, and their labels under it.
std::string draw_x_axis(const Axis& x, int margin, const Canvas& canvas, bool unicode) {
  const int columns = canvas.columns();
  std::vector<bool> ticked(static_cast<size_t>(columns));
  std::string labels(static_cast<size_t>(margin + 1 + columns), ' ');
  int free_from = 0;
  for (const double tick : x.ticks) {
    const int column = canvas.column_of(place(x.share(tick), canvas.dots_across()));
    ticked[static_cast<size_t>(column)] = true;
    const std::string text = x.label(tick);
    const int size = static_cast<int>(text.size());
    const int begin = std::min(margin + 1 + column - size / 2, margin + 1 + columns - size);
    if (begin < free_from) continue;
    labels.replace(static_cast<size_t>(begin), text.size(), text);
    free_from = begin + size + 2;
  }
  labels.erase(labels.find_last_not_of(' ') + 1);
  std::string line(static_cast<size_t>(margin), ' ');
  line += unicode ? "└" : "+";
  for (const bool tick : ticked) line += unicode ? (tick ? "┬" : "─") : (tick ? "+" : "-");
  return line + "\n" + labels + "\n";
}

std::string draw_legend(std::span<const PlotSeries> series, int indent, int columns,
                        const PlotOptions& options) {
  int size = -3;
  std::string text;
  for (size_t i = 0; i < series.size(); ++i) {
    const std::string mark =
        options.unicode ? (series[i].points ? "●" : "──") : (series[i].points ? "o" : "**");
    size += static_cast<int>(count_characters(mark) + 1 + count_characters(series[i].name)) + 3;
    if (i > 0) text += "   ";
    text += (options.color ? kColors[i % kColors.size()] + mark + kReset : mark) + " " + series[i].name;
  }
  return std::string(static_cast<size_t>(std::max(0, indent + (columns - size) / 2)), ' ') + text + "\n";
}

}  // namespace

std::string plot(std::span<const PlotSeries> series, const PlotOptions& options) {
  Bounds x_bounds, y_bounds;
  for (const PlotSeries& one : series) {
    require(one.x.size() == one.y.size(), "plot: series '{}' has {} x and {} y values", one.name,
            one.x.size(), one.y.size());
    for (size_t i = 0; i < one.x.size(); ++i) {
      if (!is_finite(one, i)) continue;
      x_bounds.add(one.x[i]);
      y_bounds.add(one.y[i]);
    }
  }
  if (x_bounds.low > x_bounds.high) return fmt::format("{}: no values to plot\n", options.title);

  const bool legend = series.size() > 1;
  const int rows =
      std::max(8, options.height) - 2 - !options.title.empty() - !options.x_label.empty() - legend;
  const Axis y = make_y_axis(y_bounds.widened(), rows);
  int margin = 0;  // columns left of the axis: labels and a space
  for (const double tick : y.ticks) margin = std::max(margin, static_cast<int>(y.label(tick).size()) + 1);
  const int columns = std::max(std::max(24, options.width) - margin - 1, 8);
  const Axis x = make_x_axis(x_bounds.widened(), columns);

  Canvas canvas(columns, rows, options.unicode);
  for (size_t i = 0; i < series.size(); ++i)
    (series[i].points ? draw_points : draw_line)(canvas, series[i], x, y, static_cast<int>(i));

  std::vector<std::string> labels(static_cast<size_t>(rows));
  for (const double tick : y.ticks)
    labels[static_cast<size_t>(canvas.row_of(place(1 - y.share(tick), canvas.dots_down())))] = y.label(tick);

  std::string out = options.title.empty() ? "" : centered(options.title, margin + 1, columns);
  for (int row = 0; row < rows; ++row) {
    const std::string& label = labels[static_cast<size_t>(row)];
    const std::string_view axis = options.unicode ? (label.empty() ? "│" : "┤") : (label.empty() ? "|" : "+");
    out += fmt::format("{:>{}} {}{}\n", label, margin - 1, axis, canvas.row(row, options.color));
  }
  out += draw_x_axis(x, margin, canvas, options.unicode);
  if (!options.x_label.empty()) out += centered(options.x_label, margin + 1, columns);
  if (legend) out += draw_legend(series, margin + 1, columns, options);
  return out;
}

}  // namespace nf
