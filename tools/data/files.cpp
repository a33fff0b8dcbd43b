#include "tools/data/files.h"

#include <glob.h>
#include <nf/error.h>

#include <algorithm>
#include <set>

namespace nf {
namespace {

namespace fs = std::filesystem;

bool is_fortune_index(const fs::path& path) {
  const fs::path extension = path.extension();
  if (extension != ".dat" && extension != ".u8") return false;
  std::error_code ignored;
  fs::path sibling = path;
  sibling.replace_extension();
  return fs::is_regular_file(sibling, ignored) && (extension == ".dat" || fs::is_symlink(path, ignored));
}

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

std::vector<fs::path> files_in_folder(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  fs::path last = folder;  // the folder being read when an error comes
  fs::recursive_directory_iterator entry(folder, error);
  while (!error && entry != fs::recursive_directory_iterator()) {
    last = entry->path();
    std::error_code ignored;
    if (is_hidden(entry->path()))
      entry.disable_recursion_pending();
    else if (entry->is_regular_file(ignored))
      files.push_back(entry->path());
    entry.increment(error);
  }
  require(!error, "data: cannot read folder {}: {}", last.string(), error.message());
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<fs::path> expand_pattern(const std::string& pattern) {
  glob_t found{};
  const int status = ::glob(pattern.c_str(), GLOB_NOSORT | GLOB_ERR, nullptr, &found);
  std::vector<fs::path> matches(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  require(status != GLOB_ABORTED, "data: cannot read a folder that the pattern {} passes through", pattern);
  std::sort(matches.begin(), matches.end());  // not by the locale, as glob() would
  return matches;
}

// Everything one path of the user's stands for.
std::vector<FoundFile> expand(const std::string& path, const HubChoice& choice) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_regular_file(status)) return {{path, true}};

  std::vector<FoundFile> files;
  const auto add_folder = [&](const fs::path& folder) {
    for (fs::path& file : files_in_folder(folder)) files.push_back({std::move(file), false});
  };
  if (fs::is_directory(status)) {
    add_folder(path);
    return files;
  }
  require(!fs::exists(status), "data: {} is neither a file nor a folder", path);
  require(status.type() == fs::file_type::not_found, "data: cannot read {}: {}", path, error.message());
  if (path.find_first_of("*?[") == std::string::npos) {
    require(looks_like_dataset(path), "data: {} does not exist", path);
    for (fs::path& file : fetch_dataset(path, choice)) files.push_back({std::move(file), true});
    return files;
  }
  for (fs::path& match : expand_pattern(path)) {
    if (fs::is_directory(match, error))
      add_folder(match);
    else if (fs::is_regular_file(match, error))
      files.push_back({std::move(match), false});
  }
  require(!files.empty(), "data: no file matches {}", path);
  return files;
}

}  // namespace

std::vector<FoundFile> find_files(const std::vector<std::string>& paths, const HubChoice& choice) {
  std::vector<FoundFile> files;
  std::set<fs::path> seen;
  for (const std::string& path : paths) {
    for (FoundFile& file : expand(path, choice)) {
      std::error_code error;
      const fs::path real = fs::canonical(file.path, error);
      if (is_fortune_index(file.path) || (!error && !seen.insert(real).second)) continue;
      files.push_back(std::move(file));
    }
  }
  return files;
}

}  // namespace nf
