#include "tools/tokenizer/utf8.h"

#include <doctest/doctest.h>

#include <string>

using namespace nf;

namespace {

// Every text whose UTF-8 has `count` bytes out of these, some of which open, continue or break characters.
constexpr std::string_view kBytes = "a\x80\xBF\xC3\xE2\xED\xA0\xF0\x9F\xF4\x90\xFF";

bool is_valid(const std::string& bytes) { return !find_invalid_utf8(bytes); }

}  // namespace

TEST_CASE("utf8: every code point survives the round trip, surrogates excepted") {
  for (char32_t code_point = 0; code_point <= 0x10FFFF; ++code_point) {
    if (code_point >= 0xD800 && code_point <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, code_point);
    const Utf8Character character = first_character(text);
    if (character.kind != Utf8Character::Kind::whole || character.length != text.size() ||
        character.code_point != code_point)
      FAIL("code point " << static_cast<uint32_t>(code_point));
  }
}

TEST_CASE("utf8: malformed text is found at its first byte") {
  CHECK(find_invalid_utf8("") == std::nullopt);
  CHECK(find_invalid_utf8("plain text, more than eight bytes") == std::nullopt);
  CHECK(find_invalid_utf8("na\xC3\xAFve \xE2\x82\xAC \xF0\x9F\x98\x80") == std::nullopt);
  CHECK(find_invalid_utf8("\x80") == 0);                  // continuation without a start
  CHECK(find_invalid_utf8("0123456789\xE9t\xE9") == 10);  // Latin-1
  CHECK(find_invalid_utf8("a\xC0\x80") == 1);             // overlong NUL
  CHECK(find_invalid_utf8("a\xE0\x80\x80") == 1);         // overlong in three bytes
  CHECK(find_invalid_utf8("ab\xED\xA0\x80") == 2);        // surrogate
  CHECK(find_invalid_utf8("\xF4\x90\x80\x80") == 0);      // above U+10FFFF
  CHECK(find_invalid_utf8("\xF5\x80\x80\x80") == 0);
  CHECK(find_invalid_utf8("euro \xE2\x82") == 5);  // cut short
}

TEST_CASE("utf8: count_characters") {
  CHECK(count_characters("") == 0);
  CHECK(count_characters("a\xC3\xAF\xE2\x82\xAC\xF0\x9F\x98\x80") == 4);
}

TEST_CASE("utf8 stream: characters come whole, however the bytes are cut") {
  const std::string text = "a\xC3\xAF\xE2\x82\xAC\xF0\x9F\x98\x80z";
  for (size_t first = 0; first <= text.size(); ++first) {
    for (size_t second = first; second <= text.size(); ++second) {
      Utf8Stream stream;
      std::string out;
      for (const std::string& part :
           {text.substr(0, first), text.substr(first, second - first), text.substr(second)}) {
        const std::string shown = stream.feed(part);
        CHECK(is_valid(shown));
        out += shown;
      }
      CHECK(out == text);
      CHECK(stream.finish().empty());
    }
  }
}

TEST_CASE("utf8 stream: the three bytes of one character arrive singly") {
  Utf8Stream stream;
  CHECK(stream.feed("\xE2").empty());
  CHECK(stream.feed("\x82").empty());
  CHECK(stream.feed("\xAC") == "\xE2\x82\xAC");
}

TEST_CASE("utf8 stream: what cannot be a character becomes U+FFFD, one per broken start") {
  Utf8Stream stream;
  CHECK(stream.feed("a\xFF") == "a\xEF\xBF\xBD");
  CHECK(stream.feed("\xE2\x82") == "");
  CHECK(stream.feed("b") ==
        "\xEF\xBF\xBD"
        "b");
  CHECK(stream.feed("\xF0\x9F") == "");
  CHECK(stream.finish() == "\xEF\xBF\xBD");
  CHECK(stream.finish() == "");
}

TEST_CASE("utf8 stream: any bytes give valid text, and the same text byte by byte") {
  const size_t n = kBytes.size();
  for (size_t code = 0; code < n * n * n * n; ++code) {
    std::string bytes;
    for (size_t rest = code, i = 0; i < 4; ++i, rest /= n) bytes += kBytes[rest % n];
    Utf8Stream whole, single;
    std::string expected = whole.feed(bytes);
    expected += whole.finish();
    std::string out;
    for (const char byte : bytes) out += single.feed(std::string_view(&byte, 1));
    out += single.finish();
    if (out != expected || !is_valid(out) || (is_valid(bytes) && out != bytes)) FAIL("case " << code);
  }
}
