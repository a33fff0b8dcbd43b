// nf-eval: loss and perplexity of a model, on text or on given token ids.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "models/training_step.h"
#include "nf/safetensors.h"
#include "tools/arguments.h"
#include "tools/data/batches.h"
#include "tools/data_flags.h"
#include "tools/device.h"
#include "tools/evaluate.h"
#include "tools/output_paths.h"
#include "tools/program.h"
#include "tools/tokenizer/tokenizer.h"
#include "tools/tracking/progress_bar.h"
#include "tools/tracking/speed.h"

namespace nf {
namespace {

struct Arguments {
  std::string model, ids, targets, documents, logits, grads;
  Texts data;
  std::string dtype = "f32", device = "cpu";
  int64_t threads = 0, batch_size = 8, eval_batches = 0;
  int64_t seq_len = 0;  // 0: kUsualLength, or what the model allows
};

constexpr int64_t kUsualLength = 256;

void describe(FlagTable& flags, Arguments& a) {
  flags.section("Model");
  flags.text(
      {.name = "model", .takes = "DIR", .help = "a run of nf-train, or a checkpoint's folder", .letter = 'm'},
      a.model);
  flags.section("Loss on a text");
  data_flags(flags, a.data);
  flags.whole({.name = "batch-size", .takes = "B", .help = "sequences at a time"}, a.batch_size, 1, 1 << 20);
  flags.whole({.name = "seq-len",
               .takes = "N",
               .help = "tokens of a sequence",
               .default_text = "256, or what the model allows"},
              a.seq_len, 1);
  flags.whole(
      {.name = "eval-batches", .takes = "N", .help = "at most this many batches", .default_text = "all"},
      a.eval_batches, 1);
  flags.section("Loss on given token ids");
  flags.text({.name = "ids-file", .takes = "FILE", .help = "JSON list of equally long lists of token ids"},
             a.ids);
  flags.text({.name = "targets-file",
              .takes = "FILE",
              .help = "what to predict at each position but the last; -100 is ignored"},
             a.targets);
  flags.text({.name = "documents-file",
              .takes = "FILE",
              .help = "document of each position but the last; attention stays inside"},
             a.documents);
  flags.text(
      {.name = "logits", .takes = "FILE", .help = "write the logits [B, T, V] to this safetensors file"},
      a.logits);
  flags.text({.name = "grads",
              .takes = "FILE",
              .help = "write the gradient of the mean loss, by parameter, to this safetensors file"},
             a.grads);
  flags.section("Machine");
  flags.word({.name = "dtype", .takes = "f32|bf16", .help = "operands of the matrix products"}, a.dtype,
             {"f32", "bf16"});
  flags.word({.name = "device", .takes = "cpu|cuda|reference", .help = kDeviceHelp}, a.device,
             {kDeviceWords.begin(), kDeviceWords.end()});
  flags.whole({.name = "threads", .takes = "N", .help = "threads to use", .default_text = "all cores"},
              a.threads, 1, 1024);
}

// False: --help was asked for, and printed.
bool read(Arguments& a, int argc, const char* const* argv) {
  FlagTable flags("nf-eval", "texts are given with --data");
  describe(flags, a);
  if (!flags.parse(argc, argv,
                   "nf-eval measures the loss of a model and prints one line of JSON: loss (nats per token), "
                   "perplexity, tokens.",
                   "  nf-eval -m runs/gqa --data book.txt\n  nf-eval -m runs/gqa --ids-file ids.json --grads "
                   "grads.safetensors"))
    return false;
  require(!a.model.empty(), "nf-eval: give a model: -m DIR, a run of nf-train; see --help");
  require(a.ids.empty() != a.data.empty(), "nf-eval: give either --data or --ids-file");
  for (const auto& [flag, value] :
       {std::pair("--targets-file", &a.targets), std::pair("--documents-file", &a.documents),
        std::pair("--logits", &a.logits), std::pair("--grads", &a.grads)})
    require(!a.ids.empty() || value->empty(), "nf-eval: {} needs --ids-file", flag);
  if (!a.logits.empty()) check_output_file(a.logits, "--logits");
  if (!a.grads.empty()) check_output_file(a.grads, "--grads");
  check_dump_folder();
  return true;
}

void print_result(double loss, int64_t tokens) {
  const nlohmann::ordered_json line = {{"loss", loss}, {"perplexity", std::exp(loss)}, {"tokens", tokens}};
  fmt::print("{}\n", line.dump());
}

void evaluate_ids(LoadedModel& model, const Arguments& a) {
  const DType compute = parse_dtype(a.dtype);
  EvaluationInput input{.ids = read_id_table(a.ids, model.config.vocab_size), .targets = {}, .documents = {}};
  if (!a.targets.empty()) input.targets = read_id_table(a.targets, 0);
  if (!a.documents.empty()) input.documents = read_id_table(a.documents, 0);
  if (!a.logits.empty()) {
    const std::vector<float> values = logits(model, input, compute);
    SafetensorsWriter writer;
    writer.add({"logits",
                DType::f32,
                {input.ids.rows, input.ids.columns, model.config.vocab_size},
                std::as_bytes(std::span(values))});
    run_accepted([&] { writer.write(a.logits); });
  }
  const Evaluation result = evaluate(model, input, compute, !a.grads.empty());
  if (!a.grads.empty()) {
    SafetensorsWriter writer;
    std::vector<Buffer> copies;
    for (const Parameter& p : model.parameters)
      if (p.trained)
        writer.add({p.name, DType::f32, p.shape, model.state->host_bytes(gradient_name(p.name), copies)});
    run_accepted([&] { writer.write(a.grads); });
  }
  print_result(result.loss, result.tokens);
}

// Shows on a terminal how far the evaluation is.
class EvaluationBar {
 public:
  explicit EvaluationBar(int64_t batches) {
    if (Terminal terminal = standard_error(); terminal.interactive)
      bar_.emplace(std::move(terminal), batches, ProgressBarOptions{.unit = "batch"});
  }

