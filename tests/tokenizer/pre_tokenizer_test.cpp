#include "tools/tokenizer/pre_tokenizer.h"

#include <doctest/doctest.h>
#include <nf/error.h>

#include "tests/tokenizer/texts.h"

using namespace nf;

namespace {

std::vector<std::string> words(const PreTokenizer& splitter, std::string_view text) {
  std::vector<std::string> out;
  Regex::Matcher matcher;
  splitter.split(text, true, matcher, [&](std::string_view word) { out.emplace_back(word); });
  return out;
}

std::vector<std::string> matches(const std::string& pattern, std::string_view text) {
  std::vector<std::string> out;
  const Regex regex(pattern);
  Regex::Matcher matcher;
  size_t from = 0;
  while (const auto match = matcher.find(regex, text, from)) {
    out.emplace_back(text.substr(match->begin, match->end - match->begin));
    from = match->end;
  }
  return out;
}

// Llama 3's pattern with numbers cut into single digits, as Qwen has it.
const std::string kQwenPattern = [] {
  std::string pattern(kLlama3Pattern);
  pattern.erase(pattern.find("{1,3}"), 5);
  return pattern;
}();

}  // namespace

TEST_CASE("scanners split as the patterns they stand for") {
  for (const std::string& pattern : {std::string(kGpt2Pattern), std::string(kLlama3Pattern), kQwenPattern}) {
    CAPTURE(pattern);
    const bool has_scanner = find_scanner(pattern) != nullptr;
    REQUIRE(has_scanner);
    PreTokenizer splitter;
    splitter.cut(pattern, false, SplitBehavior::isolated, false);
    for (uint64_t seed = 0; seed < 300; ++seed) {
      const std::string text = random_text(seed, 1 + seed % 97);
      REQUIRE(words(splitter, text) == matches(pattern, text));
    }
  }
  const bool has_scanner = find_scanner("\\s+") != nullptr;
  CHECK(!has_scanner);
}

TEST_CASE("scanners and patterns agree on every character there is") {
  std::string text;
  for (char32_t c = 1; c < 0x110000; ++c)
    if (c < 0xD800 || c > 0xDFFF) append_utf8(text, c);
  for (const std::string& pattern : {std::string(kGpt2Pattern), std::string(kLlama3Pattern)}) {
    PreTokenizer splitter;
    splitter.cut(pattern, false, SplitBehavior::isolated, false);
    const bool alike = words(splitter, text) == matches(pattern, text);
    CHECK(alike);
  }
}

TEST_CASE("regular expressions are read as Oniguruma reads them") {
  using Words = std::vector<std::string>;
  CHECK(matches("\\s", "a\xE1\xA0\x8E\xC2\x85\xC2\xA0") == Words{"\xC2\x85", "\xC2\xA0"});  // not U+180E
  CHECK(matches("[^\\S\\n]+", "a \n\t") == Words{" ", "\t"});
  CHECK(matches("\\w+", "a_\xCC\x81 \xE2\x80\xBF-") == Words{"a_\xCC\x81", "\xE2\x80\xBF"});
  CHECK(matches("\\w", "\u24B6\u2160\u00BD.") ==
        Words{"\u24B6", "\u2160"});  // circled letters, Roman numbers
  CHECK(matches("[\\w-]+", "a-b c") == Words{"a-b", "c"});
  CHECK(matches("\\W", "a.b") == Words{"."});
  CHECK(matches("\\d", "1\xD9\xA3\xC2\xBD") == Words{"1", "\xD9\xA3"});
  CHECK(matches("[\\p{Han}]+", "\xE4\xBD\xA0\xE3\x80\x81\xE5\xA5\xBD") ==
        Words{"\xE4\xBD\xA0", "\xE5\xA5\xBD"});
  CHECK(matches("\\p{^L}", "a1") == Words{"1"});
  CHECK(matches("^b$", "a\nb\nc") == Words{"b"});
  CHECK(matches("\\u00e9", "\xC3\xA9") == Words{"\xC3\xA9"});
  CHECK(matches("(?i:k)", "K\xE2\x84\xAA") == Words{"K", "\xE2\x84\xAA"});

  for (const char* pattern : {"\\h", "\\b", "(a)\\1", "a{1,3}+", "a{,3}", "[a[b]]", "[a&&b]", "[]]", "(?m)a",
                              "(?<n>a)", "[\\W]", "(", "a\\", "\\p", "\\p{Klingon}", "\\u12"}) {
    CAPTURE(pattern);
    CHECK_THROWS_WITH_AS(Regex{pattern}, doctest::Contains("regular expression"), Error);
  }
}

TEST_CASE("characters that are newer than PCRE2 have the properties that Unicode 16 gives them") {
  using Words = std::vector<std::string>;
  const std::string text = "\U00016D4D#a \U0001360A\U00010D45!\U0001CCF0b\U0002EBF0\U0001F6DC";
  CHECK(matches("\\p{L}+", text) == Words{"\U00016D4D", "a", "\U0001360A", "b\U0002EBF0"});
  CHECK(matches("[^\\s\\p{L}\\p{N}]+", text) == Words{"#", "!", "\U0001F6DC"});
  CHECK(matches("\\P{L}", text) == Words{"#", " ", "\U00010D45", "!", "\U0001CCF0", "\U0001F6DC"});
  CHECK(matches("\\d", text) == Words{"\U00010D45", "\U0001CCF0"});
  CHECK(matches("\\W", text) == Words{"#", " ", "!", "\U0001F6DC"});
  CHECK(matches("\\p{Han}", text) == Words{"\U0002EBF0"});
  CHECK(matches("\\p{So}", text) == Words{"\U0001F6DC"});
  CHECK(matches("\\p{Lu}", "\u1C89\U00010D50a") == Words{"\u1C89", "\U00010D50"});

  PreTokenizer splitter;
  splitter.cut(kLlama3Pattern, false, SplitBehavior::isolated, false);
  CHECK(words(splitter, text) == Words{"\U00016D4D", "#a", " \U0001360A", "\U00010D45", "!", "\U0001CCF0",
                                       "b\U0002EBF0", "\U0001F6DC"});
}

TEST_CASE("regular expressions that run away are stopped") {
  Regex::Matcher matcher;
  const Regex regex("(?:a+a+)+[bc]");
  CHECK_THROWS_WITH_AS(matcher.find(regex, std::string(5000, 'a'), 0), doctest::Contains("match limit"),
                       Error);
  // Linear ones may be long.
  const std::string spaces(3'000'000, ' ');
  CHECK(matcher.find(Regex("\\s+(?!\\S)"), spaces, 0)->end == spaces.size());
}

TEST_CASE("a pattern that matches nothing still cuts, and ends") {
  PreTokenizer splitter;
  splitter.cut("(?=b)", false, SplitBehavior::isolated, false);
  CHECK(words(splitter, "abb") == std::vector<std::string>{"a", "b", "b"});
}
