// Elementwise ops: rows and builders. Operands of a row have equal shapes; the builders broadcast.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "graph/op_rows.h"

namespace nf {
namespace {

DType arithmetic_dtype(DType dtype) {
  return dtype == DType::bf16 || dtype == DType::f16 ? DType::f32 : dtype;
}

std::vector<TensorType> infer_float_unary(Types inputs, const Attributes&) {
  const DType dtype = inputs[0].dtype;
  require(dtype == DType::f32 || dtype == DType::f64, "arithmetic runs in f32 or f64, not {}", name(dtype));
  return {inputs[0]};
}

std::vector<TensorType> infer_unary(Types inputs, const Attributes&) {
  require(inputs[0].dtype == arithmetic_dtype(inputs[0].dtype), "arithmetic runs in f32, not {}",
          name(inputs[0].dtype));
  return {inputs[0]};
}

void require_equal(const TensorType& a, const TensorType& b) {
  require(a.shape == b.shape, "shapes differ, {} and {}", a.shape, b.shape);
  require(a.dtype == b.dtype, "dtypes differ, {} and {}", name(a.dtype), name(b.dtype));
}

std::vector<TensorType> infer_binary(Types inputs, const Attributes&) {
  require_equal(inputs[0], inputs[1]);
  require(inputs[0].dtype == arithmetic_dtype(inputs[0].dtype), "arithmetic runs in f32, not {}",
          name(inputs[0].dtype));
  return {inputs[0]};
}

std::vector<TensorType> infer_compare(Types inputs, const Attributes&) {
  require_equal(inputs[0], inputs[1]);
  return {{DType::boolean, inputs[0].shape}};
}

std::vector<TensorType> infer_where(Types inputs, const Attributes&) {
  require(inputs[0].dtype == DType::boolean, "the condition is {}, not bool", name(inputs[0].dtype));
  require(inputs[0].shape == inputs[1].shape, "shapes differ, {} and {}", inputs[0].shape, inputs[1].shape);
  require_equal(inputs[1], inputs[2]);
  return {inputs[1]};
}

std::vector<TensorType> infer_cast(Types inputs, const Attributes& attributes) {
  return {{dtype_attribute(attributes), inputs[0].shape}};
}

// A row of a one-operand function f with gradient dy f'(x): `derivative` gets x, y = f(x) and dy.
using UnaryGradient = Values (*)(Graph&, int32_t, std::span<const Value>);
OpInfo unary(Op op, std::string_view name, UnaryGradient gradient) {
  return {.op = op,
          .name = name,
          .kind = OpKind::elementwise,
          .min_inputs = 1,
          .max_inputs = 1,
          .infer = infer_float_unary,
          .gradient = gradient};
}
OpInfo binary(Op op, std::string_view name, UnaryGradient gradient) {
  return {.op = op,
          .name = name,
          .kind = OpKind::elementwise,
          .min_inputs = 2,
          .max_inputs = 2,
          .infer = infer_binary,
          .gradient = gradient};
}
OpInfo comparison(Op op, std::string_view name) {
  return {.op = op,
          .name = name,
          .kind = OpKind::elementwise,
          .min_inputs = 2,
          .max_inputs = 2,
          .infer = infer_compare};
}

// 1 where a > b, 1/2 where they are equal, 0 elsewhere: the share of a in max(a, b).
Value share_of_larger(Value a, Value b) {
  return where(less(b, a), constant_like(a, 1),
               where(equal(a, b), constant_like(a, 0.5), constant_like(a, 0)));
}

using Grads = std::span<const Value>;

}  // namespace

std::vector<OpInfo> elementwise_rows() {
  std::vector<OpInfo> rows = {
      unary(Op::exp, "exp",
            [](Graph& g, int32_t n, Grads dy) {
              return Values{dy[0] * NodeValues{g, n}.out()};
            }),
      unary(Op::log, "log",
            [](Graph& g, int32_t n, Grads dy) {
              return Values{dy[0] / NodeValues{g, n}.in(0)};
            }),
      unary(Op::sqrt, "sqrt",
            [](Graph& g, int32_t n, Grads dy) {
              return Values{dy[0] * 0.5 / NodeValues{g, n}.out()};
            }),
      unary(Op::rsqrt, "rsqrt",
            [](Graph& g, int32_t n, Grads dy) {
              const Value y = NodeValues{g, n}.out();
              return Values{dy[0] * y * square(y) * -0.5};
            }),
      unary(Op::tanh, "tanh",
            [](Graph& g, int32_t n, Grads dy) {
              return Values{dy[0] * (1.0 - square(NodeValues{g, n}.out()))};
            }),
      unary(Op::sigmoid, "sigmoid",
            [](Graph& g, int32_t n, Grads dy) {
              const Value y = NodeValues{g, n}.out();
              return Values{dy[0] * (y * (1.0 - y))};
            }),
      unary(Op::erf, "erf",
            [](Graph& g, int32_t n, Grads dy) {
              return Values{dy[0] * (exp(-square(NodeValues{g, n}.in(0))) * (2 * std::numbers::inv_sqrtpi))};
            }),
      unary(Op::sin, "sin",
            [](Graph& g, int32_t n, Grads dy) {
              return Values{dy[0] * cos(NodeValues{g, n}.in(0))};
            }),
      unary(Op::cos, "cos",
            [](Graph& g, int32_t n, Grads dy) {
              return Values{-(dy[0] * sin(NodeValues{g, n}.in(0)))};
            }),
      unary(Op::neg, "neg", [](Graph&, int32_t, Grads dy) { return Values{-dy[0]}; }),
      unary(Op::abs, "abs",
            [](Graph& g, int32_t n, Grads dy) {
              const Value x = NodeValues{g, n}.in(0);
              const Value zero = constant_like(x, 0);
              return Values{
                  where(less(zero, x), dy[0], where(less(x, zero), -dy[0], constant_like(dy[0], 0)))};
            }),
      binary(Op::add, "add",
             [](Graph&, int32_t, Grads dy) {
               return Values{dy[0], dy[0]};
             }),
      binary(Op::sub, "sub",
             [](Graph&, int32_t, Grads dy) {
               return Values{dy[0], -dy[0]};
             }),
      binary(Op::mul, "mul",
             [](Graph& g, int32_t n, Grads dy) {
               const NodeValues node{g, n};
               return Values{dy[0] * node.in(1), dy[0] * node.in(0)};
             }),
      binary(Op::div, "div",
             [](Graph& g, int32_t n, Grads dy) {
               const NodeValues node{g, n};
               const Value da = dy[0] / node.in(1);
               return Values{da, -(da * node.out())};
             }),
      binary(Op::max, "max",
             [](Graph& g, int32_t n, Grads dy) {
               const NodeValues node{g, n};
               const Value share = share_of_larger(node.in(0), node.in(1));
               return Values{dy[0] * share, dy[0] * (1.0 - share)};
             }),
      binary(Op::min, "min",
             [](Graph& g, int32_t n, Grads dy) {
               const NodeValues node{g, n};
               const Value share = share_of_larger(node.in(1), node.in(0));
               return Values{dy[0] * share, dy[0] * (1.0 - share)};
             }),
      comparison(Op::equal, "equal"),
      comparison(Op::less, "less"),
      comparison(Op::less_equal, "less_equal"),
      {.op = Op::where,
       .name = "where",
       .kind = OpKind::elementwise,
       .min_inputs = 3,
       .max_inputs = 3,
       .infer = infer_where,
       .gradient =
           [](Graph& g, int32_t n, Grads dy) {
             const Value condition = NodeValues{g, n}.in(0);
             const Value zero = constant_like(dy[0], 0);
             return Values{{}, where(condition, dy[0], zero), where(condition, zero, dy[0])};
           }},
      {.op = Op::cast,
       .name = "cast",
       .kind = OpKind::elementwise,
       .min_inputs = 1,
       .max_inputs = 1,
       .infer = infer_cast,
       .gradient =
           [](Graph& g, int32_t n, Grads dy) {
             const DType dtype = NodeValues{g, n}.in(0).dtype();
             return Values{is_float(dtype) ? cast(dy[0], dtype) : Value{}};
           }},
  };
  for (OpInfo& row : rows)  // integers have signs too
    if (row.op == Op::neg || row.op == Op::abs) row.infer = infer_unary;
  return rows;
}

// ---- builders

namespace {

Shape broadcast_shape(const Shape& a, const Shape& b) {
  const int rank = std::max(a.rank(), b.rank());
  Shape result = Shape::filled(rank, 1);
  for (int i = 1; i <= rank; ++i) {
    const int64_t size_a = i <= a.rank() ? a[a.rank() - i] : 1;
    const int64_t size_b = i <= b.rank() ? b[b.rank() - i] : 1;
    require(size_a == size_b || size_a == 1 || size_b == 1, "engine: shapes {} and {} do not broadcast", a,
            b);
    result[rank - i] = size_a == 1 ? size_b : size_a;
  }
  return result;
}

// Integers join floats as floats; narrow floats become f32 when `arithmetic`.
DType common_dtype(DType a, DType b, bool arithmetic) {
  const auto widest = [](DType x, DType y) {
    if (x == y) return x;
    if (is_float(x) && is_float(y)) return x == DType::f64 || y == DType::f64 ? DType::f64 : DType::f32;
    if (is_float(x)) return x;
    if (is_float(y)) return y;
    return size_of(x) >= size_of(y) ? x : y;
  };
  const DType dtype = widest(a, b);
  return arithmetic ? arithmetic_dtype(dtype) : dtype;
}

Value apply(Op op, std::initializer_list<Value> operands) {
  return operands.begin()->graph->add(op, std::span(operands.begin(), operands.size()));
}

Value apply_unary(Op op, Value x) { return apply(op, {cast(x, arithmetic_dtype(x.dtype()))}); }

Value apply_binary(Op op, Value a, Value b) {
  const DType dtype = common_dtype(a.dtype(), b.dtype(), true);
  const Shape shape = broadcast_shape(a.shape(), b.shape());
  return apply(op, {broadcast_to(cast(a, dtype), shape), broadcast_to(cast(b, dtype), shape)});
}

// A number beside a tensor: it takes the tensor's shape and arithmetic dtype; beside integers a fraction is
// an f32.
Value number(Value like, double value) {
  const bool is_fraction = !is_float(like.dtype()) && value != std::trunc(value);
  const DType dtype = is_fraction ? DType::f32 : arithmetic_dtype(like.dtype());
  return like.graph->add(Op::constant, {},
                         {{"value", value}, {"dtype", to_attribute(dtype)}, {"shape", like.shape()}});
}

}  // namespace

Value neg(Value x) { return apply_unary(Op::neg, x); }
Value exp(Value x) { return apply_unary(Op::exp, x); }
Value log(Value x) { return apply_unary(Op::log, x); }
Value sqrt(Value x) { return apply_unary(Op::sqrt, x); }
Value rsqrt(Value x) { return apply_unary(Op::rsqrt, x); }
Value tanh(Value x) { return apply_unary(Op::tanh, x); }
Value sigmoid(Value x) { return apply_unary(Op::sigmoid, x); }
Value erf(Value x) { return apply_unary(Op::erf, x); }
Value abs(Value x) { return apply_unary(Op::abs, x); }
Value sin(Value x) { return apply_unary(Op::sin, x); }
Value cos(Value x) { return apply_unary(Op::cos, x); }
Value maximum(Value a, Value b) { return apply_binary(Op::max, a, b); }
Value minimum(Value a, Value b) { return apply_binary(Op::min, a, b); }
Value equal(Value a, Value b) { return apply_binary(Op::equal, a, b); }
Value less(Value a, Value b) { return apply_binary(Op::less, a, b); }
Value less_equal(Value a, Value b) { return apply_binary(Op::less_equal, a, b); }

Value where(Value condition, Value a, Value b) {
  const DType dtype = common_dtype(a.dtype(), b.dtype(), false);
  const Shape shape = broadcast_shape(condition.shape(), broadcast_shape(a.shape(), b.shape()));
  return apply(Op::where, {broadcast_to(condition, shape), broadcast_to(cast(a, dtype), shape),
                           broadcast_to(cast(b, dtype), shape)});
}

Value cast(Value x, DType dtype) {
  if (x.dtype() == dtype) return x;
  return x.graph->add(Op::cast, std::span(&x, 1), {{"dtype", to_attribute(dtype)}});
}

Value operator+(Value a, Value b) { return apply_binary(Op::add, a, b); }
Value operator-(Value a, Value b) { return apply_binary(Op::sub, a, b); }
Value operator*(Value a, Value b) { return apply_binary(Op::mul, a, b); }
Value operator/(Value a, Value b) { return apply_binary(Op::div, a, b); }
Value operator-(Value x) { return neg(x); }
Value operator+(Value a, double b) { return a + number(a, b); }
Value operator-(Value a, double b) { return a - number(a, b); }
Value operator*(Value a, double b) { return a * number(a, b); }
Value operator/(Value a, double b) { return a / number(a, b); }
Value operator+(double a, Value b) { return number(b, a) + b; }
Value operator-(double a, Value b) { return number(b, a) - b; }
Value operator*(double a, Value b) { return number(b, a) * b; }
Value operator/(double a, Value b) { return number(b, a) / b; }

Value both(Value a, Value b) {
  const Shape shape = broadcast_shape(a.shape(), b.shape());
  const Value left = broadcast_to(a, shape);
  return where(left, broadcast_to(b, shape), constant_like(left, 0));
}

}  // namespace nf
