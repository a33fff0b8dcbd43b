#include "tools/output_paths.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>
#include <vector>

#include "nf/error.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

// The folder and those above it that are missing, made while this lives. Asking for permissions instead would
// not do: read-only file systems and the superuser have rules of their own.
class TrialFolders {
 public:
  TrialFolders(const fs::path& folder, std::string_view who) {
    std::error_code error;
    std::vector<fs::path> missing;
    for (fs::path at = fs::absolute(folder); !fs::exists(at, error) && at.has_relative_path();
         at = at.parent_path())
      if (at.has_filename()) missing.push_back(at);
    for (; !missing.empty(); missing.pop_back()) {
      const fs::path& next = missing.back();
      if (fs::create_directory(next, error)) made_.push_back(next);
      if (!error) continue;
      remove();
      fail("{}: {}: cannot create folder {}: {}", who, folder.string(), next.string(), error.message());
    }
  }
  TrialFolders(const TrialFolders&) = delete;
  TrialFolders& operator=(const TrialFolders&) = delete;
  ~TrialFolders() { remove(); }

 private:
  void remove() {
    std::error_code ignored;
    for (; !made_.empty(); made_.pop_back()) fs::remove(made_.back(), ignored);
  }

  std::vector<fs::path> made_;  // outermost first
};

}  // namespace

void check_output_folder(const fs::path& folder, std::string_view who) {
  std::error_code error;
  const TrialFolders made(folder, who);
  require(fs::is_directory(folder, error), "{}: {}: is a file, not a folder", who, folder.string());
  std::string trial = (folder / ".nf-trial-XXXXXX").string();
  const int descriptor = ::mkstemp(trial.data());
  require(descriptor >= 0, "{}: {}: cannot be written in: {}", who, folder.string(),
          std::generic_category().message(errno));
  ::close(descriptor);
  ::unlink(trial.c_str());
}

void check_output_file(const fs::path& file, std::string_view who) {
  std::error_code ignored;
  require(!fs::is_directory(file, ignored), "{}: {}: is a folder, not a file", who, file.string());
  check_output_folder(file.has_parent_path() ? file.parent_path() : fs::path("."), who);
}

void check_new_file(const fs::path& file, std::string_view who) {
  check_output_file(file, who);
  std::error_code ignored;
  require(!fs::is_regular_file(file, ignored), "{}: {}: is there already; nothing is overwritten", who,
          file.string());
}

void check_dump_folder() {
  if (const char* folder = std::getenv("NF_DUMP"); folder != nullptr && *folder != 0)
    check_output_folder(folder, "NF_DUMP");
}

}  // namespace nf
