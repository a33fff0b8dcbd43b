// Leaves: where values come from.
#include "graph/loop.h"
#include "graph/op_rows.h"

namespace nf {
namespace {

std::vector<TensorType> as_given(Types, const Attributes& attributes) {
  return {{dtype_attribute(attributes), attributes.list("shape")}};
}

std::vector<TensorType> infer_tensor(Types, const Attributes& attributes) {
  const auto count = static_cast<int64_t>(attributes.data("data")->size());
  require(count == attributes.list("shape").elements(), "{} values for shape {}", count,
          attributes.list("shape"));
  return {{dtype_attribute(attributes), attributes.list("shape")}};
}

std::vector<TensorType> infer_iota(Types, const Attributes& attributes) {
  normalize_axis(attributes.integer("axis"), attributes.list("shape").rank());
  return {{DType::i32, attributes.list("shape")}};
}

std::vector<TensorType> infer_philox(Types inputs, const Attributes& attributes) {
  require(inputs[0] == TensorType{DType::i32, {4}},
          "the rng must be i32 [4]: seed_low, seed_high, step, micro_step");
  return {{DType::f32, attributes.list("shape")}};
}

std::vector<TensorType> infer_loop(Types, const Attributes& attributes) {
  std::vector<TensorType> types;
  const Graph& body = *attributes.body("body");
  for (const Graph::Output& output : body.outputs()) types.push_back(body.type(output.value));
  return types;
}

double loop_flops(const Graph&, const Node& node) {
  const Graph& body = *node.attributes.body("body");
  double total = 0;
  for (int32_t i = 0; i < body.size(); ++i) total += flops(body, body.node(i));
  return total;
}

}  // namespace

std::vector<OpInfo> leaf_rows() {
  return {
      {.op = Op::input, .name = "input", .kind = OpKind::leaf, .infer = as_given},
      {.op = Op::state, .name = "state", .kind = OpKind::leaf, .infer = as_given},
      {.op = Op::constant, .name = "constant", .kind = OpKind::leaf, .infer = as_given},
      {.op = Op::tensor, .name = "tensor", .kind = OpKind::leaf, .infer = infer_tensor},
      {.op = Op::iota, .name = "iota", .kind = OpKind::leaf, .infer = infer_iota},
      {.op = Op::philox,
       .name = "philox",
       .kind = OpKind::leaf,
       .min_inputs = 1,
       .max_inputs = 1,
       .infer = infer_philox},
      {.op = Op::loop,
       .name = "loop",
       .kind = OpKind::loop,
       .max_inputs = -1,
       .infer = infer_loop,
       .flops = loop_flops},
  };
}

// ---- builders

Value input(Graph& graph, std::string_view name, DType dtype, const Shape& shape) {
  return graph.add(Op::input, {},
                   {{"name", std::string(name)}, {"dtype", to_attribute(dtype)}, {"shape", shape}});
}

Value state(Graph& graph, std::string_view name, DType dtype, const Shape& shape) {
  return graph.add(Op::state, {},
                   {{"name", std::string(name)}, {"dtype", to_attribute(dtype)}, {"shape", shape}});
}

Value constant(Graph& graph, double value, DType dtype) {
  return graph.add(Op::constant, {}, {{"value", value}, {"dtype", to_attribute(dtype)}, {"shape", Shape{}}});
}

Value constant_like(Value like, double value) {
  return like.graph->add(Op::constant, {},
                         {{"value", value}, {"dtype", to_attribute(like.dtype())}, {"shape", like.shape()}});
}

Value tensor(Graph& graph, std::vector<double> data, const Shape& shape, DType dtype) {
  return graph.add(Op::tensor, {},
                   {{"data", TensorData(std::make_shared<const std::vector<double>>(std::move(data)))},
                    {"dtype", to_attribute(dtype)},
                    {"shape", shape}});
}

Value iota(Graph& graph, const Shape& shape, int axis) {
  return graph.add(Op::iota, {}, {{"shape", shape}, {"axis", int64_t{normalize_axis(axis, shape.rank())}}});
}

Value philox(Value rng, const Shape& shape, uint64_t stream) {
  return rng.graph->add(Op::philox, std::span(&rng, 1),
                        {{"shape", shape}, {"stream", static_cast<int64_t>(stream)}});
}

}  // namespace nf
