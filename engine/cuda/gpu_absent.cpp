// A build without the CUDA toolkit.
#include "nf/device.h"
#include "nf/error.h"

namespace nf {

std::shared_ptr<const Device> cuda_device(int) {
  fail(
      "cuda: this program was built without the CUDA toolkit: use --device cpu, or build it where nvcc is "
      "found");
}

}  // namespace nf
