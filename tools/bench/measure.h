// How nf-bench measures: every figure beside what the machine can do at that moment.
#pragma once

#include <functional>
#include <memory>
#include <random>

#include "nf/executable.h"

namespace nf {

// Medians of as many samples.
struct Timing {
  double seconds = 0;    // of one call
  double yardstick = 0;  // what the yardstick said
};

// What the sections share.
struct Bench {
  std::shared_ptr<const Device> device;
  int threads = 1;
  double seconds = 0;  // per measurement
};

// Calls `body` to warm up, then takes at least kSamples samples, which together last about `bench.seconds`,
// and asks the yardstick before each of them, so that both see the same machine, as it grows warm. A
// yardstick is a rate, or a time, measured anew at each call. Peaks and copies are the best of several
// moments: on a machine that is busy with something else every share of them falls.
constexpr int kSamples = 5;
Timing measure(const Bench& bench, const std::function<void()>& body,
               const std::function<double()>& yardstick);

// The seconds that one call takes until the device is done with it.
double seconds_of(const Device& device, const std::function<void()>& body);

// Copies from one array to another, both larger than any cache: a compiled graph, as everything else here.
class MemoryCopy {
 public:
  explicit MemoryCopy(const Bench& bench);
  // Bytes read and written per second, the best of kSamples copies.
  double bytes_per_second();

 private:
  std::shared_ptr<const Device> device_;
  std::unique_ptr<Executable> copy_;
};

// A state made of numbers uniform in [-1, 1), f32 or bf16, always the same.
void fill_uniform(State& state, const std::string& name, const TensorType& type);

// Of all steps of one run, as the op table counts them. `kind`: only of steps whose op begins with it.
double flops_of(Executable& executable, std::string_view kind = {});

}  // namespace nf
