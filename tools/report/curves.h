// Columns of numbers that stay small however many rows are added: once there are too many, two neighbours
// become one, and from then on so many rows are added up before one is kept.
//
//     Curves curves({"step", "loss"}, 1);
//     curves.add(std::array{1.0, 5.5});
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nf {

class Curves {
 public:
  // More than a screen has columns, few enough for a page of some hundred kilobytes.
  static constexpr size_t kRows = 1500;

  // The first `axes` columns say where a row stands; rows that become one stand where the last of them did.
  // The others become their mean, without those that are not finite. `most`: rows kept; even.
  Curves(std::vector<std::string> names, size_t axes, size_t most = kRows);

  void add(std::span<const double> row);  // one value per column; not finite: none

  size_t rows() const { return rows_.size(); }  // whole ones and the one being added up
  // NaN where there is no value.
  std::vector<double> column(std::string_view name) const;

  // An object of equally long arrays, null where there is no value. Columns without any are left out.
  std::string to_json() const;

 private:
  struct Row {
    std::vector<double> sums;    // of an axis: the value itself
    std::vector<double> counts;  // finite values in each sum
    size_t members = 0;          // rows added up
  };
  void merge(Row& into, const Row& from) const;
  double value(const Row& row, size_t column) const;

  std::vector<std::string> names_;
  size_t axes_, most_;
  size_t stride_ = 1;  // rows that become one
  std::vector<Row> rows_;
};

}  // namespace nf
