// What the tests of the passes share: small models and looks into plans.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "graph/op_table.h"
#include "models/training_step.h"
#include "passes/passes.h"

namespace nf::test {

inline constexpr const char* kVariants[] = {"mha", "gqa", "diff", "ngpt", "mla"};

// A model of two heads' width eight and a vocabulary of 64, in which everything else is as configs have it.
ModelConfig tiny_config(std::string_view variant, int layers = 2);

// Its micro-step on two sequences of sixteen tokens.
std::unique_ptr<Graph> tiny_step(std::string_view variant, int layers = 2, DType compute = DType::f32,
                                 bool accumulate = false);

// The state and the inputs of tiny_step, compiled and run once; then the bytes of all gradients and the loss.
std::vector<std::byte> run_tiny_step(const Graph& graph, const ModelConfig& config, int threads,
                                     const CompileOptions& options);

int count(const Graph& graph, Op op);
int count_steps(const Plan& plan, Op op);

// The ops of the steps in order: "matmul loop".
std::string steps_of(const Plan& plan);

// The one op of that kind in the graph; fails the test when there is none or more than one.
const Node& only(const Graph& graph, Op op);

// simplify, lower for the CPU, fuse.
GraphPtr fused(const Graph& graph);

}  // namespace nf::test
