#include "passes/fuse_items.h"

#include <algorithm>
#include <limits>

#include "graph/loop.h"
#include "passes/rewriter.h"
#include "passes/views.h"

namespace nf {
namespace {

constexpr int kMaxRecomputedOps = 8;  // how long a chain is still cheap to compute again

Shape per_row(Shape space) {
  space[space.rank() - 1] = 1;
  return space;
}

}  // namespace

bool is_item_op(Op op) {
  const OpKind k = kind(op);
  return k == OpKind::elementwise || k == OpKind::reduce || op == Op::philox || op == Op::iota ||
         op == Op::constant || op == Op::roll;
}

Items::Items(const Graph& graph, bool fuse)
    : graph_(graph), fuse_(fuse), live_(live_nodes(graph)), item_of_(size(), -1), assigned_(size(), false) {
  for (int32_t effect : graph.effects())
    assigned_[static_cast<size_t>(graph.node(effect).inputs[0].node)] = true;
  find_needed();
  for (int32_t i = 0; i < graph.size(); ++i)
    if (needed_[static_cast<size_t>(i)]) add(i);
  if (!fuse_) return;
  adopt_row_spaces();
  find_levels();
  sink();
  copy_cheap_values();
}

bool Items::fusable(const Item& p, const Item& c, const Operand& operand) const {
  if (operand.roll != 0 || p.space != c.space) return false;
  const Node& made = graph_.node(p.node);
  // A recomputed node belongs where it is needed, not into the loop that makes what it starts from.
  if (made.generation < graph_.node(c.node).generation) return false;
  if (column_axes(made, p.space) > 0 || made.op == Op::roll) return made.op == Op::roll;
  const Shape shape = at_least_one_axis(made.outputs[0].shape);
  return shape == p.space || shape == per_row(p.space);
}

Operand Items::operand_of(ValueId id) const {
  Operand operand{.base = id};
  for (;;) {
    const Node& node = graph_.node(operand.base);
    if (node.op == Op::roll) {
      operand.roll += node.attributes.integer("shift");
    } else if (node.op != Op::broadcast) {
      break;
    } else if (graph_.type(node.inputs[0]).shape.back() == 1) {
      operand.roll = 0;  // a repeated element looks the same however it is rolled
    }
    operand.base = node.inputs[0];
  }
  const int64_t row =
      graph_.type(operand.base).shape.rank() == 0 ? 1 : graph_.type(operand.base).shape.back();
  operand.roll %= row;
  return operand;
}

bool Items::is_free(ValueId id, const Shape& consumer_shape) const {
  const Node& node = graph_.node(id);
  if (node.op == Op::constant) return true;
  return node.op == Op::iota && node.outputs[0].shape == consumer_shape;
}

void Items::find_needed() {
  needed_.assign(size(), false);
  const auto need = [&](ValueId id) {
    if (is_item_op(graph_.node(id).op)) needed_[static_cast<size_t>(id.node)] = true;
  };
  for (const Graph::Output& output : graph_.outputs()) need(output.value);
  for (int32_t i = graph_.size() - 1; i >= 0; --i) {
    if (!live_[static_cast<size_t>(i)]) continue;
    const Node& node = graph_.node(i);
    if (!is_item_op(node.op)) {
      // A broadcast or roll that only items read is part of their reading; views of items need them in
      // memory.
      if (node.op == Op::broadcast && !read_as_tensor(i)) continue;
      for (ValueId input : node.inputs) need(input);
      continue;
    }
    if (!needed_[static_cast<size_t>(i)]) continue;
    for (ValueId input : node.inputs)
      if (!is_free(input, graph_.type(input).shape)) need(operand_of(input).base);
  }
}

bool Items::read_as_tensor(int32_t index) {
  if (tensor_reads_.empty()) {
    tensor_reads_.assign(size(), false);
    for (const Graph::Output& output : graph_.outputs())
      tensor_reads_[static_cast<size_t>(output.value.node)] = true;
    for (int32_t i = graph_.size() - 1; i >= 0; --i) {
      const Node& node = graph_.node(i);
      const bool passes_on = node.op == Op::broadcast;
      if (!live_[static_cast<size_t>(i)] || is_item_op(node.op)) continue;
      if (!passes_on || tensor_reads_[static_cast<size_t>(i)])
        for (ValueId input : node.inputs) tensor_reads_[static_cast<size_t>(input.node)] = true;
    }
  }
  return tensor_reads_[static_cast<size_t>(index)];
}

void Items::add(int32_t index) {
  const Node& node = graph_.node(index);
  Item item{.node = index, .space = {}, .operands = {}, .position = index};
  const Shape& shape =
      kind(node.op) == OpKind::reduce ? graph_.type(node.inputs[0]).shape : node.outputs[0].shape;
  item.space = at_least_one_axis(shape);
  for (ValueId input : node.inputs) {
    Operand operand{.base = input};
    if (!is_free(input, graph_.type(input).shape)) {
      operand = operand_of(input);
      if (node.op == Op::roll) operand.roll += node.attributes.integer("shift");
      operand.item = item_of_[static_cast<size_t>(operand.base.node)];
    }
    item.operands.push_back(operand);
  }
  item_of_[static_cast<size_t>(index)] = static_cast<int32_t>(items_.size());
  items_.push_back(std::move(item));
}

void Items::adopt_row_spaces() {
  const auto could_adopt = [&](const Item& item, const Shape& space) {
    return kind(graph_.node(item.node).op) == OpKind::elementwise && shape_of(item).rank() > 0 &&
           shape_of(item) == item.space && space != item.space && shape_of(item) == per_row(space);
  };
  for (Item& item : items_)
    for (const Operand& operand : item.operands) {
      if (operand.item < 0) continue;
      const Item& source = items_[static_cast<size_t>(operand.item)];
      if (could_adopt(item, source.space) && shape_of(source) == shape_of(item)) item.space = source.space;
    }
  for (auto it = items_.rbegin(); it != items_.rend(); ++it)
    for (const Operand& operand : it->operands) {
      if (operand.item < 0 || operand.roll != 0) continue;
      Item& source = items_[static_cast<size_t>(operand.item)];
      if (could_adopt(source, it->space)) source.space = it->space;
    }
}

int32_t Items::cost(const Operand& operand, const Item& reader) const {
  return fusable(items_[static_cast<size_t>(operand.item)], reader, operand) ? 0 : 1;
}

void Items::find_levels() {
  level_.assign(size(), 0);
  for (int32_t i = 0; i < graph_.size(); ++i) {
    if (!live_[static_cast<size_t>(i)]) continue;
    int32_t level = 0;
    if (const int32_t index = item_of(i); index >= 0) {
      Item& item = items_[static_cast<size_t>(index)];
      for (const Operand& operand : item.operands)
        level = std::max(level, level_[static_cast<size_t>(operand.base.node)] +
                                    (operand.item >= 0 ? cost(operand, item) : 0));
      item.level = level;
    } else {
      // A view needs its source in memory: what an item makes is there only after its level.
      const bool is_kernel = !is_view_op(graph_.node(i).op) && kind(graph_.node(i).op) != OpKind::leaf;
      for (ValueId input : graph_.node(i).inputs)
        level = std::max(
            level, level_[static_cast<size_t>(input.node)] + (is_kernel || item_of(input.node) >= 0 ? 1 : 0));
    }
    level_[static_cast<size_t>(i)] = level;
  }
}

void Items::sink() {
  constexpr int32_t kNever = std::numeric_limits<int32_t>::max();
  std::vector<int32_t> latest(size(), kNever);
  last_read_.assign(size(), -1);
  kept_.assign(size(), -1);
  for (const Graph::Output& output : graph_.outputs()) {
    latest[static_cast<size_t>(output.value.node)] = -1;
    kept_[static_cast<size_t>(output.value.node)] = kNever;
  }
  for (int32_t i = graph_.size() - 1; i >= 0; --i) {
    if (!live_[static_cast<size_t>(i)]) continue;
    const auto at = static_cast<size_t>(i);
    const int32_t index = item_of(i);
    const auto read = [&](ValueId id, int32_t level, int32_t reader_level) {
      int32_t& limit = latest[static_cast<size_t>(id.node)];
      limit = std::min(limit, level);
      last_read_[static_cast<size_t>(id.node)] =
          std::max(last_read_[static_cast<size_t>(id.node)], reader_level);
    };
    if (index >= 0) {
      Item& item = items_[static_cast<size_t>(index)];
      if (latest[at] != kNever && latest[at] > item.level) item.level = latest[at];
      level_[at] = item.level;
      for (const Operand& operand : item.operands)
        if (operand.item >= 0)
          read(operand.base, item.level - cost(operand, item), item.level);
        else
          read(operand.base, item.level, item.level);
      continue;
    }
    const bool is_view = is_view_op(graph_.node(i).op);
    if (is_view && last_read_[at] < 0 && latest[at] == kNever)
      continue;  // only read through an item's operands
    for (ValueId input : graph_.node(i).inputs) {
      if (is_view)
        read(input, latest[at] == kNever ? level_[at] - 1 : latest[at] - 1, last_read_[at]);
      else
        read(input, level_[at] - 1, level_[at]);
      int32_t& kept = kept_[static_cast<size_t>(input.node)];
      kept = std::max(kept, is_view ? std::max(kept_[at], last_read_[at]) : level_[at]);
    }
  }
}

bool Items::extend_cone(int32_t index, int32_t level, int depth, Cone& cone) const {
  if (std::find(cone.items.begin(), cone.items.end(), index) != cone.items.end()) return true;
  if (depth >= kMaxRecomputedOps) return false;
  const Item& item = items_[static_cast<size_t>(index)];
  const Op op = graph_.node(item.node).op;
  if (kind(op) != OpKind::elementwise && op != Op::philox && op != Op::iota) return false;
  for (const Operand& operand : item.operands) {
    const auto base = static_cast<size_t>(operand.base.node);
    const Node& made = graph_.node(operand.base);
    if (made.op == Op::constant || made.op == Op::state || made.op == Op::input || made.op == Op::tensor)
      continue;
    const bool is_small =
        at_least_one_axis(graph_.type(operand.base).shape).elements() * 8 <= item.space.elements();
    if (is_small || kept_[base] >= level) continue;
    const bool is_read = last_read_[base] >= level;
    if (operand.item >= 0 && operand.roll == 0 &&
        items_[static_cast<size_t>(operand.item)].space == item.space) {
      // What only items read at that level may be computed again by all of them. It is taken to be in memory
      // only where that would need more memory than it does.
      Cone longer = cone;
      if (extend_cone(operand.item, level, depth + 1, longer) &&
          (!is_read || bytes_of(longer) - bytes_of(cone) < made.outputs[0].bytes())) {
        cone = std::move(longer);
        continue;
      }
    }
    if (!is_read) cone.newly_alive.insert(operand.base.node);
  }
  cone.items.push_back(index);
  return static_cast<int>(cone.items.size()) <= kMaxRecomputedOps;
}

int64_t Items::bytes_of(const Cone& cone) const {
  int64_t bytes = 0;
  for (int32_t node : cone.newly_alive) bytes += graph_.node(node).outputs[0].bytes();
  return bytes;
}

void Items::copy_cheap_values() {
  std::map<std::pair<int32_t, int32_t>, int32_t> copies;  // (item, level) -> its copy
  const size_t originals = items_.size();
  for (size_t c = 0; c < originals; ++c)
    for (size_t o = 0; o < items_[c].operands.size(); ++o) {
      const Operand operand = items_[c].operands[o];
      if (operand.item < 0 || !fusable(items_[static_cast<size_t>(operand.item)], items_[c], operand))
        continue;
      const Item& source = items_[static_cast<size_t>(operand.item)];
      const int32_t level = items_[c].level;
      if (source.level == level || shape_of(source) != source.space) continue;
      Cone cone;
      if (!extend_cone(operand.item, level, 0, cone)) continue;
      if (bytes_of(cone) >= graph_.node(source.node).outputs[0].bytes()) continue;
      for (int32_t node : cone.newly_alive) last_read_[static_cast<size_t>(node)] = level;
      items_[c].operands[o].item = copy_cone(cone, level, items_[c].position, copies);
    }
}

int32_t Items::copy_cone(const Cone& cone, int32_t level, int32_t position,
                         std::map<std::pair<int32_t, int32_t>, int32_t>& copies) {
  int32_t last = -1;
  for (int32_t index : cone.items) {
    const auto found = copies.find({index, level});
    if (found != copies.end()) {
      last = found->second;
      items_[static_cast<size_t>(last)].position =
          std::min(items_[static_cast<size_t>(last)].position, position);
      continue;
    }
    Item copy = items_[static_cast<size_t>(index)];
    copy.level = level;
    copy.position = position;
    for (Operand& operand : copy.operands) {
      const auto other = copies.find({operand.item, level});
      const bool in_cone = std::find(cone.items.begin(), cone.items.end(), operand.item) != cone.items.end();
      if (operand.item >= 0 && in_cone && other != copies.end()) operand.item = other->second;
    }
    last = static_cast<int32_t>(items_.size());
    copies.emplace(std::pair{index, level}, last);
    items_.push_back(std::move(copy));
  }
  return last;
}

}  // namespace nf
