// nf-generate: continues a text with a trained model.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <utility>

#include "nf/file.h"
#include "tools/arguments.h"
#include "tools/device.h"
#include "tools/generate.h"
#include "tools/line_reader.h"
#include "tools/output_paths.h"
#include "tools/program.h"
#include "tools/tokenizer/tokenizer.h"
#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

struct Arguments {
  std::string model, prompts_file, dtype = "bf16", device = "cpu";
  std::vector<std::string> prompts, stop;
  int64_t max_tokens = 200, samples = 1, threads = 0, seed = 1;
  bool special = false, json = false;
  SamplingOptions sampling;
};

void describe(FlagTable& flags, Arguments& a) {
  flags.section("Text");
  flags.text(
      {.name = "model", .takes = "DIR", .help = "a run of nf-train, or a checkpoint's folder", .letter = 'm'},
      a.model);
  flags.texts(
      {.name = "prompt",
       .takes = "TEXT",
       .help =
           "text to continue; repeatable; '' begins a new document. Without it, prompts are typed, or, when "
           "standard input is no terminal, a new document begins",
       .letter = 'p'},
      a.prompts);
  flags.text({.name = "prompts",
              .takes = "FILE",
              .help = "prompts from a file, one per line; -: from standard input"},
             a.prompts_file);
  flags.toggle(
      {.name = "special", .help = "where a prompt spells a special token (<|endoftext|>), it is that token"},
      a.special);
  flags.whole({.name = "max-tokens", .takes = "N", .help = "tokens to write at most", .letter = 'n'},
              a.max_tokens, 1);
  flags.texts({.name = "stop", .takes = "TEXT", .help = "end before this text; repeatable"}, a.stop);
  flags.section("Choice of the next token");
  flags.real(
      {.name = "temperature", .takes = "X", .help = "0: always the likeliest token; higher: more surprising"},
      a.sampling.temperature);
  flags.whole({.name = "top-k", .takes = "K", .help = "only the K likeliest tokens; 0: all"},
              a.sampling.top_k, 0);
  flags.real({.name = "top-p",
              .takes = "X",
              .help = "only the likeliest tokens that reach this probability together"},
             a.sampling.top_p);
  flags.real({.name = "min-p",
              .takes = "X",
              .help = "only tokens at least this fraction as likely as the likeliest"},
             a.sampling.min_p);
  flags.real({.name = "repetition-penalty", .takes = "X", .help = "above 1: tokens seen become less likely"},
             a.sampling.repetition_penalty);
  flags.whole({.name = "seed", .takes = "S", .help = "the same seed writes the same text"}, a.seed, 0);
  flags.whole({.name = "samples", .takes = "N", .help = "texts for each prompt, with the seeds S, S + 1, …"},
              a.samples, 1);
  flags.section("Machine");
  flags.word({.name = "dtype", .takes = "bf16|f32", .help = "operands of the matrix products"}, a.dtype,
             {"bf16", "f32"});
  flags.word({.name = "device", .takes = "cpu|cuda|reference", .help = kDeviceHelp}, a.device,
             {kDeviceWords.begin(), kDeviceWords.end()});
  flags.whole({.name = "threads", .takes = "N", .help = "threads to use", .default_text = "all cores"},
              a.threads, 1, 1024);
  flags.toggle(
      {.name = "json",
       .help =
           "a line of JSON for each text: text, tokens, finish_reason (length, context, end or stop), speed"},
      a.json);
}

// False: --help was asked for, and printed.
bool read(Arguments& a, int argc, const char* const* argv) {
  FlagTable flags("nf-generate", "the text to continue is given with --prompt");
  describe(flags, a);
  if (!flags.parse(
          argc, argv, "nf-generate continues a text with a trained model.",
          "  nf-generate -m runs/gqa --prompt 'Once upon a time' --max-tokens 300 --temperature 0.7\n"
          "  nf-generate -m runs/gqa --prompts questions.txt --stop 'Q:' --json\n"
          "  nf-generate -m runs/gqa --top-p 0.9 --samples 3 -p 'The end of'\n"
          "  grep '^Q' questions.txt | nf-generate -m runs/gqa --prompts -"))
    return false;
  require(!a.model.empty(), "nf-generate: give a model: -m DIR, a run of nf-train; see --help");
  a.sampling.seed = static_cast<uint64_t>(a.seed);
  check(a.sampling);
  for (const std::string& stop : a.stop) require(!stop.empty(), "nf-generate: --stop needs a text");
  check_dump_folder();
  return true;
}

// What the writer of the prompt may wonder about: why there is less text than was asked for.
std::string why_it_ended(std::string_view finish_reason, int64_t context) {
  if (finish_reason == "context")
    return fmt::format("; stopped at the end of the model's context of {} tokens, the prompt included",
                       context);
  if (finish_reason == "end") return "; the model ended the text";
  return finish_reason == "stop" ? "; stopped at a --stop text" : "";
}

std::string_view first_characters(std::string_view text, size_t count) {
  size_t end = 0;
  for (; count > 0 && end < text.size(); --count) end += first_character(text.substr(end)).length;
  return text.substr(0, end);
}

