// lower: what the graph says in terms that backends know.
#include <algorithm>

#include "passes/passes.h"
#include "passes/rewriter.h"

namespace nf {
namespace {

Value reduce_over(Value x, Op op, const Shape& axes) {
  return x.graph->add(op, std::span(&x, 1), {{"axes", axes}});
}

// Reductions in the two forms of graph/loop.h: over the last axis of several, or over leading axes.
Value canonical_reduction(Value x, Op op, const Shape& wanted) {
  const Shape shape = x.shape();
  Shape result = shape;
  Shape axes;  // those with more than one element
  for (int64_t axis : wanted) {
    result[static_cast<int>(axis)] = 1;
    if (shape[static_cast<int>(axis)] != 1) axes.push_back(axis);
  }
  if (axes.empty()) return reshape(x, result);
  const int last = shape.rank() - 1;
  if (axes.back() == last) {
    const Value rows = reduce_over(x, op, {last});
    if (axes.rank() == 1) return reshape(rows, result);
    Shape rest(axes.span().first(static_cast<size_t>(axes.rank() - 1)));
    return reshape(canonical_reduction(squeeze(rows, last), op, rest), result);
  }
  int64_t kept_after = 1;
  for (int axis = static_cast<int>(axes.back()) + 1; axis <= last; ++axis) kept_after *= shape[axis];
  if (kept_after == 1) {  // nothing stands behind the reduced axes: they are the row
    Shape shorter(shape.span().first(static_cast<size_t>(axes.back() + 1)));
    return reshape(canonical_reduction(reshape(x, shorter), op, axes), result);
  }
  int leading = 0;  // reduced axes, and axes of size 1 between them, at the front
  while (leading <= last &&
         (shape[leading] == 1 || std::find(axes.begin(), axes.end(), leading) != axes.end()))
    ++leading;
  while (leading > 0 && leading > axes.back() + 1) --leading;
  if (leading == axes.back() + 1) {
    Shape prefix;
    for (int axis = 0; axis < leading; ++axis) prefix.push_back(axis);
    return reduce_over(x, op, prefix);
  }
  Shape permutation;
  for (int64_t axis : axes) permutation.push_back(axis);
  for (int axis = 0; axis <= last; ++axis)
    if (std::find(axes.begin(), axes.end(), axis) == axes.end()) permutation.push_back(axis);
  Shape front;
  for (int axis = 0; axis < axes.rank(); ++axis) front.push_back(axis);
  return reshape(reduce_over(transpose(x, permutation), op, front), result);
}

// The input number of a kernel's accumulator for one of its outputs, or -1 if that output cannot accumulate.
bool can_accumulate(const Node& node, int32_t output) {
  if (node.attributes.integer("accumulate") != 0) return false;
  switch (node.op) {
    case Op::matmul: return node.inputs.size() == 2 && node.outputs[0].dtype == DType::f32;
    case Op::embedding_backward: return node.inputs.size() == 2;
    case Op::linear_cross_entropy_backward: return output == 2;
    default: return false;
  }
}

class Lowering {
 public:
  Lowering(const Graph& graph, const Supports& supports)
      : rewriter_(graph),
        supports_(supports),
        live_(live_nodes(graph)),
        uses_(use_counts(graph)),
        reads_(count_reads()) {
    for (int32_t i = 0; i < graph.size(); ++i)
      if (live_[static_cast<size_t>(i)] && graph.node(i).op == Op::assign) find_accumulation(graph.node(i));
    find_loss_twins();
  }

  GraphPtr run() {
    for (int32_t i = 0; i < rewriter_.from().size(); ++i)
      if (live_[static_cast<size_t>(i)]) visit(i);
    return rewriter_.finish();
  }

 private:
  std::vector<std::vector<int32_t>> count_reads() const {
    const Graph& from = rewriter_.from();
    std::vector<std::vector<int32_t>> reads;
    for (int32_t i = 0; i < from.size(); ++i) {
      reads.emplace_back(from.node(i).outputs.size(), 0);
      if (!live_[static_cast<size_t>(i)]) continue;
      for (ValueId id : from.node(i).inputs)
        ++reads[static_cast<size_t>(id.node)][static_cast<size_t>(id.output)];
    }
    for (const Graph::Output& output : from.outputs())
      ++reads[static_cast<size_t>(output.value.node)][static_cast<size_t>(output.value.output)];
    return reads;
  }

  // assign(s, s + kernel(...)) -> assign(s, kernel(..., accumulator s))
  void find_accumulation(const Node& assign) {
    const Graph& from = rewriter_.from();
    const Node& sum = from.node(assign.inputs[1]);
    if (sum.op != Op::add || uses_[static_cast<size_t>(assign.inputs[1].node)] != 1) return;
    const bool others_read_it =
        reads_[static_cast<size_t>(assign.inputs[0].node)][0] != 2;  // the sum, the assign
    if (others_read_it) return;
    for (size_t side : {size_t{0}, size_t{1}}) {
      const ValueId kernel = sum.inputs[1 - side];
      if (sum.inputs[side] != assign.inputs[0] || !can_accumulate(from.node(kernel), kernel.output) ||
          reads_[static_cast<size_t>(kernel.node)][static_cast<size_t>(kernel.output)] != 1)
        continue;
      accumulators_.emplace(kernel.node, assign.inputs[0]);
      sums_.emplace(assign.inputs[1].node, kernel);
      return;
    }
  }

