// Copies a graph node by node into another, so that a pass only says what it changes.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "graph/op_table.h"
#include "nf/graph.h"

namespace nf {

class Rewriter {
 public:
  explicit Rewriter(const Graph& from)
      : from_(from), to_(std::make_shared<Graph>()), map_(static_cast<size_t>(from.size())) {}

  const Graph& from() const { return from_; }
  Graph& to() { return *to_; }

  // Where a value of the old graph is in the new one.
  Value at(ValueId old) const { return map_[static_cast<size_t>(old.node)][static_cast<size_t>(old.output)]; }
  bool mapped(int32_t node) const { return !map_[static_cast<size_t>(node)].empty(); }
  Values inputs_of(const Node& node) const {
    Values inputs;
    for (ValueId id : node.inputs) inputs.push_back(at(id));
    return inputs;
  }
  void map(int32_t node, Values values) { map_[static_cast<size_t>(node)] = std::move(values); }

  // New nodes belong to the scope and pass (forward or backward) of this old node from now on.
  void stand_at(const Node& node) {
    to_->set_scope(to_->intern_scope(from_.scope_name(node)));
    to_->set_backward(node.backward);
  }

  // The old node over the inputs' new places.
  Values copy(const Node& node) {
    Node fresh = node;
    fresh.scope = to_->intern_scope(from_.scope_name(node));
    for (ValueId& input : fresh.inputs) input = at(input).id;
    return outputs_of(to_->add_node(std::move(fresh)).node);
  }
  Values outputs_of(int32_t node) {
    Values values;
    for (size_t i = 0; i < to_->node(node).outputs.size(); ++i)
      values.push_back(to_->value({node, static_cast<int32_t>(i)}));
    return values;
  }

  // Carries the outputs over and hands out the new graph.
  std::shared_ptr<Graph> finish() {
    for (const Graph::Output& output : from_.outputs()) to_->output(output.name, at(output.value));
    to_->set_scope(0);
    to_->set_backward(false);
    return std::move(to_);
  }

 private:
  const Graph& from_;
  std::shared_ptr<Graph> to_;
  std::vector<Values> map_;
};

// Marks the nodes that outputs and effects need.
std::vector<bool> live_nodes(const Graph& graph);

// For every node, how often its outputs are read (graph outputs count).
std::vector<int32_t> use_counts(const Graph& graph);

}  // namespace nf
