// Command lines: flags as data, which say what is parsed and what --help prints.
//
// All programs read their words alike. '_' and '-' are the same in a flag's name, and "--name=value" is
// "--name value". Whatever does not fit is an Error of one line that names the flag; an unknown flag gets the
// nearest known one as a suggestion.
//
//     FlagTable flags("nf-eval", "texts are given with --data");
//     flags.text({.name = "model", .takes = "DIR", .help = "checkpoint folder", .letter = 'm'}, model);
//     flags.whole({.name = "batch-size", .takes = "B", .help = "sequences at a time"}, batch_size, 1);
//     if (!flags.parse(argc, argv, about)) return kExitDone;
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nf {

enum class FlagKind : uint8_t {
  value,     // takes one value; the last one counts
  optional,  // takes one or none, which then says true
  list,      // takes one or more, and adds up when repeated
  toggle,    // takes none
};

struct Flag {
  std::string_view name;      // without the dashes, with '-'
  std::string_view key = {};  // nf-train: the training key it sets; empty: its own meaning, or a model's key
  FlagKind kind = FlagKind::value;
  std::string_view takes = {};         // placeholder of its value in --help
  std::string_view help = {};          // empty: another spelling, not shown
  std::string_view default_text = {};  // shown instead of the default's value
  char letter = 0;                     // its short form, "-m"; 0: none
};

// One flag as it was given, with the values of all its occurrences; of a toggle, "true".
struct GivenFlag {
  const Flag* flag;
  std::vector<std::string> values;
};

// The words after the program's name, with '-' for '_' in the names of flags.
std::vector<std::string> flag_words(int argc, const char* const* argv);

// Sorts words into flags, in the order of `flags`. `stray`: what to say about a word that belongs to no flag.
// Errors begin with "program: ".
std::vector<GivenFlag> split_flags(std::string_view program, std::vector<std::string> words,
                                   std::span<const Flag* const> flags, std::string_view stray);

// Lines of --help: one flag with its default, and running text. Wrapped, the following lines indented.
void append_flag_help(std::string& out, const Flag& flag, std::string_view standard);
void append_wrapped(std::string& out, std::string_view text, size_t indent = 0);

// The flags of a small program, each bound to a variable that holds its default.
class FlagTable {
 public:
  FlagTable(std::string_view program, std::string_view stray) : program_(program), stray_(stray) {}
  FlagTable(const FlagTable&) = delete;
  FlagTable& operator=(const FlagTable&) = delete;

  void section(std::string_view title);  // heads the flags that follow, in --help
  void text(const Flag& flag, std::string& out);
  void texts(Flag flag, std::vector<std::string>& out);
  void word(const Flag& flag, std::string& out, std::vector<std::string_view> words);  // one of them
  void whole(const Flag& flag, int64_t& out, int64_t low, int64_t high = std::numeric_limits<int64_t>::max());
  void real(const Flag& flag, double& out);
  void toggle(Flag flag, bool& out);

  // Sets the variables of the flags that are given. False: --help is, which has been printed: `about`, the
  // flags, and `examples`, a line each.
  bool parse(int argc, const char* const* argv, std::string_view about, std::string_view examples);

 private:
  struct Entry {
    Flag flag;
    std::string standard;  // the default, as shown
    std::function<void(const std::vector<std::string>&)> set;
    std::string_view section = {};
  };
  void add(const Flag& flag, std::string standard, std::function<void(const std::vector<std::string>&)> set);
  std::string help(std::string_view about, std::string_view examples) const;

  std::string_view program_, stray_, section_;
  std::vector<Entry> entries_;
};

}  // namespace nf
