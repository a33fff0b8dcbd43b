#include "tools/data/random_file.h"

#include <fcntl.h>
#include <nf/error.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <system_error>
#include <vector>

#include "tools/data/byte_stream.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_system(const fs::path& file, std::string_view what) {
  fail("data: cannot {} {}: {}", what, file.string(), std::generic_category().message(errno));
}

void write_all(int descriptor, std::span<const char> bytes, const fs::path& file) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_system(file, "unpack into the folder of temporary files");
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
}

int nameless_file(const fs::path& file) {
  std::string name = (fs::temp_directory_path() / "nanoformer-XXXXXX").string();
  const int descriptor = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor < 0) fail_system(file, "unpack into the folder of temporary files");
  ::unlink(name.c_str());
  return descriptor;
}

}  // namespace

RandomFile::RandomFile(const fs::path& file, Packed how) : file_(file) {
  const bool packed = how == Packed::unpack && unpacked_name(file) != file;
  descriptor_ = packed ? nameless_file(file) : ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) fail_system(file, "open");
  try {
    if (packed) {
      const auto stream = open_stream(file);
      std::vector<char> block(size_t{1} << 20);
      while (const size_t count = stream->read(block))
        write_all(descriptor_, std::span(block).first(count), file);
    }
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0) fail_system(file, "examine");
    size_ = status.st_size;
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

RandomFile::~RandomFile() { ::close(descriptor_); }

void RandomFile::read(int64_t offset, std::span<char> out) const {
  while (!out.empty()) {
    const ssize_t count = ::pread(descriptor_, out.data(), out.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_system(file_, "read");
    require(count > 0, "data: {} ends at byte {}, earlier than it should", file_.string(), offset);
    out = out.subspan(static_cast<size_t>(count));
    offset += count;
  }
}

}  // namespace nf
