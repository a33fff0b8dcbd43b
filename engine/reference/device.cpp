// The interpreter as a Device.
#include <array>

#include "base/tensor_view.h"
#include "graph/op_table.h"
#include "nf/device.h"
#include "reference/interpreter.h"

namespace nf {
namespace {

double load(const TensorView& view, int64_t at) {
  switch (view.dtype) {
    case DType::f32: return static_cast<double>(view.as<float>()[at]);
    case DType::bf16: return static_cast<double>(to_float(view.as<bf16>()[at]));
    case DType::f16: return static_cast<double>(to_float(view.as<f16>()[at]));
    case DType::f64: return view.as<double>()[at];
    case DType::i32: return view.as<int32_t>()[at];
    case DType::i64: return static_cast<double>(view.as<int64_t>()[at]);
    case DType::u8: return view.as<uint8_t>()[at];
    case DType::boolean: return view.as<bool>()[at] ? 1 : 0;
  }
  return 0;
}

void store(const TensorView& view, int64_t at, double value) {
  switch (view.dtype) {
    case DType::f32: view.as<float>()[at] = static_cast<float>(value); break;
    case DType::bf16: view.as<bf16>()[at] = to_bf16(static_cast<float>(value)); break;
    case DType::f16: view.as<f16>()[at] = to_f16(static_cast<float>(value)); break;
    case DType::f64: view.as<double>()[at] = value; break;
    case DType::i32: view.as<int32_t>()[at] = static_cast<int32_t>(value); break;
    case DType::i64: view.as<int64_t>()[at] = static_cast<int64_t>(value); break;
    case DType::u8: view.as<uint8_t>()[at] = static_cast<uint8_t>(value); break;
    case DType::boolean: view.as<bool>()[at] = value != 0; break;
  }
}

// Leaves and graph outputs are dense.
reference::Tensor read(const TensorView& view) {
  reference::Tensor tensor{view.shape, std::vector<double>(static_cast<size_t>(view.shape.elements()))};
  for (size_t i = 0; i < tensor.data.size(); ++i) tensor.data[i] = load(view, static_cast<int64_t>(i));
  return tensor;
}

void write(const TensorView& view, const reference::Tensor& tensor) {
  for (size_t i = 0; i < tensor.data.size(); ++i) store(view, static_cast<int64_t>(i), tensor.data[i]);
}

void evaluate(const BoundPlan& bound) {
  const Graph& graph = *bound.plan.graph;
  reference::Bindings inputs, state;
  for (int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    if ((node.op != Op::input && node.op != Op::state) ||
        bound.plan.places[static_cast<size_t>(i)][0].region == Place::Region::none)
      continue;
    (node.op == Op::input ? inputs : state)[node.attributes.text("name")] = read(bound.view({i, 0}));
  }
  const std::vector<reference::Tensor> outputs = reference::evaluate(graph, inputs, state);
  for (size_t i = 0; i < outputs.size(); ++i) write(bound.view(graph.outputs()[i].value), outputs[i]);
  for (int32_t effect : graph.effects()) {
    const ValueId leaf = graph.node(effect).inputs[0];
    write(bound.view(leaf), state.at(graph.node(leaf).attributes.text("name")));
  }
}

class ReferenceDevice : public Device {
 public:
  std::string_view name() const override { return "reference"; }
  bool supports(const Graph&, const Node&) const override { return true; }
  int64_t workspace(const Graph&, const Node&) const override { return 0; }
  bool unoptimized() const override { return true; }
  Buffer allocate(int64_t bytes) const override { return allocate_host_memory(bytes); }

  // The memory of a BoundPlan stays where it is for the executable's life, so addresses can be kept.
  std::vector<Launch> load(const BoundPlan& bound) const override {
    return {[&bound] { evaluate(bound); }};
  }
};

}  // namespace

std::shared_ptr<const Device> reference_device() { return std::make_shared<ReferenceDevice>(); }

}  // namespace nf
