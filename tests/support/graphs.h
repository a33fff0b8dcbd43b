// Graphs run in one line.
#pragma once

#include <memory>
#include <vector>

#include "nf/device.h"
#include "tests/support/tensors.h"

namespace nf::test {

// Verifies the graph and evaluates it in double precision; the caller's state is left as it was.
std::vector<Tensor> run_reference(const Graph& graph, const Bindings& inputs = {}, Bindings state = {});

// The value of `x`: adds it to its graph's outputs and evaluates them.
Tensor value_of(Value x, const Bindings& inputs = {}, const Bindings& state = {});

// Compiles and runs the graph on a device; every tensor is rounded to its dtype on the way in. Updates
// `state`. Returns the outputs in their order; their names must differ.
std::vector<Tensor> run_on(const std::shared_ptr<const Device>& device, const Graph& graph,
                           const Bindings& inputs, Bindings& state, const CompileOptions& options = {});

// A double as a tensor of this dtype would hold it.
double rounded(double value, DType dtype);

// Between doubles and the bytes of a dense tensor.
std::vector<std::byte> encode(const Tensor& tensor, DType dtype);
Tensor decode(std::span<const std::byte> bytes, const TensorType& type);

}  // namespace nf::test
