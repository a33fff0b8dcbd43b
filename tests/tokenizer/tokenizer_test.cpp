#include "tools/tokenizer/tokenizer.h"

#include <doctest/doctest.h>
#include <nf/error.h>

#include <filesystem>
#include <numeric>

#include "tests/support/folder.h"
#include "tools/tokenizer/byte_tokenizer.h"
#include "tools/tokenizer/char_tokenizer.h"

using namespace nf;
namespace fs = std::filesystem;

namespace {

std::vector<int32_t> encode(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<int32_t> ids;
  tokenizer.encode(text, ids);
  return ids;
}

std::unique_ptr<Tokenizer> make_char(const std::vector<std::string>& documents) {
  return make_tokenizer("char", [&](const auto& add) {
    for (const std::string& document : documents) add(document);
  });
}

}  // namespace

TEST_CASE("byte tokenizer: every byte is its own id, and text is only text") {
  const auto tokenizer = make_tokenizer("byte");
  CHECK(tokenizer->name() == "byte");
  CHECK(tokenizer->vocab_size() == 257);
  CHECK(tokenizer->eos_id() == 256);
  CHECK(tokenizer->bos_id() == std::nullopt);

  std::string all(256, '\0');
  std::iota(all.begin(), all.end(), '\0');
  const auto ids = encode(*tokenizer, all);
  REQUIRE(ids.size() == 256);
  for (int32_t i = 0; i < 256; ++i) CHECK(ids[static_cast<size_t>(i)] == i);
  CHECK(tokenizer->decode(ids) == all);
  CHECK(encode(*tokenizer, "<|endoftext|>").size() == 13);
  CHECK(encode(*tokenizer, "").empty());
}

TEST_CASE("byte tokenizer: encode appends, end-of-text has no bytes, other ids are errors") {
  const ByteTokenizer tokenizer;
  std::vector<int32_t> ids = {7};
  tokenizer.encode("ab", ids);
  CHECK(ids == std::vector<int32_t>{7, 'a', 'b'});
  CHECK(tokenizer.decode(std::vector<int32_t>{'a', 256, 'b'}) == "ab");
  CHECK_THROWS_AS(tokenizer.decode(std::vector<int32_t>{257}), Error);
  CHECK_THROWS_AS(tokenizer.decode(std::vector<int32_t>{-1}), Error);
}

TEST_CASE("char tokenizer: characters in the order of their code points") {
  const auto tokenizer =
      make_char({"b\xE2\x82\xAC"
                 "a\n\xF0\x9F\x98\x80"
                 "ab"});
  CHECK(tokenizer->vocab_size() == 5);  // \n a b € 😀, and nothing to separate
  CHECK(tokenizer->eos_id() == std::nullopt);
  const std::string text = "\nab\xE2\x82\xAC\xF0\x9F\x98\x80";
  const auto ids = encode(*tokenizer, text);
  CHECK(ids == std::vector<int32_t>{0, 1, 2, 3, 4});
  CHECK(tokenizer->decode(ids) == text);
}

TEST_CASE("char tokenizer: several documents need an end-of-text token") {
  const auto tokenizer = make_char({"ab", "bc"});
  CHECK(tokenizer->vocab_size() == 4);
  CHECK(tokenizer->eos_id() == 3);
  CHECK(tokenizer->decode(std::vector<int32_t>{0, 3, 2}) == "ac");
  CHECK_THROWS_AS(tokenizer->decode(std::vector<int32_t>{4}), Error);
}

TEST_CASE("char tokenizer: an unknown character is named with its place") {
  const auto tokenizer = make_char({"ab\xE2\x82\xAC"});
  CHECK_THROWS_WITH_AS(
      encode(*tokenizer,
             "\xE2\x82\xAC\xC3\xA9"
             "a"),
      "tokenizer: '\xC3\xA9' (U+00E9) at character 1 (byte 3) is not among the 3 characters of this "
      "char tokenizer; rebuild it on text that holds it, or use the byte tokenizer",
      Error);
  CHECK_THROWS_WITH_AS(encode(*tokenizer, "a\tb"), doctest::Contains("U+0009 at character 1 (byte 1)"),
                       Error);
  CHECK_THROWS_WITH_AS(encode(*tokenizer, "ab\xFF"), doctest::Contains("invalid UTF-8 at byte 2"), Error);
}

