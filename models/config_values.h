// Plain values in JSON, of configs and of what programs keep, and what is said of wrong ones. `where` is
// "FILE: 'key'"; the messages go on from there.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "nf/error.h"
#include "nf/json.h"

namespace nf {

// As one line of an error.
inline std::string shown(const nlohmann::json& value) {
  return printable(value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace));
}

inline void read(bool& out, const nlohmann::json& value, const std::string& where) {
  require(value.is_boolean(), "{} must be true or false, not {}", where, shown(value));
  out = value.get<bool>();
}

template <typename Integer>
requires std::is_integral_v<Integer>
void read(Integer& out, const nlohmann::json& value, const std::string& where) {
  const bool fits =
      value.is_number_integer() &&
      (!value.is_number_unsigned() || value.get<uint64_t>() <= std::numeric_limits<Integer>::max()) &&
      value.get<int64_t>() >= std::numeric_limits<Integer>::min();
  require(fits, "{} must be a whole number, not {}", where, shown(value));
  out = value.get<Integer>();
}

inline void read(double& out, const nlohmann::json& value, const std::string& where) {
  require(value.is_number(), "{} must be a number, not {}", where, shown(value));
  out = value.get<double>();
}

// Takes a key out of the object; null when it is absent.
inline nlohmann::json take(nlohmann::json& object, std::string_view key) {
  const auto at = object.find(key);
  if (at == object.end()) return nullptr;
  nlohmann::json value = std::move(*at);
  object.erase(at);
  return value;
}

}  // namespace nf
