// What the fuzzers share. A reader of untrusted bytes either throws nf::Error or gives a valid result; any
// other exception ends the process, and so does a property that does not hold.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "nf/error.h"
#include "tests/support/folder.h"

namespace nf::fuzz {

inline std::string text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

inline void expect(bool holds, const char* property) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", property);
  std::abort();
}

// Whether the reader took the input; false when it threw Error.
template <typename Read>
bool accepts(Read&& read) {
  try {
    std::forward<Read>(read)();
  } catch (const Error&) {
    return false;
  }
  return true;
}

// For readers of files: one folder for all inputs of a process.
inline const Folder& folder() {
  static const Folder folder;
  return folder;
}

}  // namespace nf::fuzz
