#include "tools/device.h"

namespace nf {

std::shared_ptr<const Device> open_device(std::string_view word, int threads) {
  if (word == "cuda") return cuda_device();
  return word == "reference" ? reference_device() : cpu_device(threads);
}

}  // namespace nf
