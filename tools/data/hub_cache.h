// The hub's cache and settings, as its own libraries lay them out.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace nf {

struct HubSettings {
  std::string endpoint;         // without a slash at its end
  std::string token;            // empty: none
  std::filesystem::path cache;  // holds datasets--OWNER--NAME
  bool offline = false;

  static HubSettings from_environment();
};

// One file of a repository.
struct HubFile {
  std::string path;
  int64_t size = 0;
  std::string hash;  // SHA-256 of a large file, git's hash of a small one; names the blob
  bool is_large = false;
};

// The folder of one dataset in the cache.
class HubRepository {
 public:
  HubRepository(const HubSettings& settings, std::string_view dataset);

  std::filesystem::path blob(const HubFile& file) const { return folder_ / "blobs" / file.hash; }
  std::filesystem::path lock(const HubFile& file) const;
  std::filesystem::path snapshot(std::string_view commit, std::string_view path) const {
    return folder_ / "snapshots" / commit / path;
  }

  // The commit that a revision was when it was last asked for (a commit is itself); empty: not known.
  std::string commit(std::string_view revision) const;
  void set_commit(std::string_view revision, std::string_view commit) const;

  // Files of a commit that are here.
  std::vector<std::string> files(std::string_view commit) const;

  // Makes the snapshot's name for a blob.
  void link(std::string_view commit, const HubFile& file) const;

 private:
  std::filesystem::path cache_, folder_;
};

}  // namespace nf
