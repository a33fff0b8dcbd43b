#include "tools/bench/steps.h"

#include <random>

#include "tools/config_file.h"
#include "tools/program.h"
#include "tools/trainer/session.h"
#include "tools/trainer/training_data.h"

namespace nf {
namespace {

TokenDataset random_tokens(int64_t count, int64_t vocab) {
  std::minstd_rand random;
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % static_cast<uint64_t>(vocab));
  return TokenDataset(std::move(tokens), std::span(&count, 1), static_cast<int32_t>(vocab));
}

}  // namespace

BenchModel load_bench_model(const std::string& config) {
  const std::filesystem::path file = find_config_file(config);
  const ParsedConfig parsed = parse_config(read_config_file(file), file.string());
  const ModelConfig model = with_vocabulary(parsed.model, *make_tokenizer("byte"));
  return {.name = file.stem().string(),
          .model = model,
          .settings = parse_training(parsed.training, model, file.string())};
}

void bench_steps(const Bench& bench, const BenchModel& chosen, BenchReport& report) {
  const ModelConfig& model = chosen.model;
  const TrainSettings& settings = chosen.settings;
  report.section("steps", "training on random tokens; GFLOP/s of forward + backward without recomputation",
                 {{.key = "ms", .title = "ms"},
                  {.key = "tokens_per_second", .title = "tokens/s", .digits = 0},
                  {.key = "gflops", .title = "GFLOP/s"},
                  {.key = "share_of_peak", .title = "% of peak", .scale = 100}});
  run_accepted([&] {
    TrainingSession session(model, settings, false, bench.device);
    session.initialize();
    const int64_t tokens = settings.batch_size * settings.seq_len;
    const std::unique_ptr<Batches> batches =
        make_batches(random_tokens(4 * tokens + 1, model.vocab_size),
                     {.batch = settings.batch_size, .length = settings.seq_len});
    int64_t number = 0;
    const Timing timing = measure(
        bench.seconds, [&] { session.step(*batches, ++number, 1e-5); },
        [&] { return bench.device->peak_flops(session.compute()); });
    const auto per_step = static_cast<double>(tokens * settings.grad_accum);
    const double rate = 3 * forward_flops_per_token(model, settings.seq_len) * per_step / timing.seconds;
    report.row(fmt::format("{}, {} x {} tokens", chosen.name, settings.batch_size * settings.grad_accum,
                           settings.seq_len),
               nf::name(session.compute()),
               {timing.seconds * 1e3, per_step / timing.seconds, rate * 1e-9, rate / timing.yardstick});
  });
}

}  // namespace nf
