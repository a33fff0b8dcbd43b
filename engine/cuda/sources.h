// Kernel texts made from the files of engine/cuda/kernels.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "cuda/gpu.h"
#include "nf/error.h"

namespace nf::cuda {

// How kernels spell a dtype: "float", "bf16", "int32_t", …
std::string_view type_name(DType dtype);

// The kernel that runs `function`, a template instance of that file such as "matmul<float, bf16, float>", on
// blocks of `threads` threads; at least `blocks_per_processor` of them shall fit on a processor at once.
KernelSource instantiate(std::string_view file, std::string_view params, std::string_view function,
                         uint32_t threads, uint32_t blocks_per_processor = 1);

inline int64_t div_up(int64_t x, int64_t step) { return (x + step - 1) / step; }
inline int64_t round_up(int64_t x, int64_t step) { return div_up(x, step) * step; }

// The number of blocks that `items` need at `per_block` each.
inline uint32_t blocks(int64_t items, int64_t per_block) {
  const int64_t count = std::max<int64_t>(1, div_up(items, per_block));
  require(count < (int64_t{1} << 31), "cuda: {} blocks", count);
  return static_cast<uint32_t>(count);
}

}  // namespace nf::cuda
