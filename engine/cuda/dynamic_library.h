// Libraries that are opened when they are needed: a program that runs on the CPU does not load half a
// gigabyte of them.
#pragma once

#include <string>

#include "nf/error.h"

namespace nf::cuda {

class DynamicLibrary {
 public:
  // Looks where the system does, then where CUDA is usually installed (see the source). Throws Error with the
  // loader's words. The library stays loaded: what it gave may outlive this object.
  explicit DynamicLibrary(const std::string& name);

  // Fills in the address of a function.
  template <typename Function>
  void find(const char* name, Function*& function) const {
    function = reinterpret_cast<Function*>(address(name));
    require(function != nullptr, "cuda: {} has no {}", name_, name);
  }

  // Opens one from the folder that this one came from, so that it is there when this one asks for it by its
  // bare name. That it may be missing is for this one to say.
  void open_companion(const std::string& name) const;

 private:
  void* address(const char* name) const;

  std::string name_;
  void* handle_ = nullptr;
};

}  // namespace nf::cuda
