#include "tools/data/hub.h"

#include <fcntl.h>
#include <nf/error.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <thread>

#include "nf/json.h"
#include "tools/data/cache.h"
#include "tools/data/http.h"
#include "tools/data/hub_cache.h"
#include "tools/data/random_file.h"
#include "tools/data/sha.h"
#include "tools/data/slow_progress.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kTries = 5;              // of a request that may yet succeed
constexpr int kUnreached = 3;          // of one whose server does not answer at all
constexpr int kRedirections = 5;       // of one request
constexpr int kPages = 1000;           // of a listing
constexpr int64_t kLongestWait = 300;  // seconds, when a server asks for patience
constexpr std::string_view kConverted = "refs/convert/parquet", kMain = "main";

// Scheme, host and port.
std::string_view origin_of(std::string_view url) {
  const size_t scheme = url.find("://");
  return url.substr(0, scheme == std::string_view::npos ? url.size() : url.find('/', scheme + 3));
}

std::string escaped(std::string_view path, std::string_view kept) {
  std::string out;
  for (const char letter : path) {
    const auto byte = static_cast<unsigned char>(letter);
    if (std::isalnum(byte) != 0 || std::string_view("-._~").find(letter) != std::string_view::npos ||
        kept.find(letter) != std::string_view::npos)
      out += letter;
    else
      out += fmt::format("%{:02X}", byte);
  }
  return out;
}

