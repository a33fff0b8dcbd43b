// The flags of nf-train and nf-estimate as data: what the parser registers and what --help prints.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "tools/settings.h"

namespace nf {

enum class FlagKind : uint8_t {
  value,     // takes one value
  optional,  // takes one or none, which then says true
  list,      // takes one or more, and adds up when repeated
  toggle,    // takes none
};

struct Flag {
  std::string_view name;  // without the dashes; on the command line '_' and '-' are the same
  std::string_view
      key;  // the training key it sets; empty: a flag with a meaning of its own, or a key of the model
  FlagKind kind = FlagKind::value;
  std::string_view takes;              // placeholder of its value in --help
  std::string_view help;               // empty: another spelling, not shown
  std::string_view default_text = {};  // shown instead of the default of the key
};

struct FlagGroup {
  std::string_view title;
  std::string_view example;  // printed after "nf-train "
  std::span<const Flag> flags;
};

std::span<const FlagGroup> flag_groups();

// What --help prints.
std::string help_text(Program program);

std::string_view program_name(Program program);

}  // namespace nf
