// File descriptors and mappings that release themselves.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <utility>

namespace nf {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  Descriptor(Descriptor&& other) noexcept : descriptor_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~Descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

  explicit operator bool() const { return descriptor_ >= 0; }
  int get() const { return descriptor_; }
  int release() { return std::exchange(descriptor_, -1); }

 private:
  int descriptor_ = -1;
};

// A whole file in memory, read only; unmapped when the last copy of `owner` goes. An empty file has no owner.
struct Mapping {
  std::shared_ptr<const void> owner;
  std::span<const std::byte> bytes;
};

// Throws Error when `path` is not a readable regular file.
Mapping map_file(const std::filesystem::path& path);

}  // namespace nf
