// Kernel text to machine code, by NVRTC, with a cache on disk.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "cuda/gpu.h"

namespace nf::cuda {

// The machine code (a cubin) of each kernel for an architecture such as "sm_90a". What the cache (cache.h)
// does not hold is compiled, by as many threads as there are cores. Throws Error with the compiler's words,
// or when NVRTC is not there.
std::vector<std::string> compile_kernels(std::span<const KernelSource> sources,
                                         const std::string& architecture);

}  // namespace nf::cuda
