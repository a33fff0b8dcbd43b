// What nf-bench prints: a table per section, row by row as they are measured, or everything as one JSON
// object.
#pragma once

#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <vector>

namespace nf {

// A figure of every row of a section.
struct BenchColumn {
  std::string_view key;    // in JSON
  std::string_view title;  // heads the table
  int digits = 1;          // after the point, in the table
  double scale = 1;        // the table shows the figure times this: 100 for a share in percent
};

constexpr double kNoFigure = std::numeric_limits<double>::quiet_NaN();  // a row does not have this one

class BenchReport {
 public:
  BenchReport(bool json, int threads, double seconds);

  // Begins a section; `about` says what its shares are shares of.
  void section(std::string_view name, std::string_view about, std::vector<BenchColumn> columns);
  // `type`: the operands' dtype, may be empty. As many figures as columns.
  void row(std::string_view what, std::string_view type, std::initializer_list<double> figures);
  void finish();  // prints the JSON object, if that is wanted

 private:
  bool json_;
  nlohmann::ordered_json object_;
  nlohmann::ordered_json* rows_ = nullptr;  // of the section
  std::vector<BenchColumn> columns_;
};

}  // namespace nf
