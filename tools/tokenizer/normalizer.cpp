#include "tools/tokenizer/normalizer.h"

#include <nf/error.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

struct Range {
  char32_t first, last;
};

// Characters that are their own NFC and never combine with the one before. Far from all of them: the common
// ones.
constexpr Range kStable[] = {
    {0x00, 0x2FF},       // Latin
    {0x400, 0x482},      // Cyrillic
    {0x5D0, 0x5EA},      // Hebrew
    {0x621, 0x64A},      // Arabic
    {0xE01, 0xE37},      // Thai
    {0x1E00, 0x1E99},    // Latin, additional
    {0x2010, 0x2027},    // punctuation
    {0x2030, 0x205E},    //
    {0x20A0, 0x20BF},    // currencies
    {0x2190, 0x2328},    // arrows, mathematics
    {0x2500, 0x27BF},    // boxes, symbols
    {0x3001, 0x3029},    // CJK punctuation
    {0x3041, 0x3096},    // Hiragana
    {0x30A0, 0x30FF},    // Katakana
    {0x3400, 0x4DBF},    // CJK ideographs
    {0x4E00, 0x9FFF},    //
    {0xAC00, 0xD7A3},    // Hangul syllables
    {0xFF01, 0xFF9D},    // full and half width
    {0x1F300, 0x1F64F},  // emoji
    {0x1F680, 0x1F6FF},  //
    {0x1F900, 0x1F9FF},  //
};

bool is_stable(char32_t character) {
  const Range* range = std::lower_bound(std::begin(kStable), std::end(kStable), character,
                                        [](const Range& r, char32_t c) { return r.last < c; });
  return range != std::end(kStable) && range->first <= character;
}

std::string to_form(std::string_view text, UnicodeForm form) {
  constexpr int kOptions[] = {UTF8PROC_COMPOSE, UTF8PROC_DECOMPOSE, UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
                              UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT};
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t length = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
      &result, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | kOptions[static_cast<size_t>(form)]));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, std::free);
  require(length >= 0, "tokenizer: normalizing a text of {} bytes: {}", text.size(), utf8proc_errmsg(length));
  return {reinterpret_cast<const char*>(result), static_cast<size_t>(length)};
}

std::string replaced(std::string_view text, const Regex& regex, const std::string& by,
                     Regex::Matcher& matcher) {
  std::string out;
  size_t done = 0, from = 0;
  while (from <= text.size()) {
    const auto match = matcher.find(regex, text, from);
    if (!match) break;
    out.append(text.substr(done, match->begin - done)).append(by);
    done = from = match->end;
    if (match->begin < match->end) continue;
    if (from == text.size()) break;
    from += first_character(text.substr(from)).length;  // a match of nothing: go on behind the next character
  }
  return out.append(text.substr(done));
}

}  // namespace

std::string replace_all(std::string_view text, std::string_view wanted, std::string_view by) {
  std::string out;
  size_t at = 0;
  for (size_t found; (found = text.find(wanted, at)) != std::string_view::npos; at = found + wanted.size())
    out.append(text.substr(at, found - at)).append(by);
  return out.append(text.substr(at));
}

bool surely_nfc(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    if (static_cast<uint8_t>(text[at]) < 0xCC) {  // below U+0300
      ++at;
      continue;
    }
    const Utf8Character character = first_character(text.substr(at));
    if (!is_stable(character.code_point)) return false;
    at += character.length;
  }
  return true;
}

std::string_view Normalizer::normalize(std::string_view text, std::string& memory,
                                       Regex::Matcher& matcher) const {
  const auto keep = [&](std::string changed) {
    memory = std::move(changed);
    text = memory;
  };
  for (const auto& step : steps_) {
    if (text.empty()) break;
    if (const auto* form = std::get_if<UnicodeForm>(&step)) {
      if (*form != UnicodeForm::nfc || !surely_nfc(text)) keep(to_form(text, *form));
    } else if (const auto* prepend = std::get_if<Prepend>(&step)) {
      keep(std::string(prepend->mark).append(text));
    } else if (const auto* literal = std::get_if<Literal>(&step)) {
      if (text.find(literal->text) != std::string_view::npos)
        keep(replace_all(text, literal->text, literal->by));
    } else {
      const auto& pattern = std::get<Pattern>(step);
      keep(replaced(text, pattern.regex, pattern.by, matcher));
    }
  }
  return text;
}

}  // namespace nf
