// A Gpu without a GPU: kernels compiled for the host by the C++ compiler and run by the emulator, memory the
// host's, products by plain loops. The compiler runs when the first kernel is launched, for all that have
// been asked for by then: a test that makes all its executables before it runs the first is faster by far.
#pragma once

#include <memory>
#include <optional>

#include "tests/cuda/emulator.h"

namespace nf::cuda {

// Finishes each launch before it returns, and takes addresses of the host's for its own. Without an order,
// launches take turns at them.
std::shared_ptr<Gpu> emulated_gpu(GpuKind kind = {}, std::optional<Order> order = {});

// Does what it is asked for when somebody waits for it, as a GPU may, and refuses amid a recording what CUDA
// refuses or what would not be recorded. A recording is what was put on the stream, not the launches.
std::shared_ptr<Gpu> late_gpu(GpuKind kind = {}, std::optional<Order> order = {});

// The CUDA backend on a late one; on the real GPU where NF_TEST_GPU is set. Tests named "emulator: …" need
// the former.
std::shared_ptr<const Device> emulated_cuda_device(GpuKind kind = {}, std::optional<Order> order = {});

}  // namespace nf::cuda
