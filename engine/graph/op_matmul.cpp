// The matrix product: its row and builders.
#include "graph/op_rows.h"

namespace nf {
namespace {

struct MatmulShape {
  Shape batch;
  int64_t m, n, k;
};

// An operand seen as a matrix after its transpose flag.
std::pair<int64_t, int64_t> matrix_of(const Shape& shape, bool transposed) {
  const int64_t rows = shape[shape.rank() - 2], columns = shape.back();
  return transposed ? std::pair{columns, rows} : std::pair{rows, columns};
}

MatmulShape shape_of(const Shape& a, const Shape& b, const Attributes& attributes) {
  require(a.rank() >= 2 && b.rank() >= 2, "operands need at least two axes");
  const auto [m, k] = matrix_of(a, attributes.integer("transpose_a") != 0);
  const auto [k_b, n] = matrix_of(b, attributes.integer("transpose_b") != 0);
  require(k == k_b, "inner sizes differ, {}{} x {}{}", a, attributes.integer("transpose_a") != 0 ? "^T" : "",
          b, attributes.integer("transpose_b") != 0 ? "^T" : "");
  MatmulShape result{.batch = {}, .m = m, .n = n, .k = k};
  for (int axis = 0; axis < a.rank() - 2; ++axis) result.batch.push_back(a[axis]);
  if (b.rank() == 2) return result;
  require(a.rank() == b.rank(), "leading axes differ, {} and {}", a, b);
  for (int axis = 0; axis < a.rank() - 2; ++axis)
    require(a[axis] == b[axis], "leading axes differ, {} and {}", a, b);
  return result;
}

std::vector<TensorType> infer_matmul(Types inputs, const Attributes& attributes) {
  require(is_float(inputs[0].dtype) && inputs[0].dtype == inputs[1].dtype, "operands are {} and {}",
          name(inputs[0].dtype), name(inputs[1].dtype));
  const MatmulShape sizes = shape_of(inputs[0].shape, inputs[1].shape, attributes);
  TensorType result{dtype_attribute(attributes), sizes.batch};
  result.shape.push_back(sizes.m);
  result.shape.push_back(sizes.n);
  if (inputs.size() == 3)
    require(inputs[2] == result, "the accumulator is {}{}", name(inputs[2].dtype), inputs[2].shape);
  return {result};
}

Value flat_matrix(Value x) { return reshape(x, {-1, x.shape().back()}); }

// Weights are f32 states that are cast down for the product, or narrow copies of such; their gradients stay
// as wide as the product accumulates them.
DType weight_gradient_dtype(Value b) {
  const Node* node = &b.graph->node(b.id);
  if (node->op == Op::cast) node = &b.graph->node(node->inputs[0]);
  if (node->op != Op::state) return b.dtype();
  const DType stored = node->outputs[0].dtype;
  return stored == DType::f64 ? DType::f64 : DType::f32;
}

// With y = op(a) op(b): da = dy op(b)^T, db = op(a)^T dy, transposed back where the operand was.
Values matmul_gradient(Graph& graph, int32_t node, std::span<const Value> grads) {
  const NodeValues values{graph, node};
  const Value a = values.in(0), b = values.in(1);
  const Value dy = cast(grads[0], a.dtype());
  const bool ta = values.attributes().integer("transpose_a") != 0;
  const bool tb = values.attributes().integer("transpose_b") != 0;
  const Value da =
      ta ? matmul(b, dy, {.transpose_a = tb, .transpose_b = true}) : matmul(dy, b, {.transpose_b = !tb});
  Value db;
  const DType db_dtype = weight_gradient_dtype(b);
  if (b.shape().rank() == 2 && a.shape().rank() > 2) {  // one b for every leading axis: contract those too
    const Value rows = flat_matrix(ta ? transpose(a, -2, -1) : a), flat_dy = flat_matrix(dy);
    db = tb ? matmul(flat_dy, rows, {.transpose_a = true, .dtype = db_dtype})
            : matmul(rows, flat_dy, {.transpose_a = true, .dtype = db_dtype});
  } else {
    db = tb ? matmul(dy, a, {.transpose_a = true, .transpose_b = ta, .dtype = db_dtype})
            : matmul(a, dy, {.transpose_a = !ta, .dtype = db_dtype});
  }
  return {da, db};
}

double matmul_flops(const Graph& graph, const Node& node) {
  const MatmulShape sizes =
      shape_of(graph.type(node.inputs[0]).shape, graph.type(node.inputs[1]).shape, node.attributes);
  return 2.0 * static_cast<double>(sizes.batch.elements() * sizes.m) * static_cast<double>(sizes.n * sizes.k);
}

}  // namespace

std::vector<OpInfo> matmul_rows() {
  return {{.op = Op::matmul,
           .name = "matmul",
           .kind = OpKind::contraction,
           .min_inputs = 2,
           .max_inputs = 3,
           .infer = infer_matmul,
           .gradient = matmul_gradient,
           .flops = matmul_flops}};
}

Value matmul(Value a, Value b, MatmulOptions options) {
  if (a.shape().rank() > 2 && b.shape().rank() == 2 &&
      options.transpose_a) {  // one form for a batched a: not transposed
    a = transpose(a, -2, -1);
    options.transpose_a = false;
  }
  const Values inputs{a, b};
  return a.graph->add(Op::matmul, inputs,
                      {{"transpose_a", int64_t{options.transpose_a}},
                       {"transpose_b", int64_t{options.transpose_b}},
                       {"dtype", to_attribute(options.dtype.value_or(a.dtype()))}});
}

Value linear(Value x, Value weight, Value bias) {
  const Value y = matmul(cast(x, weight.dtype()), weight, {.transpose_b = true});
  return bias ? cast(y + bias, weight.dtype()) : y;
}

}  // namespace nf
