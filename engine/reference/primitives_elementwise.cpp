// Elementwise primitives: operands have the output's shape (the builders broadcast explicitly).
#include <array>
#include <cmath>
#include <limits>

#include "reference/primitives.h"

namespace nf::reference {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

void require_same_shape(const Call& call) {
  for (const Tensor* input : call.inputs)
    require(input->shape == call.shape(), "reference: {} of {} gives {}, broadcast the operand first",
            name(call.node.op), input->shape, call.shape());
}

template <auto function>
Tensor unary(const Call& call) {
  require_same_shape(call);
  Tensor y = call.input(0);
  for (double& value : y.data) value = function(value);
  return y;
}

template <auto function>
Tensor binary(const Call& call) {
  require_same_shape(call);
  Tensor y = call.input(0);
  const std::vector<double>& b = call.input(1).data;
  for (size_t i = 0; i < y.data.size(); ++i) y.data[i] = function(y.data[i], b[i]);
  return y;
}

Tensor where(const Call& call) {
  require_same_shape(call);
  Tensor y = call.input(2);
  const std::vector<double>& condition = call.input(0).data;
  for (size_t i = 0; i < y.data.size(); ++i)
    if (condition[i] != 0) y.data[i] = call.input(1).data[i];
  return y;
}

// Quotients of integers are truncated toward zero, as in C.
Tensor div(const Call& call) {
  if (is_float(call.type().dtype)) return binary<[](double a, double b) { return a / b; }>(call);
  return binary<[](double a, double b) { return std::trunc(a / b); }>(call);
}

// Floats keep their double, see interpreter.h.
Tensor cast(const Call& call) {
  if (is_float(call.type().dtype)) return call.input(0);
  if (call.type().dtype == DType::boolean) return unary<[](double x) { return (x != 0) ? 1.0 : 0.0; }>(call);
  return unary<[](double x) { return std::trunc(x); }>(call);
}

// A NaN among the operands of max and min is the result.
double larger(double a, double b) { return std::isnan(a) || std::isnan(b) ? kNaN : std::fmax(a, b); }
double smaller(double a, double b) { return std::isnan(a) || std::isnan(b) ? kNaN : std::fmin(a, b); }

constexpr std::array kRows = {
    KernelRow{Op::neg, unary<[](double x) { return -x; }>},
    KernelRow{Op::exp, unary<[](double x) { return std::exp(x); }>},
    KernelRow{Op::log, unary<[](double x) { return std::log(x); }>},
    KernelRow{Op::sqrt, unary<[](double x) { return std::sqrt(x); }>},
    KernelRow{Op::rsqrt, unary<[](double x) { return 1 / std::sqrt(x); }>},
    KernelRow{Op::tanh, unary<[](double x) { return std::tanh(x); }>},
    KernelRow{Op::sigmoid, unary<[](double x) { return 1 / (1 + std::exp(-x)); }>},
    KernelRow{Op::erf, unary<[](double x) { return std::erf(x); }>},
    KernelRow{Op::abs, unary<[](double x) { return std::fabs(x); }>},
    KernelRow{Op::sin, unary<[](double x) { return std::sin(x); }>},
    KernelRow{Op::cos, unary<[](double x) { return std::cos(x); }>},
    KernelRow{Op::add, binary<[](double a, double b) { return a + b; }>},
    KernelRow{Op::sub, binary<[](double a, double b) { return a - b; }>},
    KernelRow{Op::mul, binary<[](double a, double b) { return a * b; }>},
    KernelRow{Op::div, div},
    KernelRow{Op::max, binary<larger>},
    KernelRow{Op::min, binary<smaller>},
    KernelRow{Op::equal, binary<[](double a, double b) { return (a == b) ? 1.0 : 0.0; }>},
    KernelRow{Op::less, binary<[](double a, double b) { return (a < b) ? 1.0 : 0.0; }>},
    KernelRow{Op::less_equal, binary<[](double a, double b) { return (a <= b) ? 1.0 : 0.0; }>},
    KernelRow{Op::where, where},
    KernelRow{Op::cast, cast},
};

}  // namespace

std::span<const KernelRow> elementwise_kernels() { return kRows; }

}  // namespace nf::reference
