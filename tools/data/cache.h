// Where the programs keep what took long to make, and how processes share it.
//
// The folder is NF_CACHE, else XDG_CACHE_HOME/nanoformer, else ~/.cache/nanoformer. Everything in it may be
// removed at any time: it is made again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>

namespace nf {

// nullopt where nobody says which folder (no HOME).
std::optional<std::filesystem::path> cache_folder();

// A lock between processes (flock), held until this goes or the process ends. Waits while another has it;
// `waiting` is called before that. Throws Error where the file cannot be written.
class FileLock {
 public:
  explicit FileLock(const std::filesystem::path& path, const std::function<void()>& waiting = {});
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  ~FileLock();

  bool held() const { return held_; }  // false: the file system knows no locks

 private:
  int descriptor_;
  bool held_ = false;
};

// Says that a file is in use, or was just now: while the descriptor, which is open for reading, lives,
// prune() leaves the file alone; after that it is the last to go.
void mark_used(int descriptor);

// The bytes that a folder of the cache may hold: NF_CACHE_GB gigabytes, of any size where that is "off"; else
// 50 GB or a fifth of the disk, whichever is less. Throws Error for an NF_CACHE_GB that is neither.
int64_t cache_limit(const std::filesystem::path& folder);

// Removes what dead processes left half written in `folder`, and files with this extension (".tokens") until
// the others hold at most `limit` bytes: those first whose last use is longest ago, and none that is in use
// (see mark_used) or could be, where the file system knows no locks. What cannot be removed stays.
struct Pruned {
  int64_t files = 0, bytes = 0;  // whole ones
};
Pruned prune(const std::filesystem::path& folder, std::string_view extension, int64_t limit);

// Makes `path` at most once among all processes: takes the lock beside it, waiting where another process has
// it (`waiting` is called before), and calls make(partial) with the name of a file to write beside it, unless
// ready() says that the file has appeared meanwhile. Then partial is renamed to `path`. A process that dies
// leaves no lock, and what it left half written is removed by the next one. Where the folder knows no locks,
// processes make the file independently and the last one wins. Throws what make throws; Error where the
// folder cannot be written.
void make_once(const std::filesystem::path& path, const std::function<bool()>& ready,
               const std::function<void()>& waiting,
               const std::function<void(const std::filesystem::path& partial)>& make);

}  // namespace nf
