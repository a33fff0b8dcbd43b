// How tensors of a State start.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "base/hash.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "nf/state.h"

namespace nf {
namespace {

void overwrite_floats(State& state, const std::string& name,
                      const std::function<void(std::span<float>)>& fill) {
  require(state.type(name).dtype == DType::f32, "state: '{}' is not f32", name);
  state.overwrite(name, [&](std::span<std::byte> bytes) {
    fill({reinterpret_cast<float*>(bytes.data()), bytes.size() / sizeof(float)});
  });
}

// Box and Muller: two uniform words make two deviates; a Philox block makes four. `first`, a multiple of 4,
// is the number of the range's first element in the whole tensor.
void fill_normal_range(std::span<float> values, size_t first, double std, PhiloxKey key, uint64_t stream) {
  for (size_t i = 0; i < values.size(); i += 4) {
    const uint64_t block = (first + i) / 4;
    const auto words = philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                               static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)},
                              key);
    for (size_t pair = 0; pair < 4; pair += 2) {
      const double u = (static_cast<double>(words[pair]) + 1) * 0x1p-32,
                   v = static_cast<double>(words[pair + 1]) * 0x1p-32;
      const double radius = std * std::sqrt(-2 * std::log(u)), angle = 2 * std::numbers::pi * v;
      if (i + pair < values.size()) values[i + pair] = static_cast<float>(radius * std::cos(angle));
      if (i + pair + 1 < values.size()) values[i + pair + 1] = static_cast<float>(radius * std::sin(angle));
    }
  }
}

}  // namespace

void fill_constant(State& state, const std::string& name, double value) {
  overwrite_floats(state, name, [&](std::span<float> values) {
    std::fill(values.begin(), values.end(), static_cast<float>(value));
  });
}

void fill_normal(State& state, const std::string& name, double std, uint64_t seed) {
  const PhiloxKey key{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  const uint64_t stream = hash(name);
  overwrite_floats(state, name, [&](std::span<float> values) {
    constexpr size_t kPerTask = 1 << 16;
    const auto tasks = static_cast<int64_t>((values.size() + kPerTask - 1) / kPerTask);
    parallel_for(processor_count(), tasks, [&](int64_t task) {
      const auto first = static_cast<size_t>(task) * kPerTask;
      fill_normal_range(values.subspan(first, std::min(kPerTask, values.size() - first)), first, std, key,
                        stream);
    });
  });
}

}  // namespace nf
