// The double-precision interpreter: what every kernel, pass and gradient of the engine is measured against.
//
// It walks the nodes in order and computes each in the plainest way there is. Every element is a double
// whatever its dtype: nothing is ever rounded to f32 or bf16, so the result is that of exact arithmetic up to
// about 1e-15. Integers are exact up to 2^53. Composites (attention, …) are evaluated through their
// decomposition in the op table, fused loops through their body. Not fast, and not meant to be.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "nf/graph.h"

namespace nf::reference {

// A dense row-major tensor; data.size() == shape.elements().
struct Tensor {
  Shape shape;
  std::vector<double> data;
};
using Bindings = std::unordered_map<std::string, Tensor>;

// Called after each evaluated node with the node's outputs, in topological order. It may alter them before
// anything reads them: to study what rounding does.
using Observer = std::function<void(int32_t node, std::span<Tensor> outputs)>;

// Evaluates the graph's outputs, in their order, and its effects: `state` is read by state name and updated
// by assign and assign_slice once everything is read. Only nodes that an output or effect needs are
// evaluated, so inputs that nothing needs may be missing. Throws Error when a needed input or state is
// missing or has another shape than its leaf, when a row of gather, scatter_add or embedding does not exist,
// and when assign_slice reaches beyond its state.
std::vector<Tensor> evaluate(const Graph& graph, const Bindings& inputs, Bindings& state,
                             const Observer& observer = {});

// The first node, in topological order, with an output that is not finite, or -1: where a NaN came from.
// Infinities that are meant (the -inf of masked logits) live inside composites, which are judged by their
// outputs alone.
int32_t first_non_finite(const Graph& graph, const Bindings& inputs, Bindings state);

}  // namespace nf::reference
