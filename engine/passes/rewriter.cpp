#include "passes/rewriter.h"

namespace nf {

std::vector<bool> live_nodes(const Graph& graph) {
  std::vector<bool> live(static_cast<size_t>(graph.size()), false);
  for (const Graph::Output& output : graph.outputs()) live[static_cast<size_t>(output.value.node)] = true;
  for (int32_t effect : graph.effects()) live[static_cast<size_t>(effect)] = true;
  for (int32_t i = graph.size() - 1; i >= 0; --i)
    if (live[static_cast<size_t>(i)])
      for (ValueId input : graph.node(i).inputs) live[static_cast<size_t>(input.node)] = true;
  return live;
}

std::vector<int32_t> use_counts(const Graph& graph) {
  std::vector<int32_t> uses(static_cast<size_t>(graph.size()), 0);
  for (int32_t i = 0; i < graph.size(); ++i)
    for (ValueId input : graph.node(i).inputs) ++uses[static_cast<size_t>(input.node)];
  for (const Graph::Output& output : graph.outputs()) ++uses[static_cast<size_t>(output.value.node)];
  return uses;
}

}  // namespace nf
