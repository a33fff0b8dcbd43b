// fuse: elementwise ops and reductions gathered into loops.
//
// 1. Every elementwise op or reduction becomes an item with an iteration space. A value of one element per
// row takes
//    the space of the rows it belongs to. Broadcasts and rolls of what is read are part of reading it.
// 2. Levels: an edge between items of the same space that a loop can keep in registers costs nothing, any
// other edge
//    costs one level. Hence a path between two items of the same level and space has only such edges, and
//    merging any connected items of one level and space never makes a cycle.
// 3. Items sink to the level of their earliest reader, and what is cheap to compute again from values that
// are alive
//    anyway is copied into its later readers' level instead of being kept in memory.
// 4. Connected items of a level and space, or such that read the same tensor, form a loop.
#include <algorithm>
#include <map>
#include <numeric>
#include <queue>
#include <set>

#include "passes/fuse_items.h"
#include "passes/passes.h"
#include "passes/rewriter.h"
#include "passes/views.h"

namespace nf {
namespace {

class UnionFind {
 public:
  explicit UnionFind(size_t size) : parent_(size) { std::iota(parent_.begin(), parent_.end(), 0); }
  int32_t find(int32_t x) {
    while (parent_[static_cast<size_t>(x)] != x) {
      parent_[static_cast<size_t>(x)] = parent_[static_cast<size_t>(parent_[static_cast<size_t>(x)])];
      x = parent_[static_cast<size_t>(x)];
    }
    return x;
  }
  void join(int32_t a, int32_t b) { parent_[static_cast<size_t>(find(a))] = find(b); }

 private:
  std::vector<int32_t> parent_;
};

class Fusion {
 public:
  Fusion(const Graph& graph, bool enabled)
      : graph_(graph), items_(graph, enabled), rewriter_(graph), groups_(items_.all().size()) {
    if (enabled) join_groups();
    find_outside_uses();
  }

  GraphPtr run() {
    collect_units();
    order_units();
    copy_old_states();
    return rewriter_.finish();
  }

 private:
  std::vector<Item>& all() { return items_.all(); }
  Item& item(int32_t index) { return all()[static_cast<size_t>(index)]; }

  void join_groups() {
    std::map<std::tuple<int32_t, int32_t, int32_t>, std::vector<int32_t>>
        readers;  // (level, node, output) -> items
    for (int32_t c = 0; c < count(); ++c)
      for (const Operand& operand : item(c).operands) {
        if (operand.item >= 0) {
          const Item& p = item(operand.item);
          if (p.level == item(c).level && items_.fusable(p, item(c), operand)) {
            groups_.join(operand.item, c);
            continue;
          }
        }
        if (graph_.type(operand.base).shape.elements() > 1 && graph_.node(operand.base).op != Op::constant) {
          auto& others = readers[{item(c).level, operand.base.node, operand.base.output}];
          for (int32_t other : others)
            if (item(other).space == item(c).space && is_backward(other) == is_backward(c)) {
              groups_.join(other, c);
              break;
            }
          others.push_back(c);
        }
      }
  }

  // Forward and backward pass lie far apart, whatever their levels say.
  bool is_backward(int32_t index) { return graph_.node(item(index).node).backward; }
  int32_t count() { return static_cast<int32_t>(all().size()); }

  // Items whose value must reach memory; then those that nobody reads any more are dropped.
  void find_outside_uses() {
    const auto need = [&](ValueId id) {
      if (const int32_t index = items_.item_of(id.node); index >= 0) item(index).needed_outside = true;
    };
    for (const Graph::Output& output : graph_.outputs()) need(output.value);
    for (int32_t i = 0; i < graph_.size(); ++i)
      if (items_.live()[static_cast<size_t>(i)] && items_.item_of(i) < 0 && !is_item_op(graph_.node(i).op) &&
          is_needed_tensor(i))
        for (ValueId input : graph_.node(i).inputs) need(input);
    used_.assign(all().size(), false);
    std::vector<int32_t> stack;
    const auto use = [&](int32_t index) {
      if (!used_[static_cast<size_t>(index)]) stack.push_back(index);
      used_[static_cast<size_t>(index)] = true;
    };
    for (int32_t i = 0; i < count(); ++i)
      if (item(i).needed_outside) use(i);
    while (!stack.empty()) {
      const int32_t c = stack.back();
      stack.pop_back();
      for (const Operand& operand : item(c).operands) {
        int32_t source = operand.item;
        if (source < 0) continue;
        if (groups_.find(source) != groups_.find(c)) item(source).needed_outside = true;
        use(source);
      }
    }
  }

