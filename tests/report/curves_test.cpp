#include "tools/report/curves.h"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "nf/error.h"

using namespace nf;

namespace {
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
}

TEST_CASE("curves: few rows stay as they are") {
  Curves curves({"step", "loss"}, 1, 8);
  for (int i = 1; i <= 5; ++i) curves.add(std::array{double(i), 10.0 / i});
  CHECK(curves.column("step") == std::vector<double>{1, 2, 3, 4, 5});
  CHECK(curves.column("loss")[3] == 2.5);
}

TEST_CASE("curves: many rows become few, each where its last one stood, with the mean of all") {
  Curves curves({"step", "loss"}, 1, 8);
  const int count = 1000;
  double sum = 0;
  for (int i = 1; i <= count; ++i) {
    curves.add(std::array{double(i), double(i % 10)});
    sum += i % 10;
  }
  const std::vector<double> steps = curves.column("step"), losses = curves.column("loss");
  CHECK(steps.size() <= 8);
  CHECK(steps.size() >= 4);
  CHECK(steps.back() == count);
  // Every row counts the same: weighed by the steps they cover, the means make up the whole mean.
  double weighed = 0, before = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    weighed += losses[i] * (steps[i] - before);
    before = steps[i];
  }
  CHECK(weighed == doctest::Approx(sum).epsilon(1e-12));
}

TEST_CASE("curves: values that are not finite do not spoil the mean") {
  Curves curves({"step", "loss"}, 1, 2);
  for (const double loss : {1.0, kNan, 3.0, double(INFINITY)}) curves.add(std::array{1.0, loss});
  CHECK(curves.rows() == 2);
  CHECK(curves.column("loss") == std::vector<double>{1, 3});
}

TEST_CASE("curves: JSON has equally long arrays, null where nothing is, and no empty columns") {
  Curves curves({"step", "loss", "memory"}, 1, 8);
  curves.add(std::array{123456789.0, 1.23456789, kNan});
  curves.add(std::array{123456790.0, kNan, kNan});
  const auto json = nlohmann::json::parse(curves.to_json());
  CHECK(json == nlohmann::json::parse(R"({"step":[123456789,123456790],"loss":[1.23457,null]})"));
  CHECK(Curves({"step"}, 1).to_json() == "{}");
}

TEST_CASE("curves: rows of another width and unknown columns are errors") {
  Curves curves({"step", "loss"}, 1);
  CHECK_THROWS_AS(curves.add(std::array{1.0}), Error);
  CHECK_THROWS_AS(curves.column("lr"), Error);
}
