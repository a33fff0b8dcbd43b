// recompute: gradient checkpointing as a rewrite.
//
// A backward node that reads a dropped forward value reads a copy of it instead. The copy is the same node
// with another `generation` number (so that hash-consing does not merge it with the original) over copies of
// its inputs, down to values that are kept. Copies are made where the first backward node needs them, so the
// scheduler finds them late.
#include <algorithm>
#include <charconv>

#include "passes/passes.h"
#include "passes/rewriter.h"

namespace nf {
namespace {

// N of the "layers.N" in a scope, or -1.
int64_t layer_of(std::string_view scope) {
  constexpr std::string_view kLayers = "layers.";
  const size_t found = scope.find(kLayers);
  if (found == std::string_view::npos) return -1;
  int64_t layer = -1;
  const std::string_view rest = scope.substr(found + kLayers.size());
  std::from_chars(rest.data(), rest.data() + rest.size(), layer);
  return layer;
}

class Checkpoints {
 public:
  explicit Checkpoints(const Graph& graph) : graph_(graph), live_(live_nodes(graph)) {
    const auto size = static_cast<size_t>(graph.size());
    layer_.resize(size);
    kept_.assign(size, true);
    std::vector<int64_t> layers;
    for (int32_t scope = 0; scope <= last_scope(); ++scope)
      layers.push_back(layer_of(graph.scope_name(scope)));
    for (int32_t i = 0; i < graph.size(); ++i)
      layer_[static_cast<size_t>(i)] = layers[static_cast<size_t>(graph.node(i).scope)];
    find_candidates();
  }

  size_t candidates() const { return order_.size(); }

  // Values the backward pass may read as they are.
  std::vector<bool> kept_after_dropping(int64_t count) const {
    std::vector<bool> kept = kept_;
    const auto dropped = std::min(static_cast<size_t>(count), order_.size());
    for (size_t i = 0; i < order_.size(); ++i) kept[static_cast<size_t>(order_[i])] = i >= dropped;
    return kept;
  }

 private:
  int32_t last_scope() const {
    int32_t last = 0;
    for (int32_t i = 0; i < graph_.size(); ++i) last = std::max(last, graph_.node(i).scope);
    return last;
  }

  void find_candidates() {
    std::vector<bool> inner(static_cast<size_t>(graph_.size()), false), read_back(inner);
    for (int32_t i = 0; i < graph_.size(); ++i) {
      const Node& node = graph_.node(i);
      const OpKind k = kind(node.op);
      inner[static_cast<size_t>(i)] = live_[static_cast<size_t>(i)] && !node.backward &&
                                      layer_[static_cast<size_t>(i)] >= 0 && k != OpKind::leaf &&
                                      k != OpKind::state;
      if (!live_[static_cast<size_t>(i)]) continue;
      for (ValueId input : node.inputs) {
        const auto from = static_cast<size_t>(input.node);
        if (node.backward)
          read_back[from] = true;
        else if (layer_[from] != layer_[static_cast<size_t>(i)])
          inner[from] = false;  // it leaves its layer
      }
    }
    for (const Graph::Output& output : graph_.outputs())
      inner[static_cast<size_t>(output.value.node)] = false;

    std::vector<double> gain(static_cast<size_t>(graph_.size()), 0);
    std::vector<double> cost(static_cast<size_t>(graph_.size()), 0);  // FLOPs from what is kept anyway
    for (int32_t i = 0; i < graph_.size(); ++i) {
      const auto index = static_cast<size_t>(i);
      if (!inner[index]) continue;
      cost[index] = flops(graph_, graph_.node(i));
      for (ValueId input : graph_.node(i).inputs)
        if (inner[static_cast<size_t>(input.node)] && !read_back[static_cast<size_t>(input.node)])
          cost[index] += cost[static_cast<size_t>(input.node)];
      kept_[index] = read_back[index];  // nobody keeps what is not read
      if (!read_back[index]) continue;
      order_.push_back(i);
      for (const TensorType& type : graph_.node(i).outputs) gain[index] += static_cast<double>(type.bytes());
    }
    std::stable_sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) {
      return gain[static_cast<size_t>(a)] * cost[static_cast<size_t>(b)] >
             gain[static_cast<size_t>(b)] * cost[static_cast<size_t>(a)];
    });
  }

  const Graph& graph_;
  std::vector<bool> live_;
  std::vector<int64_t> layer_;
  std::vector<bool> kept_;
  std::vector<int32_t> order_;  // candidates, most bytes saved per FLOP first
};

class Recomputer {
 public:
  Recomputer(const Graph& graph, std::vector<bool> kept) : rewriter_(graph), kept_(std::move(kept)) {}

  GraphPtr run() {
    const Graph& from = rewriter_.from();
    const std::vector<bool> live = live_nodes(from);
    for (int32_t i = 0; i < from.size(); ++i) {
      if (!live[static_cast<size_t>(i)]) continue;
      if (!from.node(i).backward) {
        rewriter_.map(i, rewriter_.copy(from.node(i)));
        continue;
      }
      Node fresh = from.node(i);
      fresh.scope = rewriter_.to().intern_scope(from.scope_name(from.node(i)));
      for (ValueId& input : fresh.inputs) input = for_backward(input);
      rewriter_.map(i, rewriter_.outputs_of(rewriter_.to().add_node(std::move(fresh)).node));
    }
    return rewriter_.finish();
  }

 private:
  ValueId for_backward(ValueId old) {
    const Node& node = rewriter_.from().node(old);
    if (node.backward || kept_[static_cast<size_t>(old.node)]) return rewriter_.at(old).id;
    const auto found = copies_.find(old.node);
    if (found != copies_.end()) return {found->second, old.output};
    Node copy = node;
    copy.generation = 1;
    copy.backward = true;
    copy.scope = rewriter_.to().intern_scope(rewriter_.from().scope_name(node));
    for (ValueId& input : copy.inputs) input = for_backward(input);
    const int32_t made = rewriter_.to().add_node(std::move(copy)).node;
    copies_.emplace(old.node, made);
    return {made, old.output};
  }

  Rewriter rewriter_;
  std::vector<bool> kept_;
  std::unordered_map<int32_t, int32_t> copies_;
};

}  // namespace

int64_t recompute_candidates(const Graph& graph) {
  return static_cast<int64_t>(Checkpoints(graph).candidates());
}

GraphPtr recompute(const Graph& graph, int64_t dropped) {
  Recomputer recomputer(graph, Checkpoints(graph).kept_after_dropping(dropped));
  return recomputer.run();
}

}  // namespace nf
