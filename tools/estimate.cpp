#include "tools/estimate.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "tools/arguments.h"
#include "tools/output_paths.h"
#include "tools/program.h"
#include "tools/tracking/terminal.h"
#include "tools/trainer/session.h"
#include "tools/trainer/training_data.h"

namespace nf {
namespace {

using Ordered = nlohmann::ordered_json;

// A run without text has the vocabulary that the config or the tokenizer states.
ModelConfig with_some_vocabulary(const CommandLine& line) {
  if (line.model.vocab_size > 0) return line.model;
  require(line.settings.tokenizer != "char",
          "nf-estimate: the char tokenizer's vocabulary comes from the text: give --data, or --vocab-size");
  return with_vocabulary(line.model, *make_tokenizer(line.settings.tokenizer));
}

// The forward pass that checkpointing computes again in the backward pass. With a budget of bytes it is
// between none and all; none is assumed.
double executed_flops(const ModelConfig& model, double forward, double training) {
  return training + (model.gradient_checkpointing.mode == GradientCheckpointing::Mode::layer ? forward : 0);
}

}  // namespace

MemoryEstimate estimate_memory(const ModelConfig& model, const TrainSettings& settings, bool documents,
                               const Device& device) {
  return estimate_memory(model, plan_options(model, settings, documents), device);
}

std::optional<int64_t> Estimate::tokens() const {
  if (!steps) return std::nullopt;
  return *steps * tokens_per_step;
}

std::optional<double> Estimate::seconds() const {
  if (!steps || peak_flops <= 0) return std::nullopt;
  return executed_flops * static_cast<double>(*tokens()) / (kAssumedShare * peak_flops);
}

Estimate estimate(const CommandLine& line) {
  const TrainSettings& settings = line.settings;
  check_dump_folder();
  Estimate result;
  bool documents = settings.batch_mode == BatchMode::pad;
  result.steps_are_set = settings.steps > 0;
  if (result.steps_are_set) result.steps = settings.steps;
  if (settings.data.empty()) {
    result.model = with_some_vocabulary(line);
  } else {
    const TrainingData data = load_training_data(settings);
    result.model = with_vocabulary(line.model, *data.tokenizer);
    result.text = data.stats;
    result.validation_tokens = data.validation.tokens();
    result.steps = total_steps(settings, *training_batches(data, settings));
    documents = data.documents;
  }
  const std::shared_ptr<const Device> device = open_device(settings);
  const PlanOptions options = plan_options(result.model, settings, documents);
  result.parameters = count_parameters(result.model);
  result.tokens_per_step = settings.batch_size * settings.grad_accum * settings.seq_len;
  result.forward_flops = forward_flops_per_token(result.model, settings.seq_len);
  result.training_flops = training_flops_per_token(result.model, settings.seq_len);
  result.executed_flops = executed_flops(result.model, result.forward_flops, result.training_flops);
  result.memory = estimate_memory(result.model, options, *device);
  result.shortage = memory_shortage(result.memory, result.model, options, *device, memory_around(*device));
  result.kv_cache_bytes =
      kv_cache_values(result.model) * result.model.num_hidden_layers * size_of(options.compute);
  result.peak_flops = device->peak_flops(options.compute);
  return result;
}

namespace {

std::string duration(double seconds) {
  constexpr double kYear = 365.25 * 24 * 3600;
  return seconds < kYear ? format_duration(seconds) : fmt::format("{:.3g} years", seconds / kYear);
}

void add_parameters(std::string& out, const Estimate& e) {
  const ParameterCount& p = e.parameters;
  out += fmt::format("parameters\n  {:<28}{:>18}\n", "embedding", p.embedding);
  if (p.head > 0) out += fmt::format("  {:<28}{:>18}\n", "head", p.head);
  out += fmt::format("  {:<28}{:>18}\n", fmt::format("{} blocks of {}", e.model.num_hidden_layers, p.block),
                     e.model.num_hidden_layers * p.block);
  out += fmt::format("  {:<28}{:>18}\n",
                     e.model.attention_type == AttentionType::ngpt ? "logit scale" : "norm", p.last);
  if (p.adapters > 0) out += fmt::format("  {:<28}{:>18}\n", "adapters, trained alone", p.adapters);
  out += fmt::format("  {:<28}{:>18}\n", "total", p.total);
}

void add_text(std::string& out, const Estimate& e) {
  if (!e.text) return;
  out +=
      fmt::format("text\n  {:<28}{:>18}\n  {:<28}{:>18}\n  {:<28}{:>18}\n", "training tokens", e.text->tokens,
                  "validation tokens", e.validation_tokens, "training documents", e.text->documents);
  out += fmt::format(
      "  {:<28}{:>18}\n", "tokens per document",
      fmt::format("{:.1f} ({} … {})", e.text->mean_length, e.text->min_length, e.text->max_length));
}

void add_flops(std::string& out, const Estimate& e) {
  const auto line = [&](std::string_view what, double value) {
    out += fmt::format("  {:<28}{:>18.4g}\n", what, value);
  };
  out += "FLOPs\n";
  line("forward, per token", e.forward_flops);
  line("training, per token", e.training_flops);
  line("training, per step", e.training_flops * static_cast<double>(e.tokens_per_step));
  if (const auto tokens = e.tokens())
    line("training, whole run", e.training_flops * static_cast<double>(*tokens));
}

void add_memory(std::string& out, const Estimate& e) {
  const auto line = [&](std::string_view what, int64_t bytes) {
    out += fmt::format("  {:<28}{:>18}  {}\n", what, bytes, format_bytes(bytes));
  };
  const MemoryEstimate& m = e.memory;
  out += "memory, bytes\n";
  line("weights, f32", m.weights);
  if (m.narrow_copies > 0)
    line(e.model.lora ? "frozen matrices, bf16" : "their bf16 copies", m.narrow_copies);
  line("gradients, f32", m.gradients);
  line("optimizer, f32", m.optimizer);
  line("activations", m.activations);
  line("workspace", m.workspace);
  line("constants", m.constants);
  line("copy of a checkpoint", m.checkpoint);
  line("peak", m.total());
  out += fmt::format("  (activations and workspace of the step '{}', for the longest batch)\n", m.arena_step);
  if (e.shortage) append_wrapped(out, *e.shortage, 2);
  line("while generating, per token", e.kv_cache_bytes);
}

void add_run(std::string& out, const Estimate& e) {
  const auto parameters = static_cast<double>(e.parameters.total);
  out += fmt::format("run\n  {:<28}{:>18}\n", "tokens per step", e.tokens_per_step);
  if (e.steps)
    out += fmt::format("  {:<28}{:>18}\n  {:<28}{:>18}  {:.3g} per parameter\n",
                       e.steps_are_set ? "steps, as the settings say" : "steps, by the text's length",
                       *e.steps, "tokens", *e.tokens(), static_cast<double>(*e.tokens()) / parameters);
  out += fmt::format("  {:<28}{:>18.0f}  {} per parameter (Hoffmann et al., arXiv 2203.15556)\n",
                     "compute-optimal tokens", kChinchillaTokens * parameters, kChinchillaTokens);
  if (const auto seconds = e.seconds())
    out += fmt::format(
        "  {:<28}{:>18}  if {:.0f}% of this machine's peak, {:.0f} GFLOP/s measured, is reached\n", "time",
        duration(*seconds), 100 * kAssumedShare, e.peak_flops * 1e-9);
}

}  // namespace

std::string to_text(const Estimate& e) {
  std::string out;
  add_parameters(out, e);
  add_text(out, e);
  add_flops(out, e);
  add_memory(out, e);
  add_run(out, e);
  return out;
}

std::string to_json(const Estimate& e) {
  const auto parameters = static_cast<double>(e.parameters.total);
  const MemoryEstimate& m = e.memory;
  Ordered json = {{"attention_type", name(e.model.attention_type)},
                  {"vocab_size", e.model.vocab_size},
                  {"parameters",
                   {{"total", e.parameters.total},
                    {"embedding", e.parameters.embedding},
                    {"head", e.parameters.head},
                    {"block", e.parameters.block},
                    {"blocks", e.model.num_hidden_layers},
                    {"last", e.parameters.last},
                    {"adapters", e.parameters.adapters}}},
                  {"flops_per_token", {{"forward", e.forward_flops}, {"training", e.training_flops}}},
                  {"memory_bytes",
                   {{"weights", m.weights},
                    {"bf16_copies", m.narrow_copies},
                    {"gradients", m.gradients},
                    {"optimizer", m.optimizer},
                    {"activations", m.activations},
                    {"workspace", m.workspace},
                    {"constants", m.constants},
                    {"checkpoint_copy", m.checkpoint},
                    {"state", m.state()},
                    {"arena", m.arena()},
                    {"total", m.total()}}},
                  {"fits_in_memory", !e.shortage.has_value()},
                  {"kv_cache_bytes_per_token", e.kv_cache_bytes},
                  {"tokens_per_step", e.tokens_per_step},
                  {"optimal_tokens", kChinchillaTokens * parameters}};
  if (e.text)
    json["text"] = {{"tokens", e.text->tokens},         {"validation_tokens", e.validation_tokens},
                    {"documents", e.text->documents},   {"mean_length", e.text->mean_length},
                    {"min_length", e.text->min_length}, {"max_length", e.text->max_length}};
  if (e.steps) {
    json["steps"] = *e.steps;
    json["tokens"] = *e.tokens();
    json["tokens_per_parameter"] = static_cast<double>(*e.tokens()) / parameters;
    json["flops"] = e.training_flops * static_cast<double>(*e.tokens());
  }
  if (e.peak_flops > 0) json["peak_flops_per_second"] = e.peak_flops;
  if (const auto seconds = e.seconds()) {
    json["seconds"] = *seconds;
    json["assumed_share_of_peak"] = kAssumedShare;
  }
  return json.dump();
}

int run_estimate(const CommandLine& line) {
  if (line.help) {
    fmt::print("{}", *line.help);
    return kExitDone;
  }
  const Estimate result = estimate(line);
  if (line.settings.json) {
    fmt::print("{}\n", to_json(result));
    return kExitDone;
  }
  for (const std::string& note : line.notes) fmt::print(stderr, "{}\n", note);
  fmt::print("{}", to_text(result));
  return kExitDone;
}

}  // namespace nf
