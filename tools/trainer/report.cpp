#include "tools/trainer/report.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tools/program.h"
#include "tools/tracking/jsonl_tracker.h"
#include "tools/tracking/plot.h"
#include "tools/tracking/tensorboard_tracker.h"
#include "tools/tracking/wandb_tracker.h"
#include "tools/trainer/memory.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using Ordered = nlohmann::ordered_json;

constexpr double kSecondsBetweenMemory = 1;

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void print_event(const Ordered& event) {
  print(event.dump(-1, ' ', false, Ordered::error_handler_t::replace) + "\n");
}

std::string quantity(int64_t value) { return format_quantity(static_cast<double>(value)); }

// "1 layer", "6 layers".
std::string counted(int64_t count, std::string_view what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

Ordered number(const std::optional<double>& value) { return value ? Ordered(*value) : Ordered(); }

}  // namespace

RunFacts run_facts(const ModelConfig& model, const TrainSettings& settings, int64_t memory_bytes) {
  const DType compute = settings.dtype == ComputeType::bf16 ? DType::bf16 : DType::f32;
  return {.name = settings.run_name,
          .group = "",
          .architecture = std::string(name(model.attention_type)),
          .parameters = count_parameters(model).total,
          .flops_per_token = training_flops_per_token(model, settings.seq_len),
          .kv_cache_bytes = kv_cache_values(model) * model.num_hidden_layers * size_of(compute),
          .memory_bytes = memory_bytes,
          .steps = settings.steps,
          .config_json = merged_config_json(model, settings)};
}

RunReport::RunReport(const TrainSettings& settings, fs::path run, int64_t first_step, int64_t total,
                     bool resumed, const RunOptions& options)
    : settings_(settings),
      run_(std::move(run)),
      first_step_(first_step),
      total_(total),
      resumed_(resumed),
      options_(options),
      page_(run_ / "report.html"),
      bar_(standard_error(), total) {
  const std::optional<int64_t> resume_step = resumed ? std::optional(first_step) : std::nullopt;
  trackers_.add(std::make_unique<JsonlTracker>(run_ / "metrics.jsonl", resume_step));
  history_.read(run_ / "metrics.jsonl");
  seconds_before_ = history_.seconds();
}

void RunReport::add_trackers() {
  const std::optional<int64_t> resume_step = resumed_ ? std::optional(first_step_) : std::nullopt;
  if (settings_.track.tensorboard)
    trackers_.add(
        std::make_unique<TensorboardTracker>(run_ / "tensorboard", resume_step, facts_.config_json));
  if (settings_.track.wandb)
    trackers_.add(std::make_unique<WandbTracker>(
        run_, resume_step, WandbOptions{.name = settings_.run_name, .config_json = facts_.config_json}));
}

void RunReport::log(int64_t step, std::span<const Metric> metrics) {
  trackers_.log(step, metrics);
  history_.log(step, metrics);
}

// A page that cannot be written is no reason to end a run.
void RunReport::write_page(RunStatus status) {
  const Page page{.title = facts_.name,
                  .subtitle = subtitle_,
                  .runs = {{.facts = facts_, .status = status, .history = &history_}}};
  try {
    page_.write(page);
  } catch (const Error& error) {
    if (!page_failed_) note(error.what());
    page_failed_ = true;
  }
}

