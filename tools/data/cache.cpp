#include "tools/data/cache.h"

#include <fcntl.h>
#include <nf/error.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "nf/file.h"
#include "tools/environment.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

void remove_partial(const fs::path& folder, const std::string& prefix) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code ignored;
    const std::string name = entry->path().filename().string();
    if (name.starts_with(prefix) && name.ends_with(".partial")) fs::remove(entry->path(), ignored);
  }
}

}  // namespace

FileLock::FileLock(const fs::path& path, const std::function<void()>& waiting)
    : descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
  require(descriptor_ >= 0, "cache: cannot write {}: {}; set NF_CACHE to another folder", path.string(),
          std::generic_category().message(errno));
  held_ = ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0;
  if (held_ || errno != EWOULDBLOCK) return;
  if (waiting) waiting();
  int status = 0;
  while ((status = ::flock(descriptor_, LOCK_EX)) != 0 && errno == EINTR) {
  }
  held_ = status == 0;
}

FileLock::~FileLock() { ::close(descriptor_); }

std::optional<fs::path> cache_folder() {
  if (const std::string given = environment("NF_CACHE"); !given.empty()) return given;
  if (const std::string base = environment("XDG_CACHE_HOME"); !base.empty())
    return fs::path(base) / "nanoformer";
  if (const std::string home = environment("HOME"); !home.empty())
    return fs::path(home) / ".cache" / "nanoformer";
  return std::nullopt;
}

void make_once(const fs::path& path, const std::function<bool()>& ready, const std::function<void()>& waiting,
               const std::function<void(const fs::path& partial)>& make) {
  const fs::path folder = path.parent_path();
  std::error_code error;
  fs::create_directories(folder, error);
  require(!error, "cache: cannot create {}: {}; set NF_CACHE to another folder", folder.string(),
          error.message());
  const std::string name = path.filename().string();
  const FileLock lock(folder / (name + ".lock"), waiting);
  if (lock.held()) remove_partial(folder, name + ".");
  if (ready()) return;
  const fs::path partial = folder / fmt::format("{}.{}.partial", name, ::getpid());
  try {
    make(partial);
    fs::rename(partial, path, error);
    require(!error, "cache: cannot rename {}: {}", partial.string(), error.message());
    sync_folder(folder);
  } catch (...) {
    fs::remove(partial, error);
    throw;
  }
}

}  // namespace nf
