// The words that stand for the enums of a config, in files and flags. Private to config's own sources.
#pragma once

#include <array>
#include <string_view>

#include "models/config.h"

namespace nf {

// In the order of the enum's values.
template <typename Enum>
constexpr std::array<std::string_view, 0> kWords{};
template <>
inline constexpr std::array<std::string_view, 5> kWords<AttentionType> = {"mha", "gqa", "diff", "ngpt",
                                                                          "mla"};
template <>
inline constexpr std::array<std::string_view, 5> kWords<Activation> = {"silu", "gelu", "gelu_tanh", "relu",
                                                                       "relu2"};
template <>
inline constexpr std::array<std::string_view, 3> kWords<CapType> = {"none", "soft", "hard"};
template <>
inline constexpr std::array<std::string_view, 2> kWords<HeadSimLossType> = {"mse", "jsd"};
template <>
inline constexpr std::array<std::string_view, 4> kWords<RopeScalingType> = {"linear", "dynamic", "yarn",
                                                                            "llama3"};

template <typename Enum>
constexpr std::string_view enum_name(Enum value) {
  return kWords<Enum>[static_cast<size_t>(value)];
}

}  // namespace nf
