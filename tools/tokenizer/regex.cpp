#define PCRE2_CODE_UNIT_WIDTH 8
#include "tools/tokenizer/regex.h"

#include <nf/error.h>
#include <nf/json.h>
#include <pcre2.h>

#include <array>
#include <cctype>

#include "tools/tokenizer/unicode_edition.h"

namespace nf {
namespace {

constexpr size_t kSmallStack = size_t{32} << 10, kLargeStack = size_t{8} << 20;
constexpr uint32_t kMatchLimit = 50'000'000;

// The members of a general category or a script, inside a set.
std::string members(std::string_view property) {
  const bool is_script = property.size() > 2;
  return fmt::format("\\p{{{}{}}}{}", is_script ? "sc:" : "", property, newer_characters(property));
}

// \w inside a set: Alphabetic (letters, numbers of letters, circled letters), marks, digits, connectors.
std::string word_members() {
  std::string set = "\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}";
  for (const char* category : {"L", "M", "Nd", "Nl", "Pc"}) set += members(category);
  return set;
}

// Rewrites one pattern from Oniguruma's reading to PCRE2's; see regex.h.
class Translation {
 public:
  explicit Translation(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '\\')
        escape();
      else if (in_set_)
        set_character();
      else
        character();
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail("regular expression '{}': {} is not supported", printable(pattern_), what);
  }

  bool next_is(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  void copy(size_t count) {
    out_ += pattern_.substr(at_, count);
    at_ += count;
  }

  void character() {
    if (next_is("}+")) refuse("the possessive {…}+");
    if (next_is("{,")) refuse("{,n}");
    if (next_is("(?")) group();
    if (next_is("[")) {
      in_set_ = true;
      copy(next_is("[^") ? 2 : 1);
      if (next_is("]")) refuse("an empty set");
      return;
    }
    copy(1);
  }

  void group() const {
    for (const std::string_view known : {"(?:", "(?i:", "(?i)", "(?=", "(?!", "(?<=", "(?<!", "(?>"})
      if (next_is(known)) return;
    refuse(printable(pattern_.substr(at_, 4)));
  }

  void set_character() {
    if (next_is("[")) refuse("a set inside a set");
    if (next_is("&&")) refuse("&&");
    if (next_is("]")) in_set_ = false;
    copy(1);
  }

  void escape() {
    require(at_ + 1 < pattern_.size(), "regular expression '{}': ends with a backslash", printable(pattern_));
    const char kind = pattern_[at_ + 1];
    const auto replace = [&](std::string_view text) {
      out_ += text;
      at_ += 2;
    };
    switch (kind) {
      case 's': return replace("\\p{wspace}");
      case 'S': return replace("\\P{wspace}");
      case 'd': at_ += 2; return one_of("Nd", false);
      case 'D': at_ += 2; return one_of("Nd", true);
      case 'v': return replace("\\x0b");
      case 'w': return replace(in_set_ ? word_members() : fmt::format("[{}]", word_members()));
      case 'W':
        if (in_set_) refuse("\\W inside a set");
        return replace(fmt::format("[^{}]", word_members()));
      case 'p':
      case 'P': return property();
      case 'u': return code_point();
      case 'x':
      case 'r':
      case 'n':
      case 't':
      case 'f': return copy(2);
      default: break;
    }
    if (std::isalnum(static_cast<unsigned char>(kind)) != 0) refuse(printable(pattern_.substr(at_, 2)));
    copy(2);
  }

  // General categories have one or two letters; everything longer is the name of a script.
  void property() {
    const size_t end = pattern_.find('}', at_);
    if (pattern_.substr(at_ + 2, 1) != "{" || end == std::string_view::npos) refuse("\\p without {…}");
    std::string_view name = pattern_.substr(at_ + 3, end - at_ - 3);
    bool negated = pattern_[at_ + 1] == 'P';
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    at_ = end + 1;
    one_of(name, negated);
  }

  // What a set excludes by \P cannot be taken out of it again: there, newer characters are in it too.
  void one_of(std::string_view property, bool negated) {
    if (!negated)
      out_ += in_set_ ? members(property) : fmt::format("[{}]", members(property));
    else if (!in_set_)
      out_ += fmt::format("[^{}]", members(property));
    else
      out_ += fmt::format("\\P{{{}{}}}", property.size() > 2 ? "sc:" : "", property);
  }

  void code_point() {
    const std::string_view digits = pattern_.substr(at_ + 2, 4);
    for (const char digit : digits)
      if (std::isxdigit(static_cast<unsigned char>(digit)) == 0) refuse("\\u without four digits");
    if (digits.size() != 4) refuse("\\u without four digits");
    out_ += fmt::format("\\x{{{}}}", digits);
    at_ += 6;
  }

  std::string_view pattern_;
  size_t at_ = 0;
  bool in_set_ = false;
  std::string out_;
};

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

const pcre2_code* code_of(const std::shared_ptr<const void>& code) {
  return static_cast<const pcre2_code*>(code.get());
}

}  // namespace

Regex::Regex(std::string_view pattern) : pattern_(pattern) {
  const std::string translated = Translation(pattern).run();
  std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE place = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                                   &place, context.get());
  require(code != nullptr, "regular expression '{}': {}", printable(pattern), message_of(error));
  code_ = std::shared_ptr<const void>(
      code, [](const void* held) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(held))); });
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where it cannot, pcre2_match() interprets
}

struct Regex::Matcher::Data {
  Data()
      : match(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(kSmallStack, kLargeStack, nullptr)) {
    if (!match || !context) throw std::bad_alloc();
    pcre2_set_match_limit(context, kMatchLimit);
    if (stack) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Data() {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  Data(const Data&) = delete;
  Data& operator=(const Data&) = delete;

  pcre2_match_data* match;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

Regex::Matcher::Matcher() : data_(std::make_shared<Data>()) {}

std::optional<RegexMatch> Regex::Matcher::find(const Regex& regex, std::string_view text, size_t from) {
  const int found = pcre2_match(code_of(regex.code_), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                from, PCRE2_NO_UTF_CHECK, data_->match, data_->context);
  if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
  require(found >= 0, "regular expression '{}': at byte {} of a text of {}: {}", printable(regex.pattern_),
          from, text.size(), message_of(found));
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data_->match);
  return RegexMatch{offsets[0], offsets[1]};
}

}  // namespace nf
