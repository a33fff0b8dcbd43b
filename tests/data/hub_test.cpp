#include "tools/data/hub.h"

#include <doctest/doctest.h>
#include <nf/error.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "tests/data/tiny_server.h"
#include "tests/support/folder.h"
#include "tools/data/sha.h"
#include "tools/data/source.h"

using namespace nf;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

// Variables of a test case, put back at its end.
class Environment {
 public:
  ~Environment() {
    for (const auto& [name, value] : before_) {
      if (value)
        ::setenv(name.c_str(), value->c_str(), 1);
      else
        ::unsetenv(name.c_str());
    }
  }
  void set(const std::string& name, const std::string& value) {
    const char* old = std::getenv(name.c_str());
    before_.emplace(name, old != nullptr ? std::optional<std::string>(old) : std::nullopt);
    ::setenv(name.c_str(), value.c_str(), 1);
  }

 private:
  std::map<std::string, std::optional<std::string>> before_;
};

std::string sha(Sha kind, const std::string& text) {
  ShaHash hash(kind);
  hash.add(text);
  return hash.hex();
}

// A hub with one dataset, o/d, whose branches and files a test lays out.
struct FakeHub {
  static constexpr const char* kCommit = "0123456789abcdef0123456789abcdef01234567";
  static constexpr const char* kConvertedCommit = "89abcdef0123456789abcdef0123456789abcdef";

  std::map<std::string, std::string> main, converted;  // by path
  // Answers before the hub does; nullopt: not this one.
  std::function<std::optional<ServedResponse>(const ServedRequest&)> first;
  std::string token;  // without it 401

  Folder folder;
  Environment environment;
  TinyServer server{[this](const ServedRequest& request) { return answer(request); }};

  FakeHub() {
    environment.set("HF_ENDPOINT", server.url());
    environment.set("HF_HOME", folder.path.string());
    environment.set("HF_HUB_CACHE", "");
    environment.set("HF_TOKEN", "");
    environment.set("HF_TOKEN_PATH", "");
    environment.set("HF_HUB_OFFLINE", "");
  }

  ServedResponse answer(const ServedRequest& request) const {
    if (first)
      if (const auto given = first(request)) return *given;
    const auto header = request.headers.find("authorization");
    const std::string given = header == request.headers.end() ? "" : header->second;
    if (!token.empty() && given != "Bearer " + token) return {.status = 401};
    const auto is = [&](const std::string& path) { return request.path == path; };
    if (is("/api/datasets/o/d/revision/main")) return {.body = json{{"sha", kCommit}}.dump()};
    if (is("/api/datasets/o/d/revision/refs%2Fconvert%2Fparquet") && !converted.empty())
      return {.body = json{{"sha", kConvertedCommit}}.dump()};
    for (const auto& [commit, files] : {std::pair(kCommit, &main), std::pair(kConvertedCommit, &converted)}) {
      if (is(std::string("/api/datasets/o/d/tree/") + commit + "?recursive=true")) return list(*files);
      for (const auto& [path, content] : *files)
        if (is(std::string("/datasets/o/d/resolve/") + commit + "/" + path)) return send(content, request);
    }
    return {.status = 404};
  }

  // Half of the files as large ones.
  static ServedResponse list(const std::map<std::string, std::string>& files) {
    json entries = json::array({{{"type", "directory"}, {"path", "data"}}});
    for (const auto& [path, content] : files) {
      const auto git = sha(Sha::sha1, "blob " + std::to_string(content.size()) + '\0' + content);
      json entry = {{"type", "file"}, {"path", path}, {"size", content.size()}, {"oid", git}};
      if (path.size() % 2 == 0) entry["lfs"] = {{"oid", sha(Sha::sha256, content)}, {"size", content.size()}};
      entries.push_back(entry);
    }
    return {.body = entries.dump()};
  }

  static ServedResponse send(const std::string& content, const ServedRequest& request) {
    const auto range = request.headers.find("range");
    if (range == request.headers.end()) return {.body = content};
    const size_t from = std::stoul(range->second.substr(6));
    if (from >= content.size()) return {.status = 416};
    return {.status = 206, .body = content.substr(from)};
  }

