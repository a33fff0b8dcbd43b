#include "tools/arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>

#include "models/config.h"
#include "nf/error.h"
#include "nf/json.h"

namespace nf {
namespace {

constexpr size_t kColumn = 34;  // where the explanations begin
constexpr size_t kWidth = 110;

std::string_view flag_name(std::string_view word) {
  word.remove_prefix(std::min(word.find_first_not_of('-'), word.size()));
  return word.substr(0, word.find('='));
}

[[noreturn]] void fail_unknown(std::string_view program, std::string_view word,
                               std::span<const Flag* const> flags) {
  std::vector<std::string_view> known;
  for (const Flag* flag : flags) known.push_back(flag->name);
  const std::string_view near = nearest(flag_name(word), known);
  if (near.empty()) fail("{}: unknown flag '{}'; see --help", program, printable(word));
  fail("{}: unknown flag '{}'; did you mean '--{}'?", program, printable(word), near);
}

// "-seed 3" would be read as the short -s with a value.
void check_dashes(std::string_view program, const std::vector<std::string>& words,
                  std::span<const Flag* const> flags) {
  for (const std::string_view word : words) {
    if (word.size() < 3 || word[0] != '-' || word[1] == '-') continue;
    const std::string_view called = flag_name(word);
    if (std::any_of(flags.begin(), flags.end(), [&](const Flag* flag) { return flag->name == called; }))
      fail_unknown(program, word, flags);
  }
}

CLI::Option* add_option(CLI::App& app, const Flag& flag) {
  const std::string name =
      flag.letter != 0 ? fmt::format("-{},--{}", flag.letter, flag.name) : fmt::format("--{}", flag.name);
  if (flag.kind == FlagKind::toggle)
    return app.add_flag(name)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  CLI::Option* option = app.add_option(name, [](const CLI::results_t&) { return true; });
  if (flag.kind == FlagKind::optional) option->expected(0, 1);
  if (flag.kind == FlagKind::list)
    return option->expected(1, CLI::detail::expected_max_vector_size)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->allow_extra_args();
  return option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

void parse(CLI::App& app, std::string_view program, std::vector<std::string> words) {
  std::reverse(words.begin(), words.end());  // as CLI11 takes them
  try {
    app.parse(words);
  } catch (const CLI::ArgumentMismatch& error) {
    const std::string_view what = error.what();  // "--lr: 1 required …"
    fail("{}: {} needs a value; see --help", program, printable(what.substr(0, what.find(':'))));
  } catch (const CLI::ParseError& error) {
    fail("{}: {}; see --help", program, printable(error.what()));
  }
}

// The part of a text that reads as a number must be all of it.
template <typename Number>
bool read_number(const std::string& text, Number& out) {
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, out);
  return at == end && error == std::errc();
}

}  // namespace

std::vector<std::string> flag_words(int argc, const char* const* argv) {
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    std::string& word = words.emplace_back(argv[i]);
    if (!word.starts_with("--")) continue;
    const size_t equals = std::min(word.find('='), word.size());
    std::replace(word.begin(), word.begin() + static_cast<std::ptrdiff_t>(equals), '_', '-');
  }
  return words;
}

std::vector<GivenFlag> split_flags(std::string_view program, std::vector<std::string> words,
                                   std::span<const Flag* const> flags, std::string_view stray) {
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  std::vector<CLI::Option*> options;
  for (const Flag* flag : flags) options.push_back(add_option(app, *flag));
  check_dashes(program, words, flags);
  parse(app, program, std::move(words));
  if (const std::vector<std::string> extras = app.remaining(); !extras.empty()) {
    const std::string& word = extras.front();
    require(word.starts_with('-'), "{}: unexpected '{}'; {}, see --help", program, printable(word), stray);
    fail_unknown(program, word, flags);
  }
  std::vector<GivenFlag> given;
  for (size_t i = 0; i < flags.size(); ++i) {
    if (options[i]->count() == 0) continue;
    std::vector<std::string> values = options[i]->results();
    if (flags[i]->kind == FlagKind::optional && values.back().empty()) values.back() = "true";
    given.push_back({flags[i], std::move(values)});
  }
  return given;
}

// --- help
// -----------------------------------------------------------------------------------------------------------

namespace {

// `column`: where the line stands now.
void append_wrapped_at(std::string& out, std::string_view text, size_t column, size_t indent) {
  bool first = true;
  while (!text.empty()) {
    const size_t space = std::min(text.find(' '), text.size());
    if (!first && column + 1 + space > kWidth) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
      first = true;
    }
    if (!first) out += ' ';
    out += text.substr(0, space);
    column += space + (first ? 0 : 1);
    first = false;
    text.remove_prefix(std::min(space + 1, text.size()));
  }
  out += '\n';
}

}  // namespace

