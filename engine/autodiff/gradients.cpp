#include "nf/gradients.h"

#include "graph/op_table.h"

namespace nf {
namespace {

// Marks the nodes that depend on any of `wrt`: only those need gradients.
std::vector<bool> dependents(const Graph& graph, std::span<const Value> wrt) {
  std::vector<bool> depends(static_cast<size_t>(graph.size()), false);
  for (const Value& value : wrt) depends[static_cast<size_t>(value.id.node)] = true;
  for (int32_t i = 0; i < graph.size(); ++i)
    for (ValueId input : graph.node(i).inputs)
      if (depends[static_cast<size_t>(input.node)]) depends[static_cast<size_t>(i)] = true;
  return depends;
}

class BackwardPass {
 public:
  BackwardPass(Value loss, std::span<const Value> wrt)
      : graph_(*loss.graph), depends_(dependents(graph_, wrt)), grads_(static_cast<size_t>(graph_.size())) {
    accumulate(loss.id, constant_like(loss, 1));
    for (int32_t i = loss.id.node; i >= 0; --i) visit(i);
  }

  Value grad(Value value) {
    const auto& of_node = grads_[static_cast<size_t>(value.id.node)];
    const auto output = static_cast<size_t>(value.id.output);
    if (output < of_node.size() && of_node[output]) return of_node[output];
    return cast(constant_like(value, 0), value.dtype() == DType::f64 ? DType::f64 : DType::f32);
  }

 private:
  void accumulate(ValueId id, Value grad) {
    auto& of_node = grads_[static_cast<size_t>(id.node)];
    of_node.resize(graph_.node(id).outputs.size());
    Value& sum = of_node[static_cast<size_t>(id.output)];
    sum = sum ? sum + grad : grad;
  }

  void visit(int32_t index) {
    const Values upstream = grads_[static_cast<size_t>(index)];
    if (upstream.empty() || !depends_[static_cast<size_t>(index)]) return;
    const OpInfo& row = info(graph_.node(index).op);
    if (graph_.node(index).inputs.empty()) return;
    require(row.gradient != nullptr, "gradients: {} in {} has no gradient", row.name,
            graph_.scope_name(graph_.node(index)));
    graph_.set_scope(graph_.node(index).scope);
    const Values grads = row.gradient(graph_, index, upstream);
    const std::vector<ValueId> inputs = graph_.node(index).inputs;
    for (size_t i = 0; i < grads.size(); ++i)
      if (grads[i] && depends_[static_cast<size_t>(inputs[i].node)]) accumulate(inputs[i], grads[i]);
  }

  Graph& graph_;
  std::vector<bool> depends_;
  std::vector<Values> grads_;  // per node, per output
};

}  // namespace

Values gradients(Value loss, std::span<const Value> wrt) {
  require(loss && loss.shape().elements() == 1 && is_float(loss.dtype()),
          "gradients: the loss is no float scalar");
  Graph& graph = *loss.graph;
  for (const Value& value : wrt)
    require(value.graph == &graph, "gradients: a value belongs to another graph");
  const int32_t scope = graph.scope();
  graph.set_backward(true);
  Values result;
  try {
    BackwardPass pass(loss, wrt);
    for (const Value& value : wrt) result.push_back(pass.grad(value));
  } catch (...) {
    graph.set_backward(false);
    graph.set_scope(scope);
    throw;
  }
  graph.set_backward(false);
  graph.set_scope(scope);
  return result;
}

}  // namespace nf
