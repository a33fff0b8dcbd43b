// The friendly functions of nf/ops.h that are made of primitives; the compiler fuses them.
#include <cmath>
#include <numbers>

#include "graph/op_rows.h"

namespace nf {

Value square(Value x) { return x * x; }

Value relu(Value x) {
  const Value zero = constant_like(x, 0);
  return where(less(zero, x), x, zero);
}

Value silu(Value x) { return x * sigmoid(x); }

Value gelu(Value x) { return x * 0.5 * (erf(x * (1 / std::numbers::sqrt2)) + 1.0); }

Value gelu_tanh(Value x) {
  const double scale = std::sqrt(2 / std::numbers::pi);
  return x * 0.5 * (tanh((x + x * x * x * 0.044715) * scale) + 1.0);
}

Value softmax(Value x) {
  const Value weight = exp(x - reduce_max(x, {-1}));
  return weight / reduce_sum(weight, {-1});
}

Value logsumexp(Value x) {
  const Value largest = reduce_max(x, {-1});
  return log(reduce_sum(exp(x - largest), {-1})) + largest;
}

Value rms_norm(Value x, double eps, Value gain) {
  const Value wide = cast(x, x.dtype() == DType::f64 ? DType::f64 : DType::f32);
  const Value normed = wide * rsqrt(mean(square(wide), {-1}) + eps);
  return gain ? normed * gain : normed;
}

Value l2_normalize(Value x, int axis, double eps) {
  const Value wide = cast(x, x.dtype() == DType::f64 ? DType::f64 : DType::f32);
  const Value squares = reduce_sum(square(wide), {axis});
  return wide * rsqrt(maximum(squares, constant_like(squares, eps * eps)));
}

Value lerp(Value a, Value b, Value t) { return a + t * (b - a); }

Value soft_cap(Value x, double cap) { return tanh(x * (1 / cap)) * cap; }

Value hard_cap(Value x, double cap) {
  return minimum(maximum(x, constant_like(x, -cap)), constant_like(x, cap));
}

Value apply_cap(CapType type, double cap, Value x) {
  switch (type) {
    case CapType::none: return x;
    case CapType::soft: return soft_cap(x, cap);
    case CapType::hard: return hard_cap(x, cap);
  }
  fail("engine: apply_cap: unknown type {}", static_cast<int>(type));
}

Value cap_gradient(CapType type, double cap, Value uncapped, Value capped, Value grad) {
  if (type == CapType::soft) return grad * (1.0 - square(capped * (1 / cap)));
  if (type == CapType::hard)
    return where(less(abs(uncapped), constant_like(grad, cap)), grad, constant_like(grad, 0));
  return grad;
}

Value rope(Value x, Value cos, Value sin) {
  const auto with_head_axis = [](Value table) { return unsqueeze(table, table.shape().rank() - 1); };
  return x * with_head_axis(cos) + roll(x, x.shape().back() / 2) * with_head_axis(sin);
}

Value dropout(Value x, double p, Value rng, uint64_t stream) {
  require(p >= 0 && p < 1, "engine: dropout: probability {} is not in [0, 1)", p);
  if (p == 0) return x;
  const Value uniform = philox(rng, x.shape(), stream);
  return x * where(less(uniform, constant_like(uniform, p)), constant_like(uniform, 0),
                   constant_like(uniform, 1 / (1 - p)));
}

}  // namespace nf
