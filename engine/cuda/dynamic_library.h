// Libraries that are opened when they are needed: a program that runs on the CPU does not load half a
// gigabyte of them.
#pragma once

#include <dlfcn.h>

#include <string>

#include "nf/error.h"

namespace nf::cuda {

class DynamicLibrary {
 public:
  // Looks where the system does, then in `folder`. Throws Error with the loader's words. The library stays
  // loaded: what it gave may outlive this object.
  DynamicLibrary(const std::string& name, const std::string& folder) : name_(name) {
    handle_ = ::dlopen(name.c_str(), RTLD_NOW);
    if (handle_ == nullptr) handle_ = ::dlopen((folder + "/" + name).c_str(), RTLD_NOW);
    if (handle_ == nullptr) fail("cuda: {} cannot be loaded: {}", name, ::dlerror());
  }

  // Fills in the address of a function.
  template <typename Function>
  void find(const char* name, Function*& function) const {
    function = reinterpret_cast<Function*>(::dlsym(handle_, name));
    require(function != nullptr, "cuda: {} has no {}", name_, name);
  }

 private:
  std::string name_;
  void* handle_ = nullptr;
};

}  // namespace nf::cuda
