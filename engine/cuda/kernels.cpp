#include "cuda/kernels.h"

#include <algorithm>

namespace nf::cuda {

const Kernel* find_kernel(Op op) {
  static const std::vector<Kernel> table = {
      {.op = Op::matmul, .workspace = matmul_workspace, .bind = bind_matmul},
  };
  const auto found =
      std::find_if(table.begin(), table.end(), [op](const Kernel& kernel) { return kernel.op == op; });
  return found == table.end() ? nullptr : &*found;
}

}  // namespace nf::cuda
