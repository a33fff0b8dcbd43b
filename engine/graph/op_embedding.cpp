// Embedding: a gather whose gradient is a sum over segments of sorted ids, instead of colliding additions.
#include "graph/op_rows.h"

namespace nf {
namespace {

std::vector<TensorType> infer_embedding(Types inputs, const Attributes&) {
  require(inputs[0].shape.rank() == 2, "the table {} is not [V, D]", inputs[0].shape);
  require(inputs[1].dtype == DType::i32, "ids are {}, not i32", name(inputs[1].dtype));
  TensorType result{inputs[0].dtype, inputs[1].shape};
  result.shape.push_back(inputs[0].shape[1]);
  return {result};
}

// Inputs ids, grad_out, [accumulator]; output f32 [size, D].
std::vector<TensorType> infer_backward(Types inputs, const Attributes& attributes) {
  require(inputs[0].dtype == DType::i32, "ids are {}, not i32", name(inputs[0].dtype));
  const DType dtype = inputs[1].dtype == DType::f64 ? DType::f64 : DType::f32;
  return {{dtype, {attributes.integer("size"), inputs[1].shape.back()}}};
}

Values embedding_gradient(Graph& graph, int32_t node, std::span<const Value> dy) {
  const NodeValues values{graph, node};
  const Values inputs{values.in(1), dy[0]};
  return {graph.add(Op::embedding_backward, inputs, {{"size", values.in(0).shape()[0]}}), {}};
}

Values decompose_embedding(Graph&, const Node&, std::span<const Value> inputs) {
  return {gather(inputs[0], inputs[1])};
}

Values decompose_backward(Graph&, const Node& node, std::span<const Value> inputs) {
  const DType dtype = node.outputs[0].dtype;
  const Value sums = scatter_add(inputs[0], cast(inputs[1], dtype), node.attributes.integer("size"));
  return {inputs.size() > 2 ? sums + inputs[2] : sums};
}

}  // namespace

std::vector<OpInfo> embedding_rows() {
  return {
      // An id outside [0, V) fails the run with Error, in the kernel as in the decomposition's gather.
      {.op = Op::embedding,
       .name = "embedding",
       .kind = OpKind::composite,
       .min_inputs = 2,
       .max_inputs = 2,
       .infer = infer_embedding,
       .gradient = embedding_gradient,
       .decompose = decompose_embedding},
      {.op = Op::embedding_backward,
       .name = "embedding_backward",
       .kind = OpKind::composite,
       .min_inputs = 2,
       .max_inputs = 3,
       .infer = infer_backward,
       .decompose = decompose_backward},
  };
}

Value embedding(Value table, Value ids) {
  const Values inputs{table, ids};
  return table.graph->add(Op::embedding, inputs);
}

}  // namespace nf
