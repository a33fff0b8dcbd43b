// The files of engine/cuda/kernels, carried inside the program: kernels are compiled when they are needed.
#pragma once

#include <span>
#include <string_view>

namespace nf::cuda {

struct KernelFile {
  std::string_view name;  // "device.cuh"
  std::string_view text;
};

std::span<const KernelFile> kernel_files();

}  // namespace nf::cuda
