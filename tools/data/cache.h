// Where the programs keep what took long to make, and how processes share it.
//
// The folder is NF_CACHE, else XDG_CACHE_HOME/nanoformer, else ~/.cache/nanoformer. Everything in it may be
// removed at any time: it is made again.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>

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
