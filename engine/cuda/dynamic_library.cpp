#include "cuda/dynamic_library.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

namespace nf::cuda {
namespace {

namespace fs = std::filesystem;

// Where a program was built is not where it runs: there CUDA may be installed elsewhere, or be a part of
// PyTorch alone. NF_CUDA_LIBRARIES names folders, between colons, for what is nowhere else.
std::vector<fs::path> folders() {
  std::vector<fs::path> result{NF_CUDA_LIBRARIES};
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"})
    if (const char* home = std::getenv(variable); home != nullptr && *home != 0)
      result.push_back(fs::path(home) / "lib64");
  result.emplace_back("/usr/local/cuda/lib64");
  const char* value = std::getenv("NF_CUDA_LIBRARIES");
  std::string more = value != nullptr ? value : "";
  while (!more.empty()) {
    const size_t end = std::min(more.find(':'), more.size());
    if (end > 0) result.emplace_back(more.substr(0, end));
    more.erase(0, end + 1);
  }
  return result;
}

}  // namespace

DynamicLibrary::DynamicLibrary(const std::string& name) : name_(name) {
  handle_ = ::dlopen(name.c_str(), RTLD_NOW);
  if (handle_ != nullptr) return;
  std::string why = ::dlerror();
  for (const fs::path& folder : folders()) {
    std::error_code error;
    const fs::path file = folder / name;
    if (!fs::exists(file, error)) continue;
    handle_ = ::dlopen(file.c_str(), RTLD_NOW);
    if (handle_ != nullptr) return;
    why = ::dlerror();
  }
  fail("cuda: {} cannot be loaded: {}; it is part of CUDA's toolkit: LD_LIBRARY_PATH may name its folder",
       name, why);
}

void* DynamicLibrary::address(const char* name) const { return ::dlsym(handle_, name); }

void DynamicLibrary::open_companion(const std::string& name) const {
  const link_map* map = nullptr;
  if (::dlinfo(handle_, RTLD_DI_LINKMAP, &map) != 0) return;
  ::dlopen((fs::path(map->l_name).parent_path() / name).c_str(), RTLD_NOW);
}

}  // namespace nf::cuda
