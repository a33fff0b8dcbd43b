// Matrix products by cuBLASLt.
#pragma once

#include <cuda_runtime.h>

#include <memory>

#include "cuda/gpu.h"

namespace nf::cuda {

class Cublas {
 public:
  // Opens the library; throws Error when it is not there.
  explicit Cublas(cudaStream_t stream);
  ~Cublas();

  // The product with the algorithm that the library thinks fastest within the workspace; Error when it knows
  // none. Multiply puts it on the stream.
  Multiply product(const Product& product, void* workspace) const;

 private:
  struct Library;
  std::shared_ptr<const Library> library_;
  cudaStream_t stream_;
};

}  // namespace nf::cuda