  int64_t count(const std::string& part) const {
    int64_t found = 0;
    for (const ServedRequest& request : server.requests())
      found += request.path.find(part) != std::string::npos ? 1 : 0;
    return found;
  }
};

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("hub: what is an id") {
  CHECK(looks_like_dataset("imdatta0/wikipedia_en_sample"));
  CHECK(looks_like_dataset("o/d.v2@refs/pr/3"));
  for (const char* path : {"book", "a/b/c", "/a", "a/", "./a", "o/a.txt", "o/a.jsonl.gz", "o/a b", ""})
    CHECK_FALSE(looks_like_dataset(path));
}

TEST_CASE("hub: subsets and splits of the conversion") {
  const Names paths = {"README.md",           "a/train/0001.parquet", "a/train/0000.parquet",
                       "a/test/0000.parquet", "b/train/0000.parquet", "b/dev/0000.parquet"};
  const auto choose = [&](const HubChoice& choice) {
    return choose_dataset_files(paths, true, choice, "o/d");
  };
  CHECK(choose({.subset = "a"}) == Names{"a/train/0000.parquet", "a/train/0001.parquet"});
  CHECK(choose({.subset = "a", .split = "test"}) == Names{"a/test/0000.parquet"});
  CHECK_THROWS_WITH_AS(choose({}), doctest::Contains("several subsets; choose one with --subset: a, b"),
                       Error);
  CHECK_THROWS_WITH_AS(choose({.subset = "c"}), doctest::Contains("no subset 'c'; there is: a, b"), Error);
  CHECK_THROWS_WITH_AS(choose({.subset = "b", .split = "test"}),
                       doctest::Contains("no split 'test'; there is: dev, train"), Error);
  CHECK(choose_dataset_files({"default/text/0.parquet", "x/train/0.parquet"}, true, {}, "o/d") ==
        Names{"default/text/0.parquet"});
  CHECK_THROWS_WITH_AS(choose_dataset_files({"a/partial-train/0.parquet"}, true, {}, "o/d"),
                       doctest::Contains("only a part"), Error);
}

TEST_CASE("hub: splits of a repository are told by its files' names") {
  const auto choose = [](const Names& paths, const HubChoice& choice = {}) {
    return choose_dataset_files(paths, false, choice, "o/d");
  };
  const Names shards = {"data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
                        "data/validation-00000-of-00001.parquet", "README.md"};
  CHECK(choose(shards).size() == 2);
  CHECK(choose(shards, {.subset = {}, .split = "validation"}) ==
        Names{"data/validation-00000-of-00001.parquet"});
  CHECK(choose({"data/wiki_valid.txt", "data/wiki_train.txt"}) == Names{"data/wiki_train.txt"});
  CHECK(choose({"valid/a.jsonl.zst", "train/a.jsonl.zst"}, {.subset = {}, .split = "validation"}) ==
        Names{"valid/a.jsonl.zst"});
  CHECK(choose({"b.txt", "a.jsonl", "picture.png", ".hidden.txt"}) ==
        Names{"a.jsonl", "b.txt"});                                 // all train
  CHECK(choose({"constraints.txt", "evaluated.txt"}).size() == 2);  // no words
  CHECK(choose({"en/train.txt", "de/train.txt"}, {.subset = "de"}) == Names{"de/train.txt"});
  CHECK(choose({"data/extra-00000-of-00001.parquet"}, {.subset = {}, .split = "extra"}).size() == 1);
  CHECK_THROWS_WITH_AS(choose({"README.md", "a.csv"}), doctest::Contains("no .parquet, .jsonl or .txt"),
                       Error);
}

