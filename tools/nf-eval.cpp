// nf-eval: loss and perplexity of a model, on text or on given token ids.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "models/training_step.h"
#include "nf/safetensors.h"
#include "tools/arguments.h"
#include "tools/data/batches.h"
#include "tools/data/source.h"
#include "tools/evaluate.h"
#include "tools/program.h"
#include "tools/tokenizer/tokenizer.h"

namespace nf {
namespace {

struct Arguments {
  std::string model, ids, targets, documents, logits, grads;
  std::vector<std::string> data;
  std::string dtype = "f32", device = "cpu";
  int threads = 0;
  int64_t batch_size = 8, seq_len = 256;
};

void add_options(CLI::App& app, Arguments& a) {
  app.add_option("-m,--model", a.model,
                 "checkpoint folder (config.json, model.safetensors), or a run of nf-train")
      ->required();
  app.add_option("--data", a.data, "text files or folders to measure the loss on");
  app.add_option("--ids-file", a.ids, "JSON list of equally long lists of token ids, instead of text");
  app.add_option("--targets-file", a.targets,
                 "with --ids-file: what to predict at each position but the last; -100 is ignored");
  app.add_option("--documents-file", a.documents,
                 "with --ids-file: document of each position but the last; attention stays inside");
  app.add_option("--logits", a.logits,
                 "with --ids-file: write the logits [B, T, V] to this safetensors file");
  app.add_option(
      "--grads", a.grads,
      "with --ids-file: write the gradient of the mean loss, by parameter, to this safetensors file");
  app.add_option("--batch-size", a.batch_size, "with --data: sequences at a time")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  app.add_option("--seq-len", a.seq_len, "with --data: tokens of a sequence")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  app.add_option("--dtype", a.dtype, "operands of matrix products")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--device", a.device, "cpu, or reference: double precision, slow")
      ->capture_default_str()
      ->check(CLI::IsMember({"cpu", "reference"}));
  app.add_option("--threads", a.threads, "threads; default: all cores")->check(CLI::Range(1, 1024));
  app.footer(
      "Prints one line of JSON: loss (nats per token), perplexity, tokens.\n\n"
      "  nf-eval -m runs/ngpt --data book.txt\n  nf-eval -m DIR --ids-file ids.json --grads "
      "grads.safetensors");
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
    const std::vector<float> values = logits(model, input.ids, compute);
    SafetensorsWriter writer;
    writer.add({"logits",
                DType::f32,
                {input.ids.rows, input.ids.columns, model.config.vocab_size},
                std::as_bytes(std::span(values))});
    writer.write(a.logits);
  }
  const Evaluation result = evaluate(model, input, compute, !a.grads.empty());
  if (!a.grads.empty()) {
    SafetensorsWriter writer;
    for (const Parameter& p : model.parameters)
      writer.add({p.name, DType::f32, p.shape, std::as_const(*model.state).memory(gradient_name(p.name))});
    writer.write(a.grads);
  }
  print_result(result.loss, result.tokens);
}

void evaluate_text(LoadedModel& model, const Arguments& a) {
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(model.folder);
  require(tokenizer->vocab_size() <= model.config.vocab_size,
          "{}: the tokenizer knows {} tokens, the model {}", model.folder.string(), tokenizer->vocab_size(),
          model.config.vocab_size);
  TokenDataset dataset = tokenize(*open_documents(a.data), *tokenizer);
  const int64_t length = std::min(a.seq_len, model.config.max_position_embeddings);
  const std::unique_ptr<Batches> batches =
      make_batches(std::move(dataset), {.batch = a.batch_size, .length = length, .shuffle = false});
  const Evaluation result = mean_loss(model, *batches, parse_dtype(a.dtype));
  print_result(result.loss, result.tokens);
}

int run(int argc, char** argv) {
  Arguments a;
  CLI::App app("Loss and perplexity of a model.", "nf-eval");
  add_options(app, a);
  if (!parse_arguments(app, argc, argv)) return kExitDone;
  require(a.ids.empty() != a.data.empty(), "give either --data or --ids-file");
  require(!a.ids.empty() || (a.logits.empty() && a.grads.empty()), "--logits and --grads need --ids-file");
  LoadedModel model = load_model(a.model, a.device == "cpu" ? cpu_device(a.threads) : reference_device());
  if (a.ids.empty())
    evaluate_text(model, a);
  else
    evaluate_ids(model, a);
  return kExitDone;
}

}  // namespace
}  // namespace nf

int main(int argc, char** argv) {
  return nf::run_program("nf-eval", [&] { return nf::run(argc, argv); });
}
