// A file that is read here and there, without mapping it, so that a large one leaves no trace in memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

namespace nf {

class RandomFile {
 public:
  enum class Packed : uint8_t { unpack, as_it_is };

  // A file with .gz or .zst behind its name is unpacked first, into a nameless file in the folder of
  // temporary files, unless it is wanted as it is. Throws Error that names the file.
  explicit RandomFile(const std::filesystem::path& file, Packed packed = Packed::unpack);
  RandomFile(const RandomFile&) = delete;
  RandomFile& operator=(const RandomFile&) = delete;
  ~RandomFile();

  int64_t size() const { return size_; }
  const std::filesystem::path& path() const { return file_; }

  // Fills `out` from `offset`; Error where the file ends before that.
  void read(int64_t offset, std::span<char> out) const;

 private:
  std::filesystem::path file_;
  int descriptor_ = -1;
  int64_t size_ = 0;
};

}  // namespace nf
