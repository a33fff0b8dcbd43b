// The estimate against what the trainer really allocates, to the byte.
#include "tools/estimate.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "tests/support/folder.h"
#include "tools/trainer/session.h"

namespace nf {
namespace {

ModelConfig small_config(AttentionType type, bool checkpointing) {
  ModelConfig config;
  config.attention_type = type;
  config.vocab_size = 67;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 4;
  config.max_position_embeddings = 32;
  if (checkpointing) config.gradient_checkpointing.mode = GradientCheckpointing::Mode::layer;
  return resolve(config);
}

TrainSettings small_settings(ComputeType compute) {
  TrainSettings settings;
  settings.dtype = compute;
  settings.batch_size = 2;
  settings.seq_len = 24;
  settings.steps = 10;
  return settings;
}

void check_exact(const ModelConfig& model, const TrainSettings& settings, bool documents) {
  const std::shared_ptr<const Device> device = cpu_device(1);
  const MemoryEstimate memory = estimate_memory(model, settings, documents, *device);
  const TrainingSession session(model, settings, documents, device);
  CHECK(memory.arena() == session.executables().arena_bytes());
  CHECK(memory.state() == session.state().bytes());

  int64_t constants = 0, weights = 0, narrow = 0;
  for (const Executable* executable : session.executables().all())
    constants += executable->plan().constant_bytes;
  CHECK(memory.constants == constants);
  for (const Parameter& p : session.parameters()) {
    weights += p.shape.elements() * 4;
    if (session.state().contains(narrow_name(p.name))) narrow += p.shape.elements() * 2;
  }
  CHECK(memory.weights == weights);
  CHECK(memory.gradients == weights);
  CHECK(memory.narrow_copies == narrow);
  CHECK((narrow > 0) == (settings.dtype == ComputeType::bf16));
}

TEST_CASE("memory equals the executables' arenas and the State, to the byte") {
  for (const AttentionType type :
       {AttentionType::mha, AttentionType::gqa, AttentionType::diff, AttentionType::ngpt, AttentionType::mla})
    for (const ComputeType compute : {ComputeType::f32, ComputeType::bf16})
      for (const bool checkpointing : {false, true}) {
        CAPTURE(name(type));
        CAPTURE(name(compute));
        CAPTURE(checkpointing);
        check_exact(small_config(type, checkpointing), small_settings(compute), false);
      }
}

TEST_CASE("with 12 layers, checkpointing by layer keeps less than a quarter of the activations") {
  for (const AttentionType type : {AttentionType::mha, AttentionType::gqa, AttentionType::diff,
                                   AttentionType::ngpt, AttentionType::mla}) {
    CAPTURE(name(type));
    TrainSettings settings = small_settings(ComputeType::bf16);
    settings.batch_size = 8;
    settings.seq_len = 256;
    const auto activations = [&](bool checkpointing) {
      ModelConfig config = small_config(type, checkpointing);
      config.hidden_size = 384;
      config.intermediate_size = 1152;
      config.num_hidden_layers = 12;
      config.num_attention_heads = 6;
      config.num_key_value_heads = 6;
      config.head_dim = 64;
      config.max_position_embeddings = 256;
      return estimate_memory(resolve(config), settings, false, *cpu_device(1)).activations;
    };
    CHECK(4 * activations(true) < activations(false));
  }
}

TEST_CASE("memory of other runs: accumulation, padding, optimizers, averages, head similarity") {
  ModelConfig model = small_config(AttentionType::gqa, false);
  model.head_sim_loss = model.head_sim_loss_after_warmup = true;
  TrainSettings settings = small_settings(ComputeType::bf16);
  settings.grad_accum = 2;
  settings.seq_len = 23;  // padded to a multiple beyond it
  settings.batch_mode = BatchMode::pad;
  settings.optimizer = Optimizer::muon;
  settings.ema = 0.9;
  check_exact(model, settings, true);
  settings.optimizer = Optimizer::lion;
  settings.eval_every = 0;
  check_exact(model, settings, true);
}

TEST_CASE("the optimizer's share: two moments for AdamW, one for Lion and SGD") {
  const ModelConfig model = small_config(AttentionType::gqa, false);
  TrainSettings settings = small_settings(ComputeType::f32);
  const auto moments = [&](Optimizer optimizer) {
    settings.optimizer = optimizer;
    const MemoryEstimate memory = estimate_memory(model, settings, false, *cpu_device(1));
    return static_cast<double>(memory.optimizer) / static_cast<double>(memory.weights);
  };
  CHECK(moments(Optimizer::adamw) == 2);
  CHECK(moments(Optimizer::lion) == 1);
  CHECK(moments(Optimizer::sgd) == 1);
}

TEST_CASE("checkpointing takes fewer bytes of activations") {
  TrainSettings settings = small_settings(ComputeType::f32);
  settings.batch_size = 32;  // enough that the micro-step is the hungriest
  settings.eval_every = 0;
  const auto activations = [&](bool checkpointing) {
    return estimate_memory(small_config(AttentionType::gqa, checkpointing), settings, false, *cpu_device(1))
        .activations;
  };
  CHECK(activations(true) < activations(false));
}

CommandLine command_line(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "nf-estimate");
  return parse_command_line(static_cast<int>(arguments.size()), arguments.data(), Program::estimate);
}

TEST_CASE("figures without text") {
  const Estimate e = estimate(command_line({"-m", "gqa", "--steps", "50", "--batch-size", "4", "--grad-accum",
                                            "2", "--seq-len", "128", "--vocab-size", "300"}));
  CHECK(e.parameters.total == count_parameters(e.model).total);
  CHECK(!e.text);
  CHECK(e.tokens_per_step == 4 * 2 * 128);
  CHECK(e.tokens() == 50 * 4 * 2 * 128);
  CHECK(e.training_flops == 3 * forward_flops_per_token(e.model, 128));
  CHECK(e.kv_cache_bytes == 2 * kv_cache_values(e.model) * e.model.num_hidden_layers);
  CHECK(e.seconds().has_value() == (e.peak_flops > 0));
}

TEST_CASE("figures of a text") {
  const Folder folder;
  const std::string a =
      folder.write("a.jsonl", "{\"text\": \"0123456789\"}\n{\"text\": \"abcd\"}\n{\"text\": \"xyz12345\"}\n");
  const Estimate e = estimate(command_line(
      {"-m", "gqa", "--data", a.c_str(), "--val-fraction", "0", "--seq-len", "8", "--batch-size", "1"}));
  REQUIRE(e.text.has_value());
  CHECK(e.text->documents == 3);
  CHECK(e.text->min_length == 5);  // with the end of text
  CHECK(e.text->max_length == 11);
  CHECK(e.text->tokens == 25);
  CHECK(e.steps.has_value());
  CHECK(e.model.vocab_size > 256);
  const auto json = nlohmann::json::parse(to_json(e));
  CHECK(json["text"]["documents"] == 3);
  CHECK(json["memory_bytes"]["total"] == e.memory.total());
  CHECK(to_text(e).find(std::to_string(e.memory.total())) != std::string::npos);
}

TEST_CASE("a vocabulary that nothing states is an Error") {
  CHECK_THROWS_WITH_AS(estimate(command_line({"-m", "gqa", "--tokenizer", "char"})),
                       doctest::Contains("--vocab-size"), Error);
}

}  // namespace
}  // namespace nf