bool is_hexadecimal(std::string_view text, size_t size) {
  return text.size() == size && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// A path that stays inside the folder it is put in.
bool is_inside(const fs::path& path) {
  return !path.empty() && path.is_relative() && path.lexically_normal() == path && *path.begin() != ".." &&
         *path.begin() != "." && path.has_filename();
}

// The hub does not answer, or only that it cannot.
class Unreachable : public Error {
 public:
  using Error::Error;
};

class Hub {
 public:
  explicit Hub(std::string dataset)
      : settings_(HubSettings::from_environment()),
        dataset_(std::move(dataset)),
        repository_(settings_, dataset_) {}

  std::vector<fs::path> fetch(std::string_view revision, const HubChoice& choice);

 private:
  struct Listing {
    std::string commit;
    std::vector<HubFile> files;
  };

  HttpResponse get(const std::string& url, HttpRequest request = {}) const;
  HttpResponse ask(const std::string& url, const HttpRequest& request) const;
  [[noreturn]] void refuse(const HttpResponse& response, const std::string& url) const;
  std::optional<std::string> find_commit(std::string_view revision) const;
  std::optional<Listing> list(std::string_view revision) const;
  HubFile parse_file(const json& entry) const;
  std::vector<fs::path> fetch_chosen(std::string_view revision, bool converted, const HubChoice& choice,
                                     const Listing& listing) const;
  std::vector<fs::path> online(std::string_view revision, const HubChoice& choice) const;
  std::vector<fs::path> offline(std::string_view revision, const HubChoice& choice) const;
  std::string_view revision_here(std::string_view revision) const;
  void download(const HubFile& file, std::string_view commit) const;
  bool download_once(const HubFile& file, const std::string& url, const fs::path& partial) const;

  HubSettings settings_;
  std::string dataset_;
  HubRepository repository_;
};

// --- requests

// One request, its redirections followed. The token goes to the endpoint alone.
HttpResponse Hub::ask(const std::string& first, const HttpRequest& request) const {
  std::string url = first;
  for (int hop = 0; hop <= kRedirections; ++hop) {
    HttpRequest next = request;
    next.url = url;
    if (origin_of(url) == origin_of(settings_.endpoint)) next.token = settings_.token;
    HttpResponse response = http_get(next);
    const bool redirected = response.status == 301 || response.status == 302 || response.status == 303 ||
                            response.status == 307 || response.status == 308;
    const auto location = response.headers.find("location");
    if (!redirected || !response.failure.empty() || location == response.headers.end()) return response;
    const std::string& target = location->second;
    const bool secure = url.starts_with("https://");
    if (target.starts_with("//"))
      url = url.substr(0, url.find("//")) + target;
    else if (target.starts_with('/'))
      url = std::string(origin_of(url)) + target;
    else
      url = target;
    require(url.starts_with("https://") || (!secure && url.starts_with("http://")),
            "hub: {} redirects to {}, which is not safe", first, url);
  }
  fail("hub: {} redirects without end", first);
}

// Seconds to wait before the n-th try, from 0; none when another try would not help.
std::optional<int64_t> patience(const HttpResponse& response, int tried) {
  const bool busy = response.status == 429 || response.status >= 500 || response.status == 408;
  if (!busy && response.failure.empty()) return std::nullopt;
  const auto header = response.headers.find("retry-after");
  if (busy && header != response.headers.end() && !header->second.empty() && header->second.size() < 6 &&
      std::all_of(header->second.begin(), header->second.end(),
                  [](unsigned char letter) { return std::isdigit(letter) != 0; }))
    return std::min<int64_t>(std::stol(header->second), kLongestWait);
  return int64_t{1} << tried;
}

HttpResponse Hub::get(const std::string& url, HttpRequest request) const {
  HttpResponse response;
  for (int tried = 0; tried < kTries; ++tried) {
    response = ask(url, request);
    const auto wait = patience(response, tried);
    if (!wait || tried + 1 == (response.failure.empty() ? kTries : kUnreached)) break;
    if (*wait > 2) fmt::print(stderr, "{} asks for patience: trying again in {} s\n", origin_of(url), *wait);
    std::this_thread::sleep_for(std::chrono::seconds(*wait));
  }
  if (!response.failure.empty())
    throw Unreachable(fmt::format("hub: cannot fetch {}: {}", url, response.failure));
  return response;
}

void Hub::refuse(const HttpResponse& response, const std::string& url) const {
  const std::string page = settings_.endpoint + "/datasets/" + dataset_;
  const bool known = !settings_.token.empty();
  if (response.status == 401 || response.status == 404)
    fail("hub: there is neither a file nor a dataset {}{}", dataset_,
         known ? ", or the token may not read it"
               : ", or it is private: put a token into HF_TOKEN to read it");
  if (response.status == 403)
    fail("hub: {} is gated: accept its terms at {}{}", dataset_, page,
         known ? ", with the account of the token" : " and put a token into HF_TOKEN");
  const std::string what = fmt::format("hub: {} answers {} to {}", origin_of(url), response.status, url);
  if (response.status >= 500) throw Unreachable(what);
  throw Error(what);
}

// --- what there is

std::optional<std::string> Hub::find_commit(std::string_view revision) const {
  const std::string url =
      fmt::format("{}/api/datasets/{}/revision/{}", settings_.endpoint, dataset_, escaped(revision, ""));
  const HttpResponse response = get(url);
  if (response.status == 404 && revision != kMain) return std::nullopt;
  if (response.status != 200) refuse(response, url);
  const json answer = json::parse(response.body, nullptr, false);
  const bool good = answer.is_object() && answer.contains("sha") && answer["sha"].is_string();
  const std::string commit = good ? answer["sha"].get<std::string>() : "";
  require(is_hexadecimal(commit, 40), "hub: {} does not tell the commit of {}", origin_of(url), dataset_);
  return commit;
}

HubFile Hub::parse_file(const json& entry) const {
  const auto text = [](const json& object, const char* key) {
    return object.is_object() && object.contains(key) && object[key].is_string()
               ? object[key].get<std::string>()
               : std::string();
  };
  HubFile file;
  file.path = text(entry, "path");
  if (entry.contains("size") && entry["size"].is_number_integer()) file.size = entry["size"].get<int64_t>();
  file.is_large = entry.contains("lfs") && entry["lfs"].is_object();
  file.hash = file.is_large ? text(entry["lfs"], "oid") : text(entry, "oid");
  if (file.is_large && entry["lfs"].contains("size") && entry["lfs"]["size"].is_number_integer())
    file.size = entry["lfs"]["size"].get<int64_t>();
  require(is_inside(file.path) && file.size >= 0 && is_hexadecimal(file.hash, file.is_large ? 64 : 40),
          "hub: {} lists a file of {} that cannot be: '{}'", settings_.endpoint, dataset_,
          printable(file.path));
  return file;
}

std::optional<Hub::Listing> Hub::list(std::string_view revision) const {
  const auto commit = find_commit(revision);
  if (!commit) return std::nullopt;
  Listing listing{*commit, {}};
  std::string url = fmt::format("{}/api/datasets/{}/tree/{}?recursive=true", settings_.endpoint, dataset_,
                                escaped(*commit, ""));
  for (int page = 0; !url.empty(); ++page) {
    require(page < kPages, "hub: the listing of {} does not end", dataset_);
    const HttpResponse response = get(url);
    if (response.status != 200) refuse(response, url);
    const json answer = json::parse(response.body, nullptr, false);
    require(answer.is_array(), "hub: {} does not list the files of {}", settings_.endpoint, dataset_);
    for (const json& entry : answer)
      if (entry.is_object() && entry.value("type", json()) == "file")
        listing.files.push_back(parse_file(entry));
    // <URL>; rel="next"
    const auto link = response.headers.find("link");
    url.clear();
    if (link == response.headers.end() || link->second.find("rel=\"next\"") == std::string::npos) continue;
    const size_t begin = link->second.find('<'), end = link->second.find('>');
    if (begin != std::string::npos && end != std::string::npos && begin < end)
      url = link->second.substr(begin + 1, end - begin - 1);
    if (url.starts_with('/')) url = settings_.endpoint + url;
  }
  repository_.set_commit(revision, listing.commit);
  return listing;
}

// --- downloads

std::string hash_of(const HubFile& file, const fs::path& path) {
  ShaHash hash(file.is_large ? Sha::sha256 : Sha::sha1);
  if (!file.is_large) hash.add(fmt::format("blob {}", file.size) + '\0');  // as git does
  const RandomFile content(path, RandomFile::Packed::as_it_is);
  std::vector<char> block(size_t{1} << 20);
  for (int64_t at = 0; at < content.size();) {
    const auto count = static_cast<size_t>(std::min<int64_t>(content.size() - at, std::ssize(block)));
    content.read(at, std::span(block).first(count));
    hash.add({block.data(), count});
    at += static_cast<int64_t>(count);
  }
  return hash.hex();
}

// Appends to a file that may hold a part already, or begins it anew.
class PartialDownload {
 public:
  explicit PartialDownload(const fs::path& path)
      : path_(path), descriptor_(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644)) {
    require(descriptor_ >= 0, "hub: cannot write {}: {}", path.string(),
            std::generic_category().message(errno));
    size_ = ::lseek(descriptor_, 0, SEEK_END);
  }
  PartialDownload(const PartialDownload&) = delete;
  PartialDownload& operator=(const PartialDownload&) = delete;
  ~PartialDownload() { ::close(descriptor_); }

  int64_t size() const { return size_; }

  void restart() {
    if (::ftruncate(descriptor_, 0) != 0) fail_system();
    size_ = 0;
  }

  void append(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::pwrite(descriptor_, bytes.data(), bytes.size(), size_);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail_system();
      size_ += count;
      bytes.remove_prefix(static_cast<size_t>(count));
    }
  }

  void sync() {
    if (::fsync(descriptor_) != 0) fail_system();
  }

 private:
  [[noreturn]] void fail_system() const {
    fail("hub: cannot write {}: {}", path_.string(), std::generic_category().message(errno));
  }

  fs::path path_;
  int descriptor_;
  int64_t size_ = 0;
};

