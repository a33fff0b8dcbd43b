#include "tools/tokenizer/pre_tokenizer.h"

#include <nf/error.h>

#include <optional>
#include <utility>

#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

// Puts the matching and the other segments of a piece, which come in order, together as a behaviour says.
class Joiner {
 public:
  Joiner(SplitBehavior behavior, std::string_view text, const WordSink& sink)
      : behavior_(behavior), text_(text), sink_(sink) {}

  void add(size_t begin, size_t end, bool matches) {
    switch (behavior_) {
      case SplitBehavior::removed:
        if (!matches) emit(begin, end);
        return;
      case SplitBehavior::isolated: emit(begin, end); return;
      case SplitBehavior::contiguous: hold(begin, end, held_ && matches == held_matches_); break;
      case SplitBehavior::merged_with_previous: hold(begin, end, held_ && matches && !held_matches_); break;
      case SplitBehavior::merged_with_next: hold(begin, end, held_ && !matches && held_matches_); break;
    }
    held_matches_ = matches;
  }

  void finish() {
    if (held_) emit(held_begin_, held_end_);
  }

 private:
  void emit(size_t begin, size_t end) const {
    if (begin < end) sink_(text_.substr(begin, end - begin));
  }
  void hold(size_t begin, size_t end, bool joins) {
    if (!joins) {
      finish();
      held_begin_ = begin;
    }
    held_ = true;
    held_end_ = end;
  }

  SplitBehavior behavior_;
  std::string_view text_;
  const WordSink& sink_;
  bool held_ = false, held_matches_ = false;
  size_t held_begin_ = 0, held_end_ = 0;
};

std::optional<RegexMatch> find_digits(const CharClasses& classes, std::string_view text, size_t from,
                                      bool individual) {
  size_t begin = from;
  while (begin < text.size() && classes.at(text, begin).kind != CharClass::number)
    begin += classes.at(text, begin).length;
  if (begin == text.size()) return std::nullopt;
  size_t end = begin + classes.at(text, begin).length;
  while (!individual && end < text.size() && classes.at(text, end).kind == CharClass::number)
    end += classes.at(text, end).length;
  return RegexMatch{begin, end};
}

}  // namespace

void PreTokenizer::cut(std::string_view pattern, bool literal, SplitBehavior behavior, bool invert) {
  require(!literal || !pattern.empty(), "an empty pattern");
  if (literal) {
    steps_.emplace_back(Cut{std::string(pattern), behavior, invert});
    return;
  }
  if (const Scanner scanner = find_scanner(pattern)) {
    if (!classes_) classes_ = std::make_shared<const CharClasses>();
    steps_.emplace_back(Cut{scanner, behavior, invert});
    return;
  }
  steps_.emplace_back(Cut{Regex(pattern), behavior, invert});
}

void PreTokenizer::digits(bool individual) {
  if (!classes_) classes_ = std::make_shared<const CharClasses>();
  steps_.emplace_back(Cut{Digit{individual}, SplitBehavior::isolated, false});
}

void PreTokenizer::prefix_space() { steps_.emplace_back(PrefixSpace{}); }

void PreTokenizer::metaspace(std::string replacement, PrependScheme scheme, bool split) {
  steps_.emplace_back(Metaspace{replacement, scheme});
  if (split) cut(replacement, true, SplitBehavior::merged_with_next, false);
}

struct PreTokenizer::Run {
  const PreTokenizer& self;
  Regex::Matcher& matcher;
  const WordSink& word;

  void step(size_t index, std::string_view piece, bool at_start) {
    if (piece.empty()) return;
    if (index == self.steps_.size()) return word(piece);
    std::visit([&](const auto& kind) { apply(kind, index + 1, piece, at_start); }, self.steps_[index]);
  }

  void apply(const Cut& cut, size_t next, std::string_view piece, bool at_start) {
    const bool is_last = next == self.steps_.size();
    const WordSink deeper = [this, next, at_start, begin = piece.data()](std::string_view part) {
      step(next, part, at_start && part.data() == begin);
    };
    const WordSink& sink = is_last ? word : deeper;
    if (const auto* scan = std::get_if<Scanner>(&cut.pattern);
        scan && cut.behavior == SplitBehavior::isolated) {
      for (size_t at = 0; at < piece.size();) {
        const size_t end = (*scan)(*self.classes_, piece, at);
        sink(piece.substr(at, end - at));
        at = end;
      }
      return;
    }
    Joiner joiner(cut.behavior, piece, sink);
    size_t done = 0, from = 0;
    while (from < piece.size()) {
      const std::optional<RegexMatch> match = find(cut.pattern, piece, from);
      if (!match) break;
      if (done < match->begin) joiner.add(done, match->begin, cut.invert);
      joiner.add(match->begin, match->end, !cut.invert);
      done = from = match->end;
      // A match of nothing still cuts; the search goes on behind the next character.
      if (match->begin == match->end && from < piece.size())
        from += first_character(piece.substr(from)).length;
    }
    if (done < piece.size()) joiner.add(done, piece.size(), cut.invert);
    joiner.finish();
  }

  void apply(PrefixSpace, size_t next, std::string_view piece, bool at_start) {
    if (piece.starts_with(' ')) return step(next, piece, at_start);
    step(next, std::string(" ").append(piece), at_start);
  }

  void apply(const Metaspace& kind, size_t next, std::string_view piece, bool at_start) {
    std::string changed;
    for (const char c : piece) {
      if (c == ' ')
        changed += kind.replacement;
      else
        changed += c;
    }
    const bool prepend =
        kind.scheme == PrependScheme::always || (kind.scheme == PrependScheme::first && at_start);
    if (prepend && !changed.starts_with(kind.replacement)) changed.insert(0, kind.replacement);
    step(next, changed, at_start);
  }

  std::optional<RegexMatch> find(const Pattern& pattern, std::string_view text, size_t from) {
    if (const auto* scan = std::get_if<Scanner>(&pattern))
      return RegexMatch{from, (*scan)(*self.classes_, text, from)};
    if (const auto* regex = std::get_if<Regex>(&pattern)) return matcher.find(*regex, text, from);
    if (const auto* digit = std::get_if<Digit>(&pattern))
      return find_digits(*self.classes_, text, from, digit->individual);
    const auto& literal = std::get<std::string>(pattern);
    const size_t begin = text.find(literal, from);
    if (begin == std::string_view::npos) return std::nullopt;
    return RegexMatch{begin, begin + literal.size()};
  }
};

void PreTokenizer::split(std::string_view text, bool at_start, Regex::Matcher& matcher,
                         const WordSink& word) const {
  Run{*this, matcher, word}.step(0, text, at_start);
}

}  // namespace nf
