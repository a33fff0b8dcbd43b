// Reverse-mode automatic differentiation, graph to graph.
#pragma once

#include "nf/graph.h"

namespace nf {

// Adds the backward pass of the scalar `loss` to its graph and returns d loss / d wrt[i] for each i, in the
// shape of wrt[i] and a float dtype (f32 unless wrt[i] is narrow and only narrow products reach it). What the
// loss does not depend on gets zeros. Throws Error when the loss is no float scalar or a path leads through
// an op without a gradient.
Values gradients(Value loss, std::span<const Value> wrt);

}  // namespace nf
