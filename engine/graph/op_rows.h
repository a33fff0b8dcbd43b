// Where the rows of the op table come from, and what writing them needs.
#pragma once

#include <vector>

#include "graph/op_table.h"

namespace nf {

std::vector<OpInfo> leaf_rows();
std::vector<OpInfo> movement_rows();
std::vector<OpInfo> elementwise_rows();
std::vector<OpInfo> reduce_rows();
std::vector<OpInfo> matmul_rows();
std::vector<OpInfo> attention_rows();
std::vector<OpInfo> cross_entropy_rows();
std::vector<OpInfo> embedding_rows();
std::vector<OpInfo> state_rows();

using Types = std::span<const TensorType>;

// The inputs and outputs of a node as Values, for gradient builders.
struct NodeValues {
  Graph& graph;
  int32_t index;
  Value in(size_t i) const { return graph.value(graph.node(index).inputs[i]); }
  Value out(int32_t i = 0) const { return graph.value({index, i}); }
  size_t inputs() const { return graph.node(index).inputs.size(); }
  Attributes attributes() const { return graph.node(index).attributes; }
};

inline DType dtype_attribute(const Attributes& attributes) {
  return static_cast<DType>(attributes.integer("dtype"));
}
inline int64_t to_attribute(DType dtype) { return static_cast<int64_t>(dtype); }

// Resolves a negative axis; throws Error when it is out of range.
int normalize_axis(int64_t axis, int rank);

// a and b, boolean.
Value both(Value a, Value b);

// The gradient of capped = apply_cap(type, cap, uncapped), given that of `capped`.
Value cap_gradient(CapType type, double cap, Value uncapped, Value capped, Value grad);

}  // namespace nf
