// What comes out of runs side by side: a table, and sentences that say what it shows.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "tools/report/page.h"
#include "tools/report/table.h"

namespace nf {

struct Comparison {
  Table table;                        // a row per group of runs: per model
  std::vector<std::string> findings;  // most important first; none while fewer than two models have ended
};

// Runs of one group differ in the seed alone: their figures are averaged, and "±" is the standard deviation
// between them. Groups that are called alike up to a comma ("gqa,lr=0.001", "gqa,lr=0.002") are one model
// with several settings: where there are other models, the findings take each at its best. Runs without a
// history count as not begun.
Comparison compare(std::span<const PageRun> runs);

// Where a falling curve first comes down to `level`, with straight lines between its points; NaN: nowhere.
double first_below(std::span<const double> x, std::span<const double> y, double level);

// One line that names models of rather different sizes and says how to make them equal; empty when they
// differ by less than a tenth.
std::string size_warning(std::span<const PageRun> runs);

}  // namespace nf
