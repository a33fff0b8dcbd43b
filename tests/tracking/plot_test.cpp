#include "tools/tracking/plot.h"

#include <doctest/doctest.h>
#include <nf/error.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "tools/tokenizer/utf8.h"

using namespace nf;

namespace {

struct Data {
  std::vector<double> x, y;
};

template <typename F>
Data sampled(int count, F function) {
  Data data;
  for (int i = 0; i < count; ++i) {
    data.x.push_back(i);
    data.y.push_back(function(i));
  }
  return data;
}

std::string plot_one(const Data& data, const PlotOptions& options = {}) {
  const PlotSeries series{.name = "loss", .x = data.x, .y = data.y};
  return plot({&series, 1}, options);
}

std::vector<std::string> rows_of(const std::string& text) {
  std::vector<std::string> rows;
  std::istringstream in(text);
  for (std::string row; std::getline(in, row);) rows.push_back(row);
  return rows;
}

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

TEST_CASE("plot: a falling line, dot by dot") {
  const Data line = sampled(101, [](int i) { return 5.0 - i * 0.05; });
  CHECK(plot_one(line, {.title = "Loss", .x_label = "step", .width = 30, .height = 10}) ==
        R"(              Loss
  │⠤⢄⡀
4 ┤  ⠈⠉⠒⠢⠤⣀
  │        ⠉⠑⠒⠤⣀⡀
2 ┤             ⠈⠉⠒⠤⢄⣀
  │                   ⠉⠒⠢⠤⣀⡀
0 ┤                        ⠈⠑⠒
  └┬────────────┬────────────┬
   0           50          100
              step
)");
}

TEST_CASE("plot: the same in ASCII") {
  const Data line = sampled(101, [](int i) { return 5.0 - i * 0.05; });
  CHECK(plot_one(line, {.title = "Loss", .width = 30, .height = 10, .unicode = false}) ==
        R"(              Loss
6 +
  |***
4 +   *****
  |        *****
2 +             ******
  |                   *****
0 +                        ***
  ++------------+------------+
   0           50          100
)");
}

TEST_CASE("plot: fits its size, whatever the values") {
  for (const double scale : {1e-300, 1e-9, 1.0, 3.7, 1e5, 1e12, 1e300}) {
    for (const double offset : {0.0, -1.0, 1000.0}) {
      for (const int width : {1, 24, 40, 80, 200}) {
        for (const int height : {1, 8, 13, 40}) {
          const Data data = sampled(300, [&](int i) { return (std::exp(-i / 50.0) + offset) * scale; });
          const std::string text =
              plot_one(data, {.title = "t", .x_label = "x", .width = width, .height = height});
          CAPTURE(text);
          const auto rows = rows_of(text);
          CHECK(rows.size() == static_cast<size_t>(std::max(8, height)));
          size_t widest = 0;
          for (const std::string& row : rows) {
            CHECK_FALSE(find_invalid_utf8(row));
            widest = std::max(widest, count_characters(row));
          }
          CHECK(widest <= static_cast<size_t>(std::max(24, width)));
          CHECK(text.find("┤") != std::string::npos);
          CHECK(text.find("┬") != std::string::npos);
        }
      }
    }
  }
}

TEST_CASE("plot: ticks are round, distinct and evenly spaced") {
  for (int i = 1; i < 200; ++i) {
    const double low = 0.37 * i, high = low + 0.011 * i * i;
    const auto rows = rows_of(plot_one({{0, 1}, {low, high}}, {.height = 6 + i % 30}));
    std::vector<double> ticks, places;
    for (size_t row = 0; row < rows.size(); ++row) {
      if (rows[row].find("┤") == std::string::npos) continue;
      ticks.push_back(std::stod(rows[row]));
      places.push_back(static_cast<double>(row));
    }
    REQUIRE(ticks.size() >= 2);
    for (size_t k = 2; k < ticks.size(); ++k) {
      CHECK(ticks[k - 1] - ticks[k] == doctest::Approx(ticks[0] - ticks[1]).epsilon(1e-6));
      CHECK(places[k] - places[k - 1] == places[1] - places[0]);
    }
    CHECK(ticks[0] > ticks[1]);
  }
}

TEST_CASE("plot: no values, one value, equal values") {
  CHECK(plot({}, {.title = "Loss"}) == "Loss: no values to plot\n");
  CHECK(plot_one({}, {.title = "Loss"}) == "Loss: no values to plot\n");
  CHECK(plot_one({{1, 2}, {kNaN, kInfinity}}, {.title = "Loss"}) == "Loss: no values to plot\n");
  CHECK(plot_one({{7}, {2.5}}).find("2.5") != std::string::npos);
  for (const double value : {0.0, 2.5, -3e10}) {
    const std::string text = plot_one(sampled(50, [&](int) { return value; }));
    size_t drawn = 0;
    for (const std::string& row : rows_of(text))
      drawn += row.find("⠒⠒⠒") != std::string::npos || row.find("⠤⠤⠤") != std::string::npos ||
               row.find("⠉⠉⠉") != std::string::npos || row.find("⣀⣀⣀") != std::string::npos;
    CHECK(drawn == 1);
  }
}

TEST_CASE("plot: what is not finite leaves a gap") {
  const auto count_drawn = [](const Data& data) {
    size_t drawn = 0;
    for (const std::string& row : rows_of(plot_one(data, {.width = 60, .height = 8, .unicode = false})))
      drawn += static_cast<size_t>(std::count(row.begin(), row.end(), '*'));
    return drawn;
  };
  const auto with_gap = sampled(101, [](int i) { return i > 40 && i < 60 ? kNaN : 1.0; });
  auto without = with_gap;  // the same points with nothing known between them: connected
  for (size_t i = 59; i > 40; --i) {
    without.x.erase(without.x.begin() + static_cast<ptrdiff_t>(i));
    without.y.erase(without.y.begin() + static_cast<ptrdiff_t>(i));
  }
  CHECK(count_drawn(without) > count_drawn(with_gap) + 5);
}

TEST_CASE("plot: noise is averaged, a single mark is not") {
  const Data noisy = sampled(100'000, [](int i) { return i % 2 == 0 ? 0.0 : 2.0; });
  const Data marks{{0, 50'000, 99'999}, {0.0, 2.0, 1.0}};
  const std::vector<PlotSeries> series = {{.name = "train", .x = noisy.x, .y = noisy.y},
                                          {.name = "validation", .x = marks.x, .y = marks.y, .points = true}};
  const std::string text = plot(series, {.height = 13});
  size_t with_line = 0, with_mark = 0;
  for (const std::string& row : rows_of(text)) {
    with_line +=
        row.find("\xE2\xA0") != std::string::npos;  // the first two bytes of the lower braille characters
    with_mark += row.find("●") != std::string::npos;
  }
  CHECK(with_line == 1);
  CHECK(with_mark == 4);  // and the legend
  CHECK(rows_of(text).back().find("── train   ● validation") != std::string::npos);
}

TEST_CASE("plot: colours are switched off at the end of every row") {
  const Data data = sampled(30, [](int i) { return i; });
  const std::string colored = plot_one(data, {.color = true});
  for (const std::string& row : rows_of(colored)) {
    const size_t on = row.rfind("\x1b[36m"), off = row.rfind("\x1b[0m");
    CHECK((on == std::string::npos) == (off == std::string::npos));
    if (on != std::string::npos) CHECK(off == row.size() - 4);
  }
  std::string plain = colored;
  for (const std::string code : {"\x1b[36m", "\x1b[0m"})
    for (size_t at; (at = plain.find(code)) != std::string::npos;) plain.erase(at, code.size());
  CHECK(plain == plot_one(data));
  CHECK(plain != colored);
}

TEST_CASE("plot: x and y of different lengths") { CHECK_THROWS_AS(plot_one({{1, 2}, {1}}), Error); }
