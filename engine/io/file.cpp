#include "nf/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <memory>
#include <system_error>
#include <utility>

#include "base/hash.h"
#include "io/descriptor.h"
#include "nf/error.h"

namespace nf {
namespace {

[[noreturn]] void fail_system(const std::filesystem::path& path, std::string_view what) {
  fail("{}: {}: {}", path.string(), what, std::generic_category().message(errno));
}

void write_all(int descriptor, std::span<const std::byte> bytes, const std::filesystem::path& path) {
  constexpr size_t kPiece = size_t{1}
                            << 26;  // a signal or a full disk is noticed soon, and no call exceeds 2 GiB
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), std::min(bytes.size(), kPiece));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_system(path, "cannot write");
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

// A file that disappears unless keep() is called.
class PartialFile {
 public:
  explicit PartialFile(const std::filesystem::path& path) : path_(path) {
    descriptor_ = Descriptor(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (!descriptor_) fail_system(path, "cannot create");
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;
  ~PartialFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }

  int descriptor() const { return descriptor_.get(); }
  // Syncs and closes; some file systems report a full disk only here.
  void finish() {
    if (::fsync(descriptor_.get()) != 0) fail_system(path_, "cannot sync");
    if (::close(descriptor_.release()) != 0) fail_system(path_, "cannot close");
  }
  void keep() { path_.clear(); }

 private:
  std::filesystem::path path_;
  Descriptor descriptor_;
};

std::filesystem::path beside(const std::filesystem::path& path) {
  static std::atomic<uint64_t> counter{0};  // names only; two threads must not meet in one file
  return path.parent_path() / fmt::format(".{}.{}-{}.tmp", path.filename().string(), ::getpid(), counter++);
}

}  // namespace

std::string read_file(const std::filesystem::path& path, int64_t max_bytes) {
  const Mapping mapping = map_file(path);
  require(std::cmp_less_equal(mapping.bytes.size(), max_bytes), "{}: {} bytes, at most {} are accepted here",
          path.string(), mapping.bytes.size(), max_bytes);
  return {reinterpret_cast<const char*>(mapping.bytes.data()), mapping.bytes.size()};
}

uint64_t hash_file(const std::filesystem::path& path) {
  const Mapping mapping = map_file(path);
  return hash_bytes(mapping.bytes.data(), mapping.bytes.size());
}

WrittenFile write_file(const std::filesystem::path& path,
                       std::span<const std::span<const std::byte>> pieces) {
  const std::filesystem::path partial = beside(path);
  PartialFile file(partial);
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
  require(state != nullptr, "{}: out of memory", path.string());
  XXH3_64bits_reset(state.get());
  WrittenFile written;
  for (const auto piece : pieces) {
    write_all(file.descriptor(), piece, path);
    XXH3_64bits_update(state.get(), piece.data(), piece.size());
    written.bytes += static_cast<int64_t>(piece.size());
  }
  written.hash = XXH3_64bits_digest(state.get());
  file.finish();
  if (::rename(partial.c_str(), path.c_str()) != 0) fail_system(path, "cannot replace");
  file.keep();
  sync_folder(path.parent_path());
  return written;
}

WrittenFile write_file(const std::filesystem::path& path, std::string_view text) {
  const std::span<const std::byte> piece = std::as_bytes(std::span(text));
  return write_file(path, std::span(&piece, 1));
}

void sync_folder(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder.empty() ? "." : folder;
  const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!descriptor) fail_system(path, "cannot open folder");
  // Some file systems have nothing to sync in a folder and say EINVAL.
  if (::fsync(descriptor.get()) != 0 && errno != EINVAL) fail_system(path, "cannot sync folder");
}

}  // namespace nf
