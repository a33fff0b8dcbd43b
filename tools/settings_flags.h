// The flags of nf-train and nf-estimate as data: what the parser registers and what --help prints.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "tools/arguments.h"
#include "tools/settings.h"

namespace nf {

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
