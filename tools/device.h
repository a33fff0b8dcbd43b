// Devices by the words of --device.
#pragma once

#include <array>
#include <memory>
#include <string_view>

#include "nf/device.h"

namespace nf {

inline constexpr std::array<std::string_view, 3> kDeviceWords = {"cpu", "cuda", "reference"};
inline constexpr std::string_view kDeviceHelp = "cuda: one NVIDIA GPU; reference: slow, in double precision";

// `word` is one of kDeviceWords. `threads` of the CPU; 0: all cores.
std::shared_ptr<const Device> open_device(std::string_view word, int threads);

}  // namespace nf
