#include "tools/arguments.h"

#include <doctest/doctest.h>

#include "nf/error.h"

namespace nf {
namespace {

// A small program's variables, as a command line leaves them.
struct Program {
  std::string model, device = "cpu";
  std::vector<std::string> data;
  int64_t batch_size = 8, top_k = 0;
  double min_p = 0.5;
  bool json = false;

  Program& parse(std::vector<const char*> words) {
    words.insert(words.begin(), "nf-x");
    FlagTable flags("nf-x", "texts are given with --data");
    flags.text({.name = "model", .takes = "DIR", .help = "a model", .letter = 'm'}, model);
    flags.texts({.name = "data", .takes = "PATH", .help = "texts"}, data);
    flags.word({.name = "device", .takes = "cpu|reference", .help = "device"}, device, {"cpu", "reference"});
    flags.whole({.name = "batch-size", .takes = "B", .help = "rows"}, batch_size, 1, 100);
    flags.whole({.name = "top-k", .takes = "K", .help = "candidates"}, top_k, 0);
    flags.real({.name = "min-p", .takes = "X", .help = "share"}, min_p);
    flags.toggle({.name = "json", .help = "JSON"}, json);
    flags.parse(static_cast<int>(words.size()), words.data(), "about", "examples");
    return *this;
  }
};

std::string message_of(std::vector<const char*> words) {
  try {
    Program().parse(std::move(words));
  } catch (const Error& error) {
    CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
    return error.what();
  }
  return "";
}

TEST_CASE("flags set their variables, in any order and spelling; the others keep their defaults") {
  Program program;
  program.parse({"--batch_size=3", "--data", "a_b", "c", "-m", "run_1", "--min-p", "-2.5e-1", "--json",
                 "--top_k", "7", "--top-k", "9", "--data", "d"});
  CHECK(program.model == "run_1");
  CHECK(program.data == std::vector<std::string>{"a_b", "c", "d"});
  CHECK(program.batch_size == 3);
  CHECK(program.top_k == 9);  // the last one counts
  CHECK(program.min_p == -0.25);
  CHECK(program.json);
  CHECK(program.device == "cpu");
  CHECK(Program().parse({}).batch_size == 8);
  CHECK(Program().parse({"--model", ""}).model.empty());
  CHECK(Program().parse({"--model=--x_y"}).model == "--x_y");
}

TEST_CASE("what does not fit is one line that names the flag") {
  CHECK(message_of({"--batchsize", "1"}) == "nf-x: unknown flag '--batchsize'; did you mean '--batch-size'?");
  CHECK(message_of({"--batch_sise=1"}) ==
        "nf-x: unknown flag '--batch-sise=1'; did you mean '--batch-size'?");
  CHECK(message_of({"-json"}) == "nf-x: unknown flag '-json'; did you mean '--json'?");
  CHECK(message_of({"-q"}) == "nf-x: unknown flag '-q'; see --help");
  CHECK(message_of({"stray", "-m", "x"}) ==
        "nf-x: unexpected 'stray'; texts are given with --data, see --help");
  CHECK(message_of({"--batch-size"}) == "nf-x: --batch-size needs a value; see --help");
  CHECK(message_of({"-m"}).find("--model needs a value") != std::string::npos);
  CHECK(message_of({"--batch-size", "0"}) ==
        "nf-x: --batch-size must be a whole number from 1 to 100, not '0'");
  CHECK(message_of({"--batch-size", "2x"}).ends_with("not '2x'"));
  CHECK(message_of({"--top-k", "-1"}) == "nf-x: --top-k must be a whole number of at least 0, not '-1'");
  CHECK(message_of({"--top-k", "99999999999999999999"}).find("whole number") != std::string::npos);
  CHECK(message_of({"--min-p", "nan"}) == "nf-x: --min-p must be a number, not 'nan'");
  CHECK(message_of({"--device", "gpu"}) == "nf-x: --device must be one of cpu, reference, not 'gpu'");
}

TEST_CASE("a flag's help shows its forms and its default, and wraps") {
  const auto help_of = [](const Flag& flag, std::string_view standard) {
    std::string out;
    append_flag_help(out, flag, standard);
    return out;
  };
  CHECK(help_of({.name = "model", .takes = "DIR", .help = "a model", .letter = 'm'}, "") ==
        "  -m, --model DIR" + std::string(17, ' ') + "a model\n");
  CHECK(help_of({.name = "data", .kind = FlagKind::list, .takes = "PATH", .help = "texts"}, "none") ==
        "  --data PATH…" + std::string(20, ' ') + "texts [none]\n");
  CHECK(help_of({.name = "hidden"}, "3").empty());
  std::string words;
  for (int i = 0; i < 30; ++i) words += "word" + std::to_string(i) + " ";
  const std::string wrapped = help_of({.name = "long", .help = words}, "");
  CHECK(wrapped.find("\n" + std::string(34, ' ') + "word") != std::string::npos);
  for (size_t begin = 0, end; (end = wrapped.find('\n', begin)) != std::string::npos; begin = end + 1)
    CHECK(end - begin <= 110);
}

}  // namespace
}  // namespace nf
