#include "tools/data/cache.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <nf/error.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <thread>

#include "tests/support/folder.h"
#include "tools/data/dataset.h"
#include "tools/data/shuffle.h"
#include "tools/tokenizer/byte_tokenizer.h"

using namespace nf;
namespace fs = std::filesystem;

namespace {

// A cache of a test's own.
struct CacheFolder {
  Folder folder;
  std::string before = std::getenv("NF_CACHE");

  CacheFolder() { ::setenv("NF_CACHE", (folder.path / "cache").c_str(), 1); }
  ~CacheFolder() { ::setenv("NF_CACHE", before.c_str(), 1); }

  std::vector<fs::path> files() const {
    std::vector<fs::path> found;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder.path / "cache" / "tokens", error))
      if (entry.path().extension() == ".tokens") found.push_back(entry.path());
    return found;
  }
};

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<int32_t> ids_of(const TokenDataset& dataset) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < dataset.documents(); ++i)
    for (const int32_t id : dataset.document(i)) ids.push_back(id);
  return ids;
}

// The bytes of a text, and another vocabulary size: ids of 4 bytes.
class Wide final : public Tokenizer {
 public:
  explicit Wide(std::string name = "wide") : name_(std::move(name)) {}
  std::string_view name() const override { return name_; }
  int32_t vocab_size() const override { return 100'000; }
  void encode(std::string_view text, std::vector<int32_t>& ids) const override {
    ++encoded;
    for (const char byte : text) ids.push_back(70'000 + static_cast<uint8_t>(byte));
  }
  std::string decode(std::span<const int32_t>) const override { return ""; }
  std::optional<int32_t> bos_id() const override { return 1; }
  std::optional<int32_t> eos_id() const override { return 99'999; }
  std::string to_json() const override { return name_; }

  mutable std::atomic<int> encoded{0};

 private:
  std::string name_;
};

}  // namespace

TEST_CASE("cache: its folder") {
  const CacheFolder cache;
  CHECK(cache_folder() == cache.folder.path / "cache");
  const std::string home = std::getenv("HOME") != nullptr ? std::getenv("HOME") : "";
  ::unsetenv("NF_CACHE");
  ::setenv("XDG_CACHE_HOME", "/x", 1);
  CHECK(cache_folder() == fs::path("/x/nanoformer"));
  ::unsetenv("XDG_CACHE_HOME");
  ::setenv("HOME", "/h", 1);
  CHECK(cache_folder() == fs::path("/h/.cache/nanoformer"));
  ::unsetenv("HOME");
  CHECK_FALSE(cache_folder().has_value());
  if (!home.empty()) ::setenv("HOME", home.c_str(), 1);
}

TEST_CASE("cache: a text is tokenised once, and again when it, the tokenizer or the options change") {
  const CacheFolder cache;
  const Folder folder;
  const auto source = open_documents({folder.write("a.jsonl", "{\"text\":\"ab\"}\n{\"text\":\"c\"}\n")});
  const Wide tokenizer;
  const std::vector<int32_t> expected = {1, 70'097, 70'098, 99'999, 1, 70'099, 99'999};
  const TokenDataset first = tokenize(*source, tokenizer);
  CHECK(ids_of(first) == expected);
  const int encoded = tokenizer.encoded;
  CHECK(encoded == 2);
  const TokenDataset second = tokenize(*source, tokenizer);
  CHECK(ids_of(second) == expected);
  CHECK(tokenizer.encoded == encoded);
  CHECK(second.fingerprint() == first.fingerprint());
  CHECK(cache.files().size() == 1);

  const Folder elsewhere;  // the same content under another name
  CHECK(
      ids_of(tokenize(*open_documents({elsewhere.write("b.jsonl", "{\"text\":\"ab\"}\n{\"text\":\"c\"}\n")}),
                      tokenizer)) == expected);
  CHECK(tokenizer.encoded == encoded);

  CHECK(tokenize(*source, tokenizer, {.bos = false}).tokens() == 5);
  CHECK(tokenize(*source, Wide("other")).tokens() == 7);
  folder.write("a.jsonl", "{\"text\":\"ab\"}\n{\"text\":\"d\"}\n");
  CHECK(ids_of(tokenize(*source, tokenizer)).at(5) == 70'100);
  CHECK(cache.files().size() == 4);
}

TEST_CASE("cache: a damaged file is made again, whichever byte was altered, and one that was cut short") {
  const CacheFolder cache;
  const Folder folder;
  const auto source = open_documents({folder.write("a.txt", "some text")});
  const std::vector<int32_t> expected = ids_of(tokenize(*source, ByteTokenizer()));
  REQUIRE(cache.files().size() == 1);
  const fs::path file = cache.files()[0];
  const std::string good = bytes_of(file);
  for (size_t at = 0; at <= good.size(); ++at) {
    std::string bad = good;
    if (at < good.size())
      bad[at] = static_cast<char>(bad[at] ^ 0x01);
    else
      bad.resize(good.size() / 2);
    std::ofstream(file, std::ios::binary) << bad;
    CHECK(ids_of(tokenize(*source, ByteTokenizer())) == expected);
    CHECK(bytes_of(file) == good);
  }
}

TEST_CASE("cache: tokens do not depend on threads, and the first bad document is named") {
  const Folder folder;
  std::string lines;
  for (int i = 0; i < 30'000; ++i)
    lines +=
        fmt::format("{{\"text\":\"{}\"}}\n", std::string(static_cast<size_t>(i % 60), i % 2 ? 'a' : 'b'));
  std::vector<std::vector<int32_t>> results;
  for (const int threads : {1, 2, 5}) {
    const CacheFolder cache;
    results.push_back(ids_of(
        tokenize(*open_documents({folder.write("a.jsonl", lines)}), ByteTokenizer(), {.threads = threads})));
  }
  CHECK(results[0].size() > 800'000);
  CHECK(results[1] == results[0]);
  CHECK(results[2] == results[0]);

  const auto tokenizer = make_tokenizer("char", [](const auto& add) { add("ab"); });
  const auto bad =
      open_documents({folder.write("b.jsonl", lines + "{\"text\":\"x\"}\n" + lines + "{\"text\":\"y\"}\n")});
  for (const int threads : {1, 5}) {
    const CacheFolder cache;
    CHECK_THROWS_WITH_AS(tokenize(*bad, *tokenizer, {.threads = threads}),
                         doctest::Contains("b.jsonl:30001: tokenizer: 'x'"), Error);
    CHECK(cache.files().empty());
  }
}

TEST_CASE("cache: a text of many pieces is one document, framed once") {
  const CacheFolder cache;
  const Folder folder;
  std::string text;
  while (text.size() < (5 << 20)) text += "a line of some length\n";
  const auto one = open_documents({folder.write("a.txt", text)});
  const TokenDataset running = tokenize(*one, Wide());
  CHECK(running.documents() == 1);
  CHECK(running.tokens() == static_cast<int64_t>(text.size()));
  const TokenDataset framed = tokenize(*one, Wide(), {.bos = true, .eos = true});
  CHECK(framed.tokens() == static_cast<int64_t>(text.size()) + 2);
  CHECK(framed.document(0).back() == 99'999);
  const DatasetStats stats = running.stats();
  CHECK(stats.tokens == running.tokens());
  CHECK(stats.unigram_entropy == doctest::Approx(tokenize(*one, ByteTokenizer()).stats().unigram_entropy));
}

TEST_CASE("cache: what several threads need is made once, and remains of the dead are removed") {
  const Folder folder;
  const fs::path path = folder.path / "deep" / "file";
  folder.write("deep/file.123.partial", "half");
  std::atomic<int> made{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i)
    threads.emplace_back([&] {
      make_once(
          path, [&] { return fs::exists(path); }, {},
          [&](const fs::path& partial) {
            ++made;
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            std::ofstream(partial) << "whole";
          });
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(made == 1);
  CHECK(bytes_of(path) == "whole");
  CHECK_FALSE(fs::exists(folder.path / "deep" / "file.123.partial"));

  const fs::path other = folder.path / "other";
  CHECK_THROWS_AS(make_once(
                      other, [] { return false; }, {},
                      [&](const fs::path& partial) {
                        std::ofstream(partial) << "half";
                        fail("no");
                      }),
                  Error);
  CHECK_FALSE(fs::exists(other));
  folder.write("file", "");
  CHECK_THROWS_WITH_AS(make_once(
                           folder.path / "file" / "x", [] { return false; }, {}, [](const fs::path&) {}),
                       doctest::Contains("set NF_CACHE to another folder"), Error);
}

TEST_CASE("cache: ids at the edges of both widths") {
  const Folder folder;
  for (const int32_t vocabulary : {1 << 16, (1 << 16) + 1}) {
    const fs::path path = folder.path / "a.tokens";
    TokenFileWriter writer(path, 7, vocabulary, {});
    const std::vector<int32_t> ids = {0, 255, 256, vocabulary - 1};
    writer.add(ids, true);
    writer.add({}, false);
    writer.add({}, false);  // leaves no trace
    writer.add(std::span(ids).first(1), false);
    CHECK_THROWS_AS(writer.add(std::vector<int32_t>{vocabulary}, false), Error);
    CHECK_THROWS_AS(writer.add(std::vector<int32_t>{-1}, false), Error);
    writer.finish();
    const TokenDataset dataset(TokenFile::open(path, 7));
    CHECK(ids_of(dataset) == std::vector<int32_t>{0, 255, 256, vocabulary - 1, 0});
    CHECK(
        dataset.fingerprint() ==
        TokenDataset({0, 255, 256, vocabulary - 1, 0}, std::vector<int64_t>{4, 1}, vocabulary).fingerprint());
    CHECK_THROWS_AS(TokenFile::open(path, 8), Error);
    CHECK((fs::file_size(path) == 64 + (vocabulary == 1 << 16 ? 16 : 24) + 16));
  }
}

namespace {

// A file of the cache that was used last so many hours ago.
fs::path aged_file(const fs::path& folder, const std::string& name, size_t bytes, int hours) {
  fs::create_directories(folder);
  const fs::path path = folder / name;
  std::ofstream(path) << std::string(bytes, 'x');
  fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(hours));
  return path;
}

}  // namespace

TEST_CASE("cache: what was not used for longest goes first, what is in use stays") {
  const Folder folder;
  const fs::path oldest = aged_file(folder.path, "a.tokens", 100, 4),
                 old = aged_file(folder.path, "b.tokens", 100, 3),
                 newer = aged_file(folder.path, "c.tokens", 100, 2),
                 other = aged_file(folder.path, "d.other", 1000, 9);
  Pruned pruned = prune(folder.path, ".tokens", 300);
  CHECK(pruned.files == 0);
  CHECK(fs::exists(oldest));

  const int used = ::open(oldest.c_str(), O_RDONLY);
  mark_used(used);
  pruned = prune(folder.path, ".tokens", 200);
  CHECK(pruned.files == 1);
  CHECK(pruned.bytes == 100);
  CHECK(fs::exists(oldest));
  CHECK(!fs::exists(old));
  CHECK(prune(folder.path, ".tokens", 0).files == 1);
  CHECK(fs::exists(oldest));
  CHECK(!fs::exists(newer));
  ::close(used);

  // Its use was a moment ago: others go first.
  aged_file(folder.path, "e.tokens", 100, 1);
  CHECK(prune(folder.path, ".tokens", 100).files == 1);
  CHECK(fs::exists(oldest));
  CHECK(prune(folder.path, ".tokens", 0).files == 1);
  CHECK(!fs::exists(oldest));
  CHECK(fs::exists(other));
  CHECK(prune(folder.path / "none", ".tokens", 0).files == 0);
}

TEST_CASE("cache: what a dead process left half written goes, what is being written stays") {
  const Folder folder;
  const fs::path dead = aged_file(folder.path, "a.tokens.1.partial", 10, 0),
                 dead_with_lock = aged_file(folder.path, "b.tokens.2.partial", 10, 0),
                 alive = aged_file(folder.path, "c.tokens.3.partial", 10, 0);
  aged_file(folder.path, "b.tokens.lock", 0, 0);
  const FileLock lock(folder.path / "c.tokens.lock");
  CHECK(prune(folder.path, ".tokens", 1000).files == 0);
  CHECK(!fs::exists(dead));
  CHECK(!fs::exists(dead_with_lock));
  CHECK(fs::exists(alive));
}

TEST_CASE("cache: its size is what NF_CACHE_GB says") {
  const Folder folder;
  CHECK(cache_limit(folder.path) > 0);
  CHECK(cache_limit(folder.path) <= 50'000'000'000);
  ::setenv("NF_CACHE_GB", "3", 1);
  CHECK(cache_limit(folder.path) == 3'000'000'000);
  ::setenv("NF_CACHE_GB", "off", 1);
  CHECK(cache_limit(folder.path) == INT64_MAX);
  for (const char* wrong : {"3GB", "-1", "x", "99999999999999"}) {
    ::setenv("NF_CACHE_GB", wrong, 1);
    CHECK_THROWS_WITH_AS(cache_limit(folder.path), doctest::Contains("NF_CACHE_GB is"), Error);
  }
  ::unsetenv("NF_CACHE_GB");
}

TEST_CASE("cache: another text's tokens go when there is no room, those of a living dataset do not") {
  const CacheFolder cache;
  ::setenv("NF_CACHE_GB", "0", 1);
  const ByteTokenizer tokenizer;
  const auto text = [&](const char* name) {
    std::ofstream(cache.folder.path / name) << "the text of " << name;
    return open_documents({(cache.folder.path / name).string()});
  };
  {
    const TokenDataset first = tokenize(*text("a.txt"), tokenizer);
    const TokenDataset second = tokenize(*text("b.txt"), tokenizer);
    CHECK(cache.files().size() == 2);
  }
  const TokenDataset third = tokenize(*text("c.txt"), tokenizer);
  CHECK(cache.files().size() == 1);
  CHECK(ids_of(third).size() == std::string("the text of c.txt").size());
  ::unsetenv("NF_CACHE_GB");
}
