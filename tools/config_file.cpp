#include "tools/config_file.h"

#include "models/config.h"
#include "nf/error.h"
#include "nf/file.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLargest = int64_t{1} << 24;

}  // namespace

fs::path find_config_file(const std::string& name) {
  std::error_code ignored;
  if (!fs::is_directory(name, ignored)) return find_config(name);
  fs::path inside = fs::path(name) / "config.json";
  if (fs::is_regular_file(inside, ignored)) return inside;
  try {
    return find_config(name);  // a folder that happens to be called like a shipped config
  } catch (const Error&) {
    fail("{}: no config.json in this folder; give a config file, a run's folder, or a shipped config: {}",
         name, kShippedConfigs);
  }
}

std::string read_config_file(const fs::path& file) {
  std::string text = read_file(file, kLargest);
  require(text.find_first_not_of(" \t\r\n") != std::string::npos,
          "{}: the file is empty; a config is a JSON object, for example the shipped {}", file.string(),
          kShippedConfigs);
  return text;
}

}  // namespace nf
