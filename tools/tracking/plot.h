// A line plot for the terminal, in braille dots: 2 × 4 of them per character.
//
//     fmt::print("{}", plot({{{.name = "train", .x = steps, .y = losses}}}, {.title = "Loss", .x_label =
//     "step"}));
#pragma once

#include <span>
#include <string>
#include <vector>

namespace nf {

struct PlotSeries {
  std::string name;
  std::span<const double> x, y;  // of equal length; values that are not finite leave a gap
  bool points = false;           // single marks instead of a line: for few values, such as validation losses
};

struct PlotOptions {
  std::string title = {};
  std::string x_label = {};
  int width = 80;   // columns in all, at least 24
  int height = 20;  // rows in all, at least 8
  bool color = false;
  bool unicode = true;  // false: plain ASCII, one dot per character
};

// The rows of the plot, each with its line end none wider than `width` unless its title or legend is. Where
// many values fall on one column of dots the line shows their mean. Several series get a legend. Throws Error
// when x and y of a series differ in length.
std::string plot(std::span<const PlotSeries> series, const PlotOptions& options = {});

}  // namespace nf