  // Views that only items look through vanish into their operands; a view is emitted only when something
  // reads it.
  bool is_needed_tensor(int32_t node) {
    if (tensor_needed_.empty()) {
      tensor_needed_.assign(static_cast<size_t>(graph_.size()), false);
      const auto need = [&](ValueId id) { tensor_needed_[static_cast<size_t>(id.node)] = true; };
      for (const Graph::Output& output : graph_.outputs()) need(output.value);
      for (const Item& i : all())
        for (const Operand& operand : i.operands)
          if (operand.item < 0) need(operand.base);
      for (int32_t i = graph_.size() - 1; i >= 0; --i) {
        if (!items_.live()[static_cast<size_t>(i)] || is_item_op(graph_.node(i).op)) continue;
        if (is_view_op(graph_.node(i).op) && !tensor_needed_[static_cast<size_t>(i)]) continue;
        tensor_needed_[static_cast<size_t>(i)] = true;
        for (ValueId input : graph_.node(i).inputs) need(input);
      }
    }
    return tensor_needed_[static_cast<size_t>(node)];
  }

  // ---- emission: units (a loop, or another node) in a topological order close to the old one

  struct Unit {
    int32_t node = -1;  // not a loop
    std::vector<int32_t> items;
    int32_t position = 0;
    std::vector<int32_t> readers;
    int32_t waiting_for = 0;
  };

  void collect_units() {
    unit_of_node_.assign(static_cast<size_t>(graph_.size()), -1);
    unit_of_item_.assign(all().size(), -1);
    std::unordered_map<int32_t, int32_t> unit_of_group;
    for (int32_t i = 0; i < count(); ++i) {
      if (!used_[static_cast<size_t>(i)]) continue;
      const auto [found, fresh] =
          unit_of_group.try_emplace(groups_.find(i), static_cast<int32_t>(units_.size()));
      if (fresh) units_.emplace_back();
      Unit& unit = units_[static_cast<size_t>(found->second)];
      unit.items.push_back(i);
      unit.position = std::max(unit.position, item(i).position);
      unit_of_item_[static_cast<size_t>(i)] = found->second;
    }
    for (int32_t i = 0; i < graph_.size(); ++i) {
      if (!items_.live()[static_cast<size_t>(i)]) continue;
      if (const int32_t index = items_.item_of(i); index >= 0) {
        unit_of_node_[static_cast<size_t>(i)] = unit_of_item_[static_cast<size_t>(index)];
      } else if (!is_item_op(graph_.node(i).op) && is_needed_tensor(i)) {
        unit_of_node_[static_cast<size_t>(i)] = static_cast<int32_t>(units_.size());
        units_.push_back({.node = i, .items = {}, .position = i, .readers = {}});
      }
    }
  }

  void order_units() {
    const auto depend = [&](int32_t reader, int32_t on) {
      if (on < 0 || on == reader) return;
      units_[static_cast<size_t>(on)].readers.push_back(reader);
      ++units_[static_cast<size_t>(reader)].waiting_for;
    };
    for (int32_t u = 0; u < static_cast<int32_t>(units_.size()); ++u) {
      if (const int32_t node = units_[static_cast<size_t>(u)].node; node >= 0)
        for (ValueId input : graph_.node(node).inputs)
          depend(u, unit_of_node_[static_cast<size_t>(input.node)]);
      for (int32_t i : units_[static_cast<size_t>(u)].items)
        for (const Operand& operand : item(i).operands)
          if (operand.item >= 0)
            depend(u, unit_of_item_[static_cast<size_t>(operand.item)]);
          else
            depend(u, unit_of_node_[static_cast<size_t>(operand.base.node)]);
    }
    using Entry = std::pair<int32_t, int32_t>;  // position, unit
    std::priority_queue<Entry, std::vector<Entry>, std::greater<>> ready;
    for (int32_t u = 0; u < static_cast<int32_t>(units_.size()); ++u)
      if (units_[static_cast<size_t>(u)].waiting_for == 0)
        ready.emplace(units_[static_cast<size_t>(u)].position, u);
    size_t emitted = 0;
    while (!ready.empty()) {
      const int32_t u = ready.top().second;
      ready.pop();
      ++emitted;
      emit(units_[static_cast<size_t>(u)]);
      for (int32_t reader : units_[static_cast<size_t>(u)].readers)
        if (--units_[static_cast<size_t>(reader)].waiting_for == 0)
          ready.emplace(units_[static_cast<size_t>(reader)].position, reader);
    }
    require(emitted == units_.size(), "fuse: the loops depend on each other in a circle");
  }