// True: the whole file is there and is the right one.
bool Hub::download_once(const HubFile& file, const std::string& url, const fs::path& partial) const {
  PartialDownload out(partial);
  if (out.size() > file.size) out.restart();
  SlowProgress progress(fmt::format("fetching {}, MB", file.path), file.size);
  for (int tried = 0; out.size() < file.size && tried < kTries; ++tried) {
    HttpRequest request{.url = {}, .first_byte = out.size()};
    bool begun = false;
    request.sink = [&](int status, std::string_view bytes) {
      if (!begun && status == 200) out.restart();  // the server sends all of it
      begun = true;
      require(out.size() + std::ssize(bytes) <= file.size,
              "hub: {} is longer than the {} bytes it should have", url, file.size);
      out.append(bytes);
      progress.update(out.size());
    };
    const HttpResponse response = ask(url, request);
    if (response.status == 416) out.restart();
    const auto wait = patience(response, tried);
    if (wait && tried + 1 < kTries) std::this_thread::sleep_for(std::chrono::seconds(*wait));
    if (wait || response.status == 416 || response.status == 206 || response.status == 200) continue;
    refuse(response, url);
  }
  require(out.size() == file.size, "hub: {} breaks off after {} of {} bytes; try again to go on from there",
          url, out.size(), file.size);
  out.sync();
  if (hash_of(file, partial) == file.hash) return true;
  out.restart();
  return false;
}

void Hub::download(const HubFile& file, std::string_view commit) const {
  const fs::path blob = repository_.blob(file);
  const std::string url = fmt::format("{}/datasets/{}/resolve/{}/{}", settings_.endpoint, dataset_, commit,
                                      escaped(file.path, "/"));
  std::error_code ignored;
  const FileLock lock(repository_.lock(file));
  if (!fs::exists(blob, ignored)) {
    const fs::path partial = blob.string() + ".incomplete";
    require(download_once(file, url, partial) || download_once(file, url, partial),
            "hub: {} has not the hash {} that the hub states", url, file.hash);
    std::error_code error;
    fs::rename(partial, blob, error);
    require(!error, "hub: cannot rename {}: {}", partial.string(), error.message());
  }
  repository_.link(commit, file);
}

