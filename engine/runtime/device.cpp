// What devices have in common that share the host's memory and finish each launch before it returns.
#include "nf/device.h"

#include <cstring>

namespace nf {

void Device::write(std::byte* to, std::span<const std::byte> from) const {
  std::memcpy(to, from.data(), from.size());
}

void Device::read(std::span<std::byte> to, const std::byte* from) const {
  std::memcpy(to.data(), from, to.size());
}

Launch Device::record(std::vector<Launch> launches) const {
  return [launches = std::move(launches)] {
    for (const Launch& launch : launches) launch();
  };
}

}  // namespace nf