  void emit(const Unit& unit) {
    if (unit.node >= 0)
      emit_node(unit.node);
    else
      emit_loop(unit);
  }

  // A dense copy, as a loop of its own.
  Value copy_of(Value x) {
    const Shape shape = at_least_one_axis(x.shape());
    const Value source = reshape(x, shape);
    auto body = std::make_shared<Graph>();
    const Value leaf = body->add(
        Op::input, {},
        {{"dtype", int64_t{static_cast<int64_t>(x.dtype())}}, {"shape", shape}, {"index", int64_t{0}}});
    body->output("0", body->add(Op::roll, std::span(&leaf, 1), {{"shift", int64_t{0}}}));
    const Value copy =
        rewriter_.to().add(Op::loop, std::span(&source, 1), {{"body", Body(body)}, {"space", shape}});
    return reshape(copy, x.shape());
  }

  void emit_node(int32_t index) {
    const Node& node = graph_.node(index);
    rewriter_.stand_at(node);
    Values inputs = rewriter_.inputs_of(node);
    for (size_t i = 0; i < inputs.size(); ++i)
      if (!acceptable(node, i, inputs[i])) inputs[i] = copy_of(inputs[i]);
    Node fresh = node;
    fresh.scope = rewriter_.to().scope();
    for (size_t i = 0; i < inputs.size(); ++i) fresh.inputs[i] = inputs[i].id;
    Values outputs = rewriter_.outputs_of(rewriter_.to().add_node(std::move(fresh)).node);
    if (is_graph_output(index) && is_view_op(node.op) && !is_plain(outputs[0]))
      outputs[0] = copy_of(outputs[0]);
    rewriter_.map(index, std::move(outputs));
  }

  bool is_graph_output(int32_t index) const {
    return std::any_of(graph_.outputs().begin(), graph_.outputs().end(),
                       [&](const auto& o) { return o.value.node == index; });
  }

  // Dense, and the start of its memory or not: what every kernel can read.
  bool is_plain(Value x) {
    const auto view = view_of(rewriter_.to(), x.id);
    return view && is_dense(x.shape(), view->strides);
  }

  // Whether a kernel can read its operand where it lies.
  bool acceptable(const Node& node, size_t position, Value x) {
    const auto view = view_of(rewriter_.to(), x.id);
    if (!view) return false;
    const Shape& shape = x.shape();
    const Strides& strides = view->strides;
    switch (node.op) {
      case Op::reshape: return reshape_strides(shape, strides, node.outputs[0].shape).has_value();
      case Op::transpose:
      case Op::broadcast:
      case Op::slice:
      case Op::concat: return true;
      case Op::matmul: {
        if (position == 2) return is_dense(shape, strides);
        const int rank = shape.rank();
        const auto unit = [&](int axis) { return shape[axis] == 1 || strides[axis] == 1; };
        if (!unit(rank - 1) && !unit(rank - 2)) return false;
        const bool rows_join = position == 0 && graph_.type(node.inputs[1]).shape.rank() == 2;
        return collapsible(shape, strides, 0, rows_join ? rank - 1 : rank - 2);
      }
      case Op::attention:
      case Op::attention_backward:
        if (shape.rank() == 4) return shape.back() == 1 || strides.back() == 1;
        return is_dense(shape, strides);
      case Op::assign: return position == 0 || is_dense(shape, strides);
      default: return is_dense(shape, strides);
    }
  }

  // An output that shows a state is copied when the graph assigns the state: it shows the old value.
  void copy_old_states() {
    Graph& to = rewriter_.to();
    std::set<int32_t> assigned;
    for (int32_t effect : to.effects())
      if (to.node(effect).op == Op::assign) assigned.insert(to.node(effect).inputs[0].node);
    for (const Graph::Output& output : graph_.outputs()) {
      const Value shown = rewriter_.at(output.value);
      const auto view = view_of(to, shown.id);
      if (view && assigned.contains(view->root.node)) rewriter_.map(output.value.node, {copy_of(shown)});
    }
  }

