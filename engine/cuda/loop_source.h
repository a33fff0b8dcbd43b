// Fused loops as CUDA C++: a plan (cuda/loop_plan.h) written down as the text of one kernel, and of one more
// for each column reduction that has a second stage.
//
// Shapes, strides, dtypes and constants stand in the text, addresses do not: equal loops of different layers
// are one kernel. Names: x leaves as they lie in memory, v values by their nodes in the body, y what goes to
// an output, r and c row and column reductions under way, k values kept for a later phase.
#pragma once

#include <string>
#include <vector>

#include "cuda/gpu.h"
#include "cuda/loop_plan.h"

namespace nf::cuda {

// A kernel whose parameter is Pointers<pointers.size()>.
struct LoopSource {
  struct Pointer {
    enum class To : uint8_t { input, output, partial } to;
    int32_t number = 0;  // of the input, the output, or the column reduction
  };
  KernelSource kernel;
  LaunchShape shape;
  std::vector<Pointer> pointers;
};

LoopSource loop_source(const LoopPlan& plan, std::span<const TensorView> inputs,
                       std::span<const TensorView> outputs);

// The second stage of a column reduction.
LoopSource column_source(const LoopPlan& plan, size_t reduction, const TensorView& output);

}  // namespace nf::cuda
