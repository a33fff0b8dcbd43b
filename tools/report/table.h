// A small table for people: printed, and as part of a page.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace nf {

enum class Better : uint8_t { neither, low, high };

struct Table {
  struct Column {
    std::string label;
    std::string hint = {};  // a sentence that explains it
    Better better = Better::neither;
  };
  struct Cell {
    std::string text;
    double value =
        std::numeric_limits<double>::quiet_NaN();  // what `better` compares; NaN: nothing to compare
  };
  struct Row {
    std::string group;  // of the runs it is about: RunFacts::group
    std::vector<Cell> cells;
  };
  std::vector<Column> columns;
  std::vector<Row> rows;
};

// Lines with their ends; the first column to the left, the others to the right. The best cell of a column is
// marked with an asterisk, in colour with bold face.
std::string to_text(const Table& table, bool color);
std::string to_json(const Table& table);

}  // namespace nf