TEST_CASE("hub: files are fetched once, checked, and laid out as the hub's libraries do") {
  FakeHub hub;
  hub.main = {{"train.jsonl", "{\"text\":\"one\"}\n"}, {"data/train2.txt", "two"}, {"test.txt", "three"}};
  const auto files = fetch_dataset("o/d", {});
  REQUIRE(files.size() == 2);
  const fs::path root = hub.folder.path / "hub" / "datasets--o--d";
  CHECK(files[0] == root / "snapshots" / FakeHub::kCommit / "data/train2.txt");
  CHECK(bytes_of(files[0]) == "two");
  CHECK(bytes_of(files[1]) == "{\"text\":\"one\"}\n");
  CHECK(fs::is_symlink(files[0]));
  CHECK(fs::read_symlink(files[1]).string().starts_with("../../blobs/"));
  CHECK(bytes_of(root / "refs/main") == FakeHub::kCommit);
  CHECK(hub.count("/resolve/") == 2);

  CHECK(fetch_dataset("o/d", {}) == files);
  CHECK(fetch_dataset("o/d@main", {}) == files);
  CHECK(hub.count("/resolve/") == 2);  // not again

  std::vector<std::string> texts;
  open_documents({"o/d"})->visit([&](const Document& document) { texts.emplace_back(document.text); });
  CHECK(texts == Names{"two", "one"});
}

TEST_CASE("hub: the conversion to Parquet is preferred, unless a revision is named or it is partial") {
  FakeHub hub;
  hub.main = {{"train.txt", "main"}};
  hub.converted = {{"default/train/0000.parquet", "converted"}, {"default/test/0000.parquet", "test"}};
  CHECK(bytes_of(fetch_dataset("o/d", {}).at(0)) == "converted");
  CHECK(bytes_of(fetch_dataset("o/d", {.subset = {}, .split = "test"}).at(0)) == "test");
  CHECK(bytes_of(fetch_dataset("o/d@main", {}).at(0)) == "main");
  CHECK_THROWS_WITH_AS(fetch_dataset("o/d", {.subset = {}, .split = "none"}),
                       doctest::Contains("no split 'none'; there is: test, train"), Error);
  CHECK_THROWS_WITH_AS(fetch_dataset("o/d@v9", {}), doctest::Contains("no revision v9"), Error);
  CHECK_THROWS_AS(fetch_dataset("o/d@../x", {}), Error);
  hub.converted = {{"default/partial-train/0000.parquet", "converted"}};
  CHECK(bytes_of(fetch_dataset("o/d", {}).at(0)) == "main");
}

TEST_CASE("hub: offline, the cache is enough or the error says that it is not") {
  FakeHub hub;
  hub.main = {{"data/train-00000-of-00002.txt", "one"}, {"data/train-00001-of-00002.txt", "two"}};
  CHECK_THROWS_AS(fetch_dataset("o/nothing", {}), Error);
  const auto files = fetch_dataset("o/d", {});
  const size_t asked = hub.server.requests().size();
  hub.environment.set("HF_HUB_OFFLINE", "1");
  CHECK(fetch_dataset("o/d", {}) == files);
  CHECK_THROWS_WITH_AS(fetch_dataset("o/other", {}), doctest::Contains("not in the cache"), Error);
  fs::remove(files[1]);
  CHECK_THROWS_WITH_AS(fetch_dataset("o/d", {}), doctest::Contains("1 of the 2 parts"), Error);
  CHECK(hub.server.requests().size() == asked);
}

TEST_CASE("hub: where it does not answer, the cache is used, or the error says what failed") {
  FakeHub hub;
  hub.main = {{"train.txt", "kept"}};
  const auto files = fetch_dataset("o/d", {});
  hub.first = [](const ServedRequest&) {
    return ServedResponse{.status = 503, .headers = {{"Retry-After", "0"}}};
  };
  CHECK(fetch_dataset("o/d", {}) == files);
  CHECK(fetch_dataset("o/d@main", {}) == files);
  CHECK_THROWS_WITH_AS(fetch_dataset("o/d@v1", {}), doctest::Contains("answers 503"), Error);
  CHECK_THROWS_WITH_AS(fetch_dataset("o/other", {}), doctest::Contains("answers 503"), Error);
  hub.environment.set("HF_ENDPOINT", "http://127.0.0.1:1");  // nobody listens
  CHECK(fetch_dataset("o/d", {}) == files);
}

