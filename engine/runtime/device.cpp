// What devices have in common that share the host's memory and finish each launch before it returns.
#include "nf/device.h"

#include <algorithm>

#include "runtime/immediate_readback.h"

namespace nf {

void Device::write(std::byte* to, std::span<const std::byte> from) const {
  std::copy(from.begin(), from.end(), to);
}

void Device::read(std::span<std::byte> to, const std::byte* from) const {
  std::copy_n(from, to.size(), to.data());
}

std::unique_ptr<Readback> Device::readback(int64_t bytes) const {
  return std::make_unique<ImmediateReadback>(
      bytes, [this](std::span<std::byte> to, const std::byte* from) { read(to, from); });
}

Launch Device::record(std::vector<Launch> launches) const {
  return [launches = std::move(launches)] {
    for (const Launch& launch : launches) launch();
  };
}

}  // namespace nf
