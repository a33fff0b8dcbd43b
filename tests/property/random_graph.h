// Random graphs: programs of the engine that nobody would think of writing.
#pragma once

#include "nf/graph.h"
#include "tests/support/tensors.h"

namespace nf::test {

struct RandomGraph {
  Graph graph;  // outputs have distinct names
  Bindings inputs, state;
};

// Fills an empty RandomGraph. The same seed always gives the same graph. All kinds of ops occur, in mixed
// dtypes and odd shapes, with several outputs, assigned states and gradients of scalar losses. Arguments are
// kept where functions are tame (logarithms of positive numbers, quotients by what is not small), so that
// rounding does not explode.
void fill_randomly(RandomGraph& result, uint64_t seed);

}  // namespace nf::test
