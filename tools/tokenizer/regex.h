// The regular expressions of tokenizer.json, which are written for Oniguruma (Ruby's syntax over Unicode),
// run by PCRE2 with its just-in-time compiler.
//
// What the two read differently is translated: \s is White_Space, \w is Alphabetic, marks, decimal digits and
// connectors, names of scripts mean the script itself, ^ and $ are the ends of lines, properties are those of
// one edition of Unicode (unicode_edition.h). What cannot be translated (sets inside sets, &&, possessive
// {n}+, \h, \b, references, …) is an Error that quotes it.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace nf {

struct RegexMatch {
  size_t begin, end;
};

// Immutable; may be used by several threads, each with a Matcher of its own.
class Regex {
 public:
  // Throws Error that quotes the pattern.
  explicit Regex(std::string_view pattern);

  const std::string& pattern() const { return pattern_; }

  // The memory that matching needs. Belongs to one thread, and may outlive the Regex.
  class Matcher {
   public:
    Matcher();
    // The first match that begins at `from` or later. `text` is valid UTF-8 and `from` the start of a
    // character. Throws Error when a match takes more steps or memory than any sensible pattern needs.
    std::optional<RegexMatch> find(const Regex& regex, std::string_view text, size_t from);

   private:
    struct Data;
    std::shared_ptr<Data> data_;
  };

 private:
  std::string pattern_;
  std::shared_ptr<const void> code_;
};

}  // namespace nf
