// Random tensors, and how far two tensors are apart.
#pragma once

#include <cstdint>

#include "reference/interpreter.h"

namespace nf::test {

using reference::Bindings;
using reference::Tensor;

// A small reproducible stream of random numbers (Philox), the same on every platform.
class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}
  uint32_t bits();
  double uniform(double low = 0, double high = 1);
  double normal();
  // Uniform in [low, high].
  int64_t integer(int64_t low, int64_t high);
  bool chance(double probability) { return uniform() < probability; }

 private:
  uint64_t seed_;
  uint64_t index_ = 0;
};

// Standard normal elements.
Tensor random_tensor(const Shape& shape, uint64_t seed);
// Uniform elements in [low, high).
Tensor random_uniform(const Shape& shape, uint64_t seed, double low, double high);
// Whole numbers in [low, high].
Tensor random_integers(const Shape& shape, uint64_t seed, int64_t low, int64_t high);

// |a - b| / |b| in the Euclidean norm; |a| when b is zero. Infinite when the shapes differ, when one has a
// NaN that the other lacks, or when infinities do not match.
double relative_error(const Tensor& a, const Tensor& b);
// max |a_i - b_i| / max(1, |b_i|), infinite as above.
double largest_error(const Tensor& a, const Tensor& b);

}  // namespace nf::test