TEST_CASE("hub: the token comes from its variable or file, and what needs one says so") {
  FakeHub hub;
  hub.main = {{"train.txt", "secret"}};
  hub.token = "hf_abc";
  CHECK_THROWS_WITH_AS(fetch_dataset("o/d", {}), doctest::Contains("put a token into HF_TOKEN"), Error);
  hub.environment.set("HF_TOKEN", "hf_wrong");
  CHECK_THROWS_WITH_AS(fetch_dataset("o/d", {}), doctest::Contains("the token may not read it"), Error);
  hub.environment.set("HF_TOKEN", "hf abc");
  CHECK_THROWS_WITH_AS(fetch_dataset("o/d", {}), doctest::Contains("characters that no token has"), Error);
  hub.environment.set("HF_TOKEN", "");
  hub.folder.write("token", "hf_abc\n");
  CHECK(bytes_of(fetch_dataset("o/d", {}).at(0)) == "secret");
  hub.first = [](const ServedRequest&) { return ServedResponse{.status = 403}; };
  CHECK_THROWS_WITH_AS(fetch_dataset("o/d", {}), doctest::Contains("is gated: accept its terms at"), Error);
}

TEST_CASE("hub: redirections are followed, and the token stays with the endpoint") {
  FakeHub hub;
  hub.main = {{"train.txt", "content"}};
  hub.token = "hf_abc";
  hub.environment.set("HF_TOKEN", "hf_abc");
  const TinyServer elsewhere([](const ServedRequest& request) {
    return request.path == "/loop" ? ServedResponse{.status = 302, .headers = {{"Location", "/loop"}}}
                                   : ServedResponse{.body = "content"};
  });
  hub.first = [&](const ServedRequest& request) -> std::optional<ServedResponse> {
    if (request.path.starts_with("/datasets/o/d/resolve/"))
      return ServedResponse{.status = 307, .headers = {{"Location", "/moved"}}};
    if (request.path == "/moved") {
      CHECK(request.headers.at("authorization") == "Bearer hf_abc");
      return ServedResponse{.status = 302, .headers = {{"Location", elsewhere.url() + "/file"}}};
    }
    return std::nullopt;
  };
  CHECK(bytes_of(fetch_dataset("o/d", {}).at(0)) == "content");
  REQUIRE(elsewhere.requests().size() == 1);
  CHECK_FALSE(elsewhere.requests()[0].headers.contains("authorization"));

  hub.first = [&](const ServedRequest&) {
    return ServedResponse{.status = 302, .headers = {{"Location", elsewhere.url() + "/loop"}}};
  };
  CHECK_THROWS_WITH_AS(fetch_dataset("o/d", {}), doctest::Contains("redirects without end"), Error);
  hub.first = [&](const ServedRequest&) {
    return ServedResponse{.status = 302, .headers = {{"Location", "file:///etc/passwd"}}};
  };
  CHECK_THROWS_WITH_AS(fetch_dataset("o/d", {}), doctest::Contains("which is not safe"), Error);
}

