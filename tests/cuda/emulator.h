// Runs a CUDA kernel on the host: the threads of a block are fibers that switch at barriers, shuffles and
// tensor-core instructions; blocks run one after another. Slow, deterministic, and strict where a GPU is
// lenient: dynamic shared memory begins as NaNs, asynchronous copies land only when they are waited for, and
// those whose end is an arrival at a barrier only when nobody can go on without; results of a warpgroup's
// products are NaNs until then (emulated_products.h); every other block runs its threads backwards, and a
// collective that not all threads reach is an Error instead of a hang.
#pragma once

#include "cuda/gpu.h"

namespace nf::cuda {

// An entry point compiled for the host; `params` points to its parameter.
using EmulatedKernel = void (*)(const void* params);

void emulate(EmulatedKernel kernel, const LaunchShape& shape, const void* params);

}  // namespace nf::cuda
