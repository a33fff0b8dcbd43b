#include <algorithm>

#include "tools/bench/steps.h"

namespace nf {
namespace {

constexpr int64_t kTokens = 2048;  // of a step, or one sequence if that is longer

BenchModel sized(int64_t length, int64_t layers, int64_t vocab) {
  BenchModel m;
  m.name = fmt::format("T {}, L {}, V {}", length, layers, vocab);
  m.model.attention_type = AttentionType::gqa;
  m.model.hidden_size = 256;
  m.model.intermediate_size = 1024;
  m.model.num_attention_heads = 8;
  m.model.num_key_value_heads = 2;
  m.model.num_hidden_layers = layers;
  m.model.vocab_size = vocab;
  m.model.max_position_embeddings = length;
  m.model = resolve(m.model);
  m.settings = parse_training("", m.model, "nf-bench");
  m.settings.seq_len = length;
  m.settings.batch_size = std::max<int64_t>(1, kTokens / length);
  return m;
}

}  // namespace

void bench_scale(const Bench& bench, BenchReport& report) {
  report.section("scale", "GQA of width 256: does the cost of a token grow as its arithmetic does?",
                 {{.key = "tokens_per_second", .title = "tokens/s", .digits = 0},
                  {.key = "flops_per_token", .title = "MFLOP/token", .digits = 0, .scale = 1e-6},
                  {.key = "share_of_peak", .title = "% of peak", .scale = 100},
                  {.key = "against_first", .title = "% of first", .scale = 100}});
  std::vector<BenchModel> models;
  for (const int64_t length : {256, 512, 1024, 2048, 4096, 8192}) models.push_back(sized(length, 8, 4096));
  for (const int64_t layers : {2, 4, 16, 48}) models.push_back(sized(256, layers, 4096));
  for (const int64_t vocab : {256, 16384, 50304, 131072}) models.push_back(sized(256, 8, vocab));
  double first = 0;
  for (const BenchModel& model : models) {
    const StepTiming timing = time_step(bench, model);
    if (first == 0) first = timing.share_of_peak;
    report.row(model.name, nf::name(timing.compute),
               {timing.tokens_per_second, timing.flops_per_token, timing.share_of_peak,
                timing.share_of_peak / first});
  }
}

}  // namespace nf