TEST_CASE("hub: a download that breaks off goes on from there") {
  FakeHub hub;
  std::string content;
  for (int i = 0; i < 20'000; ++i) content += std::to_string(i) + "\n";
  hub.main = {{"train.txt", content}};
  int served = 0;
  const auto breaking = [&](const ServedRequest& request) -> std::optional<ServedResponse> {
    if (request.path.find("/resolve/") == std::string::npos || ++served > 2) return std::nullopt;
    ServedResponse response = FakeHub::send(content, request);
    response.cut_after = 30'000;
    return response;
  };
  hub.first = breaking;
  CHECK(bytes_of(fetch_dataset("o/d", {}).at(0)) == content);
  std::vector<std::string> ranges;
  for (const ServedRequest& request : hub.server.requests())
    if (request.path.find("/resolve/") != std::string::npos)
      ranges.push_back(request.headers.contains("range") ? request.headers.at("range") : "");
  CHECK(ranges == Names{"", "bytes=30000-", "bytes=60000-"});
}

TEST_CASE("hub: a partial file of an earlier process is gone on with, or left when it is wrong") {
  FakeHub hub;
  const std::string content = "the whole content";
  hub.main = {{"train.txt", content}};
  const std::string name = sha(Sha::sha1, "blob 17" + std::string(1, '\0') + content);
  const std::string partial = "hub/datasets--o--d/blobs/" + name + ".incomplete";
  for (const std::string& part : {std::string("the whole"), std::string("something"), content,
                                  std::string(100, 'x'), std::string(17, 'x')}) {
    fs::remove_all(hub.folder.path / "hub");
    hub.folder.write(partial, part);
    CHECK(bytes_of(fetch_dataset("o/d", {}).at(0)) == content);
    CHECK_FALSE(fs::exists(hub.folder.path / partial));
  }
}

TEST_CASE("hub: content with another hash or length is never taken") {
  FakeHub hub;
  hub.main = {{"train.txt", "right"}};
  for (const std::string wrong : {"wrong", "longer than it should be"}) {
    hub.first = [&](const ServedRequest& request) -> std::optional<ServedResponse> {
      if (request.path.find("/resolve/") == std::string::npos) return std::nullopt;
      return ServedResponse{.body = wrong};
    };
    CHECK_THROWS_AS(fetch_dataset("o/d", {}), Error);
    CHECK_FALSE(
        fs::exists(hub.folder.path / "hub/datasets--o--d/snapshots" / FakeHub::kCommit / "train.txt"));
  }
  hub.first = {};
  CHECK(bytes_of(fetch_dataset("o/d", {}).at(0)) == "right");
}

TEST_CASE("hub: a busy server is asked again when it says so, and not for ever") {
  FakeHub hub;
  hub.main = {{"train.txt", "content"}};
  int busy = 0;
  hub.first = [&](const ServedRequest&) -> std::optional<ServedResponse> {
    if (++busy % 3 == 0) return std::nullopt;
    return ServedResponse{.status = busy % 3 == 1 ? 429 : 503, .headers = {{"Retry-After", "0"}}};
  };
  CHECK(bytes_of(fetch_dataset("o/d", {}).at(0)) == "content");
  hub.first = [&](const ServedRequest&) {
    return ServedResponse{.status = 429, .headers = {{"Retry-After", "0"}}};
  };
  const size_t before = hub.server.requests().size();
  CHECK_THROWS_WITH_AS(fetch_dataset("o/d", {}), doctest::Contains("answers 429"), Error);
  CHECK(hub.server.requests().size() == before + 5);
}

TEST_CASE("hub: a listing is untrusted") {
  FakeHub hub;
  const std::string git(40, 'a');
  const auto refuse = [&](const json& entry, const char* message) {
    hub.first = [&](const ServedRequest& request) -> std::optional<ServedResponse> {
      if (request.path.find("/tree/") == std::string::npos) return std::nullopt;
      return ServedResponse{.body = json::array({entry}).dump()};
    };
    CHECK_THROWS_WITH_AS(fetch_dataset("o/d", {}), doctest::Contains(message), Error);
  };
  for (const char* path : {"../train.txt", "/train.txt", "a/../../train.txt", "", "."})
    refuse({{"type", "file"}, {"path", path}, {"size", 1}, {"oid", git}}, "that cannot be");
  refuse({{"type", "file"}, {"path", "train.txt"}, {"size", 1}, {"oid", "../../x"}}, "that cannot be");
  refuse({{"type", "file"}, {"path", "train.txt"}, {"size", -1}, {"oid", git}}, "that cannot be");
  hub.first = [&](const ServedRequest&) { return ServedResponse{.body = "[1"}; };
  CHECK_THROWS_WITH_AS(fetch_dataset("o/d", {}), doctest::Contains("does not tell the commit"), Error);
}

TEST_CASE("hub: a listing of several pages") {
  FakeHub hub;
  hub.main = {{"train-a.txt", "a"}, {"train-b.txt", "b"}};
  hub.first = [&](const ServedRequest& request) -> std::optional<ServedResponse> {
    if (request.path.find("/tree/") == std::string::npos) return std::nullopt;
    const bool last = request.path.find("cursor=2") != std::string::npos;
    ServedResponse response = FakeHub::list({{*std::next(hub.main.begin(), last ? 1 : 0)}});
    if (!last) response.headers["Link"] = "<" + hub.server.url() + request.path + "&cursor=2>; rel=\"next\"";
    return response;
  };
  CHECK(fetch_dataset("o/d", {}).size() == 2);
}
