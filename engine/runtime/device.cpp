// What devices have in common that share the host's memory and finish each launch before it returns.
#include "nf/device.h"

#include <algorithm>

namespace nf {

void Device::write(std::byte* to, std::span<const std::byte> from) const {
  std::copy(from.begin(), from.end(), to);
}

void Device::read(std::span<std::byte> to, const std::byte* from) const {
  std::copy_n(from, to.size(), to.data());
}

Launch Device::record(std::vector<Launch> launches) const {
  return [launches = std::move(launches)] {
    for (const Launch& launch : launches) launch();
  };
}

}  // namespace nf
