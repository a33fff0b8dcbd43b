#include "tests/support/graphs.h"

namespace nf::test {

std::vector<Tensor> run_reference(const Graph& graph, const Bindings& inputs, Bindings state) {
  verify(graph);
  return reference::evaluate(graph, inputs, state);
}

Tensor value_of(Value x, const Bindings& inputs, const Bindings& state) {
  x.graph->output("value", x);
  return run_reference(*x.graph, inputs, state).back();
}

}  // namespace nf::test
