// schedule: an order that keeps few bytes alive.
//
// Greedy: among the nodes whose inputs exist, one that frees at least as much as it allocates runs at once
// (the one that frees most); otherwise the next one in the graph's own order does. Assignments wait until
// every other reader of the old state has run.
#include <algorithm>
#include <set>

#include "passes/passes.h"
#include "passes/rewriter.h"
#include "passes/views.h"

namespace nf {
namespace {

class Scheduler {
 public:
  explicit Scheduler(const Graph& graph)
      : graph_(graph),
        live_(live_nodes(graph)),
        readers_(size()),
        waiting_(size(), 0),
        remaining_(size(), 0) {
    for (int32_t i = 0; i < graph.size(); ++i) {
      if (!live_[static_cast<size_t>(i)]) continue;
      for (int32_t source : distinct_inputs(i)) {
        depend(i, source);
        ++remaining_[static_cast<size_t>(owner(source))];
      }
    }
    for (const Graph::Output& output : graph.outputs())
      ++remaining_[static_cast<size_t>(owner(output.value.node))];
    order_assignments();
  }

  std::vector<int32_t> run() {
    for (int32_t i = 0; i < graph_.size(); ++i)
      if (live_[static_cast<size_t>(i)] && waiting_[static_cast<size_t>(i)] == 0) ready_.insert(i);
    std::vector<int32_t> order;
    while (!ready_.empty()) {
      const int32_t node = pick();
      ready_.erase(node);
      order.push_back(node);
      for (int32_t source : distinct_inputs(node)) --remaining_[static_cast<size_t>(owner(source))];
      for (int32_t reader : readers_[static_cast<size_t>(node)])
        if (--waiting_[static_cast<size_t>(reader)] == 0) ready_.insert(reader);
    }
    require(static_cast<size_t>(std::count(live_.begin(), live_.end(), true)) == order.size(),
            "schedule: states are assigned from each other's old values in a circle that no order satisfies");
    return order;
  }

 private:
  size_t size() const { return static_cast<size_t>(graph_.size()); }

  void depend(int32_t reader, int32_t on) {
    readers_[static_cast<size_t>(on)].push_back(reader);
    ++waiting_[static_cast<size_t>(reader)];
  }

  std::vector<int32_t> distinct_inputs(int32_t node) const {
    std::vector<int32_t> inputs;
    for (ValueId id : graph_.node(node).inputs)
      if (std::find(inputs.begin(), inputs.end(), id.node) == inputs.end()) inputs.push_back(id.node);
    return inputs;
  }

  // The node whose memory a view shows.
  int32_t owner(int32_t node) const {
    while (is_view_op(graph_.node(node).op)) node = graph_.node(node).inputs[0].node;
    return node;
  }

  void order_assignments() {
    std::vector<std::vector<int32_t>> state_readers(size());
    for (int32_t i = 0; i < graph_.size(); ++i) {
      if (!live_[static_cast<size_t>(i)] || is_view_op(graph_.node(i).op)) continue;
      for (int32_t source : distinct_inputs(i)) {
        const int32_t leaf = owner(source);
        if (graph_.node(leaf).op == Op::state) state_readers[static_cast<size_t>(leaf)].push_back(i);
      }
    }
    for (int32_t effect : graph_.effects()) {
      if (!live_[static_cast<size_t>(effect)]) continue;
      for (int32_t reader : state_readers[static_cast<size_t>(graph_.node(effect).inputs[0].node)])
        if (reader != effect) depend(effect, reader);
    }
  }

  bool owns_memory(int32_t node) const {
    const OpKind k = kind(graph_.node(node).op);
    return k != OpKind::leaf && k != OpKind::state && !is_view_op(graph_.node(node).op);
  }

  // Bytes alive after the node less bytes alive before.
  int64_t growth(int32_t node) const {
    int64_t bytes = 0;
    if (owns_memory(node))
      for (const TensorType& type : graph_.node(node).outputs) bytes += type.bytes();
    for (int32_t source : distinct_inputs(node)) {
      const int32_t from = owner(source);
      const bool reads_on = is_view_op(graph_.node(node).op);  // a view frees nothing: its readers go on
      if (!owns_memory(from) || remaining_[static_cast<size_t>(from)] != 1 || reads_on) continue;
      for (const TensorType& type : graph_.node(from).outputs) bytes -= type.bytes();
    }
    return bytes;
  }

  int32_t pick() const {
    int32_t best = *ready_.begin();
    if (is_view_op(graph_.node(best).op) || kind(graph_.node(best).op) == OpKind::leaf) return best;
    int64_t least = 0;
    bool found = false;
    int looked_at = 0;
    for (int32_t node : ready_) {
      if (++looked_at > kLookAhead) break;
      const int64_t bytes = growth(node);
      if (bytes > 0 || (found && bytes >= least)) continue;
      best = node;
      least = bytes;
      found = true;
    }
    return best;
  }

  static constexpr int kLookAhead = 32;  // ready nodes considered; bounds the time on graphs with many

  const Graph& graph_;
  std::vector<bool> live_;
  std::vector<std::vector<int32_t>> readers_;
  std::vector<int32_t> waiting_;    // inputs that have not run
  std::vector<int32_t> remaining_;  // reads of a node's memory that are still to come
  std::set<int32_t> ready_;
};

}  // namespace

std::vector<int32_t> schedule(const Graph& graph, bool enabled) {
  Scheduler scheduler(graph);
  if (enabled) return scheduler.run();
  // The graph's own order, with assignments at the end so that everybody has read the old states.
  std::vector<int32_t> order, assignments;
  const std::vector<bool> live = live_nodes(graph);
  for (int32_t i = 0; i < graph.size(); ++i)
    if (live[static_cast<size_t>(i)]) (graph.node(i).op == Op::assign ? assignments : order).push_back(i);
  order.insert(order.end(), assignments.begin(), assignments.end());
  return order;
}

}  // namespace nf
