// The texts that a small program reads, and the flags that choose them. nf-train has the same among its
// settings.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tools/arguments.h"
#include "tools/data/source.h"

namespace nf {

struct Texts {
  std::vector<std::string> paths;
  SourceOptions options;

  bool empty() const { return paths.empty(); }
  std::unique_ptr<DocumentSource> open() const;  // says on standard error what is left out
};

// --data, --text-field, --subset, --split.
void data_flags(FlagTable& flags, Texts& texts);

}  // namespace nf
