#include "cuda/kernels.h"

#include <algorithm>

namespace nf::cuda {

const Kernel* find_kernel(Op op) {
  static const std::vector<Kernel> table = {
      {.op = Op::loop, .workspace = loop_workspace, .bind = bind_loop},
      {.op = Op::matmul, .workspace = matmul_workspace, .bind = bind_matmul},
      {.op = Op::attention,
       .supports = supports_attention,
       .workspace = attention_workspace,
       .bind = bind_attention},
      {.op = Op::attention_backward,
       .supports = supports_attention,
       .workspace = attention_backward_workspace,
       .bind = bind_attention_backward},
      {.op = Op::linear_cross_entropy,
       .supports = supports_cross_entropy,
       .workspace = cross_entropy_workspace,
       .bind = bind_cross_entropy},
      {.op = Op::linear_cross_entropy_backward,
       .supports = supports_cross_entropy,
       .workspace = cross_entropy_workspace,
       .bind = bind_cross_entropy_backward},
      {.op = Op::embedding, .bind = bind_gather},
      {.op = Op::embedding_backward,
       .supports = supports_embedding_backward,
       .workspace = scatter_workspace,
       .bind = bind_scatter},
      {.op = Op::gather, .bind = bind_gather},
      {.op = Op::scatter_add, .workspace = scatter_workspace, .bind = bind_scatter},
      {.op = Op::concat, .bind = bind_concat},
      {.op = Op::assign, .bind = bind_assign},
      {.op = Op::assign_slice, .bind = bind_assign_slice},
  };
  const auto found =
      std::find_if(table.begin(), table.end(), [op](const Kernel& kernel) { return kernel.op == op; });
  return found == table.end() ? nullptr : &*found;
}

}  // namespace nf::cuda
