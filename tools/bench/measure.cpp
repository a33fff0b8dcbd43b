#include "tools/bench/measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "nf/ops.h"

namespace nf {
namespace {

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

double seconds_of(const Device& device, const std::function<void()>& body) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  body();
  device.synchronize();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Timing measure(const Bench& bench, const std::function<void()>& body,
               const std::function<double()>& yardstick) {
  double once = seconds_of(*bench.device, body);
  // The first call also fetches its memory.
  if (once < bench.seconds) once = seconds_of(*bench.device, body);
  const double sample = bench.seconds / kSamples;
  const auto calls = static_cast<int64_t>(std::clamp(std::ceil(sample / std::max(once, 1e-9)), 1.0, 1e6));
  std::vector<double> times, rates;
  for (int i = 0; i < kSamples; ++i) {
    rates.push_back(yardstick());
    const double time = seconds_of(*bench.device, [&] {
      for (int64_t call = 0; call < calls; ++call) body();
    });
    times.push_back(time / static_cast<double>(calls));
  }
  return {median(std::move(times)), median(std::move(rates))};
}

MemoryCopy::MemoryCopy(const Bench& bench) : device_(bench.device) {
  const TensorType type{DType::f32, {32768, 1024}};
  const auto memory = std::make_shared<State>(bench.device);
  fill_uniform(*memory, "from", type);
  Graph graph;
  assign(state(graph, "to", type.dtype, type.shape), state(graph, "from", type.dtype, type.shape));
  copy_ = compile(graph, memory, {.name = "copy"});
  copy_->run();  // fetches the memory
}

double MemoryCopy::bytes_per_second() {
  const double bytes = 2.0 * static_cast<double>(copy_->plan().states.front().type.bytes());
  double shortest = seconds_of(*device_, [this] { copy_->run(); });
  for (int i = 1; i < kSamples; ++i)
    shortest = std::min(shortest, seconds_of(*device_, [this] { copy_->run(); }));
  return bytes / shortest;
}

void fill_uniform(State& state, const std::string& name, const TensorType& type) {
  state.ensure(name, type);
  state.overwrite(name, [&](std::span<std::byte> memory) {
    std::minstd_rand random;
    for (int64_t i = 0; i < type.shape.elements(); ++i) {
      const float value = 2.0F * static_cast<float>(random()) / static_cast<float>(random.max()) - 1.0F;
      if (type.dtype == DType::f32)
        reinterpret_cast<float*>(memory.data())[i] = value;
      else
        reinterpret_cast<bf16*>(memory.data())[i] = to_bf16(value);
    }
  });
}

double flops_of(Executable& executable, std::string_view kind) {
  executable.set_profiling(true);  // which makes the profile, and its counts
  executable.set_profiling(false);
  double total = 0;
  for (const StepProfile& step : executable.profile())
    if (step.kind.starts_with(kind)) total += step.flops;
  return total;
}

}  // namespace nf
