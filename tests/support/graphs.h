// Graphs run in one line.
#pragma once

#include <vector>

#include "tests/support/tensors.h"

namespace nf::test {

// Verifies the graph and evaluates it in double precision; the caller's state is left as it was.
std::vector<Tensor> run_reference(const Graph& graph, const Bindings& inputs = {}, Bindings state = {});

// The value of `x`: adds it to its graph's outputs and evaluates them.
Tensor value_of(Value x, const Bindings& inputs = {}, const Bindings& state = {});

}  // namespace nf::test
