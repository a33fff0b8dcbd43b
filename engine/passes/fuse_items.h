// The items that the fuse pass merges into loops: which there are, their spaces, levels and copies. See
// fuse.cpp.
#pragma once

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "graph/op_table.h"

namespace nf {

struct Operand {
  ValueId base;       // in the old graph, behind broadcasts and rolls
  int32_t item = -1;  // the item that makes it, if any
  int64_t roll = 0;
};

struct Item {
  int32_t node;  // in the old graph; copies share it
  Shape space;
  std::vector<Operand> operands;
  int32_t level = 0;
  int32_t position = 0;  // in the old order; a copy stands where its reader does
  bool needed_outside = false;
};

// Spaces have at least one axis: a scalar is a row of one.
inline Shape at_least_one_axis(const Shape& shape) { return shape.rank() == 0 ? Shape{1} : shape; }

// Ops that can stand in a loop's body.
bool is_item_op(Op op);

class Items {
 public:
  // With `fuse` false each item stays alone: no levels, no copies.
  Items(const Graph& graph, bool fuse);

  std::vector<Item>& all() { return items_; }
  const std::vector<bool>& live() const { return live_; }
  int32_t item_of(int32_t node) const { return item_of_[static_cast<size_t>(node)]; }

  // Whether item c can read what item p makes without memory between them.
  bool fusable(const Item& p, const Item& c, const Operand& operand) const;

 private:
  size_t size() const { return static_cast<size_t>(graph_.size()); }

  Operand operand_of(ValueId id) const;

  // Constants and matching iotas are written into each body.
  bool is_free(ValueId id, const Shape& consumer_shape) const;

  void find_needed();

  bool read_as_tensor(int32_t index);

  void add(int32_t index);

  const Shape& shape_of(const Item& item) const { return graph_.node(item.node).outputs[0].shape; }

  // Values with one element per row join the space whose rows they describe: their maker's, or else their
  // reader's.
  void adopt_row_spaces();

  int32_t cost(const Operand& operand, const Item& reader) const;

  void find_levels();

  // Moves each item to the level of its earliest reader, and notes the last level at which each value is
  // read.
  void sink();

  // ---- copies of cheap values into later levels

  struct Cone {
    std::vector<int32_t> items;     // to be copied, makers first
    std::set<int32_t> newly_alive;  // nodes whose memory would be needed for longer
  };

  bool extend_cone(int32_t index, int32_t level, int depth, Cone& cone) const;
  int64_t bytes_of(const Cone& cone) const;

  void copy_cheap_values();

  int32_t copy_cone(const Cone& cone, int32_t level, int32_t position,
                    std::map<std::pair<int32_t, int32_t>, int32_t>& copies);

  const Graph& graph_;
  bool fuse_;
  std::vector<bool> live_;
  std::vector<bool> needed_;        // item ops that must become items
  std::vector<bool> tensor_reads_;  // nodes read by something other than an item
  std::vector<int32_t> item_of_;    // per node
  std::vector<bool> assigned_;      // states that the graph overwrites: their old values do not last
  std::vector<Item> items_;
  std::vector<int32_t> level_;      // per node
  std::vector<int32_t> last_read_;  // per node: the last level that reads it
  std::vector<int32_t> kept_;  // per node: the last level at which it must be in memory whatever items do
};

}  // namespace nf
