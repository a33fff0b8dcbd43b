// The compiler's passes. Each is a pure function from graph to graph; compile() of runtime/ chains them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "nf/compile.h"
#include "nf/graph.h"

namespace nf {

using GraphPtr = std::shared_ptr<const Graph>;
// Whether a backend has its own kernel for a composite node.
using Supports = std::function<bool(const Graph&, const Node&)>;

// Algebra, constant folding, casts and movement brought to a canonical place, dead code.
GraphPtr simplify(const Graph& graph);

// Gradient checkpointing (Chen et al., "Training deep nets with sublinear memory cost", 2016): the `dropped`
// forward values that save most bytes per FLOP are not kept for the backward pass but computed again from
// what is kept. Values that leave their layer are always kept. At most recompute_candidates(graph) can be
// dropped; then only those are.
GraphPtr recompute(const Graph& graph, int64_t dropped);
int64_t recompute_candidates(const Graph& graph);

// Replaces composites without a kernel by their decompositions, brings reductions into the two forms that
// loops know (over the last axis, or over leading axes), and folds gradient sums into the kernels that can
// accumulate.
GraphPtr lower(const Graph& graph, const Supports& supports);

// Gathers elementwise ops and reductions into loops: see graph/loop.h. With `enabled` false each becomes a
// loop of its own, so that a backend need not know single ops.
GraphPtr fuse(const Graph& graph, bool enabled);

// An order of the nodes that keeps few bytes alive. With `enabled` false the graph's own order.
std::vector<int32_t> schedule(const Graph& graph, bool enabled);

// Offsets of everything, and the steps.
Plan plan_memory(GraphPtr graph, const std::vector<int32_t>& order,
                 const std::function<int64_t(const Graph&, const Node&)>& workspace, bool reuse_memory);

}  // namespace nf
