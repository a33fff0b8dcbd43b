#include "tools/tracking/append_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "nf/error.h"

namespace nf {

AppendFile::AppendFile(std::filesystem::path file, int64_t keep) : file_(std::move(file)) {
  const int truncate = keep == 0 ? O_TRUNC : 0;
  descriptor_ = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | truncate, 0644);
  require(descriptor_ >= 0, "tracking: cannot open {}: {}", file_.string(), std::strerror(errno));
  size_ = ::lseek(descriptor_, 0, SEEK_END);
  if (keep == 0 || size_ <= keep) return;
  const bool cut = ::ftruncate(descriptor_, keep) == 0;
  const int reason = errno;
  if (!cut) ::close(std::exchange(descriptor_, -1));
  require(cut, "tracking: cannot shorten {}: {}", file_.string(), std::strerror(reason));
  size_ = keep;
}

AppendFile::~AppendFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void AppendFile::append(std::string_view record) {
  require(descriptor_ >= 0, "tracking: {} is closed", file_.string());
  for (std::string_view rest = record; !rest.empty();) {
    const ssize_t written = ::write(descriptor_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int reason = errno;
      // Should this fail too, resuming drops the half record.
      [[maybe_unused]] const int undone = ::ftruncate(descriptor_, size_);
      fail("tracking: cannot write {}: {}", file_.string(), std::strerror(reason));
    }
    rest.remove_prefix(static_cast<size_t>(written));
  }
  size_ += static_cast<int64_t>(record.size());
}

void AppendFile::sync() {
  if (descriptor_ < 0) return;
  // EINVAL: a pipe or a device, which has nothing to sync.
  require(::fsync(descriptor_) == 0 || errno == EINVAL, "tracking: cannot sync {}: {}", file_.string(),
          std::strerror(errno));
}

void AppendFile::close() {
  if (descriptor_ < 0) return;
  sync();
  const int descriptor = std::exchange(descriptor_, -1);
  require(::close(descriptor) == 0, "tracking: cannot close {}: {}", file_.string(), std::strerror(errno));
}

}  // namespace nf