void RunReport::begin(const TrainingSession& session, const TrainingData& data, double seconds) {
  const int64_t state = session.state().bytes(), arena = session.executables().arena_bytes();
  facts_ = run_facts(session.model(), settings_, state + arena);
  facts_.steps = total_;
  const ModelConfig& model = session.model();
  subtitle_ =
      fmt::format("{}, {} parameters, {}, width {}, vocabulary {}; {} with lr {:.4g}", facts_.architecture,
                  quantity(facts_.parameters), counted(model.num_hidden_layers, "layer"), model.hidden_size,
                  model.vocab_size, name(settings_.optimizer), settings_.lr);
  add_trackers();
  if (options_.brief) return;
  const ParameterCount count = count_parameters(model);
  const int64_t batch = settings_.batch_size * settings_.grad_accum * settings_.seq_len;
  if (settings_.json) {
    print_event({{"event", "start"},
                 {"run", run_.string()},
                 {"attention_type", name(model.attention_type)},
                 {"parameters", count.total},
                 {"vocab_size", model.vocab_size},
                 {"documents", data.stats.documents},
                 {"tokens", data.stats.tokens},
                 {"unigram_entropy", data.stats.unigram_entropy},
                 {"state_bytes", state},
                 {"arena_bytes", arena},
                 {"first_step", first_step_},
                 {"steps", total_},
                 {"seconds", seconds}});
    return;
  }
  const std::string trained =
      model.lora ? fmt::format(" ({} of them trained)", quantity(count.adapters)) : "";
  print(fmt::format("model   {}: {} parameters{}, {}, width {}, vocabulary {}\n", name(model.attention_type),
                    quantity(count.total), trained, counted(model.num_hidden_layers, "layer"),
                    model.hidden_size, model.vocab_size));
  print(fmt::format(
      "text    {}, {} tokens to train on, {} for validation; frequencies alone give a loss of {:.3f}\n",
      counted(data.stats.documents, "document"), quantity(data.stats.tokens),
      quantity(data.validation.tokens()), data.stats.unigram_entropy));
  print(fmt::format("memory  {} state + {} arena = {}\n", format_bytes(state), format_bytes(arena),
                    format_bytes(state + arena)));
  print(fmt::format(
      "run     {}: {} of {} tokens, {:.3g} passes over the text; {} with lr {:.4g}, {} on {}\n",
      run_.string(),
      resumed_ ? fmt::format("steps {} to {}", first_step_ + 1, total_) : counted(total_, "step"), batch,
      static_cast<double>(total_ * batch) / static_cast<double>(std::max<int64_t>(1, data.stats.tokens)),
      name(settings_.optimizer), settings_.lr, name(settings_.dtype), counted(settings_.threads, "thread")));
  print(fmt::format("ready in {:.2f} s\n", seconds));
}

void RunReport::step(const StepReport& report) {
  const StepResult& result = report.result;
  std::array<Metric, 8> metrics{{{"loss", result.loss},
                                 {"lr", report.learning_rate},
                                 {"grad_norm", result.gradient_norm},
                                 {"tokens", static_cast<double>(report.tokens)},
                                 {"seconds", seconds_before_ + report.seconds}}};
  size_t count = 5;
  if (report.tokens_per_second) metrics[count++] = {"tokens_per_second", *report.tokens_per_second};
  if (result.head_similarity) metrics[count++] = {"head_similarity", *result.head_similarity};
  if (memory_told_ == 0 || report.seconds - memory_told_ > kSecondsBetweenMemory) {
    memory_told_ = report.seconds;
    if (const int64_t bytes = process_memory(); bytes > 0)
      metrics[count++] = {"memory", static_cast<double>(bytes)};
  }
  log(report.step, std::span<const Metric>(metrics).first(count));
  trained_tokens_ += result.tokens;
  last_loss_ = result.loss;
  if (settings_.json)
    print_event({{"event", "step"},
                 {"step", report.step},
                 {"loss", result.loss},
                 {"lr", report.learning_rate},
                 {"grad_norm", result.gradient_norm},
                 {"tokens", report.tokens},
                 {"tokens_per_second", number(report.tokens_per_second)},
                 {"peak_share", number(report.peak_share)}});
  else
    bar_.update({.step = report.step,
                 .loss = result.loss,
                 .tokens_per_second = report.tokens_per_second,
                 .peak_share = report.peak_share});
  if (page_.due(false)) write_page(RunStatus::running);
}

void RunReport::skipped(int64_t step, double gradient_norm) {
  if (settings_.json)
    print_event({{"event", "skipped"}, {"step", step}, {"grad_norm", fmt::format("{}", gradient_norm)}});
  else
    bar_.print(fmt::format("step {}: the gradient norm is {}, this update is skipped", step, gradient_norm));
}

