#include "tools/bench/steps.h"

#include <random>

#include "models/training_step.h"
#include "tools/config_file.h"
#include "tools/program.h"
#include "tools/trainer/plans.h"
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

// The graphs of a step, with loops as the compiler fuses them, or every op as a loop of its own.
class StepGraphs {
 public:
  StepGraphs(const Bench& bench, const BenchModel& chosen, bool fuse) : bench_(bench) {
    const ModelConfig& model = chosen.model;
    const ModelOptions options{.batch = chosen.settings.batch_size,
                               .length = chosen.settings.seq_len,
                               .compute = DType::bf16,
                               .training = true};
    const auto state = std::make_shared<State>(bench.device);
    const std::vector<Parameter> parameters = model_parameters(model);
    initialize_parameters(*state, parameters, 1);
    copy_narrow(*state, parameters);
    micro_ = compile(*micro_step(model, {.model = options}), state, {.fuse = fuse});
    update_ =
        compile(*update_step(model, optimizer_options(chosen.settings), DType::bf16), state, {.fuse = fuse});
    const std::vector<int32_t> tokens(static_cast<size_t>(options.batch * options.length), 7);
    micro_->set<int32_t>("ids", tokens);
    micro_->set<int32_t>("targets", tokens);
    const auto set = [this](const char* scalar, float value) {
      update_->set<float>(scalar, std::span(&value, 1));
    };
    set("learning_rate", 1e-5F);
    set("step", 1);
    set("gradient_scale", 1 / static_cast<float>(tokens.size()));
  }

  Timing time(bool with_update) const {
    return measure(
        bench_,
        [&] {
          micro_->run();
          if (with_update) update_->run();
        },
        [&] { return bench_.device->peak_flops(DType::bf16); });
  }

 private:
  const Bench& bench_;
  std::unique_ptr<Executable> micro_, update_;
};

}  // namespace

BenchModel load_bench_model(const std::string& config) {
  const std::filesystem::path file = find_config_file(config);
  const ParsedConfig parsed = parse_config(read_config_file(file), file.string());
  const ModelConfig model = with_vocabulary(parsed.model, *make_tokenizer("byte"));
  return {.name = file.stem().string(),
          .model = model,
          .settings = parse_training(parsed.training, model, file.string())};
}

StepTiming time_step(const Bench& bench, const BenchModel& chosen) {
  const ModelConfig& model = chosen.model;
  const TrainSettings& settings = chosen.settings;
  StepTiming result;
  run_accepted([&] {
    TrainingSession session(model, settings, false, bench.device);
    session.initialize();
    const int64_t tokens = settings.batch_size * settings.seq_len;
    const std::unique_ptr<Batches> batches =
        make_batches(random_tokens(4 * tokens + 1, model.vocab_size),
                     {.batch = settings.batch_size, .length = settings.seq_len});
    int64_t number = 0;
    const Timing timing = measure(
        bench, [&] { session.step(*batches, ++number, 1e-5); },
        [&] { return bench.device->peak_flops(session.compute()); });
    result.compute = session.compute();
    result.seconds = timing.seconds;
    result.tokens_per_second = static_cast<double>(tokens * settings.grad_accum) / timing.seconds;
    result.flops_per_token = training_flops_per_token(model, settings.seq_len);
    result.share_of_peak = result.flops_per_token * result.tokens_per_second / timing.yardstick;
  });
  return result;
}

void bench_steps(const Bench& bench, const BenchModel& chosen, BenchReport& report) {
  const TrainSettings& settings = chosen.settings;
  report.section("steps", "training on random tokens; GFLOP/s of forward + backward without recomputation",
                 {{.key = "ms", .title = "ms"},
                  {.key = "tokens_per_second", .title = "tokens/s", .digits = 0},
                  {.key = "gflops", .title = "GFLOP/s"},
                  {.key = "share_of_peak", .title = "% of peak", .scale = 100}});
  const StepTiming step = time_step(bench, chosen);
  report.row(fmt::format("{}, {} x {} tokens", chosen.name, settings.batch_size * settings.grad_accum,
                         settings.seq_len),
             nf::name(step.compute),
             {step.seconds * 1e3, step.tokens_per_second,
              step.flops_per_token * step.tokens_per_second * 1e-9, step.share_of_peak});
  const auto tokens = static_cast<double>(settings.batch_size * settings.seq_len);
  for (const bool fuse : {true, false}) {
    const StepGraphs graphs(bench, chosen, fuse);
    for (const bool with_update : {true, false}) {
      const Timing timing = graphs.time(with_update);
      const double rate = step.flops_per_token * tokens / timing.seconds;
      report.row(
          fmt::format("{}{}", with_update ? "forward, backward and update" : "forward and backward alone",
                      fuse ? "" : ", nothing fused"),
          "bf16", {timing.seconds * 1e3, tokens / timing.seconds, rate * 1e-9, rate / timing.yardstick});
    }
  }
}

}  // namespace nf
