// Fused loops on the CPU: what runs an Op::loop node (its contract: engine/graph/loop.h).
//
// The body is compiled once to a short list of instructions over tiles that stay in the first-level cache: a
// few rows, or a piece of a long row. Each instruction is one vectorised function over the tile
// (cpu/loop_kernels.h). Rows too long for a tile run in stages: one pass over the row per level of row
// reductions, recomputing what the next level needs.
// Where the processor allows it, the instructions over a tile become machine code (cpu/loop_jit.h).
//
// Determinism: an element's bits depend on its operands alone, a row reduction's on the row's elements and
// length, a column reduction's on the elements and the shape of the space. None depends on strides, tiles,
// threads, or the other nodes of the body.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "base/tensor_view.h"
#include "nf/graph.h"

namespace nf::cpu {

class LoopCodes;
struct LoopProgram;

class LoopKernel {
 public:
  // Compiles the body for tensors with these shapes, dtypes, strides and addresses; all stay as they are for
  // the kernel's life, only the contents change. `inputs` are the loop node's inputs by number, `outputs`
  // follow body.outputs(). Throws Error for dtypes that only the reference backend knows (f64, i64).
  // With `codes` the body becomes machine code where that is possible; the bits are the same.
  LoopKernel(const Graph& body, const Shape& space, std::span<const TensorView> inputs,
             std::span<const TensorView> outputs, LoopCodes* codes = nullptr);
  ~LoopKernel();
  LoopKernel(LoopKernel&&) noexcept;
  LoopKernel& operator=(LoopKernel&&) noexcept;

  // Bytes of scratch memory that run() needs with that many threads; from shapes alone, so that memory can be
  // planned before any exists.
  static size_t workspace(const Graph& body, const Shape& space, int threads);

  // Runs on up to `threads` threads; small loops on the calling one alone. `workspace` holds that many
  // bytes of any alignment, used by no one else meanwhile. Allocates nothing. Several threads may run one
  // kernel on workspaces of their own if no two of them write the same outputs at once.
  void run(void* workspace, int threads) const;

  // The program as text: the tile, then an instruction per line.
  std::string describe() const;

 private:
  std::unique_ptr<const LoopProgram> program_;
};

}  // namespace nf::cpu
