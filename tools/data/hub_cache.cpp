#include "tools/data/hub_cache.h"

#include <nf/error.h>

#include <algorithm>
#include <cctype>

#include "nf/file.h"
#include "tools/environment.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

std::string trimmed(std::string text) {
  const auto is_blank = [](unsigned char letter) { return std::isspace(letter) != 0; };
  while (!text.empty() && is_blank(static_cast<unsigned char>(text.back()))) text.pop_back();
  text.erase(text.begin(), std::find_if_not(text.begin(), text.end(), is_blank));
  return text;
}

std::string read_if_there(const fs::path& path) {
  std::error_code ignored;
  constexpr int64_t kMost = 4096;
  return fs::is_regular_file(path, ignored) ? trimmed(read_file(path, kMost)) : "";
}

fs::path home() {
  if (const std::string given = environment("HF_HOME"); !given.empty()) return given;
  if (const std::string base = environment("XDG_CACHE_HOME"); !base.empty())
    return fs::path(base) / "huggingface";
  const std::string user = environment("HOME");
  require(!user.empty(), "hub: no folder for datasets: set HF_HOME");
  return fs::path(user) / ".cache" / "huggingface";
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  require(!error, "hub: cannot create {}: {}; set HF_HOME to another folder", folder.string(),
          error.message());
}

}  // namespace

HubSettings HubSettings::from_environment() {
  HubSettings settings;
  settings.endpoint = environment("HF_ENDPOINT");
  if (settings.endpoint.empty()) settings.endpoint = "https://huggingface.co";
  while (settings.endpoint.ends_with('/')) settings.endpoint.pop_back();
  settings.cache = environment("HF_HUB_CACHE");
  if (settings.cache.empty()) settings.cache = home() / "hub";
  std::string offline = environment("HF_HUB_OFFLINE");
  for (char& letter : offline) letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
  settings.offline = offline == "1" || offline == "ON" || offline == "YES" || offline == "TRUE";
  settings.token = trimmed(environment("HF_TOKEN"));
  if (settings.token.empty()) {
    const std::string path = environment("HF_TOKEN_PATH");
    settings.token = read_if_there(path.empty() ? home() / "token" : fs::path(path));
  }
  require(std::all_of(settings.token.begin(), settings.token.end(),
                      [](unsigned char letter) { return letter > 0x20 && letter < 0x7F; }),
          "hub: the token holds characters that no token has");
  return settings;
}

HubRepository::HubRepository(const HubSettings& settings, std::string_view dataset) : cache_(settings.cache) {
  std::string name = "datasets--";
  for (const char letter : dataset) name += letter == '/' ? std::string("--") : std::string(1, letter);
  folder_ = cache_ / name;
}

fs::path HubRepository::lock(const HubFile& file) const {
  const fs::path folder = cache_ / ".locks" / folder_.filename();
  make_folder(folder);
  make_folder(folder_ / "blobs");
  return folder / (file.hash + ".lock");
}

std::string HubRepository::commit(std::string_view revision) const {
  std::error_code ignored;
  if (fs::is_directory(folder_ / "snapshots" / revision, ignored)) return std::string(revision);
  return read_if_there(folder_ / "refs" / revision);
}

void HubRepository::set_commit(std::string_view revision, std::string_view commit) const {
  if (revision == commit) return;
  const fs::path path = folder_ / "refs" / revision;
  make_folder(path.parent_path());
  write_file(path, commit);
}

std::vector<std::string> HubRepository::files(std::string_view commit) const {
  std::vector<std::string> files;
  const fs::path root = folder_ / "snapshots" / commit;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(root, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code ignored;
    if (entry->is_regular_file(ignored)) files.push_back(entry->path().lexically_relative(root).string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

void HubRepository::link(std::string_view commit, const HubFile& file) const {
  const fs::path name = snapshot(commit, file.path);
  make_folder(name.parent_path());
  std::error_code error;
  if (fs::exists(name, error)) return;
  fs::remove(name, error);
  fs::create_symlink(blob(file).lexically_relative(name.parent_path()), name, error);
  require(!error || fs::exists(name), "hub: cannot create {}: {}", name.string(), error.message());
}

}  // namespace nf
