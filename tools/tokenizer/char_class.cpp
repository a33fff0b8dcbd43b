#include "tools/tokenizer/char_class.h"

#include <map>
#include <string>

#include "tools/tokenizer/regex.h"
#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

constexpr char32_t kCodePoints = 0x110000;
constexpr char32_t kFirstSurrogate = 0xD800, kBehindSurrogates = 0xE000;

// Every character there is, in order, as UTF-8.
std::string all_characters() {
  std::string text;
  for (char32_t c = 0; c < kCodePoints; ++c)
    if (c < kFirstSurrogate || c >= kBehindSurrogates) append_utf8(text, c);
  return text;
}

}  // namespace

// The regular expressions are asked, not a table of another library: so both know the same edition of
// Unicode, and a scanner splits as the pattern it stands for.
CharClasses::CharClasses() {
  std::vector<uint8_t> all(kCodePoints, static_cast<uint8_t>(CharClass::other));
  const std::string text = all_characters();
  Regex::Matcher matcher;
  const auto mark = [&](const char* pattern, CharClass kind) {
    const Regex regex(pattern);
    size_t from = 0;
    while (const auto match = matcher.find(regex, text, from)) {
      for (from = match->begin; from < match->end;) {
        const Utf8Character character = first_character(std::string_view(text).substr(from));
        all[character.code_point] = static_cast<uint8_t>(kind);
        from += character.length;
      }
    }
  };
  mark("\\p{L}+", CharClass::letter);
  mark("\\p{N}+", CharClass::number);
  mark("\\s+", CharClass::space);
  mark("[\\r\\n]+", CharClass::newline);

  std::map<std::vector<uint8_t>, uint16_t> known;
  for (size_t block = 0; block < block_of_.size(); ++block) {
    const auto begin = all.begin() + static_cast<ptrdiff_t>(block * 256);
    const auto [place, is_new] =
        known.try_emplace(std::vector<uint8_t>(begin, begin + 256), static_cast<uint16_t>(known.size()));
    block_of_[block] = place->second;
    if (is_new) blocks_.insert(blocks_.end(), begin, begin + 256);
  }
}

}  // namespace nf
