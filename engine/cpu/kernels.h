// The CPU's table of kernels: how each op of a lowered graph runs here.
#pragma once

#include <vector>

#include "base/tensor_view.h"
#include "graph/op_table.h"
#include "nf/device.h"

namespace nf::cpu {

class LoopCodes;

// A node with addresses.
struct BoundNode {
  const Graph& graph;
  const Node& node;
  std::vector<TensorView> inputs, outputs;
  void* workspace;
  int threads;
  LoopCodes* codes;          // of the executable
  Slabs* slabs;              // while binding: memory for what kernels keep
  std::vector<bool> frozen;  // per input: BoundPlan::is_frozen()
};

struct Kernel {
  Op op;
  // Whether dtypes and attributes are within what the kernel knows; null: always.
  bool (*supports)(const Graph& graph, const Node& node) = nullptr;
  // Scratch bytes; null: none.
  size_t (*workspace)(const Graph& graph, const Node& node, int threads) = nullptr;
  Launch (*bind)(const BoundNode& bound) = nullptr;
};

// The kernel of an op, or null.
const Kernel* find_kernel(Op op);

}  // namespace nf::cpu