void append_wrapped(std::string& out, std::string_view text, size_t indent) {
  out += std::string(indent, ' ');
  append_wrapped_at(out, text, indent, indent);
}

void append_flag_help(std::string& out, const Flag& flag, std::string_view standard) {
  if (flag.help.empty()) return;
  std::string left = flag.letter != 0 ? fmt::format("  -{}, --{}", flag.letter, flag.name)
                                      : fmt::format("  --{}", flag.name);
  if (flag.kind == FlagKind::optional)
    left += fmt::format(" [{}]", flag.takes);
  else if (!flag.takes.empty())
    left += fmt::format(" {}{}", flag.takes, flag.kind == FlagKind::list ? "…" : "");
  const size_t shown =
      left.size() - (left.ends_with("…") ? 2 : 0);  // the dots are one character in three bytes
  out += left;
  if (shown + 2 > kColumn)
    out += "\n" + std::string(kColumn, ' ');
  else
    out += std::string(kColumn - shown, ' ');
  append_wrapped_at(out,
                    standard.empty() ? std::string(flag.help) : fmt::format("{} [{}]", flag.help, standard),
                    kColumn, kColumn);
}

// --- the flags of a small program
// -----------------------------------------------------------------------------------

void FlagTable::section(std::string_view title) { section_ = title; }

void FlagTable::add(const Flag& flag, std::string standard,
                    std::function<void(const std::vector<std::string>&)> set) {
  if (!flag.default_text.empty()) standard = flag.default_text;
  entries_.push_back({flag, std::move(standard), std::move(set), section_});
}

void FlagTable::text(const Flag& flag, std::string& out) {
  add(flag, out, [&out](const std::vector<std::string>& values) { out = values.back(); });
}

void FlagTable::texts(Flag flag, std::vector<std::string>& out) {
  flag.kind = FlagKind::list;
  add(flag, "", [&out](const std::vector<std::string>& values) { out = values; });
}

void FlagTable::word(const Flag& flag, std::string& out, std::vector<std::string_view> words) {
  add(flag, out, [this, flag, &out, words = std::move(words)](const std::vector<std::string>& values) {
    require(std::find(words.begin(), words.end(), values.back()) != words.end(),
            "{}: --{} must be one of {}, not '{}'", program_, flag.name, fmt::join(words, ", "),
            printable(values.back()));
    out = values.back();
  });
}

void FlagTable::whole(const Flag& flag, int64_t& out, int64_t low, int64_t high) {
  const std::string rule = high == std::numeric_limits<int64_t>::max()
                               ? fmt::format("of at least {}", low)
                               : fmt::format("from {} to {}", low, high);
  add(flag, fmt::format("{}", out),
      [this, flag, &out, low, high, rule](const std::vector<std::string>& values) {
        int64_t value = 0;
        require(read_number(values.back(), value) && value >= low && value <= high,
                "{}: --{} must be a whole number {}, not '{}'", program_, flag.name, rule,
                printable(values.back()));
        out = value;
      });
}

void FlagTable::real(const Flag& flag, double& out) {
  add(flag, fmt::format("{}", out), [this, flag, &out](const std::vector<std::string>& values) {
    double value = 0;
    require(read_number(values.back(), value) && std::isfinite(value), "{}: --{} must be a number, not '{}'",
            program_, flag.name, printable(values.back()));
    out = value;
  });
}

void FlagTable::toggle(Flag flag, bool& out) {
  flag.kind = FlagKind::toggle;
  add(flag, "", [&out](const std::vector<std::string>&) { out = true; });
}

std::string FlagTable::help(std::string_view about, std::string_view examples) const {
  std::string out;
  append_wrapped(out, about);
  out += fmt::format("\n{}\n", examples);
  std::string_view section;
  for (const Entry& entry : entries_) {
    if (entry.section != section) out += fmt::format("\n{}\n", entry.section);
    section = entry.section;
    append_flag_help(out, entry.flag, entry.standard);
  }
  return out;
}

bool FlagTable::parse(int argc, const char* const* argv, std::string_view about, std::string_view examples) {
  bool help_wanted = false;
  toggle({.name = "help", .help = "this text", .letter = 'h'}, help_wanted);
  bool version_wanted = false;  // run_program has seen to it
  toggle({.name = "version", .help = "the version, and the backends compiled in"}, version_wanted);
  std::vector<const Flag*> flags;
  for (const Entry& entry : entries_) flags.push_back(&entry.flag);
  const std::vector<GivenFlag> given = split_flags(program_, flag_words(argc, argv), flags, stray_);
  for (const GivenFlag& flag : given) help_wanted |= flag.flag->name == "help";
  if (help_wanted) {
    fmt::print("{}", help(about, examples));
    return false;
  }
  for (const auto& [flag, values] : given)
    for (const Entry& entry : entries_)
      if (&entry.flag == flag) entry.set(values);
  return true;
}

}  // namespace nf
