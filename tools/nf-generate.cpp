// nf-generate: continues a text with a trained model.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tools/arguments.h"
#include "tools/generate.h"
#include "tools/program.h"
#include "tools/tokenizer/tokenizer.h"
#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

struct Arguments {
  std::string model, prompt, dtype = "bf16";
  std::vector<std::string> stop;
  int64_t max_tokens = 200;
  int threads = 0;
  bool json = false;
  SamplingOptions sampling;
};

void add_options(CLI::App& app, Arguments& a) {
  app.add_option("-m,--model", a.model, "checkpoint folder, or a run of nf-train")->required();
  app.add_option("-p,--prompt", a.prompt, "text to continue; empty: start a new document");
  app.add_option("-n,--max-tokens", a.max_tokens, "tokens to write at most")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  app.add_option("--temperature", a.sampling.temperature,
                 "0: always the likeliest token; higher: more surprising")
      ->capture_default_str();
  app.add_option("--top-k", a.sampling.top_k, "only the k likeliest tokens; 0: all")->capture_default_str();
  app.add_option("--top-p", a.sampling.top_p,
                 "only the likeliest tokens that reach this probability together")
      ->capture_default_str();
  app.add_option("--min-p", a.sampling.min_p, "only tokens at least this fraction as likely as the likeliest")
      ->capture_default_str();
  app.add_option("--repetition-penalty", a.sampling.repetition_penalty,
                 "above 1: tokens seen become less likely")
      ->capture_default_str();
  app.add_option("--seed", a.sampling.seed, "the same seed writes the same text")->capture_default_str();
  app.add_option("--stop", a.stop, "stop before this text; may be given several times");
  app.add_option("--dtype", a.dtype, "operands of matrix products")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--threads", a.threads, "threads; default: all cores")->check(CLI::Range(1, 1024));
  app.add_flag("--json", a.json, "print one JSON object instead of streaming text");
  app.footer(
      "  nf-generate -m runs/ngpt --prompt 'Once upon a time' --max-tokens 300 --temperature 0.7 --seed 3");
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

int generate(const Arguments& a) {
  check(a.sampling);
  LoadedModel model = load_model(a.model, cpu_device(a.threads));
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(model.folder);
  std::vector<int32_t> ids = prompt_ids(a, *tokenizer);
  const auto prompt_length = static_cast<int64_t>(ids.size());
  const int64_t capacity = std::min(prompt_length + a.max_tokens, model.config.max_position_embeddings);
  require(prompt_length < capacity, "the prompt has {} tokens; the model can see {}", prompt_length,
          model.config.max_position_embeddings);
  Generator generator(model, parse_dtype(a.dtype), capacity);
  Output output(a);
  if (!a.json) output.add(a.prompt);

  std::span<const float> logits = generator.append(ids);
  const auto start = std::chrono::steady_clock::now();
  std::string finish_reason = "length";
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
    fmt::print(stderr, "{} tokens, {:.0f} tokens/s\n", written, speed);
  }
  return kExitDone;
}

int run(int argc, char** argv) {
  Arguments a;
  CLI::App app("Continues a text with a trained model.", "nf-generate");
  add_options(app, a);
  if (!parse_arguments(app, argc, argv)) return kExitDone;
  return generate(a);
}

}  // namespace
}  // namespace nf

int main(int argc, char** argv) {
  return nf::run_program("nf-generate", [&] { return nf::run(argc, argv); });
}
