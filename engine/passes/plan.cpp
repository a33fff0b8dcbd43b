// plan: an address for every value.
//
// Values get offsets in one arena, in the order of the steps, best fit first, as soon as they are made, and
// give them back after their last reader. Before that, memory is shared where no copy is needed: a view is
// its source's memory; an assigned value is made in the state itself; a loop may write over an input that
// dies; a concat's parts are made in it.
#include <algorithm>
#include <limits>
#include <map>
#include <unordered_map>

#include "graph/loop.h"
#include "graph/op_table.h"
#include "passes/passes.h"
#include "passes/views.h"

namespace nf {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kWorkspaceAlignment = 256;  // as the GPU's library wants its scratch

int64_t align(int64_t bytes, int64_t alignment = kAlignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// Free ranges of the arena, merged with their neighbours.
class Arena {
 public:
  explicit Arena(bool reuse) : reuse_(reuse) {}

  int64_t allocate(int64_t bytes) {
    bytes = align(std::max<int64_t>(bytes, 1));
    auto best = free_.end();
    for (auto it = free_.begin(); it != free_.end(); ++it)
      if (it->second >= bytes && (best == free_.end() || it->second < best->second)) best = it;
    if (best == free_.end()) {
      // The last free range may touch the end: grow from there.
      int64_t offset = end_;
      if (!free_.empty() && free_.rbegin()->first + free_.rbegin()->second == end_) {
        offset = free_.rbegin()->first;
        free_.erase(std::prev(free_.end()));
      }
      end_ = offset + bytes;
      return offset;
    }
    const int64_t offset = best->first, size = best->second;
    free_.erase(best);
    if (size > bytes) free_.emplace(offset + bytes, size - bytes);
    return offset;
  }

  void release(int64_t offset, int64_t bytes) {
    if (!reuse_) return;
    bytes = align(std::max<int64_t>(bytes, 1));
    auto next = free_.lower_bound(offset);
    if (next != free_.end() && offset + bytes == next->first) {
      bytes += next->second;
      next = free_.erase(next);
    }
    if (next != free_.begin()) {
      const auto previous = std::prev(next);
      if (previous->first + previous->second == offset) {
        previous->second += bytes;
        return;
      }
    }
    free_.emplace(offset, bytes);
  }

  int64_t end() const { return end_; }

 private:
  bool reuse_;
  std::map<int64_t, int64_t> free_;  // offset -> bytes
  int64_t end_ = 0;
};

class Planner {
 public:
  Planner(GraphPtr graph, const std::vector<int32_t>& order,
          const std::function<int64_t(const Graph&, const Node&)>& workspace, bool reuse_memory)
      : graph_(*graph),
        reuse_(reuse_memory),
        arena_(reuse_memory),
        workspace_(workspace),
        order_(order),
        when_(size(), -1) {
    plan_.graph = std::move(graph);
    plan_.places.resize(size());
    for (int32_t i = 0; i < graph_.size(); ++i)
      plan_.places[static_cast<size_t>(i)].resize(graph_.node(i).outputs.size());
    for (size_t i = 0; i < order.size(); ++i) when_[static_cast<size_t>(order[i])] = static_cast<int32_t>(i);
  }

  Plan run() {
    find_lifetimes();
    place_leaves();
    find_assignments();
    find_concats();
    for (size_t i = 0; i < order_.size(); ++i) place_node(static_cast<int32_t>(i));
    plan_.activation_bytes = align(arena_.end(), kWorkspaceAlignment);
    for (const Plan::Step& step : plan_.steps)
      plan_.workspace_bytes = std::max(plan_.workspace_bytes, align(step.workspace_bytes));
    return std::move(plan_);
  }

 private:
  using Key = std::pair<int32_t, int32_t>;
  static Key key(ValueId id) { return {id.node, id.output}; }
  size_t size() const { return static_cast<size_t>(graph_.size()); }
  Place& place(ValueId id) {
    return plan_.places[static_cast<size_t>(id.node)][static_cast<size_t>(id.output)];
  }

  ValueId owner(ValueId id) const {
    while (is_view_op(graph_.node(id).op)) id = graph_.node(id).inputs[0];
    return id;
  }

  void find_lifetimes() {
    for (int32_t time = 0; time < static_cast<int32_t>(order_.size()); ++time) {
      const Node& node = graph_.node(order_[static_cast<size_t>(time)]);
      if (is_view_op(node.op)) continue;
      for (ValueId input : node.inputs) {
        const ValueId source = owner(input);
        last_read_[key(source)] = time;
        ++reads_[key(source)];
        if (graph_.node(source).op == Op::state)
          state_readers_[source.node].push_back(order_[static_cast<size_t>(time)]);
      }
    }
    for (const Graph::Output& output : graph_.outputs()) {
      last_read_[key(owner(output.value))] = kForever;
      ++reads_[key(owner(output.value))];
    }
  }

  int32_t last_read(ValueId id) const {
    const auto found = last_read_.find(key(id));
    return found == last_read_.end() ? -1 : found->second;
  }

  void place_leaves() {
    for (int32_t index : order_) {
      const Node& node = graph_.node(index);
      const Strides strides = dense_strides(node.outputs[0].shape);
      if (node.op == Op::input) {
        place({index, 0}) = {Place::Region::arena, -1, arena_.allocate(node.outputs[0].bytes()), strides};
      } else if (node.op == Op::state) {
        place({index, 0}) = {Place::Region::state, static_cast<int32_t>(plan_.states.size()), 0, strides};
        plan_.states.push_back({node.attributes.text("name"), node.outputs[0]});
      } else if (node.op == Op::tensor) {
        place({index, 0}) = {Place::Region::constant, static_cast<int32_t>(plan_.constants.size()),
                             plan_.constant_bytes, strides};
        plan_.constants.push_back(index);
        plan_.constant_bytes += align(node.outputs[0].bytes());
      }
    }
  }

  // Whether the loop reads input `position` only at the element that it writes of `output`, so that both may
  // be one.
  bool pointwise(const Node& loop, size_t position, int32_t output) const {
    const Graph& body = *loop.attributes.body("body");
    const TensorType& type = loop.outputs[static_cast<size_t>(output)];
    if (graph_.type(loop.inputs[position]) != type || type.shape != loop.attributes.list("space"))
      return false;
    for (int32_t i = 0; i < body.size(); ++i)
      for (ValueId id : body.node(i).inputs) {
        const Node& leaf = body.node(id);
        const bool reads_it =
            leaf.op == Op::input && leaf.attributes.integer("index") == static_cast<int64_t>(position);
        const bool moves = (body.node(i).op == Op::roll && body.node(i).attributes.integer("shift") != 0) ||
                           body.node(i).op == Op::broadcast || body.node(i).op == Op::philox;
        if (reads_it && moves) return false;
      }
    return true;
  }

  // Whether node may write its output over the memory of `target` (a state or a dying value), as far as its
  // own reads go.
  bool may_overwrite(const Node& node, int32_t output, ValueId target) {
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if (owner(node.inputs[i]) != target) continue;
      if (node.op != Op::loop || !pointwise(node, i, output)) return false;
      const auto view = view_of(graph_, node.inputs[i]);
      if (!view || view->offset != 0 || !is_dense(graph_.type(node.inputs[i]).shape, view->strides))
        return false;
    }
    return true;
  }

  // Values that are made in the state they are assigned to.
  void find_assignments() {
    for (int32_t effect : graph_.effects()) {
      const Node& node = graph_.node(effect);
      if (node.op != Op::assign || when_[static_cast<size_t>(effect)] < 0) continue;
      const ValueId state = node.inputs[0], value = owner(node.inputs[1]);
      const Node& maker = graph_.node(value);
      const bool accumulates =
          maker.attributes.integer("accumulate") != 0 && owner(maker.inputs.back()) == state;
      const bool made_by_kernel = maker.op == Op::matmul || maker.op == Op::loop ||
                                  maker.op == Op::embedding_backward ||
                                  maker.op == Op::linear_cross_entropy_backward;
      if (!made_by_kernel || in_state_.contains(key(value)) ||
          graph_.type(value).bytes() != graph_.type(state).bytes())
        continue;
      const auto view = view_of(graph_, node.inputs[1]);
      if (!view || view->offset != 0 || !is_dense(graph_.type(node.inputs[1]).shape, view->strides)) continue;
      if (!accumulates &&
          !(others_are_done(state, value.node, effect) && may_overwrite(maker, value.output, state)))
        continue;
      in_state_[key(value)] = state;
    }
  }

  // Whether everybody else who reads the old state has run before `maker` does.
  bool others_are_done(ValueId state, int32_t maker, int32_t effect) {
    const std::vector<int32_t>& readers = state_readers_[state.node];
    return std::all_of(readers.begin(), readers.end(), [&](int32_t reader) {
      return reader == maker || reader == effect ||
             when_[static_cast<size_t>(reader)] <= when_[static_cast<size_t>(maker)];
    });
  }

  // Parts that are made inside the concat they belong to.
  void find_concats() {
    for (int32_t index : order_) {
      const Node& node = graph_.node(index);
      if (node.op != Op::concat) continue;
      for (ValueId part : node.inputs) {
        const Op maker = graph_.node(part).op;
        const bool strided_kernel = maker == Op::loop || maker == Op::attention_backward;
        if (strided_kernel && reads_[key(part)] == 1 && !in_state_.contains(key(part)) && reuse_)
          part_of_[key(part)] = index;
      }
    }
  }

  void place_node(int32_t time) {
    const int32_t index = order_[static_cast<size_t>(time)];
    const Node& node = graph_.node(index);
    if (kind(node.op) == OpKind::leaf) return;
    if (is_view_op(node.op)) {
      place_view(index);
      return;
    }
    for (int32_t output = 0; output < static_cast<int32_t>(node.outputs.size()); ++output)
      place_output({index, output}, time);
    if (needs_step(index)) plan_.steps.push_back({index, workspace_(graph_, node)});
    release_after(time);
  }

  void place_view(int32_t index) {
    const Node& node = graph_.node(index);
    const Place& source = place(node.inputs[0]);
    const auto window = apply_view(graph_, node, {0, source.strides});
    require(window.has_value(), "plan: %{} {} needs a copy that no pass has added", index, name(node.op));
    place({index, 0}) = {source.region, source.index,
                         source.offset + window->offset * size_of(node.outputs[0].dtype), window->strides};
  }

  void place_output(ValueId id, int32_t time) {
    const Node& node = graph_.node(id);
    const TensorType& type = graph_.type(id);
    if (place(id).region != Place::Region::none) return;  // a part of a concat
    if (kind(node.op) == OpKind::state) {
      place(id) = place(node.inputs[0]);
    } else if (const auto state = in_state_.find(key(id)); state != in_state_.end()) {
      place(id) = place(state->second);
      place(id).strides = dense_strides(type.shape);
    } else if (const auto concat = part_of_.find(key(id)); concat != part_of_.end()) {
      place_concat(concat->second);
    } else if (!reuse_ || !take_over(id, time)) {
      place(id) = {Place::Region::arena, -1, arena_.allocate(type.bytes()), dense_strides(type.shape)};
    }
  }

  // Gives the whole concat memory when its first part is made.
  void place_concat(int32_t index) {
    const Node& node = graph_.node(index);
    const TensorType& type = node.outputs[0];
    Place& whole = place({index, 0});
    whole = {Place::Region::arena, -1, arena_.allocate(type.bytes()), dense_strides(type.shape)};
    const auto axis = static_cast<int>(node.attributes.integer("axis"));
    int64_t offset = whole.offset;
    for (ValueId part : node.inputs) {
      if (part_of_.contains(key(part))) place(part) = {whole.region, -1, offset, whole.strides};
      offset += graph_.type(part).shape[axis] * whole.strides[axis] * size_of(type.dtype);
    }
  }

  bool take_over(ValueId id, int32_t time) {
    const Node& node = graph_.node(id);
    if (node.op != Op::loop) return false;
    for (ValueId input : node.inputs) {
      const ValueId source = owner(input);
      const Node& maker = graph_.node(source);
      const bool in_arena = place(source).region == Place::Region::arena && maker.op != Op::input &&
                            !part_of_.contains(key(source));
      if (!in_arena || last_read(source) != time || taken_.contains(key(source)) ||
          graph_.type(source).bytes() != graph_.type(id).bytes())
        continue;
      if (!may_overwrite(node, id.output, source)) continue;
      taken_[key(source)] = true;
      place(id) = {Place::Region::arena, -1, place(source).offset, dense_strides(graph_.type(id).shape)};
      return true;
    }
    return false;
  }

  bool needs_step(int32_t index) {
    const Node& node = graph_.node(index);
    if (node.op == Op::assign)
      return place(node.inputs[1]).region != Place::Region::state ||
             place(node.inputs[1]).index != place(node.inputs[0]).index;
    if (node.op == Op::concat)
      return !std::all_of(node.inputs.begin(), node.inputs.end(), [&](ValueId part) {
        const auto found = part_of_.find(key(part));
        return found != part_of_.end() && found->second == index;
      });
    return true;
  }

  void release_after(int32_t time) {
    const int32_t index = order_[static_cast<size_t>(time)];
    std::vector<ValueId> candidates;
    for (ValueId input : graph_.node(index).inputs) candidates.push_back(owner(input));
    for (int32_t output = 0; output < static_cast<int32_t>(graph_.node(index).outputs.size()); ++output)
      if (last_read({index, output}) < 0) candidates.push_back({index, output});  // nobody reads it
    for (ValueId id : candidates) {
      const Node& maker = graph_.node(id);
      if (last_read(id) > time || place(id).region != Place::Region::arena || maker.op == Op::input) continue;
      if (part_of_.contains(key(id)) || taken_.contains(key(id)) || released_.contains(key(id))) continue;
      released_[key(id)] = true;
      arena_.release(place(id).offset, graph_.type(id).bytes());
    }
  }

  static constexpr int32_t kForever = std::numeric_limits<int32_t>::max();

  const Graph& graph_;
  bool reuse_;
  Arena arena_;
  const std::function<int64_t(const Graph&, const Node&)>& workspace_;
  const std::vector<int32_t>& order_;
  std::vector<int32_t> when_;  // per node: its place in the order
  std::map<Key, int32_t> last_read_;
  std::map<Key, int32_t> reads_;
  std::unordered_map<int32_t, std::vector<int32_t>> state_readers_;  // state leaf -> nodes
  std::map<Key, ValueId> in_state_;
  std::map<Key, int32_t> part_of_;  // value -> concat node
  std::map<Key, bool> taken_, released_;
  Plan plan_;
};

std::string place_text(const Place& place) {
  switch (place.region) {
    case Place::Region::none: return "-";
    case Place::Region::arena: return fmt::format("arena+{}", place.offset);
    case Place::Region::state: return fmt::format("state {}+{}", place.index, place.offset);
    case Place::Region::constant: return fmt::format("constant {}+{}", place.index, place.offset);
  }
  return "";
}

}  // namespace

Plan plan_memory(GraphPtr graph, const std::vector<int32_t>& order,
                 const std::function<int64_t(const Graph&, const Node&)>& workspace, bool reuse_memory) {
  Planner planner(std::move(graph), order, workspace, reuse_memory);
  return planner.run();
}

std::string to_text(const Plan& plan) {
  std::string text =
      fmt::format("{} steps, activations {} B, workspace {} B, constants {} B\n", plan.steps.size(),
                  plan.activation_bytes, plan.workspace_bytes, plan.constant_bytes);
  for (const Plan::Step& step : plan.steps) {
    const Node& node = plan.graph->node(step.node);
    std::vector<std::string> inputs, outputs;
    for (ValueId id : node.inputs)
      inputs.push_back(place_text(plan.places[static_cast<size_t>(id.node)][static_cast<size_t>(id.output)]));
    for (const Place& place : plan.places[static_cast<size_t>(step.node)])
      outputs.push_back(place_text(place));
    text += fmt::format("%{} {} {} -> {}  # {}\n", step.node, name(node.op), fmt::join(inputs, ", "),
                        fmt::join(outputs, ", "), plan.graph->scope_name(node));
  }
  return text;
}

}  // namespace nf
