#include "tools/tracking/speed.h"

#include <doctest/doctest.h>

using nf::Speed;

TEST_CASE("speed: the first step does not count") {
  Speed speed;
  CHECK(!speed.per_second());
  speed.add(100, 50);
  CHECK(!speed.per_second());
  speed.add(100, 2);
  CHECK(*speed.per_second() == 50);
}

TEST_CASE("speed: older steps are forgotten") {
  Speed speed;
  for (int i = 0; i < 100; ++i) speed.add(10, 1);
  CHECK(*speed.per_second() == doctest::Approx(10));
  speed.add(20, 1);
  CHECK(*speed.per_second() == doctest::Approx(11));
  for (int i = 0; i < 100; ++i) speed.add(20, 1);
  CHECK(*speed.per_second() == doctest::Approx(20).epsilon(1e-3));
}

TEST_CASE("speed: steps that take no time") {
  Speed speed;
  for (int i = 0; i < 3; ++i) speed.add(10, 0);
  CHECK(!speed.per_second());
}