  void update(int64_t batches, const Evaluation& so_far) {
    if (!bar_) return;
    const Clock::time_point now = Clock::now();
    speed_.add(static_cast<double>(so_far.tokens - tokens_),
               std::chrono::duration<double>(now - last_).count());
    last_ = now;
    tokens_ = so_far.tokens;
    bar_->update({.step = batches, .loss = so_far.loss, .tokens_per_second = speed_.per_second()});
  }

  void finish() {
    if (bar_) bar_->finish();
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::optional<ProgressBar> bar_;
  Speed speed_;
  Clock::time_point last_ = Clock::now();
  int64_t tokens_ = 0;
};

void evaluate_text(LoadedModel& model, const Arguments& a) {
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(model.folder);
  require(tokenizer->vocab_size() <= model.config.vocab_size,
          "{}: the tokenizer knows {} tokens, the model {}", model.folder.string(), tokenizer->vocab_size(),
          model.config.vocab_size);
  const int64_t longest = model.config.max_position_embeddings;
  require(a.seq_len <= longest,
          "nf-eval: --seq-len is {}, the model's 'max_position_embeddings' allows at most {}", a.seq_len,
          longest);
  const int64_t length = a.seq_len > 0 ? a.seq_len : std::min(kUsualLength, longest);
  TokenDataset dataset = tokenize(*a.data.open(), *tokenizer);
  const std::unique_ptr<Batches> batches =
      make_batches(std::move(dataset), {.batch = a.batch_size, .length = length, .shuffle = false});
  const int64_t count = a.eval_batches > 0 ? std::min(a.eval_batches, batches->batches_per_epoch())
                                           : batches->batches_per_epoch();
  EvaluationBar bar(count);
  const Evaluation result =
      mean_loss(model, *batches, count, parse_dtype(a.dtype),
                [&](int64_t done, const Evaluation& so_far) { bar.update(done, so_far); });
  bar.finish();
  print_result(result.loss, result.tokens);
}

int run(int argc, char** argv) {
  Arguments a;
  if (!read(a, argc, argv)) return kExitDone;
  LoadedModel model =
      load_model(a.model, open_device(a.device, static_cast<int>(a.threads)), parse_dtype(a.dtype));
  if (a.ids.empty())
    evaluate_text(model, a);
  else
    evaluate_ids(model, a);
  return kExitDone;
}

}  // namespace
}  // namespace nf

int main(int argc, char** argv) {
  return nf::run_program("nf-eval", argc, argv, [&] { return nf::run(argc, argv); });
}
