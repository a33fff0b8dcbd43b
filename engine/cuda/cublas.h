// Matrix products by cuBLASLt.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <string>

#include "cuda/gpu.h"

namespace nf::cuda {

class Cublas {
 public:
  // Opens the library; throws Error when it is not there. `gpu` is the name of the stream's GPU.
  Cublas(cudaStream_t stream, std::string gpu);
  ~Cublas();

  // The product with the fastest of the algorithms that the library proposes, found by timing them once: the
  // choice is kept in the cache (cache.h), so that every later run computes the same bits. Without a cache,
  // or without memory to try them, it is the one that the library thinks fastest. Error when it knows none.
  // Launch puts it on the stream.
  Launch product(const Product& product, const void* a, const void* b, void* c, void* workspace) const;

 private:
  struct Library;

  std::shared_ptr<const Library> library_;
  cudaStream_t stream_;
  std::string gpu_;
};

}  // namespace nf::cuda
