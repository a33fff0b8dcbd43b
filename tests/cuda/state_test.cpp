// Tensors on a device with memory of its own.
#include "nf/state.h"

#include <doctest/doctest.h>

#include "tests/cuda/emulated_gpu.h"

using namespace nf;

namespace {

std::vector<float> values_of(const State& state, const std::string& name) {
  std::vector<float> values(static_cast<size_t>(state.type(name).shape.elements()));
  state.read(name, std::as_writable_bytes(std::span(values)));
  return values;
}

}  // namespace

TEST_CASE("cuda: a State is filled, read and overwritten by copies") {
  State ours(cuda::emulated_cuda_device()), theirs(cpu_device(1));
  const TensorType type{DType::f32, {7, 5}};
  for (State* state : {&ours, &theirs}) {
    state->ensure("w", type);
    fill_normal(*state, "w", 0.5, 3);
  }
  CHECK(values_of(ours, "w") == values_of(theirs, "w"));
  CHECK_THROWS_AS(ours.memory("w"), Error);

  std::vector<Buffer> copies;
  const std::span<const std::byte> bytes = ours.host_bytes("w", copies);
  CHECK(copies.size() == 1);
  CHECK(std::equal(bytes.begin(), bytes.end(), theirs.memory("w").begin()));
  CHECK(theirs.host_bytes("w", copies).data() == theirs.memory("w").data());
  CHECK(copies.size() == 1);

  for (State* state : {&ours, &theirs})
    state->overwrite(
        "w", [](std::span<std::byte> memory) { std::fill(memory.begin(), memory.end(), std::byte{1}); });
  CHECK(values_of(ours, "w") == values_of(theirs, "w"));
}