TEST_CASE("char tokenizer: no text, invalid text, unordered characters") {
  CHECK_THROWS_AS(make_char({}), Error);
  CHECK_THROWS_AS(make_char({""}), Error);
  CHECK_THROWS_AS(make_char({"a\xC3"}), Error);
  CHECK_THROWS_AS(make_tokenizer("char"), Error);
  CHECK_THROWS_AS(CharTokenizer({}, false), Error);
  CHECK_THROWS_AS(CharTokenizer({U'b', U'a'}, false), Error);
  CHECK_THROWS_AS(CharTokenizer({U'a', U'a'}, false), Error);
}

TEST_CASE("tokenizers: saved and loaded they are the same") {
  const Folder folder;
  const auto byte = make_tokenizer("byte");
  const auto plain = make_char({"caf\xC3\xA9 \"\\\n\x01"}),
             separated = make_char({"caf\xC3\xA9 \"\\\n", "\x01"});
  CHECK(byte->fingerprint() != plain->fingerprint());
  CHECK(plain->fingerprint() != separated->fingerprint());
  for (const Tokenizer* tokenizer : {byte.get(), plain.get(), separated.get()}) {
    tokenizer->save(folder.path);
    CHECK(std::distance(fs::directory_iterator(folder.path), fs::directory_iterator()) == 1);
    for (const fs::path& path : {folder.path, folder.path / "tokenizer.json"}) {
      const auto loaded = load_tokenizer(path);
      CHECK(loaded->name() == tokenizer->name());
      CHECK(loaded->vocab_size() == tokenizer->vocab_size());
      CHECK(loaded->eos_id() == tokenizer->eos_id());
      CHECK(loaded->fingerprint() == tokenizer->fingerprint());
      CHECK(encode(*loaded, "caf\xC3\xA9") == encode(*tokenizer, "caf\xC3\xA9"));
    }
    CHECK(make_tokenizer(folder.path.string())->fingerprint() == tokenizer->fingerprint());
  }
}

TEST_CASE("tokenizers: a fingerprint is the same on every machine") {
  CHECK(make_tokenizer("byte")->fingerprint() == 0xc0d58ef77ef75cf4ULL);
}

TEST_CASE("tokenizers: files that are not tokenizers") {
  const Folder folder;
  CHECK_THROWS_WITH_AS(load_tokenizer(folder.path), doctest::Contains("there is no file"), Error);
  CHECK_THROWS_WITH_AS(make_tokenizer("bite"), doctest::Contains("'bite' is neither a kind (byte, char) nor"),
                       Error);

  const std::string head = R"({"format":"nanoformer-tokenizer","version":1,)";
  for (const std::string& bytes :
       {std::string(), std::string("{"), std::string("[]"), std::string("{}"), std::string("\xFF\xFE"),
        std::string(R"({"format":"other","version":1,"kind":"byte"})"),
        std::string(R"({"format":"nanoformer-tokenizer","version":2,"kind":"byte"})"),
        head + R"("kind":"bpe"})", head + R"("kind":7})", head + R"("kind":"char"})",
        head + R"("kind":"char","end_of_text":1,"characters":["a"]})",
        head + R"("kind":"char","end_of_text":true,"characters":"ab"})",
        head + R"("kind":"char","end_of_text":true,"characters":[]})",
        head + R"("kind":"char","end_of_text":true,"characters":["ab"]})",
        head + R"("kind":"char","end_of_text":true,"characters":[""]})",
        head + R"("kind":"char","end_of_text":true,"characters":["a",1]})",
        head + R"("kind":"char","end_of_text":true,"characters":["b","a"]})"}) {
    CAPTURE(bytes);
    CHECK_THROWS_AS(load_tokenizer(folder.write("tokenizer.json", bytes)), Error);
  }
  const std::string good = head + R"("kind":"char","end_of_text":true,"characters":["a","b"]})";
  CHECK(load_tokenizer(folder.write("tokenizer.json", good))->vocab_size() == 3);
}
