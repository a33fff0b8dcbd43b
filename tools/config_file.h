// What -m and a model's folder name: the config that is meant, and its text.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace nf {

constexpr std::string_view kShippedConfigs = "mha, gqa, diff, ngpt and mla";

// A file, a folder with config.json (a run, say), or a shipped config by its name. Throws Error that says
// what was looked for and what is there instead.
std::filesystem::path find_config_file(const std::string& name);

// Its text. Throws Error when it cannot be read or is empty.
std::string read_config_file(const std::filesystem::path& file);

}  // namespace nf
