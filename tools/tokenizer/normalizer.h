// The normalizer of a tokenizer.json: rewrites text before it is split.
//
// A list of steps, which correspond to Hugging Face's types NFC, NFD, NFKC, NFKD (Unicode Standard Annex 15,
// by libutf8proc), Prepend and Replace.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tools/tokenizer/regex.h"

namespace nf {

enum class UnicodeForm : uint8_t { nfc, nfd, nfkc, nfkd };

// Immutable; several threads may normalize at once, each with a Regex::Matcher of its own.
class Normalizer {
 public:
  void unicode(UnicodeForm form) { steps_.emplace_back(form); }
  // Puts `mark` before a text that is not empty.
  void prepend(std::string mark) { steps_.emplace_back(Prepend{std::move(mark)}); }
  // Replaces every occurrence of a text, which is not empty, or of what a regular expression matches.
  void replace(std::string text, std::string by) {
    steps_.emplace_back(Literal{std::move(text), std::move(by)});
  }
  void replace(Regex regex, std::string by) { steps_.emplace_back(Pattern{std::move(regex), std::move(by)}); }

  bool empty() const { return steps_.empty(); }

  // The normal form of `text` (valid UTF-8): `text` itself where nothing changes, else held in `memory`.
  // Throws Error for a text that the Unicode library refuses (too long) or that a regular expression fails
  // on.
  std::string_view normalize(std::string_view text, std::string& memory, Regex::Matcher& matcher) const;

 private:
  struct Prepend {
    std::string mark;
  };
  struct Literal {
    std::string text, by;
  };
  struct Pattern {
    Regex regex;
    std::string by;
  };
  std::vector<std::variant<UnicodeForm, Prepend, Literal, Pattern>> steps_;
};

// `text` with `by` for every occurrence of `wanted`, which is not empty.
std::string replace_all(std::string_view text, std::string_view wanted, std::string_view by);

// Whether a text is in NFC for certain, by ranges of characters that neither change nor combine. Quick: what
// most texts consist of passes.
bool surely_nfc(std::string_view text);

}  // namespace nf
