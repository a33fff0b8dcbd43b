// Effects on the State.
#include "graph/op_rows.h"

namespace nf {
namespace {

std::vector<TensorType> infer_assign(Types inputs, const Attributes&) {
  require(inputs[0] == inputs[1], "the state and the value differ in type");
  return {inputs[0]};
}

std::vector<TensorType> infer_assign_slice(Types inputs, const Attributes&) {
  require(inputs[0].dtype == inputs[1].dtype, "the state and the value differ in dtype");
  require(inputs[0].shape.rank() >= 2 && inputs[1].shape.rank() == inputs[0].shape.rank(),
          "ranks differ or are below 2");
  for (int axis = 0; axis < inputs[0].shape.rank(); ++axis)
    require(
        axis == 1 ? inputs[1].shape[1] <= inputs[0].shape[1] : inputs[1].shape[axis] == inputs[0].shape[axis],
        "the value does not fit at axis {}", axis);
  require(inputs[2] == TensorType{DType::i32, {}}, "the offset is not an i32 scalar");
  return {inputs[0]};
}

void require_state(Value state) {
  require(state && state.graph->node(state.id).op == Op::state,
          "engine: assign needs a state() on its left side");
}

}  // namespace

std::vector<OpInfo> state_rows() {
  return {
      {.op = Op::assign,
       .name = "assign",
       .kind = OpKind::state,
       .min_inputs = 2,
       .max_inputs = 2,
       .infer = infer_assign},
      {.op = Op::assign_slice,
       .name = "assign_slice",
       .kind = OpKind::state,
       .min_inputs = 3,
       .max_inputs = 3,
       .infer = infer_assign_slice},
  };
}

void assign(Value state, Value value) {
  require_state(state);
  const Values inputs{state, value};
  state.graph->add(Op::assign, inputs);
}

Value assign_slice(Value state, Value value, Value offset) {
  require_state(state);
  const Values inputs{state, value, offset};
  return state.graph->add(Op::assign_slice, inputs);
}

}  // namespace nf