void RunReport::evaluated(int64_t step, double loss, bool best) {
  log(step, std::array{Metric{"val_loss", loss}});
  last_validation_ = loss;
  if (settings_.json)
    print_event({{"event", "eval"}, {"step", step}, {"val_loss", loss}, {"best", best}});
  else
    bar_.print(fmt::format("step {}: validation loss {:.4f}{}", step, loss, best ? ", the best so far" : ""));
  if (page_.due(true)) write_page(RunStatus::running);
}

void RunReport::saved(const fs::path& checkpoint) {
  if (settings_.json) print_event({{"event", "checkpoint"}, {"folder", checkpoint.string()}});
}

void RunReport::note(std::string_view line) {
  if (settings_.json)
    print_event({{"event", "note"}, {"text", line}});
  else
    bar_.print(line);
}

void RunReport::profile(std::string_view table, const fs::path& trace) {
  bar_.finish();
  if (settings_.json)
    print_event({{"event", "profile"}, {"table", table}, {"trace", trace.string()}});
  else
    print(fmt::format("{}trace {}, for ui.perfetto.dev\n", table, trace.string()));
}

void RunReport::end(const RunState& run, const fs::path& checkpoint, double seconds, bool interrupted) {
  trackers_.close();
  bar_.finish();
  write_page(interrupted ? RunStatus::stopped : RunStatus::done);
  if (!options_.brief) print_end(run, checkpoint, seconds, interrupted);
}

void RunReport::print_end(const RunState& run, const fs::path& checkpoint, double seconds, bool interrupted) {
  const double speed = seconds > 0 ? static_cast<double>(trained_tokens_) / seconds : 0;
  if (settings_.json) {
    print_event({{"event", "end"},
                 {"step", run.step},
                 {"interrupted", interrupted},
                 {"loss", number(last_loss_)},
                 {"val_loss", number(last_validation_)},
                 {"best_val_loss", number(run.best_loss)},
                 {"best_step", run.best_step},
                 {"tokens", run.tokens},
                 {"tokens_per_second", speed},
                 {"training_seconds", seconds},
                 {"checkpoint", checkpoint.string()},
                 {"report", page_.file().string()}});
    return;
  }
  if (!interrupted) print(curves());
  std::string line = fmt::format("{} at step {} of {}", interrupted ? "stopped" : "done", run.step, total_);
  if (last_loss_) line += fmt::format(", loss {:.4f}", *last_loss_);
  if (last_validation_) line += fmt::format(", validation {:.4f}", *last_validation_);
  if (run.best_loss) line += fmt::format(" (best {:.4f} at step {})", *run.best_loss, run.best_step);
  if (trained_tokens_ > 0)
    line += fmt::format(", {} tokens in {}, {} tok/s", format_quantity(static_cast<double>(trained_tokens_)),
                        format_duration(seconds), format_quantity(speed));
  print(line + "\n");
  print(fmt::format("curves in {}\n", page_.file().string()));
  print(fmt::format("checkpoint {}; {}\n", checkpoint.string(),
                    interrupted
                        ? fmt::format("go on with {} --resume {}", sibling_program("nf-train"), run_.string())
                        : fmt::format("try {} -m {}", sibling_program("nf-generate"), run_.string())));
}

std::string RunReport::curves() const {
  const MetricSeries train = read_metric(run_ / "metrics.jsonl", "loss"),
                     validation = read_metric(run_ / "metrics.jsonl", "val_loss");
  if (train.steps.size() < 2) return "";
  std::vector<PlotSeries> series{{.name = "train", .x = train.steps, .y = train.values}};
  if (!validation.steps.empty())
    series.push_back({.name = "validation", .x = validation.steps, .y = validation.values, .points = true});
  const Terminal terminal = standard_error();
  return plot(series, {.title = "loss",
                       .x_label = "step",
                       .width = terminal.interactive ? std::clamp(terminal.width(), 24, 100) : 80,
                       .height = 16,
                       .unicode = terminal.unicode});
}

}  // namespace nf