// --- the whole

std::vector<fs::path> Hub::fetch_chosen(std::string_view revision, bool converted, const HubChoice& choice,
                                        const Listing& listing) const {
  std::vector<std::string> paths;
  for (const HubFile& file : listing.files) paths.push_back(file.path);
  std::vector<fs::path> local;
  for (const std::string& path : choose_dataset_files(paths, converted, choice, dataset_)) {
    const auto file = std::find_if(listing.files.begin(), listing.files.end(),
                                   [&](const HubFile& candidate) { return candidate.path == path; });
    local.push_back(repository_.snapshot(listing.commit, path));
    std::error_code ignored;
    if (!fs::exists(local.back(), ignored)) download(*file, listing.commit);
  }
  require(!local.empty(), "hub: {} has no files at {}", dataset_, revision);
  return local;
}

std::vector<fs::path> Hub::offline(std::string_view revision, const HubChoice& choice) const {
  const std::string commit = repository_.commit(revision);
  require(!commit.empty(), "hub: {} is not in the cache {}, and HF_HUB_OFFLINE is set", dataset_,
          settings_.cache.string());
  std::vector<fs::path> local;
  for (const std::string& path :
       choose_dataset_files(repository_.files(commit), revision == kConverted, choice, dataset_))
    local.push_back(repository_.snapshot(commit, path));
  // Of a set of shards, "…-00000-of-00004…", all must be there.
  for (const fs::path& file : local) {
    const std::string name = file.filename().string();
    const size_t of = name.find("-of-");
    if (of == std::string::npos) continue;
    const int64_t shards = std::strtoll(name.c_str() + of + 4, nullptr, 10);
    require(std::ssize(local) >= shards,
            "hub: the cache holds {} of the {} parts of {}, the others must be fetched from the hub",
            local.size(), shards, dataset_);
  }
  return local;
}

// The revision of the cache that stands for the one asked for.
std::string_view Hub::revision_here(std::string_view revision) const {
  if (!revision.empty()) return revision;
  const std::string converted = repository_.commit(kConverted);
  return converted.empty() || repository_.files(converted).empty() ? kMain : kConverted;
}

std::vector<fs::path> Hub::fetch(std::string_view revision, const HubChoice& choice) {
  if (settings_.offline) return offline(revision_here(revision), choice);
  try {
    return online(revision, choice);
  } catch (const Unreachable& error) {
    const std::string_view here = revision_here(revision);
    const std::string commit = repository_.commit(here);
    if (commit.empty() || repository_.files(commit).empty()) throw;
    fmt::print(stderr, "{}; using {} as the cache holds it, commit {}\n", error.what(), dataset_,
               commit.substr(0, 8));
    return offline(here, choice);
  }
}

std::vector<fs::path> Hub::online(std::string_view revision, const HubChoice& choice) const {
  const bool any = revision.empty();
  if (!any) {
    const auto listing = list(revision);
    require(listing.has_value(), "hub: {} has no revision {}", dataset_, revision);
    return fetch_chosen(revision, revision == kConverted, choice, *listing);
  }
  std::string why;  // the conversion does not do
  if (const auto listing = list(kConverted)) {
    try {
      std::vector<std::string> paths;
      for (const HubFile& file : listing->files) paths.push_back(file.path);
      choose_dataset_files(paths, true, choice, dataset_);
    } catch (const Error& error) {
      why = error.what();
    }
    if (why.empty()) return fetch_chosen(kConverted, true, choice, *listing);
  }
  const auto listing = list(kMain);
  try {
    return fetch_chosen(kMain, false, choice, *listing);
  } catch (const Error&) {
    if (!why.empty()) throw Error(why);  // tells more about subsets and splits
    throw;
  }
}

}  // namespace

std::vector<fs::path> fetch_dataset(std::string_view id, const HubChoice& choice) {
  const size_t at = id.find('@');
  const std::string_view revision = at == std::string_view::npos ? "" : id.substr(at + 1);
  require(at == std::string_view::npos || is_inside(fs::path(revision)),
          "hub: '{}' names no revision; write OWNER/NAME@REVISION", id);
  return Hub(std::string(id.substr(0, at))).fetch(revision, choice);
}

}  // namespace nf