  void visit(int32_t index) {
    if (rewriter_.mapped(index)) return;
    const Node& node = rewriter_.from().node(index);
    for (ValueId input : node.inputs) visit(input.node);  // only a node that was brought forward has such
    if (const auto twin = loss_twins_.find(index); twin != loss_twins_.end()) {
      visit(twin->second);
      const Value loss = rewriter_.at({twin->second, 0});
      rewriter_.map(index, {loss, {}});
      return;
    }
    rewriter_.stand_at(node);
    rewriter_.map(index, lowered(index));
  }

  // The backward kernel of a linear_cross_entropy computes the loss on its way. Where the gradient of the
  // loss does not depend on the loss itself (the usual case: it is a constant), the forward kernel need not
  // run at all.
  void find_loss_twins() {
    const Graph& from = rewriter_.from();
    for (int32_t b = 0; b < from.size(); ++b) {
      const Node& backward = from.node(b);
      if (!live_[static_cast<size_t>(b)] || backward.op != Op::linear_cross_entropy_backward ||
          !supports_(from, backward))
        continue;
      for (int32_t f = 0; f < b; ++f) {
        const Node& forward = from.node(f);
        const bool is_twin =
            live_[static_cast<size_t>(f)] && forward.op == Op::linear_cross_entropy &&
            forward.attributes == backward.attributes &&
            std::equal(forward.inputs.begin(), forward.inputs.end(), backward.inputs.begin());
        if (is_twin && reads_[static_cast<size_t>(f)][1] == 0 && !depends_on(backward.inputs.back(), f))
          loss_twins_.emplace(f, b);
      }
    }
  }

  bool depends_on(ValueId value, int32_t node) const {
    if (value.node < node) return false;
    const std::vector<ValueId>& inputs = rewriter_.from().node(value).inputs;
    return value.node == node ||
           std::any_of(inputs.begin(), inputs.end(), [&](ValueId input) { return depends_on(input, node); });
  }

  Values lowered(int32_t index) {
    const Graph& from = rewriter_.from();
    const Node& node = from.node(index);
    if (const auto sum = sums_.find(index); sum != sums_.end()) return {rewriter_.at(sum->second)};
    if (kind(node.op) == OpKind::reduce)
      return {canonical_reduction(rewriter_.at(node.inputs[0]), node.op, node.attributes.list("axes"))};
    Node adjusted = node;
    const auto accumulator = accumulators_.find(index);
    if (accumulator != accumulators_.end()) {
      if (!rewriter_.mapped(accumulator->second.node))  // a state can be read anywhere
        rewriter_.map(accumulator->second.node, rewriter_.copy(from.node(accumulator->second)));
      adjusted.inputs.push_back(accumulator->second);
      adjusted.attributes.set("accumulate", int64_t{1});
    }
    if (kind(node.op) == OpKind::composite && !supports_(from, node)) return decomposed(adjusted);
    return rewriter_.copy(adjusted);
  }

  Values decomposed(const Node& node) {
    const int32_t first = rewriter_.to().size();
    Values result = info(node.op).decompose(rewriter_.to(), node, rewriter_.inputs_of(node));
    for (Value& value : result) value = with_lowered_reductions(value, first);
    return result;
  }

  // Decompositions are made of primitives, whose reductions still have to be brought into form. Nodes before
  // `first` already are, but for those of an earlier decomposition that this one shares.
  Value with_lowered_reductions(Value value, int32_t first) {
    Graph& graph = rewriter_.to();
    if (const auto found = lowered_.find(value.id.node); found != lowered_.end())
      return graph.value({found->second.node, value.id.output});
    if (value.id.node < first) return value;
    const Node node = graph.node(value.id);
    Values inputs;
    bool changed = false;
    for (ValueId id : node.inputs) {
      inputs.push_back(with_lowered_reductions(graph.value(id), first));
      changed = changed || inputs.back().id != id;
    }
    Value result = graph.value({value.id.node, 0});
    if (kind(node.op) == OpKind::reduce) {
      result = canonical_reduction(inputs[0], node.op, node.attributes.list("axes"));
    } else if (changed) {
      Node fresh = node;
      for (size_t i = 0; i < inputs.size(); ++i) fresh.inputs[i] = inputs[i].id;
      result = graph.value(graph.add_node(std::move(fresh)));
    }
    lowered_.emplace(value.id.node, result.id);
    return graph.value({result.id.node, value.id.output});
  }

  Rewriter rewriter_;
  const Supports& supports_;
  std::vector<bool> live_;
  std::vector<int32_t> uses_;
  std::vector<std::vector<int32_t>> reads_;            // per node, per output
  std::unordered_map<int32_t, ValueId> accumulators_;  // kernel -> state
  std::unordered_map<int32_t, ValueId> sums_;          // add -> the accumulating kernel's output
  std::unordered_map<int32_t, int32_t> loss_twins_;    // linear_cross_entropy -> its backward node
  std::unordered_map<int32_t, ValueId> lowered_;       // in the new graph
};

}  // namespace

GraphPtr lower(const Graph& graph, const Supports& supports) {
  Lowering lowering(graph, supports);
  return lowering.run();
}

}  // namespace nf
