#include "tools/report/table.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

using Ordered = nlohmann::ordered_json;

// The best value of a column; NaN when nothing tells its cells apart.
double best_of(const Table& table, size_t column) {
  double best = std::numeric_limits<double>::quiet_NaN(), worst = best;
  const bool high = table.columns[column].better == Better::high;
  for (const Table::Row& row : table.rows) {
    const double value = row.cells[column].value;
    if (!std::isfinite(value)) continue;
    if (!(high ? value <= best : value >= best)) best = value;
    if (!(high ? value >= worst : value <= worst)) worst = value;
  }
  return table.columns[column].better == Better::neither || best == worst
             ? std::numeric_limits<double>::quiet_NaN()
             : best;
}

std::string padded(const std::string& text, size_t width, bool left) {
  const std::string blanks(width - std::min(width, count_characters(text)), ' ');
  return left ? text + blanks : blanks + text;
}

}  // namespace

std::string to_text(const Table& table, bool color) {
  std::vector<double> best;
  std::vector<size_t> widths;
  for (size_t i = 0; i < table.columns.size(); ++i) {
    best.push_back(best_of(table, i));
    widths.push_back(count_characters(table.columns[i].label));
    for (const Table::Row& row : table.rows)
      widths[i] = std::max(widths[i], count_characters(row.cells[i].text) + (std::isnan(best[i]) ? 0 : 1));
  }
  std::string out;
  for (size_t i = 0; i < table.columns.size(); ++i)
    out += (i > 0 ? "  " : "") + padded(table.columns[i].label, widths[i], i == 0);
  out += '\n';
  for (const Table::Row& row : table.rows) {
    for (size_t i = 0; i < table.columns.size(); ++i) {
      const bool is_best = row.cells[i].value == best[i];
      // An asterisk beside the best, a blank beside the others, so that digits stand below each other.
      const std::string mark = std::isnan(best[i]) ? "" : is_best ? "*" : " ";
      const std::string text = padded(row.cells[i].text + mark, widths[i], i == 0);
      out += (i > 0 ? "  " : "") + (is_best && color ? "\x1b[1;32m" + text + "\x1b[0m" : text);
    }
    while (out.back() == ' ') out.pop_back();
    out += '\n';
  }
  return out;
}

std::string to_json(const Table& table) {
  Ordered columns = Ordered::array(), rows = Ordered::array();
  constexpr std::string_view kBetter[] = {"", "low", "high"};
  for (const Table::Column& c : table.columns)
    columns.push_back(
        {{"label", c.label}, {"hint", c.hint}, {"better", kBetter[static_cast<size_t>(c.better)]}});
  for (const Table::Row& row : table.rows) {
    Ordered cells = Ordered::array();
    for (const Table::Cell& cell : row.cells)
      cells.push_back(
          {{"text", cell.text}, {"value", std::isfinite(cell.value) ? Ordered(cell.value) : Ordered()}});
    rows.push_back({{"group", row.group}, {"cells", cells}});
  }
  return Ordered{{"columns", columns}, {"rows", rows}}.dump(-1, ' ', false,
                                                            Ordered::error_handler_t::replace);
}

}  // namespace nf
