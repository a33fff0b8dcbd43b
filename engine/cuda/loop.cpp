// Fused loops: one kernel each, made from the body (cuda/loop_source.h), and one for each column reduction.
#include "cuda/kernels.h"
#include "cuda/loop_source.h"

namespace nf::cuda {
namespace {

Launch launch(const LoopSource& source, const LoopPlan& plan, const BoundNode& bound) {
  std::vector<const void*> pointers;
  for (const LoopSource::Pointer& pointer : source.pointers) {
    const auto number = static_cast<size_t>(pointer.number);
    switch (pointer.to) {
      case LoopSource::Pointer::To::input: pointers.push_back(bound.inputs[number].data); break;
      case LoopSource::Pointer::To::output: pointers.push_back(bound.outputs[number].data); break;
      case LoopSource::Pointer::To::partial:
        pointers.push_back(bound.workspace + plan.column_reductions[number].workspace);
        break;
    }
  }
  const auto bytes = std::as_bytes(std::span(pointers));
  return bound.library.launch(source.kernel, source.shape, {bytes.begin(), bytes.end()});
}

}  // namespace

int64_t loop_workspace(const Graph&, const Node& node) {
  return partial_bytes(*node.attributes.body("body"), node.attributes.list("space"));
}

Launch bind_loop(const BoundNode& bound, int64_t many_vectors) {
  const Graph& body = *bound.node.attributes.body("body");
  const Shape& space = bound.node.attributes.list("space");
  if (space.elements() == 0) return [] {};
  LoopPlan plan = plan_loop(body, space, bound.inputs, bound.outputs, many_vectors);
  plan.wide_index |= bound.wide_index;
  std::vector<Launch> launches{launch(loop_source(plan, bound.inputs, bound.outputs), plan, bound)};
  for (size_t i = 0; i < plan.column_reductions.size(); ++i) {
    const ColumnReduction& column = plan.column_reductions[i];
    if (column.partials == 1) continue;
    const TensorView& output = bound.outputs[static_cast<size_t>(column.output)];
    launches.push_back(launch(column_source(plan, i, output), plan, bound));
  }
  return in_turn(std::move(launches));
}
Launch bind_loop(const BoundNode& bound) { return bind_loop(bound, kManyVectors); }

}  // namespace nf::cuda
