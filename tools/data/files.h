// Which files a list of paths names.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tools/data/hub.h"

namespace nf {

struct FoundFile {
  std::filesystem::path path;
  bool named;  // by the user, not met in a folder or by a pattern
};

// Folders are searched recursively, patterns expanded; see open_documents(). Index files of fortune (X.dat
// beside X, and links X.u8) are left out even when named, for a shell expands `fortunes/*` to them too.
// What is no path but could be a dataset of the hub is fetched (hub.h). Throws Error for a path that does not
// exist or cannot be read.
std::vector<FoundFile> find_files(const std::vector<std::string>& paths, const HubChoice& choice = {});

}  // namespace nf
