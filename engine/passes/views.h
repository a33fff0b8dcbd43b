// Movement as strides: which values are mere views of others.
#pragma once

#include <optional>

#include "nf/graph.h"

namespace nf {

// A value as a window on another: element i of the window is element offset + sum(i * strides) of `root`,
// counted in root's own dense row-major order.
struct View {
  ValueId root;
  int64_t offset = 0;
  Strides strides;
};

// Whether the node is movement that can be a view: reshape, transpose, broadcast, slice.
bool is_view_op(Op op);

// Follows view ops up to the value that owns memory; nothing when a reshape on the way needs a copy.
std::optional<View> view_of(const Graph& graph, ValueId value);

// The same step by step: how op `node` shows a tensor with these strides; nothing if only a copy could.
struct Window {
  int64_t offset = 0;
  Strides strides;
};
std::optional<Window> apply_view(const Graph& graph, const Node& node, const Window& input);

// Strides of `to` over memory in which `from` has these strides; nothing if there are none.
std::optional<Strides> reshape_strides(const Shape& from, const Strides& strides, const Shape& to);

bool is_dense(const Shape& shape, const Strides& strides);

// Whether the axes [first, last) can be walked with one stride.
bool collapsible(const Shape& shape, const Strides& strides, int first, int last);

}  // namespace nf
