#include "tools/report/curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "nf/error.h"

namespace nf {

Curves::Curves(std::vector<std::string> names, size_t axes, size_t most)
    : names_(std::move(names)), axes_(axes), most_(most) {
  require(axes <= names_.size() && most >= 2 && most % 2 == 0, "curves: {} axes of {} columns, {} rows", axes,
          names_.size(), most);
}

void Curves::merge(Row& into, const Row& from) const {
  for (size_t i = 0; i < names_.size(); ++i) {
    into.sums[i] = i < axes_ ? from.sums[i] : into.sums[i] + from.sums[i];
    into.counts[i] += from.counts[i];
  }
  into.members += from.members;
}

void Curves::add(std::span<const double> values) {
  require(values.size() == names_.size(), "curves: {} values for {} columns", values.size(), names_.size());
  Row row{
      .sums = std::vector<double>(values.size()), .counts = std::vector<double>(values.size()), .members = 1};
  for (size_t i = 0; i < values.size(); ++i)
    if (std::isfinite(values[i])) {
      row.sums[i] = values[i];
      row.counts[i] = 1;
    }
  if (!rows_.empty() && rows_.back().members < stride_) {
    merge(rows_.back(), row);
    return;
  }
  if (rows_.size() == most_) {
    for (size_t i = 0; i < most_ / 2; ++i) {
      Row both = std::move(rows_[2 * i]);
      merge(both, rows_[2 * i + 1]);
      rows_[i] = std::move(both);
    }
    rows_.resize(most_ / 2);
    stride_ *= 2;
  }
  rows_.push_back(std::move(row));
}

double Curves::value(const Row& row, size_t column) const {
  if (row.counts[column] == 0) return std::numeric_limits<double>::quiet_NaN();
  return column < axes_ ? row.sums[column] : row.sums[column] / row.counts[column];
}

std::vector<double> Curves::column(std::string_view name) const {
  const auto at = std::find(names_.begin(), names_.end(), name);
  require(at != names_.end(), "curves: no column '{}'", name);
  std::vector<double> values;
  values.reserve(rows_.size());
  for (const Row& row : rows_) values.push_back(value(row, static_cast<size_t>(at - names_.begin())));
  return values;
}

std::string Curves::to_json() const {
  std::string out = "{";
  auto to = std::back_inserter(out);
  for (size_t i = 0; i < names_.size(); ++i) {
    if (std::none_of(rows_.begin(), rows_.end(), [&](const Row& row) { return row.counts[i] > 0; })) continue;
    fmt::format_to(to, "{}\"{}\":[", out.size() > 1 ? "," : "", names_[i]);
    const int digits = i < axes_ ? 12 : 6;  // what a pixel can show; axes are counted exactly
    for (const Row& row : rows_) {
      const double shown = value(row, i);
      if (std::isfinite(shown))
        fmt::format_to(to, "{:.{}g},", shown, digits);
      else
        out += "null,";
    }
    out.back() = ']';
  }
  return out + "}";
}

}  // namespace nf
