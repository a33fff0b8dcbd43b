// State: named tensors, their types, and how they start.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "nf/device.h"
#include "nf/state.h"

using namespace nf;

namespace {

std::vector<float> floats(const State& state, const std::string& name) {
  std::vector<float> values(static_cast<size_t>(state.type(name).shape.elements()));
  state.read(name, std::as_writable_bytes(std::span(values)));
  return values;
}

}  // namespace

TEST_CASE("state: tensors start as zeros, keep their memory, and are listed in order") {
  State state(cpu_device(1));
  std::byte* const memory = state.ensure("b", {DType::f32, {2, 3}});
  state.ensure("a", {DType::bf16, {5}});
  CHECK(state.ensure("b", {DType::f32, {2, 3}}) == memory);
  CHECK(floats(state, "b") == std::vector<float>(6, 0));
  CHECK(state.names() == std::vector<std::string>{"a", "b"});
  CHECK(state.bytes() == 6 * 4 + 5 * 2);
  CHECK(state.contains("a"));
  state.erase("a");
  CHECK_FALSE(state.contains("a"));
  CHECK(state.bytes() == 24);
}

TEST_CASE("state: writes and reads are exact copies") {
  State state(cpu_device(1));
  state.ensure("w", {DType::f32, {3}});
  const std::vector<float> values = {1.5F, -0.0F, 1e-40F};
  state.write("w", std::as_bytes(std::span(values)));
  CHECK(std::memcmp(state.memory("w").data(), values.data(), 12) == 0);
  CHECK(floats(state, "w") == values);
}

TEST_CASE("state: errors name the tensor and the types") {
  State state(cpu_device(1));
  state.ensure("w", {DType::f32, {3}});
  CHECK_THROWS_WITH_AS(state.ensure("w", {DType::f32, {4}}), "state: 'w' is f32[3], not f32[4]", Error);
  CHECK_THROWS_WITH_AS(state.ensure("w", {DType::bf16, {3}}), "state: 'w' is f32[3], not bf16[3]", Error);
  CHECK_THROWS_WITH_AS(state.type("v"), "state: there is no tensor 'v'", Error);
  std::vector<std::byte> bytes(8);
  CHECK_THROWS_WITH_AS(state.write("w", bytes), "state: 'w' has 12 bytes, not 8", Error);
  CHECK_THROWS_WITH_AS(state.read("w", bytes), "state: 'w' has 12 bytes, not 8", Error);
  state.ensure("narrow", {DType::bf16, {3}});
  CHECK_THROWS_WITH_AS(fill_constant(state, "narrow", 1), "state: 'narrow' is not f32", Error);
}

TEST_CASE("state: normal deviates have their moments and depend on seed and name alone") {
  State state(cpu_device(1)), other(cpu_device(3));
  constexpr int64_t kCount = 100003;
  for (const char* name : {"u", "v"}) state.ensure(name, {DType::f32, {kCount}});
  other.ensure("u", {DType::f32, {kCount}});
  fill_normal(state, "v", 0.5, 7);
  fill_normal(state, "u", 0.5, 7);
  fill_normal(other, "u", 0.5, 7);
  const std::vector<float> u = floats(state, "u");
  CHECK(u == floats(other, "u"));
  CHECK(u != floats(state, "v"));
  fill_normal(other, "u", 0.5, 8);
  CHECK(u != floats(other, "u"));
  double mean = 0, square = 0, cube = 0, fourth = 0;
  for (const float x : u) {
    const double z = static_cast<double>(x) / 0.5;
    mean += z / kCount;
    square += z * z / kCount;
    cube += z * z * z / kCount;
    fourth += z * z * z * z / kCount;
  }
  // Five standard errors of each moment.
  const double root = std::sqrt(static_cast<double>(kCount));
  CHECK(std::fabs(mean) < 5 / root);
  CHECK(std::fabs(square - 1) < 5 * std::sqrt(2) / root);
  CHECK(std::fabs(cube) < 5 * std::sqrt(15) / root);
  CHECK(std::fabs(fourth - 3) < 5 * std::sqrt(96) / root);
}

TEST_CASE("state: a tensor's first numbers do not depend on its size") {
  State state(cpu_device(1)), other(cpu_device(1));
  state.ensure("w", {DType::f32, {3}});
  other.ensure("w", {DType::f32, {1001}});
  fill_normal(state, "w", 1, 5);
  fill_normal(other, "w", 1, 5);
  for (size_t i = 0; i < 3; ++i) CHECK(floats(state, "w")[i] == floats(other, "w")[i]);
}
