// The functions whose gradients are compared with finite differences; see gradient_test.cpp.
#pragma once

#include <string>
#include <vector>

#include "nf/ops.h"
#include "tests/support/tensors.h"

namespace nf::test {

struct GradientCase {
  std::string name;
  std::vector<Tensor> arguments;          // where the gradient is taken, with respect to each of them
  Value (*build)(Graph&, const Values&);  // of any shape
  bool second = false;                    // compare the gradient's gradient too
};

// Every differentiable op and friendly function, in all forms that have a gradient of their own.
std::vector<GradientCase> primitive_cases();
std::vector<GradientCase> function_cases();
std::vector<GradientCase> composite_cases();

}  // namespace nf::test
