#include "models/training_step.h"
#include "tools/bench/sections.h"

namespace nf {
namespace {

// As large as the smallest GPT-2.
ModelConfig gpt2_sized() {
  ModelConfig model;
  model.attention_type = AttentionType::mha;
  model.vocab_size = 50304;
  model.hidden_size = 768;
  model.intermediate_size = 2048;
  model.num_hidden_layers = 12;
  model.num_attention_heads = 12;
  model.tie_word_embeddings = true;
  model.max_position_embeddings = 1024;
  return resolve(model);
}

constexpr int64_t kCapacity = 1024, kPrompt = 512;

std::shared_ptr<State> random_weights(const Bench& bench, const ModelConfig& model) {
  const auto state = std::make_shared<State>(bench.device);
  const std::vector<Parameter> parameters = model_parameters(model);
  initialize_parameters(*state, parameters, 1);
  copy_narrow(*state, parameters);
  return state;
}

std::unique_ptr<Executable> compile_for(const ModelConfig& model, const std::shared_ptr<State>& state,
                                        int64_t tokens) {
  const ModelOptions options{.batch = 1, .length = tokens, .compute = DType::bf16, .cache_length = kCapacity};
  auto step = compile(*logits_step(model, options), state, {.frozen = tokens == 1});
  const std::vector<int32_t> ids(static_cast<size_t>(tokens), 7);
  const int32_t length = kPrompt;  // tokens in the caches, these included
  step->set<int32_t>("ids", ids);
  step->set<int32_t>("length", std::span(&length, 1));
  return step;
}

// bf16 weights that one token's products read: all but the norms' and what is looked up.
double weight_bytes(const ModelConfig& model) {
  double elements = 0;
  for (const Parameter& parameter : model_parameters(model))
    if (parameter.used_narrow) elements += static_cast<double>(parameter.shape.elements());
  return 2 * elements;
}

}  // namespace

void bench_generation(const Bench& bench, BenchReport& report) {
  const ModelConfig model = gpt2_sized();
  const std::shared_ptr<State> state = random_weights(bench, model);
  report.section("generation", "MHA of 124M parameters; a token's GB/s are those of the weights it reads",
                 {{.key = "ms", .title = "ms"},
                  {.key = "tokens_per_second", .title = "tokens/s"},
                  {.key = "gflops", .title = "GFLOP/s"},
                  {.key = "share_of_peak", .title = "% of peak", .scale = 100},
                  {.key = "gb_per_second", .title = "GB/s"},
                  {.key = "share_of_copy", .title = "% of copy", .scale = 100}});
  const std::unique_ptr<Executable> prompt = compile_for(model, state, kPrompt);
  const Timing reading = measure(
      bench, [&] { prompt->run(); }, [&] { return bench.device->peak_flops(DType::bf16); });
  const double rate = flops_of(*prompt) / reading.seconds;
  report.row(fmt::format("reading {} tokens", kPrompt), "bf16",
             {reading.seconds * 1e3, static_cast<double>(kPrompt) / reading.seconds, rate * 1e-9,
              rate / reading.yardstick, kNoFigure, kNoFigure});
  const std::unique_ptr<Executable> token = compile_for(model, state, 1);
  MemoryCopy copy(bench);
  const Timing writing = measure(
      bench, [&] { token->run(); }, [&] { return copy.bytes_per_second(); });
  const double speed = weight_bytes(model) / writing.seconds;
  report.row(fmt::format("writing a token behind {}", kPrompt - 1), "bf16",
             {writing.seconds * 1e3, 1 / writing.seconds, kNoFigure, kNoFigure, speed * 1e-9,
              speed / writing.yardstick});
}

}  // namespace nf
