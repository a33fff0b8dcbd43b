// nf-generate: continues a text with a trained model.
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tools/arguments.h"
#include "tools/generate.h"
#include "tools/output_paths.h"
#include "tools/program.h"
#include "tools/tokenizer/tokenizer.h"
#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

struct Arguments {
  std::string model, prompt, dtype = "bf16";
  std::vector<std::string> stop;
  int64_t max_tokens = 200, threads = 0, seed = 1;
  bool json = false;
  SamplingOptions sampling;
};

void describe(FlagTable& flags, Arguments& a) {
  flags.section("Text");
  flags.text(
      {.name = "model", .takes = "DIR", .help = "a run of nf-train, or a checkpoint's folder", .letter = 'm'},
      a.model);
  flags.text({.name = "prompt",
              .takes = "TEXT",
              .help = "text to continue; without it a new document begins",
              .letter = 'p'},
             a.prompt);
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
  flags.section("Machine");
  flags.word({.name = "dtype", .takes = "bf16|f32", .help = "operands of the matrix products"}, a.dtype,
             {"bf16", "f32"});
  flags.whole({.name = "threads", .takes = "N", .help = "threads to use", .default_text = "all cores"},
              a.threads, 1, 1024);
  flags.toggle(
      {.name = "json",
       .help = "print one JSON object: text, tokens, finish_reason (length, context, end or stop), speed"},
      a.json);
}

// False: --help was asked for, and printed.
bool read(Arguments& a, int argc, const char* const* argv) {
  FlagTable flags("nf-generate", "the text to continue is given with --prompt");
  describe(flags, a);
  if (!flags.parse(
          argc, argv, "nf-generate continues a text with a trained model.",
          "  nf-generate -m runs/gqa --prompt 'Once upon a time' --max-tokens 300 --temperature 0.7"))
    return false;
  require(!a.model.empty(), "nf-generate: give a model: -m DIR, a run of nf-train; see --help");
  a.sampling.seed = static_cast<uint64_t>(a.seed);
  check(a.sampling);
  for (const std::string& stop : a.stop) require(!stop.empty(), "nf-generate: --stop needs a text");
  check_dump_folder();
  return true;
}

// Shows text as it comes, in whole characters, and holds back what may become a stop string.
class Output {
 public:
  Output(const Arguments& arguments) : arguments_(arguments) {}

  // False once a stop string has been seen.
  bool add(std::string_view bytes) {
    text_ += stream_.feed(bytes);
    size_t held_back = 0;
    for (const std::string& stop : arguments_.stop) {
      if (const size_t found = text_.find(stop); found != std::string::npos) {
        text_.resize(found);
        show(text_.size());
        return false;
      }
      held_back = std::max(held_back, stop.empty() ? 0 : stop.size() - 1);
    }
    show(text_.size() - std::min(text_.size(), held_back));
    return true;
  }

  void finish() {
    text_ += stream_.finish();
    show(text_.size());
  }

  const std::string& text() const { return text_; }

 private:
  void show(size_t until) {
    if (arguments_.json || until <= shown_) return;
    // Never cut inside a character.
    while (until < text_.size() && until > shown_ &&
           (static_cast<unsigned char>(text_[until]) & 0xC0U) == 0x80U)
      --until;
    std::fwrite(text_.data() + shown_, 1, until - shown_, stdout);
    std::fflush(stdout);
    shown_ = until;
  }

  const Arguments& arguments_;
  Utf8Stream stream_;
  std::string text_;
  size_t shown_ = 0;
};

std::vector<int32_t> prompt_ids(const Arguments& a, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  if (const auto bos = tokenizer.bos_id()) ids.push_back(*bos);
  tokenizer.encode(a.prompt, ids);
  if (ids.empty() && tokenizer.eos_id())
    ids.push_back(*tokenizer.eos_id());  // a document begins where another ended
  require(!ids.empty(), "the prompt is empty, and the tokenizer has no token to begin with: give --prompt");
  return ids;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// What the writer of the prompt may wonder about: why there is less text than was asked for.
std::string why_it_ended(std::string_view finish_reason, int64_t context) {
  if (finish_reason == "context")
    return fmt::format("; stopped at the end of the model's context of {} tokens, the prompt included",
                       context);
  if (finish_reason == "end") return "; the model ended the text";
  return finish_reason == "stop" ? "; stopped at a --stop text" : "";
}

int generate(const Arguments& a) {
  LoadedModel model = load_model(a.model, cpu_device(static_cast<int>(a.threads)));
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(model.folder);
  std::vector<int32_t> ids = prompt_ids(a, *tokenizer);
  const auto prompt_length = static_cast<int64_t>(ids.size());
  const int64_t capacity = std::min(prompt_length + a.max_tokens, model.config.max_position_embeddings);
  require(prompt_length < capacity,
          "the prompt has {} tokens, the model's context {}: there is no room to go on", prompt_length,
          model.config.max_position_embeddings);
  Generator generator(model, parse_dtype(a.dtype), capacity);
  Output output(a);
  if (!a.json) fmt::print("{}", a.prompt);  // not searched for stop strings

  std::span<const float> logits = generator.append(ids);
  const auto start = std::chrono::steady_clock::now();
  std::string finish_reason = capacity < prompt_length + a.max_tokens ? "context" : "length";
  while (static_cast<int64_t>(ids.size()) < capacity) {
    const int32_t token = sample(logits.first(static_cast<size_t>(tokenizer->vocab_size())), ids, a.sampling,
                                 static_cast<int64_t>(ids.size()));
    ids.push_back(token);
    if (tokenizer->eos_id() == token) {
      finish_reason = "end";
      break;
    }
    if (!output.add(tokenizer->decode(std::span(&token, 1)))) {
      finish_reason = "stop";
      break;
    }
    if (static_cast<int64_t>(ids.size()) < capacity) logits = generator.append(std::span(&token, 1));
  }
  output.finish();
  const auto written = static_cast<int64_t>(ids.size()) - prompt_length;
  const double speed = static_cast<double>(written) / seconds_since(start);
  if (a.json) {
    const nlohmann::ordered_json line = {{"prompt", a.prompt},
                                         {"text", output.text()},
                                         {"tokens", written},
                                         {"finish_reason", finish_reason},
                                         {"tokens_per_second", speed}};
    fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    fmt::print("\n");
    std::fflush(stdout);
    fmt::print(stderr, "{} tokens, {:.0f} tokens/s{}\n", written, speed,
               why_it_ended(finish_reason, model.config.max_position_embeddings));
  }
  return kExitDone;
}

int run(int argc, char** argv) {
  Arguments a;
  return read(a, argc, argv) ? generate(a) : kExitDone;
}

}  // namespace
}  // namespace nf

int main(int argc, char** argv) {
  return nf::run_program("nf-generate", [&] { return nf::run(argc, argv); });
}
