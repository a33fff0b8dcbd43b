// nf-tokenize: makes tokenizers, and shows what they do.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <thread>

#include "models/config.h"
#include "nf/file.h"
#include "tools/arguments.h"
#include "tools/data_flags.h"
#include "tools/output_paths.h"
#include "tools/program.h"
#include "tools/token_stats.h"
#include "tools/tokenizer/tokenizer.h"
#include "tools/tokenizer/train_bpe.h"
#include "tools/tracking/progress_bar.h"

namespace nf {
namespace {

constexpr size_t kLongestShown = 10;

struct Arguments {
  std::string tokenizer, text, ids, out;
  Texts data;
  int64_t threads = 0;
  bool special = false, json = false;
};

void tokenizer_flag(FlagTable& flags, Arguments& a) {
  flags.text(
      {.name = "tokenizer",
       .takes = "PATH",
       .help = "byte, or a tokenizer.json (ours or Hugging Face's), or the folder of one: a run of nf-train",
       .letter = 't'},
      a.tokenizer);
}
void special_flag(FlagTable& flags, Arguments& a) {
  flags.toggle(
      {.name = "special", .help = "where the text spells a special token (<|endoftext|>), it is that token"},
      a.special);
}
void threads_flag(FlagTable& flags, Arguments& a) {
  flags.whole({.name = "threads", .takes = "N", .help = "threads to use", .default_text = "all cores"},
              a.threads, 1, 1024);
}
void json_flag(FlagTable& flags, Arguments& a, std::string_view help) {
  flags.toggle({.name = "json", .help = help}, a.json);
}

std::unique_ptr<Tokenizer> open_tokenizer(const Arguments& a, std::string_view program) {
  require(!a.tokenizer.empty(), "{}: give a tokenizer: -t PATH; see --help", program);
  require(a.tokenizer != "char",
          "{}: a char tokenizer is made from a text by nf-train; give the folder of its run", program);
  return make_tokenizer(a.tokenizer);
}

int thread_count(const Arguments& a) {
  return a.threads > 0 ? static_cast<int>(a.threads) : static_cast<int>(std::thread::hardware_concurrency());
}

std::string read_standard_input() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

// ---- train

struct NamedPattern {
  std::string_view name, pattern;
};
constexpr NamedPattern kPatterns[] = {{"gpt4", kLlama3Pattern}, {"gpt2", kGpt2Pattern}};

struct TrainArguments {
  Arguments shared;
  std::string pattern = "gpt4";
  std::vector<std::string> special;
  int64_t vocab_size = 0, min_count = 2;
};

bool read(TrainArguments& a, int argc, const char* const* argv) {
  FlagTable flags("nf-tokenize train", "texts are given with --data");
  data_flags(flags, a.shared.data);
  flags.text({.name = "out", .takes = "FILE", .help = "where to write tokenizer.json", .letter = 'o'},
             a.shared.out);
  flags.whole({.name = "vocab-size",
               .takes = "N",
               .help = "tokens in all: 256 bytes, merges, special tokens",
               .default_text = "none"},
              a.vocab_size, 1, 1 << 22);
  flags.word(
      {.name = "pattern",
       .takes = "gpt4|gpt2",
       .help =
           "how text is cut into words, which tokens do not cross: gpt4 (as Llama 3) keeps numbers to three "
           "digits and line ends apart"},
      a.pattern, {"gpt4", "gpt2"});
  flags.texts({.name = "special-token",
               .takes = "TEXT",
               .help = "a special token, repeatable; without any: <|endoftext|>"},
              a.special);
  flags.whole(
      {.name = "min-count", .takes = "N", .help = "a pair of tokens must occur so often to become one"},
      a.min_count, 1);
  threads_flag(flags, a.shared);
  json_flag(flags, a.shared, "one JSON object about the result");
  if (!flags.parse(
          argc, argv,
          "nf-tokenize train learns a byte-level BPE tokenizer from texts and writes it as a tokenizer.json "
          "that Hugging Face's libraries load too.",
          "  nf-tokenize train --data texts/ --vocab-size 16384 --out tokenizer.json\n"
          "  nf-train -m gqa.json --data texts/ --tokenizer tokenizer.json --out runs/gqa"))
    return false;
  require(!a.shared.data.empty(), "nf-tokenize train: give texts: --data PATH");
  require(a.vocab_size > 0, "nf-tokenize train: give --vocab-size N, the number of tokens");
  require(!a.shared.out.empty(), "nf-tokenize train: give --out FILE, where to write the tokenizer");
  check_new_file(a.shared.out, "--out");
  return true;
}

std::optional<ProgressBar> open_bar(int64_t total, std::string unit) {
  Terminal terminal = standard_error();
  if (!terminal.interactive) return std::nullopt;
  return std::optional<ProgressBar>(std::in_place, std::move(terminal), total,
                                    ProgressBarOptions{.unit = std::move(unit)});
}

// Bytes of text counted.
int64_t count_words(const DocumentSource& source, WordCounter& counter, int threads) {
  constexpr int64_t kBatchBytes = int64_t{16} << 20;
  std::optional<ProgressBar> bar = open_bar(0, "MB");
  std::vector<std::string> batch;
  int64_t bytes = 0, waiting = 0;
  const auto flush = [&] {
    counter.add(batch, threads);
    batch.clear();
    waiting = 0;
    if (bar) bar->update({.step = bytes / 1'000'000});
  };
  source.visit([&](const Document& document) {
    batch.emplace_back(document.text);
    waiting += static_cast<int64_t>(document.text.size());
    bytes += static_cast<int64_t>(document.text.size());
    if (waiting >= kBatchBytes) flush();
  });
  flush();
  if (bar) bar->finish();
  return bytes;
}

int train(int argc, const char* const* argv) {
  TrainArguments a;
  if (!read(a, argc, argv)) return kExitDone;
  const auto start = std::chrono::steady_clock::now();
  const auto source = a.shared.data.open();
  const auto* pattern = std::ranges::find(kPatterns, a.pattern, &NamedPattern::name);
  WordCounter counter{std::string(pattern->pattern)};
  const int64_t bytes = count_words(*source, counter, thread_count(a.shared));
  require(bytes > 0, "nf-tokenize train: there is no text in {}", source->description());

  TrainBpeOptions options{.vocab_size = static_cast<int32_t>(a.vocab_size), .min_count = a.min_count};
  if (!a.special.empty()) options.special = a.special;
  std::optional<ProgressBar> bar = open_bar(a.vocab_size, "token");
  const auto tokenizer = train_bpe(counter, options, [&](int32_t tokens) {
    if (bar) bar->update({.step = tokens});
  });
  if (bar) bar->finish();
  run_accepted([&] { write_file(a.shared.out, tokenizer->to_json()); });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (a.shared.json) {
    const nlohmann::ordered_json line = {{"out", a.shared.out},
                                         {"vocab_size", tokenizer->vocab_size()},
                                         {"merges", tokenizer->model().parts().merges.size()},
                                         {"bytes", bytes},
                                         {"distinct_words", counter.distinct()},
                                         {"seconds", seconds}};
    fmt::print("{}\n", line.dump());
    return kExitDone;
  }
  fmt::print("{}: {} tokens from {} of text, {} distinct words, in {:.1f} s\n", a.shared.out,
             tokenizer->vocab_size(), format_bytes(bytes), counter.distinct(), seconds);
  if (tokenizer->vocab_size() < a.vocab_size)
    fmt::print("the text has no more pairs that occur {} times: the vocabulary is smaller than asked for\n",
               a.min_count);
  return kExitDone;
}

// ---- encode

void print_ids(const std::vector<int32_t>& ids, const std::string& origin, bool json) {
  if (json) {
    nlohmann::ordered_json line;
    if (!origin.empty()) line["origin"] = origin;
    line["ids"] = ids;
    fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    fmt::print("{}\n", fmt::join(ids, " "));
  }
}

int encode(int argc, const char* const* argv) {
  Arguments a;
  FlagTable flags("nf-tokenize encode", "a text is given with --text or --data");
  tokenizer_flag(flags, a);
  flags.text({.name = "text", .takes = "TEXT", .help = "the text; without it and --data: standard input"},
             a.text);
  data_flags(flags, a.data);
  special_flag(flags, a);
  threads_flag(flags, a);
  json_flag(flags, a, "a line of JSON per document: origin, ids");
  if (!flags.parse(argc, argv, "nf-tokenize encode prints the token ids of texts, a line per document.",
                   "  nf-tokenize encode -t tokenizer.json --text 'Hello, world'\n"
                   "  nf-tokenize encode -t runs/gqa --data book.txt"))
    return kExitDone;
  const auto tokenizer = open_tokenizer(a, "nf-tokenize encode");
  require(a.text.empty() || a.data.empty(), "nf-tokenize encode: give --text or --data, not both");
  if (!a.data.empty()) {
    std::vector<int32_t> ids;
    encode_documents(*a.data.open(), *tokenizer,
                     {.threads = static_cast<int>(a.threads), .special = a.special},
                     [&](const Document& document, std::span<const int32_t> more) {
                       ids.insert(ids.end(), more.begin(), more.end());
                       if (document.more) return;
                       print_ids(ids, document.origin(), a.json);
                       ids.clear();
                     });
    return kExitDone;
  }
  const std::string text = a.text.empty() ? read_standard_input() : a.text;
  std::vector<int32_t> ids;
  if (a.special)
    tokenizer->encode_special(text, ids);
  else
    tokenizer->encode(text, ids);
  print_ids(ids, "", a.json);
  return kExitDone;
}

// ---- decode

std::vector<int32_t> parse_ids(std::string text) {
  std::ranges::replace_if(
      text, [](char c) { return c == ',' || c == '[' || c == ']'; }, ' ');
  std::istringstream words(text);
  std::vector<int32_t> ids;
  for (std::string word; words >> word;) {
    size_t end = 0;
    int64_t id = -1;
    try {
      id = std::stoll(word, &end);
    } catch (const std::exception&) {
      end = 0;
    }
    require(end == word.size() && id >= 0 && id <= INT32_MAX, "nf-tokenize decode: '{}' is not a token id",
            word);
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

int decode(int argc, const char* const* argv) {
  Arguments a;
  FlagTable flags("nf-tokenize decode", "ids are given with --ids");
  tokenizer_flag(flags, a);
  flags.text(
      {.name = "ids", .takes = "IDS", .help = "ids between blanks or commas; without it: standard input"},
      a.ids);
  if (!flags.parse(argc, argv, "nf-tokenize decode prints the text of token ids, byte for byte.",
                   "  nf-tokenize decode -t tokenizer.json --ids '9906 11 1917'\n"
                   "  nf-tokenize encode -t runs/gqa --text hello | nf-tokenize decode -t runs/gqa"))
    return kExitDone;
  const auto tokenizer = open_tokenizer(a, "nf-tokenize decode");
  const std::string text = tokenizer->decode(parse_ids(a.ids.empty() ? read_standard_input() : a.ids));
  std::fwrite(text.data(), 1, text.size(), stdout);
  return kExitDone;
}

// ---- stats

std::string shown(const std::string& bytes) {
  return nlohmann::json(bytes).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void print_stats(const TokenStats& stats, const Tokenizer& tokenizer, bool json) {
  const std::vector<CountedToken> longest = longest_tokens(stats, tokenizer, kLongestShown);
  const double speed = stats.seconds > 0 ? static_cast<double>(stats.bytes) / stats.seconds / 1e6 : 0;
  if (json) {
    nlohmann::ordered_json line = {{"vocab_size", tokenizer.vocab_size()},
                                   {"documents", stats.documents},
                                   {"bytes", stats.bytes},
                                   {"characters", stats.characters},
                                   {"tokens", stats.tokens},
                                   {"tokens_used", stats.tokens_used()},
                                   {"bytes_per_token", stats.bytes_per_token()},
                                   {"unigram_entropy", stats.entropy()},
                                   {"unigram_bits_per_byte", stats.bits_per_byte()},
                                   {"megabytes_per_second", speed}};
    for (const CountedToken& token : longest)
      line["longest_tokens"].push_back({{"id", token.id}, {"token", token.bytes}, {"count", token.count}});
    fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    return;
  }
  const auto whole = [](int64_t value) { return format_quantity(static_cast<double>(value)); };
  fmt::print("documents          {}\n", stats.documents);
  fmt::print("bytes              {} ({})\n", stats.bytes, format_bytes(stats.bytes));
  fmt::print("tokens             {} ({})\n", stats.tokens, whole(stats.tokens));
  fmt::print("vocabulary         {}, of which {} occur\n", tokenizer.vocab_size(), stats.tokens_used());
  fmt::print("bytes per token    {:.3f}\n", stats.bytes_per_token());
  fmt::print("unigram entropy    {:.3f} nats per token, {:.3f} bits per byte\n", stats.entropy(),
             stats.bits_per_byte());
  fmt::print("speed              {:.1f} MB/s\n", speed);
  fmt::print("longest tokens\n");
  for (const CountedToken& token : longest)
    fmt::print("  {:>8} {:>9} times  {}\n", token.id, token.count, shown(token.bytes));
}

int stats(int argc, const char* const* argv) {
  Arguments a;
  FlagTable flags("nf-tokenize stats", "texts are given with --data");
  tokenizer_flag(flags, a);
  data_flags(flags, a.data);
  special_flag(flags, a);
  threads_flag(flags, a);
  json_flag(flags, a, "one JSON object");
  if (!flags.parse(argc, argv, "nf-tokenize stats counts what tokens a text becomes.",
                   "  nf-tokenize stats -t tokenizer.json --data book.txt"))
    return kExitDone;
  const auto tokenizer = open_tokenizer(a, "nf-tokenize stats");
  require(!a.data.empty(), "nf-tokenize stats: give texts: --data PATH");
  const auto source = a.data.open();
  std::optional<ProgressBar> bar = open_bar(0, "document");
  const TokenStats result = count_tokens(
      *source, *tokenizer, {.threads = static_cast<int>(a.threads), .special = a.special},
      [&](const TokenStats& so_far) {
        if (bar)
          bar->update({.step = so_far.documents,
                       .tokens_per_second = static_cast<double>(so_far.tokens) / so_far.seconds});
      });
  if (bar) bar->finish();
  require(result.tokens > 0, "nf-tokenize stats: there is no text in {}", source->description());
  print_stats(result, *tokenizer, a.json);
  return kExitDone;
}

// ---- what to do

struct Command {
  std::string_view name, help;
  int (*run)(int argc, const char* const* argv);
};
constexpr Command kCommands[] = {
    {"train", "learns a tokenizer from texts", train},
    {"encode", "prints the token ids of texts", encode},
    {"decode", "prints the text of token ids", decode},
    {"stats", "counts what tokens a text becomes", stats},
};

void print_help() {
  fmt::print("nf-tokenize makes tokenizers, and shows what they do.\n\n");
  for (const Command& command : kCommands) fmt::print("  nf-tokenize {:<8} {}\n", command.name, command.help);
  fmt::print("\nEach explains itself: nf-tokenize encode --help\n");
}

int run(int argc, char** argv) {
  const std::string_view word = argc > 1 ? argv[1] : "--help";
  if (word == "--help" || word == "-h") {
    print_help();
    return kExitDone;
  }
  std::vector<std::string_view> names;
  for (const Command& command : kCommands) {
    if (command.name == word) return command.run(argc - 1, argv + 1);
    names.push_back(command.name);
  }
  const std::string_view near = nearest(word, names);
  fail("nf-tokenize: '{}' is none of {}{}", word, fmt::join(names, ", "),
       near.empty() ? "" : fmt::format("; did you mean {}?", near));
}

}  // namespace
}  // namespace nf

int main(int argc, char** argv) {
  return nf::run_program("nf-tokenize", argc, argv, [&] { return nf::run(argc, argv); });
}
