#include "tools/tokenizer/scanners.h"

#include <algorithm>

namespace nf {
namespace {

struct Text {
  const CharClasses& classes;
  std::string_view bytes;

  bool ends(size_t at) const { return at >= bytes.size(); }
  ClassifiedChar at(size_t place) const { return classes.at(bytes, place); }
  bool is(size_t place, CharClass kind) const { return !ends(place) && at(place).kind == kind; }

  // The end of the run of characters of this kind that begins at `place`, which may be empty.
  size_t run(size_t place, CharClass kind) const {
    while (!ends(place)) {
      const ClassifiedChar next = at(place);
      if (next.kind != kind) break;
      place += next.length;
    }
    return place;
  }
};

// Length of the contraction at `at`: 's 't 're 've 'm 'll 'd, or 0. In any case, U+017F (long s) counts as an
// s: that is what folding its case gives.
template <bool any_case>
size_t contraction(std::string_view text, size_t at) {
  const auto letter = [&](size_t i) -> char {
    if (at + i >= text.size()) return 0;
    const char c = text[at + i];
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  const char first = letter(1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  const char second = letter(2);
  if ((first == 'r' || first == 'v') && second == 'e') return 3;
  if (first == 'l' && second == 'l') return 3;
  if (any_case && first == '\xC5' && second == '\xBF') return 3;
  return 0;
}

// \s+(?!\S)|\s+ at a white-space character, after \s*[\r\n]+ where line ends are words of their own: up to
// the last line end of the run; without one, the run but for its last character where text follows, which
// then begins a word.
template <bool own_line_ends>
size_t white_space(const Text& text, size_t at) {
  size_t last_line_end = 0, last_begin = at, end = at;
  while (!text.ends(end)) {
    const ClassifiedChar next = text.at(end);
    if (next.kind != CharClass::space && next.kind != CharClass::newline) break;
    last_begin = end;
    end += next.length;
    if (next.kind == CharClass::newline) last_line_end = end;
  }
  if (own_line_ends && last_line_end > 0) return last_line_end;
  return text.ends(end) || last_begin == at ? end : last_begin;
}

size_t scan_gpt2(const CharClasses& classes, std::string_view bytes, size_t at) {
  const Text text{classes, bytes};
  if (bytes[at] == '\'')
    if (const size_t length = contraction<false>(bytes, at)) return at + length;
  // " ?" before each of the three kinds.
  const size_t begin = bytes[at] == ' ' && !text.ends(at + 1) ? at + 1 : at;
  const ClassifiedChar first = text.at(begin);
  if (first.kind == CharClass::space || first.kind == CharClass::newline) return white_space<false>(text, at);
  return text.run(begin + first.length, first.kind);
}

template <size_t max_digits>
size_t scan_gpt4(const CharClasses& classes, std::string_view bytes, size_t at) {
  const Text text{classes, bytes};
  const ClassifiedChar first = text.at(at);
  const size_t behind = at + first.length;
  if (first.kind == CharClass::letter) return text.run(behind, CharClass::letter);
  if (first.kind == CharClass::number) {
    size_t end = behind;
    for (size_t digits = 1; digits < max_digits && text.is(end, CharClass::number); ++digits)
      end += text.at(end).length;
    return end;
  }
  if (bytes[at] == '\'')
    if (const size_t length = contraction<true>(bytes, at)) return at + length;
  // [^\r\n\p{L}\p{N}]?\p{L}+
  if (first.kind != CharClass::newline && text.is(behind, CharClass::letter))
    return text.run(behind, CharClass::letter);
  //  ?[^\s\p{L}\p{N}]+[\r\n]*
  if (first.kind == CharClass::other || (bytes[at] == ' ' && text.is(behind, CharClass::other)))
    return text.run(text.run(behind, CharClass::other), CharClass::newline);
  return white_space<true>(text, at);
}

struct Known {
  std::string_view pattern;
  Scanner scan;
};

constexpr Known kKnown[] = {
    {kGpt2Pattern, scan_gpt2},
    {kLlama3Pattern, scan_gpt4<3>},
    {kQwen2Pattern, scan_gpt4<1>},
};

}  // namespace

Scanner find_scanner(std::string_view pattern) {
  const auto known = std::find_if(std::begin(kKnown), std::end(kKnown),
                                  [&](const Known& entry) { return entry.pattern == pattern; });
  return known == std::end(kKnown) ? nullptr : known->scan;
}

}  // namespace nf
