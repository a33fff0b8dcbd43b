#include "cuda/cache.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "nf/error.h"

namespace nf::cuda {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// Empty when there is to be none.
fs::path cache_folder() {
  if (const std::string chosen = environment("NF_CUDA_CACHE"); !chosen.empty())
    return chosen == "off" ? "" : chosen;
  const std::string home = environment("HOME"), cache = environment("XDG_CACHE_HOME");
  if (cache.empty() && home.empty()) return {};
  return fs::path(cache.empty() ? home + "/.cache" : cache) / "nanoformer" / "cuda";
}

}  // namespace

bool has_cache() { return !cache_folder().empty(); }

std::string read_cached(const std::string& name) {
  const fs::path folder = cache_folder();
  if (folder.empty()) return {};
  std::ifstream file(folder / name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_cached(const std::string& name, const std::string& content) {
  static std::atomic<int> count = 0;
  const fs::path folder = cache_folder();
  if (folder.empty()) return;
  std::error_code error;
  fs::create_directories(folder, error);
  const fs::path partial = folder / fmt::format(".{}.{}-{}", name, ::getpid(), count++);
  std::ofstream file(partial, std::ios::binary);
  file << content;
  file.close();
  if (file) fs::rename(partial, folder / name, error);
  if (!file || error) fs::remove(partial, error);
}

}  // namespace nf::cuda
