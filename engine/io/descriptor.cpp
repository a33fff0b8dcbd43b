#include "io/descriptor.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <system_error>

#include "nf/error.h"

namespace nf {

Mapping map_file(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a named pipe must not wait for a writer.
  const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  require(bool(descriptor), "{}: cannot open: {}", path.string(), std::generic_category().message(errno));
  struct stat status {};
  require(::fstat(descriptor.get(), &status) == 0, "{}: cannot examine: {}", path.string(),
          std::generic_category().message(errno));
  require(S_ISREG(status.st_mode), "{}: not a regular file", path.string());
  const auto size = static_cast<size_t>(status.st_size);
  if (size == 0) return {};
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor.get(), 0);
  require(address != MAP_FAILED, "{}: cannot map {} bytes: {}", path.string(), size,
          std::generic_category().message(errno));
  std::shared_ptr<const void> owner(address, [size](const void* p) { ::munmap(const_cast<void*>(p), size); });
  return {std::move(owner), {static_cast<const std::byte*>(address), size}};
}

}  // namespace nf
