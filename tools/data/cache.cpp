#include "tools/data/cache.h"

#include <fcntl.h>
#include <nf/error.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <system_error>
#include <vector>

#include "nf/file.h"
#include "nf/json.h"
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

// Removes a file unless somebody has a lock on `lock`, which may be the file itself.
bool remove_unlocked(const fs::path& path, const fs::path& lock) {
  const int descriptor = ::open(lock.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return false;
  std::error_code error;
  const bool removed = ::flock(descriptor, LOCK_EX | LOCK_NB) == 0 && fs::remove(path, error);
  ::close(descriptor);
  return removed;
}

struct Cached {
  fs::path path;
  int64_t bytes;
  fs::file_time_type used;
};

// The whole files of a folder; those half written are removed on the way, unless somebody is writing them.
std::vector<Cached> cached_files(const fs::path& folder, std::string_view extension) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    paths.push_back(entry->path());
  std::vector<Cached> files;
  for (const fs::path& path : paths) {
    if (path.extension() == ".partial") {  // NAME.PROCESS.partial, see make_once
      const fs::path lock = fs::path(path).replace_extension().replace_extension(".lock");
      remove_unlocked(path, fs::exists(lock, error) ? lock : path);
    } else if (path.extension() == extension) {
      std::error_code failed;
      Cached file{path, static_cast<int64_t>(fs::file_size(path, failed)), {}};
      if (!failed) file.used = fs::last_write_time(path, failed);
      if (!failed) files.push_back(std::move(file));
    }
  }
  return files;
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

void mark_used(int descriptor) {
  ::flock(descriptor, LOCK_SH | LOCK_NB);
  const struct timespec now[2] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT}, {.tv_sec = 0, .tv_nsec = UTIME_NOW}};
  ::futimens(descriptor, now);
}

int64_t cache_limit(const fs::path& folder) {
  constexpr int64_t kGigabyte = 1'000'000'000, kMost = INT64_MAX / kGigabyte;
  const std::string given = environment("NF_CACHE_GB");
  if (given == "off") return INT64_MAX;
  if (!given.empty()) {
    int64_t gigabytes = -1;
    const auto [end, error] = std::from_chars(given.data(), given.data() + given.size(), gigabytes);
    require(
        error == std::errc() && end == given.data() + given.size() && gigabytes >= 0 && gigabytes <= kMost,
        "cache: NF_CACHE_GB is '{}', neither a whole number of gigabytes nor off", printable(given));
    return gigabytes * kGigabyte;
  }
  std::error_code failed;
  const fs::space_info disk = fs::space(folder, failed);
  const int64_t fifth = failed ? INT64_MAX : static_cast<int64_t>(disk.capacity / 5);
  return std::min(50 * kGigabyte, fifth);
}

Pruned prune(const fs::path& folder, std::string_view extension, int64_t limit) {
  std::vector<Cached> files = cached_files(folder, extension);
  std::ranges::sort(files, {}, [](const Cached& file) { return std::pair(file.used, file.path); });
  int64_t held = 0;
  for (const Cached& file : files) held += file.bytes;
  Pruned pruned;
  for (const Cached& file : files) {
    if (held <= limit) break;
    if (!remove_unlocked(file.path, file.path)) continue;
    held -= file.bytes;
    pruned.bytes += file.bytes;
    ++pruned.files;
  }
  return pruned;
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
