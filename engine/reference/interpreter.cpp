#include "reference/interpreter.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "graph/op_table.h"
#include "reference/primitives.h"

namespace nf::reference {
namespace {

using Tensors = std::vector<Tensor>;

// Which nodes an output or effect needs.
std::vector<bool> needed_nodes(const Graph& graph) {
  std::vector<bool> needed(static_cast<size_t>(graph.size()), false);
  for (const Graph::Output& output : graph.outputs()) needed[static_cast<size_t>(output.value.node)] = true;
  for (int32_t effect : graph.effects()) needed[static_cast<size_t>(effect)] = true;
  for (int32_t i = graph.size() - 1; i >= 0; --i)
    if (needed[static_cast<size_t>(i)])
      for (ValueId input : graph.node(i).inputs) needed[static_cast<size_t>(input.node)] = true;
  return needed;
}

const Tensor& bound(const Bindings& bindings, const std::string& leaf, const Shape& shape, const char* what) {
  const auto found = bindings.find(leaf);
  require(found != bindings.end(), "reference: {} {} is not bound", what, leaf);
  const Tensor& tensor = found->second;
  require(tensor.shape == shape && static_cast<int64_t>(tensor.data.size()) == shape.elements(),
          "reference: {} {} is bound to {} ({} elements), expected {}", what, leaf, tensor.shape,
          tensor.data.size(), shape);
  return tensor;
}

// One run over a graph. A loop's body is a run of its own, whose inputs are bound by number instead of by
// name.
class Run {
 public:
  Run(const Graph& graph, const Bindings& inputs, Bindings& state, const Observer& observer)
      : graph_(graph), inputs_(&inputs), state_(state), observer_(observer) {}
  // For a loop's body.
  Run(const Graph& graph, std::span<const Tensor* const> arguments, Bindings& state)
      : graph_(graph), arguments_(arguments), state_(state) {}

  Tensors operator()() {
    const std::vector<bool> needed = needed_nodes(graph_);
    values_.resize(static_cast<size_t>(graph_.size()));
    for (int32_t i = 0; i < graph_.size(); ++i) {
      if (!needed[static_cast<size_t>(i)]) continue;
      Tensors& outputs = values_[static_cast<size_t>(i)];
      outputs = evaluate_node(graph_.node(i));
      check(graph_.node(i), outputs);
      if (observer_) observer_(i, outputs);
    }
    for (auto& [name, tensor] : updates_) state_[name] = std::move(tensor);
    Tensors results;
    for (const Graph::Output& output : graph_.outputs()) results.push_back(value(output.value));
    return results;
  }

 private:
  const Tensor& value(ValueId id) const {
    return values_[static_cast<size_t>(id.node)][static_cast<size_t>(id.output)];
  }

  void check(const Node& node, const Tensors& outputs) const {
    bool fits = outputs.size() == node.outputs.size();
    for (size_t i = 0; fits && i < outputs.size(); ++i)
      fits = outputs[i].shape == node.outputs[i].shape &&
             static_cast<int64_t>(outputs[i].data.size()) == outputs[i].shape.elements();
    require(fits, "reference: {} in {} did not give what inference promised", name(node.op),
            graph_.scope_name(node));
  }

  Tensors evaluate_node(const Node& node) {
    std::vector<const Tensor*> arguments;
    for (ValueId input : node.inputs) arguments.push_back(&value(input));
    switch (node.op) {
      case Op::input: return {read_input(node)};
      case Op::state: return {bound(state_, node.attributes.text("name"), node.outputs[0].shape, "state")};
      case Op::assign:
      case Op::assign_slice: return evaluate_assign(node, arguments);
      case Op::loop: return Run(*node.attributes.body("body"), arguments, state_)();
      default: break;
    }
    if (const Kernel kernel = find_kernel(node.op)) return {kernel({node, arguments})};
    return evaluate_composite(node, arguments);
  }

  Tensor read_input(const Node& node) const {
    if (inputs_) return bound(*inputs_, node.attributes.text("name"), node.outputs[0].shape, "input");
    return *arguments_[static_cast<size_t>(node.attributes.integer("index"))];
  }

  Tensors evaluate_composite(const Node& node, std::span<const Tensor* const> arguments) {
    require(info(node.op).decompose != nullptr, "reference: {} has no meaning here", name(node.op));
    Graph scratch;
    Values leaves;
    Bindings bindings;
    for (size_t i = 0; i < arguments.size(); ++i) {
      const std::string leaf = std::to_string(i);
      leaves.push_back(nf::input(scratch, leaf, graph_.type(node.inputs[i]).dtype, arguments[i]->shape));
      bindings[leaf] = *arguments[i];
    }
    for (Value output : info(node.op).decompose(scratch, node, leaves)) scratch.output("", output);
    return Run(scratch, bindings, state_, {})();
  }

  Tensors evaluate_assign(const Node& node, std::span<const Tensor* const> arguments) {
    const Node& leaf = graph_.node(node.inputs[0]);
    require(leaf.op == Op::state, "reference: {} needs a state, not {}", name(node.op), name(leaf.op));
    Tensor updated = node.op == Op::assign ? *arguments[1] : overwrite(arguments);
    updates_.emplace_back(leaf.attributes.text("name"), updated);
    if (node.outputs.empty()) return {};
    return {std::move(updated)};
  }

  // The state with [:, offset : offset + n] replaced.
  static Tensor overwrite(std::span<const Tensor* const> arguments) {
    Tensor updated = *arguments[0];
    const Tensor& part = *arguments[1];
    const double offset = arguments[2]->data.at(0);
    require(
        offset >= 0 && offset + static_cast<double>(part.shape[1]) <= static_cast<double>(updated.shape[1]),
        "reference: assign_slice of {} at {} does not fit into {}", part.shape, offset, updated.shape);
    const Strides strides = dense_strides(updated.shape);
    size_t i = 0;
    walk(part.shape, strides, static_cast<int64_t>(offset) * strides[1],
         [&](int64_t at) { updated.data[static_cast<size_t>(at)] = part.data[i++]; });
    return updated;
  }

  const Graph& graph_;
  const Bindings* inputs_ = nullptr;
  std::span<const Tensor* const> arguments_;
  Bindings& state_;
  Observer observer_;
  std::vector<Tensors> values_;                          // by node
  std::vector<std::pair<std::string, Tensor>> updates_;  // of the state, in the order they are made
};

}  // namespace

Tensor zeros(const Shape& shape) {
  return {shape, std::vector<double>(static_cast<size_t>(shape.elements()))};
}

Kernel find_kernel(Op op) {
  static const auto kTable = [] {
    std::array<Kernel, static_cast<size_t>(Op::count_)> table{};
    for (const auto rows : {elementwise_kernels(), movement_kernels(), sum_kernels()})
      for (const KernelRow& row : rows) table[static_cast<size_t>(row.op)] = row.kernel;
    return table;
  }();
  return kTable[static_cast<size_t>(op)];
}

std::vector<Tensor> evaluate(const Graph& graph, const Bindings& inputs, Bindings& state,
                             const Observer& observer) {
  return Run(graph, inputs, state, observer)();
}

int32_t first_non_finite(const Graph& graph, const Bindings& inputs, Bindings state) {
  int32_t first = -1;
  evaluate(graph, inputs, state, [&](int32_t node, std::span<Tensor> outputs) {
    for (const Tensor& output : outputs)
      if (first < 0 &&
          !std::all_of(output.data.begin(), output.data.end(), [](double x) { return std::isfinite(x); }))
        first = node;
  });
  return first;
}

}  // namespace nf::reference