  void emit_loop(const Unit& unit) {
    const Shape space = item(unit.items[0]).space;
    BodyBuilder builder{*this, space, {}, {}, {}, std::make_shared<Graph>()};
    std::vector<int32_t> outputs;
    for (int32_t i : unit.items) {
      builder.build(i);
      if (item(i).needed_outside) outputs.push_back(i);
    }
    for (size_t i = 0; i < outputs.size(); ++i)
      builder.body->output(std::to_string(i), builder.made.at(outputs[i]));
    // Named after its last item; a loop with any part of the backward pass runs in the backward pass.
    const auto latest = std::max_element(unit.items.begin(), unit.items.end(), [&](int32_t a, int32_t b) {
      return item(a).position < item(b).position;
    });
    rewriter_.stand_at(graph_.node(item(*latest).position));
    const Value loop =
        rewriter_.to().add(Op::loop, builder.inputs, {{"body", Body(builder.body)}, {"space", space}});
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Node& node = graph_.node(item(outputs[i]).node);
      const Value value = rewriter_.to().value({loop.id.node, static_cast<int32_t>(i)});
      const Value shaped = reshape(value, node.outputs[0].shape);
      made_by_[outputs[i]] = shaped;
      if (items_.item_of(item(outputs[i]).node) == outputs[i]) rewriter_.map(item(outputs[i]).node, {shaped});
    }
  }

  struct BodyBuilder {
    Fusion& fusion;
    Shape space;
    std::unordered_map<int32_t, Value> made;                        // item -> value in the body
    std::map<std::tuple<int32_t, int32_t, int32_t>, Value> leaves;  // (item or -1, node, output) -> leaf
    Values inputs;                                                  // of the loop node
    std::shared_ptr<Graph> body;

    Value build(int32_t index) {
      if (const auto found = made.find(index); found != made.end()) return found->second;
      const Item& item = fusion.item(index);
      const Node& node = fusion.graph_.node(item.node);
      const Shape shape = at_least_one_axis(node.outputs[0].shape);
      const Shape operand_shape = kind(node.op) == OpKind::reduce ? space : shape;
      Values operands;
      for (const Operand& operand : item.operands)
        operands.push_back(read(index, operand, operand_shape, node.op == Op::philox));
      Value result;
      if (node.op == Op::roll) {
        result =
            item.operands[0].roll == 0 ? body->add(Op::roll, operands, {{"shift", int64_t{0}}}) : operands[0];
      } else {
        Attributes attributes = node.attributes;
        if (attributes.has("shape")) attributes.set("shape", shape);
        result = body->add(node.op, operands, std::move(attributes));
      }
      made.emplace(index, result);
      return result;
    }

    Value read(int32_t reader, const Operand& operand, const Shape& shape, bool is_rng) {
      Fusion& f = fusion;
      const Node& source = f.graph_.node(operand.base);
      if (source.op == Op::constant) return body->add(Op::constant, {}, with_shape(source, shape));
      if (source.op == Op::iota && operand.item < 0)
        return body->add(Op::iota, {}, with_shape(source, shape));
      if (operand.item >= 0 && f.groups_.find(operand.item) == f.groups_.find(reader))
        return broadcast_to(build(operand.item), shape);
      Value value = leaf(operand);
      if (is_rng) return value;
      if (operand.roll != 0) value = body->add(Op::roll, std::span(&value, 1), {{"shift", operand.roll}});
      return broadcast_to(value, shape);
    }

    static Attributes with_shape(const Node& source, const Shape& shape) {
      Attributes attributes = source.attributes;
      attributes.set("shape", shape);
      return attributes;
    }

    Value leaf(const Operand& operand) {
      const int32_t copy =
          operand.item >= 0 && fusion.items_.item_of(operand.base.node) != operand.item ? operand.item : -1;
      const auto key = std::tuple{copy, operand.base.node, operand.base.output};
      if (const auto found = leaves.find(key); found != leaves.end()) return found->second;
      Value outer = copy >= 0 ? fusion.made_by_.at(copy) : fusion.rewriter_.at(operand.base);
      outer = reshape(outer, at_least_one_axis(outer.shape()));
      const Value made_leaf = body->add(Op::input, {},
                                        {{"dtype", static_cast<int64_t>(outer.dtype())},
                                         {"shape", outer.shape()},
                                         {"index", static_cast<int64_t>(inputs.size())}});
      inputs.push_back(outer);
      leaves.emplace(key, made_leaf);
      return made_leaf;
    }
  };

  const Graph& graph_;
  Items items_;
  Rewriter rewriter_;
  UnionFind groups_;
  std::vector<bool> used_;
  std::vector<bool> tensor_needed_;
  std::vector<Unit> units_;
  std::vector<int32_t> unit_of_node_, unit_of_item_;
  std::unordered_map<int32_t, Value>
      made_by_;  // item -> its value in the new graph, for items that reach memory
};

}  // namespace

GraphPtr fuse(const Graph& graph, bool enabled) {
  Fusion fusion(graph, enabled);
  return fusion.run();
}

}  // namespace nf
