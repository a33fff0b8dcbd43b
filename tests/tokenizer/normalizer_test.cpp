#include "tools/tokenizer/normalizer.h"

#include <doctest/doctest.h>

#include "tools/tokenizer/utf8.h"

using namespace nf;

namespace {

std::string utf8(char32_t c) {
  std::string text;
  append_utf8(text, c);
  return text;
}

}  // namespace

TEST_CASE("what passes as surely NFC is NFC, whatever it stands behind") {
  Normalizer decompose, compose;
  decompose.unicode(UnicodeForm::nfd);
  compose.unicode(UnicodeForm::nfc);
  Regex::Matcher matcher;
  std::string memory;
  // The Angstrom sign makes sure that the library is asked.
  const std::string asks = utf8(0x212B), answered = utf8(0xC5);
  int unstable = 0, combining = 0;
  for (char32_t c = 1; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::string text = utf8(c);
    if (surely_nfc(text))
      unstable += compose.normalize(asks + "x" + text, memory, matcher) != answered + "x" + text;
    const std::string parts(decompose.normalize(text, memory, matcher));
    for (size_t at = first_character(parts).length; at < parts.size();) {
      const std::string part = parts.substr(at, first_character(parts.substr(at)).length);
      combining += surely_nfc(part);
      at += part.size();
    }
  }
  CHECK(unstable == 0);
  CHECK(combining == 0);
  CHECK(surely_nfc("Plain text, caf\xC3\xA9, \xE4\xBD\xA0\xE5\xA5\xBD, \xF0\x9F\x98\x80"));
  CHECK_FALSE(surely_nfc("e\xCC\x81"));
}

TEST_CASE("normalizers leave a text alone that they do not change") {
  Normalizer normalizer;
  normalizer.unicode(UnicodeForm::nfc);
  normalizer.replace("xyz", "");
  Regex::Matcher matcher;
  std::string memory;
  const std::string text = "caf\xC3\xA9";
  CHECK(normalizer.normalize(text, memory, matcher).data() == text.data());
  CHECK(normalizer.normalize("e\xCC\x81xyz", memory, matcher) == "\xC3\xA9");
}
