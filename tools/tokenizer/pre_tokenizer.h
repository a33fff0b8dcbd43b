// The pre-tokenizer of a tokenizer.json: cuts text into the words that byte pairs are merged in.
//
// A list of steps, each cutting the pieces that the step before it gave. Steps correspond to Hugging Face's
// types:
//   Split       cut() by a pattern, in one of five behaviours
//   ByteLevel   prefix_space(), then cut() by GPT-2's pattern; that bytes become letters is the model's
//   affair Digits      cut() by numbers, one by one or together Metaspace   metaspace()
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tools/tokenizer/char_class.h"
#include "tools/tokenizer/regex.h"
#include "tools/tokenizer/scanners.h"

namespace nf {

// What becomes of the places that match, as Hugging Face names it.
enum class SplitBehavior : uint8_t { removed, isolated, merged_with_previous, merged_with_next, contiguous };

// Where a leading mark is put: before every piece, only at the start of the text, nowhere.
enum class PrependScheme : uint8_t { always, first, never };

using WordSink = std::function<void(std::string_view word)>;

// Immutable; several threads may split at once, each with a Regex::Matcher of its own.
class PreTokenizer {
 public:
  // The steps, in order. `pattern` is a regular expression (see Regex, whose errors pass through) or,
  // literal, a text that is not empty. invert: what matches and what does not change their parts.
  void cut(std::string_view pattern, bool literal, SplitBehavior behavior, bool invert);
  void digits(bool individual);
  void prefix_space();
  void metaspace(std::string replacement, PrependScheme scheme, bool split);

  // Calls `word` for every word of `text` (valid UTF-8), in order; none is empty. at_start: the text is the
  // start of the user's text. A word lives until the call returns.
  void split(std::string_view text, bool at_start, Regex::Matcher& matcher, const WordSink& word) const;

 private:
  struct Digit {
    bool individual;
  };
  using Pattern = std::variant<Scanner, Regex, std::string, Digit>;
  struct Cut {
    Pattern pattern;
    SplitBehavior behavior;
    bool invert;
  };
  struct PrefixSpace {};
  struct Metaspace {
    std::string replacement;
    PrependScheme scheme;
  };
  using Step = std::variant<Cut, PrefixSpace, Metaspace>;

  struct Run;  // one call of split()

  std::vector<Step> steps_;
  std::shared_ptr<const CharClasses> classes_;  // where a step needs them
};

}  // namespace nf
