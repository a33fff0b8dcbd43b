// A file that only grows: each record is there as a whole or not at all.
//
// A record is one write(), so that a killed process loses nothing it logged; a crash of the machine loses at
// most what came after sync(). All functions throw Error that names the file and the system's reason.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace nf {

class AppendFile {
 public:
  // Keeps the first `keep` bytes of what is there; makes the file when there is none.
  AppendFile(std::filesystem::path file, int64_t keep);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  // After an Error (a full disk, say) the file ends with the record before.
  void append(std::string_view record);
  void sync();
  void close();  // syncs; a second call does nothing

  int64_t size() const { return size_; }
  const std::filesystem::path& path() const { return file_; }

 private:
  std::filesystem::path file_;
  int descriptor_ = -1;
  int64_t size_ = 0;  // of the whole records
};

}  // namespace nf
