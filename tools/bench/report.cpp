#include "tools/bench/report.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdio>

namespace nf {
namespace {

constexpr int kNameWidth = 44, kTypeWidth = 5, kFigureWidth = 13;

}  // namespace

BenchReport::BenchReport(bool json, int threads, double seconds) : json_(json) {
  object_["threads"] = threads;
  object_["seconds_per_measurement"] = seconds;
  if (!json_) fmt::print("{} thread{}\n", threads, threads == 1 ? "" : "s");
}

void BenchReport::section(std::string_view name, std::string_view about, std::vector<BenchColumn> columns) {
  rows_ = &(object_[std::string(name)] = nlohmann::ordered_json::array());
  columns_ = std::move(columns);
  if (json_) return;
  fmt::print("\n{}: {}\n{:<{}}{:<{}}", name, about, "", kNameWidth + 2, "", kTypeWidth);
  for (const BenchColumn& column : columns_) fmt::print("{:>{}}", column.title, kFigureWidth);
  fmt::print("\n");
  std::fflush(stdout);
}

void BenchReport::row(std::string_view what, std::string_view type, std::initializer_list<double> figures) {
  nlohmann::ordered_json row = {{"what", what}};
  if (!type.empty()) row["dtype"] = type;
  std::string line = fmt::format("  {:<{}}{:<{}}", what, kNameWidth, type, kTypeWidth);
  auto column = columns_.begin();
  for (const double figure : figures) {
    if (std::isnan(figure)) {
      line += fmt::format("{:>{}}", "", kFigureWidth);
    } else {
      row[std::string(column->key)] = figure;
      line += fmt::format("{:>{}.{}f}", figure * column->scale, kFigureWidth, column->digits);
    }
    ++column;
  }
  rows_->push_back(std::move(row));
  if (json_) return;
  fmt::print("{}\n", line.substr(0, line.find_last_not_of(' ') + 1));
  std::fflush(stdout);
}

void BenchReport::finish() {
  if (json_) fmt::print("{}\n", object_.dump());
}

}  // namespace nf
