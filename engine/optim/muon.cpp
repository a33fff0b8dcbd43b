// Muon: momentum whose singular values are pushed towards 1 (Jordan et al. 2024).
//
//   m = mu m + g;  u = nesterov ? g + mu m : m
//   W = W (1 - eta wd) - eta scale(rows, cols) NewtonSchulz5(u)
#include <algorithm>
#include <cmath>

#include "nf/error.h"
#include "optim/rules.h"

namespace nf {

// X <- a X + (b A + c A^2) X with A = X X^T. A tall X uses A = X^T X from the right instead: the same
// polynomial of the singular values by the smaller of the two squares, and nothing has to be transposed.
Value newton_schulz(Value u, DType products) {
  constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;
  constexpr int kSteps = 5;
  require(u.shape().rank() == 2, "optimizer: newton_schulz needs a matrix, not {}", u.shape());
  require(products == DType::f32 || products == DType::bf16,
          "optimizer: the products of newton_schulz are f32 or bf16, not {}", name(products));
  const bool tall = u.shape()[0] > u.shape()[1];
  Value x = u / (sqrt(sum(u * u)) + 1e-7);
  for (int step = 0; step < kSteps; ++step) {
    const Value factor = cast(x, products);
    const Value square =
        matmul(factor, factor, {.transpose_a = tall, .transpose_b = !tall, .dtype = DType::f32});
    const Value narrow = cast(square, products);
    const Value fourth = matmul(narrow, narrow, {.dtype = DType::f32});
    const Value polynomial = cast(kB * square + kC * fourth, products);
    x = kA * x + (tall ? matmul(factor, polynomial, {.dtype = DType::f32})
                       : matmul(polynomial, factor, {.dtype = DType::f32}));
  }
  return x;
}

namespace optim {
namespace {

double scale(const Shape& shape, MuonScaling scaling) {
  const auto rows = static_cast<double>(shape[0]), cols = static_cast<double>(shape[1]);
  return scaling == MuonScaling::moonshot ? 0.2 * std::sqrt(std::max(rows, cols))
                                          : std::sqrt(std::max(1.0, rows / cols));
}

}  // namespace

Value muon(const StepContext& context, const TrainedParameter& parameter, Value gradient) {
  if (!parameter.layer_matrix) return adamw(context, parameter, gradient);
  const OptimizerOptions& options = context.options;
  const Shape& shape = parameter.weight.shape();
  require(shape.rank() == 2, "optimizer: Muon updates matrices, but {} is {}", parameter.name, shape);
  const Value old_m = context.memory("momentum", parameter);
  const Value m = options.momentum * old_m + gradient;
  context.remember(old_m, m);
  const Value u = options.nesterov ? gradient + options.momentum * m : m;
  const Value direction = newton_schulz(u, options.muon_products);
  return context.decayed_weight(parameter) -
         context.learning_rate * scale(shape, options.muon_scaling) * direction;
}

}  // namespace optim
}  // namespace nf