class Program {
 public:
  explicit Program(const Arguments& a)
      : a_(a),
        model_(load_model(a.model, open_device(a.device, static_cast<int>(a.threads)), parse_dtype(a.dtype))),
        tokenizer_(load_tokenizer(model_.folder)) {
    require(tokenizer_->vocab_size() <= model_.config.vocab_size,
            "{}: the tokenizer knows {} tokens, the model {}", model_.folder.string(),
            tokenizer_->vocab_size(), model_.config.vocab_size);
  }

  void answer(const std::vector<std::string>& prompts) {
    std::vector<std::vector<int32_t>> ids;
    size_t longest = 0;
    for (const std::string& prompt : prompts) {
      ids.push_back(prompt_ids(*tokenizer_, prompt, a_.special));
      longest = std::max(longest, ids.back().size());
      require(static_cast<int64_t>(ids.back().size()) < model_.config.max_position_embeddings,
              "the prompt{} has {} tokens, the model's context {}: there is no room to go on",
              prompts.size() > 1 ? fmt::format(" that begins '{}'", first_characters(prompt, kShownOfPrompt))
                                 : "",
              ids.back().size(), model_.config.max_position_embeddings);
    }
    open(static_cast<int64_t>(longest) + a_.max_tokens);
    for (size_t i = 0; i < prompts.size(); ++i) {
      for (int64_t sample = 0; sample < a_.samples; ++sample) {
        if (!a_.json && (i > 0 || sample > 0)) fmt::print("\n");
        write(prompts[i], ids[i], a_.sampling.seed + static_cast<uint64_t>(sample));
      }
    }
  }

  // A prompt per line, until the end of the input. Each has its own seed, so that asking again gives another
  // text.
  void converse() {
    open(kLongestTyped + a_.max_tokens);
    fmt::print(stderr, "Type the beginning of a text; Ctrl-D ends.\n");
    LineReader lines("> ");
    uint64_t seed = a_.sampling.seed;
    for (std::optional<std::string> line; (line = lines.read());) {
      if (line->empty()) continue;
      try {
        write(*line, prompt_ids(*tokenizer_, *line, a_.special), seed++);
      } catch (const Error& error) {
        fmt::print(stderr, "{}\n", error.what());
      }
    }
    fmt::print("\n");
  }

 private:
  static constexpr int64_t kLongestTyped = 4096;  // tokens of a prompt that is typed
  static constexpr size_t kShownOfPrompt = 40;    // characters, of one among others

  void open(int64_t tokens) {
    generator_.emplace(model_, parse_dtype(a_.dtype),
                       std::min(tokens, model_.config.max_position_embeddings));
  }

  void write(const std::string& prompt, const std::vector<int32_t>& ids, uint64_t seed) {
    ContinueOptions options{.max_tokens = a_.max_tokens, .stops = a_.stop, .sampling = a_.sampling};
    options.sampling.seed = seed;
    if (!a_.json) fmt::print("{}", prompt);  // not searched for stop strings
    const Continuation result =
        continue_text(*generator_, *tokenizer_, ids, options, [&](std::string_view text) {
          if (a_.json) return;
          std::fwrite(text.data(), 1, text.size(), stdout);
          std::fflush(stdout);
        });
    report(prompt, seed, result);
  }

  void report(const std::string& prompt, uint64_t seed, const Continuation& result) const {
    const double speed = static_cast<double>(result.tokens) / result.seconds;
    if (a_.json) {
      const nlohmann::ordered_json line = {{"prompt", prompt},
                                           {"text", result.text},
                                           {"tokens", result.tokens},
                                           {"finish_reason", result.finish_reason},
                                           {"seed", seed},
                                           {"tokens_per_second", speed}};
      fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
      std::fflush(stdout);
      return;
    }
    fmt::print("\n");
    std::fflush(stdout);
    fmt::print(stderr, "{} tokens, {:.0f} tokens/s{}\n", result.tokens, speed,
               why_it_ended(result.finish_reason, model_.config.max_position_embeddings));
  }

  const Arguments& a_;
  LoadedModel model_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::optional<Generator> generator_;
};

std::vector<std::string> prompts_from(const std::string& file) {
  const bool piped = file == "-";
  std::istringstream held(piped ? "" : read_file(file));
  std::istream& text = piped ? std::cin : held;
  std::vector<std::string> lines;
  bool is_first = true;
  for (std::string line; std::getline(text, line);) {
    if (std::exchange(is_first, false) && line.starts_with(kByteOrderMark))
      line.erase(0, kByteOrderMark.size());
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) lines.push_back(line);
  }
  require(!text.bad(), "nf-generate: standard input cannot be read");
  require(!lines.empty(), "nf-generate: {}: holds no line of text", piped ? "standard input" : file);
  return lines;
}

int generate(const Arguments& a) {
  std::vector<std::string> prompts = a.prompts;
  if (!a.prompts_file.empty()) {
    const std::vector<std::string> more = prompts_from(a.prompts_file);
    prompts.insert(prompts.end(), more.begin(), more.end());
  }
  Program program(a);
  if (prompts.empty() && ::isatty(STDIN_FILENO) != 0)
    program.converse();
  else
    program.answer(prompts.empty() ? std::vector<std::string>{""} : prompts);
  return kExitDone;
}

int run(int argc, char** argv) {
  Arguments a;
  return read(a, argc, argv) ? generate(a) : kExitDone;
}

}  // namespace
}  // namespace nf

int main(int argc, char** argv) {
  return nf::run_program("nf-generate", argc, argv, [&] { return nf::run(argc, argv); });
}
