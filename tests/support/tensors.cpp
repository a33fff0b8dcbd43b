#include "tests/support/tensors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/philox.h"

namespace nf::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <typename Draw>
Tensor filled(const Shape& shape, uint64_t seed, Draw draw) {
  Random random(seed);
  Tensor tensor{shape, std::vector<double>(static_cast<size_t>(shape.elements()))};
  for (double& value : tensor.data) value = draw(random);
  return tensor;
}

// The difference of two elements: zero for equal infinities and for two NaNs, infinite where only one is
// special.
double difference(double a, double b) {
  if (a == b || (std::isnan(a) && std::isnan(b))) return 0;
  const double result = std::fabs(a - b);
  return std::isfinite(result) ? result : kInfinity;
}

}  // namespace

uint32_t Random::bits() {
  return philox_word(index_++, 0, {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)});
}

double Random::uniform(double low, double high) { return low + (high - low) * (bits() + 0.5) * 0x1p-32; }

double Random::normal() {  // Box and Muller
  const double radius = std::sqrt(-2 * std::log(uniform()));
  return radius * std::cos(2 * std::numbers::pi * uniform());
}

int64_t Random::integer(int64_t low, int64_t high) { return low + bits() % (high - low + 1); }

Tensor random_tensor(const Shape& shape, uint64_t seed) {
  return filled(shape, seed, [](Random& random) { return random.normal(); });
}

Tensor random_uniform(const Shape& shape, uint64_t seed, double low, double high) {
  return filled(shape, seed, [&](Random& random) { return random.uniform(low, high); });
}

Tensor random_integers(const Shape& shape, uint64_t seed, int64_t low, int64_t high) {
  return filled(shape, seed, [&](Random& random) { return static_cast<double>(random.integer(low, high)); });
}

double relative_error(const Tensor& a, const Tensor& b) {
  if (!(a.shape == b.shape) || a.data.size() != b.data.size()) return kInfinity;
  double error = 0, norm = 0;
  for (size_t i = 0; i < a.data.size(); ++i) {
    const double d = difference(a.data[i], b.data[i]);
    error += d * d;
    if (std::isfinite(b.data[i])) norm += b.data[i] * b.data[i];
  }
  return norm > 0 ? std::sqrt(error / norm) : std::sqrt(error);
}

double largest_error(const Tensor& a, const Tensor& b) {
  if (!(a.shape == b.shape) || a.data.size() != b.data.size()) return kInfinity;
  double largest = 0;
  for (size_t i = 0; i < a.data.size(); ++i) {
    const double scale = std::isfinite(b.data[i]) ? std::max(1.0, std::fabs(b.data[i])) : 1.0;
    largest = std::max(largest, difference(a.data[i], b.data[i]) / scale);
  }
  return largest;
}

}  // namespace nf::test
