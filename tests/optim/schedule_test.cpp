#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "nf/error.h"
#include "nf/optim.h"

using namespace nf;

namespace {

// get_linear_schedule_with_warmup of Hugging Face's transformers.
double hugging_face_linear(double step, double warmup, double total) {
  if (step < warmup) return step / std::max(1.0, warmup);
  return std::max(0.0, (total - step) / std::max(1.0, total - warmup));
}

}  // namespace

TEST_CASE("a constant schedule rises over its warm-up and stays") {
  const ScheduleOptions options{.schedule = Schedule::constant, .warmup_steps = 4, .total_steps = 10};
  CHECK(learning_rate_factor(options, 1) == 0.25);
  CHECK(learning_rate_factor(options, 3) == 0.75);
  CHECK(learning_rate_factor(options, 4) == 1);
  CHECK(learning_rate_factor(options, 10) == 1);
  CHECK(learning_rate_factor(options, 1000) == 1);
  CHECK(learning_rate_factor({.schedule = Schedule::constant}, 1) == 1);
}

TEST_CASE("the linear schedule is Hugging Face's at every step") {
  for (const int64_t warmup : {0, 1, 7, 30, 40})
    for (int64_t step = 0; step <= 35; ++step) {
      CAPTURE(warmup);
      CAPTURE(step);
      const ScheduleOptions options{.schedule = Schedule::linear, .warmup_steps = warmup, .total_steps = 30};
      CHECK(learning_rate_factor(options, step) ==
            doctest::Approx(hugging_face_linear(static_cast<double>(step), static_cast<double>(warmup), 30))
                .epsilon(1e-14));
    }
}

TEST_CASE("the cosine schedule falls to its smallest ratio") {
  const ScheduleOptions options{
      .schedule = Schedule::cosine, .warmup_steps = 10, .total_steps = 110, .min_lr_ratio = 0.2};
  CHECK(learning_rate_factor(options, 5) == 0.5);
  CHECK(learning_rate_factor(options, 10) == 1);
  CHECK(learning_rate_factor(options, 60) == doctest::Approx(0.6).epsilon(1e-14));
  CHECK(learning_rate_factor(options, 35) ==
        doctest::Approx(0.2 + 0.8 * 0.5 * (1 + std::numbers::sqrt2 / 2)).epsilon(1e-14));
  CHECK(learning_rate_factor(options, 110) == doctest::Approx(0.2).epsilon(1e-14));
  CHECK(learning_rate_factor(options, 500) == doctest::Approx(0.2).epsilon(1e-14));
}

TEST_CASE("warm-up, stable, decay") {
  ScheduleOptions options{
      .schedule = Schedule::wsd, .warmup_steps = 10, .total_steps = 100, .decay_fraction = 0.25};
  CHECK(learning_rate_factor(options, 1) == doctest::Approx(0.1));
  CHECK(learning_rate_factor(options, 10) == 1);
  CHECK(learning_rate_factor(options, 75) == 1);
  CHECK(learning_rate_factor(options, 76) == doctest::Approx(0.96).epsilon(1e-14));
  CHECK(learning_rate_factor(options, 100) == 0);
  CHECK(learning_rate_factor(options, 200) == 0);

  options.decay_shape = DecayShape::one_minus_sqrt;
  CHECK(learning_rate_factor(options, 75) == 1);
  CHECK(learning_rate_factor(options, 76) == doctest::Approx(0.8).epsilon(1e-14));
  CHECK(learning_rate_factor(options, 100) == 0);

  SUBCASE("a decay longer than what the warm-up leaves begins after it") {
    options = {.schedule = Schedule::wsd, .warmup_steps = 50, .total_steps = 100, .decay_fraction = 1};
    CHECK(learning_rate_factor(options, 49) == 0.98);
    CHECK(learning_rate_factor(options, 50) == 1);
    CHECK(learning_rate_factor(options, 75) == 0.5);
  }
  SUBCASE("no decay at all") {
    options.decay_fraction = 0;
    CHECK(learning_rate_factor(options, 100) == 1);
  }
}

TEST_CASE("factors stay in [0, 1] whatever the lengths") {
  for (const Schedule schedule : {Schedule::constant, Schedule::linear, Schedule::cosine, Schedule::wsd})
    for (const DecayShape shape : {DecayShape::linear, DecayShape::one_minus_sqrt})
      for (const int64_t warmup : {0, 1, 5, 20})
        for (const int64_t total : {1, 2, 10})
          for (int64_t step = 1; step < 25; ++step) {
            const double factor = learning_rate_factor(
                {.schedule = schedule, .warmup_steps = warmup, .total_steps = total, .decay_shape = shape},
                step);
            CHECK(factor >= 0);
            CHECK(factor <= 1);
          }
}

TEST_CASE("a schedule out of range is refused") {
  CHECK_THROWS_AS(learning_rate_factor({.total_steps = 0}, 1), Error);
  CHECK_THROWS_AS(learning_rate_factor({.warmup_steps = -1}, 1), Error);
  CHECK_THROWS_AS(learning_rate_factor({.min_lr_ratio = 1.5}, 1), Error);
  CHECK_THROWS_AS(learning_rate_factor({.decay_fraction = std::nan("")}, 1), Error);
  CHECK_THROWS_AS(learning_rate_factor({}, -1), Error);
}
