#include "tools/compare/contest.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "nf/file.h"
#include "nf/json.h"
#include "tools/compare/findings.h"
#include "tools/output_paths.h"
#include "tools/program.h"
#include "tools/tracking/terminal.h"
#include "tools/trainer/memory.h"
#include "tools/trainer/trainer.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int64_t kEvaluations = 40;  // of a run, when nothing else is said
constexpr int64_t kSaves = 5;
constexpr double kTrialShare = 0.03;  // of a budget of time, to measure the speed

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

int64_t tokens_per_step(const TrainSettings& s) { return s.batch_size * s.grad_accum * s.seq_len; }

// Tokens per second of a fresh model in the first steps, the very first left out.
double trial_speed(const ModelConfig& model, const TrainSettings& settings, const TrainingData& data,
                   double seconds) {
  TrainingSession session(model, settings, data.documents, open_device(settings));
  session.initialize();
  const auto batches = training_batches(data, settings);
  session.step(*batches, 1, 0);
  const Clock::time_point begin = Clock::now();
  double tokens = 0, spent = 0;
  for (int64_t step = 2; step < 5 || spent < seconds; ++step) {
    tokens += static_cast<double>(session.step(*batches, step, 0).tokens);
    spent = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  return tokens / spent;
}

class Contest {
 public:
  Contest(CompareRequest request, const std::function<bool()>& stop)
      : request_(std::move(request)),
        stop_(stop),
        page_(request_.out / "report.html"),
        terminal_(standard_error()) {}

  int run() {
    check_output_folder(request_.out, "--out");
    prepare();
    announce();
    for (size_t i = 0; i < runs_.size() && !stopped_; ++i) run_accepted([&] { train(i); });
    conclude();
    return stopped_ ? kExitInterrupted : failed_ ? kExitFailed : kExitDone;
  }

 private:
  TrainSettings& settings(size_t i) { return request_.contestants[i].line.settings; }

  void prepare();
  int64_t steps_for(size_t i, const ModelConfig& model, double flops_per_token, const TrainingData& data);
  std::optional<int64_t> steps_begun(size_t i) const;
  void check_same(size_t i, const std::string& config) const;
  void announce();
  std::string time_left(size_t i) const;
  void train(size_t i);
  void write_page();
  void conclude();

  CompareRequest request_;
  const std::function<bool()>& stop_;
  PageWriter page_;
  Terminal terminal_;
  std::vector<PageRun> runs_;
  std::vector<RunHistory> histories_;  // of the runs that are done or stopped
  std::string subtitle_;
  double flops_ = 0, seconds_ = 0;  // of the runs made so far by this process
  bool stopped_ = false, failed_ = false;
};

// The steps of a run that is there already.
std::optional<int64_t> Contest::steps_begun(size_t i) const {
  const fs::path config = fs::path(request_.contestants[i].line.settings.out) / "config.json";
  std::error_code ignored;
  if (!fs::exists(config, ignored)) return std::nullopt;
  const ParsedConfig parsed = parse_config(read_file(config), config.string());
  return parse_training(parsed.training, parsed.model, config.string()).steps;
}

int64_t Contest::steps_for(size_t i, const ModelConfig& model, double flops_per_token,
                           const TrainingData& data) {
  const TrainSettings& s = settings(i);
  const auto step_tokens = static_cast<double>(tokens_per_step(s));
  double steps = 0;
  switch (request_.budget.kind) {
    case Budget::Kind::steps: return total_steps(s, *training_batches(data, s));
    case Budget::Kind::tokens: steps = request_.budget.amount / step_tokens; break;
    case Budget::Kind::flops: steps = request_.budget.amount / (flops_per_token * step_tokens); break;
    case Budget::Kind::seconds: {
      // Measured once; a run that goes on keeps its length.
      if (const auto begun = steps_begun(i)) return *begun;
      const double speed = trial_speed(model, s, data, kTrialShare * request_.budget.amount);
      steps = request_.budget.amount * speed / step_tokens;
      break;
    }
  }
  require(steps < 1e12, "nf-compare: --budget {} would be {:.3g} steps", request_.budget.text, steps);
  return std::max<int64_t>(1, std::llround(steps));
}

void Contest::prepare() {
  const TrainingData data = load_training_data(settings(0), nullptr);  // all share it: see check_shared
  require(data.validation.tokens() > 0,
          "nf-compare: the text is too short to keep a share of it for validation");
  histories_.resize(request_.contestants.size());
  for (size_t i = 0; i < request_.contestants.size(); ++i) {
    Contestant& contestant = request_.contestants[i];
    TrainSettings& s = settings(i);
    const ModelConfig model = with_vocabulary(contestant.line.model, *data.tokenizer);
    const double flops = training_flops_per_token(model, s.seq_len);
    s.steps = steps_for(i, model, flops, data);
    s.epochs = 0;
    if (!request_.evaluation_given) s.eval_every = std::max<int64_t>(1, s.steps / kEvaluations);
    if (!request_.saving_given) s.save_every = std::max<int64_t>(1, s.steps / kSaves);
    check_same(i, merged_config_json(model, s));
    const PlanOptions options = plan_options(model, s, data.documents);
    const MemoryEstimate memory = estimate_memory(model, options, *open_device(s));
    RunFacts facts = run_facts(model, s, memory.state() + memory.arena());
    facts.group = contestant.group;
    runs_.push_back({.facts = std::move(facts), .status = RunStatus::waiting});
    if (i == 0)
      subtitle_ = fmt::format("{} tokens of text, {} for validation; batches of {} × {} tokens",
                              format_quantity(static_cast<double>(data.stats.tokens)),
                              format_quantity(static_cast<double>(data.validation.tokens())),
                              s.batch_size * s.grad_accum, s.seq_len);
  }
}

// Curves made with other settings are not compared by accident.
void Contest::check_same(size_t i, const std::string& config) const {
  const fs::path folder = request_.contestants[i].line.settings.out, file = folder / "config.json";
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return;
  using Json = nlohmann::json;
  const ParsedConfig parsed = parse_config(read_file(file), file.string());  // fills in keys that came later
  const std::string present =
      merged_config_json(parsed.model, parse_training(parsed.training, parsed.model, file.string()));
  const Json flat_before = Json::parse(present).flatten(), flat_now = Json::parse(config).flatten();
  for (const auto& [key, value] : flat_now.items())
    require(flat_before.contains(key) && flat_before[key] == value,
            "{}: was made with other settings: {} is {}, now it would be {}; give another --out",
            folder.string(), key.substr(1), flat_before.contains(key) ? flat_before[key].dump() : "not set",
            value.dump());
}

void Contest::announce() {
  std::string length;
  const auto [fewest, most] =
      std::minmax_element(runs_.begin(), runs_.end(),
                          [](const PageRun& a, const PageRun& b) { return a.facts.steps < b.facts.steps; });
  const double step_tokens = static_cast<double>(tokens_per_step(settings(0)));
  length = fewest->facts.steps == most->facts.steps
               ? fmt::format("{} steps, {} tokens each", fewest->facts.steps,
                             format_quantity(static_cast<double>(fewest->facts.steps) * step_tokens))
               : fmt::format("{} to {} steps, --budget {}", fewest->facts.steps, most->facts.steps,
                             request_.budget.text);
  subtitle_ += "; " + length;
  print(fmt::format("{}\n{} in {}, watch {} in {}\n", subtitle_,
                    runs_.size() == 1 ? "1 run" : fmt::format("{} runs", runs_.size()), request_.out.string(),
                    runs_.size() == 1 ? "it" : "them", page_.file().string()));
  if (const std::string warning = size_warning(runs_); !warning.empty()) print("note: " + warning + "\n");
}

// For this run and all that follow, at the pace so far; empty when nothing is known yet.
std::string Contest::time_left(size_t i) const {
  if (seconds_ == 0) return "";
  double flops = 0;
  for (size_t k = i; k < runs_.size(); ++k)
    flops += runs_[k].facts.flops_per_token * static_cast<double>(runs_[k].facts.steps);
  const double tokens = static_cast<double>(tokens_per_step(request_.contestants[i].line.settings));
  return fmt::format(", about {} left for {}", format_duration(flops * tokens / flops_ * seconds_),
                     i + 1 < runs_.size() ? "all" : "it");
}

void Contest::train(size_t i) {
  PageRun& run = runs_[i];
  CommandLine line = request_.contestants[i].line;
  line.settings.resume = latest_valid(line.settings.out).folder.has_value();
  line.settings.resume_from = line.settings.out;
  Trainer trainer(line, {.brief = true, .keep_best = false});
  print(fmt::format("\n[{}/{}] {}: {} parameters, lr {}", i + 1, runs_.size(), run.facts.name,
                    format_quantity(static_cast<double>(run.facts.parameters)), trainer.settings().lr));
  if (trainer.step() == trainer.total()) {
    print(", done before\n");
    run.status = RunStatus::done;
  } else {
    print(trainer.step() > 0 ? fmt::format(", goes on after step {}\n", trainer.step())
                             : time_left(i) + "\n");
    run.status = RunStatus::running;
    const int64_t first = trainer.step();
    const Clock::time_point begin = Clock::now();
    try {
      stopped_ = trainer.run([&] {
        run.history = trainer.history();
        if (page_.due(false)) write_page();
        return stop_();
      }) == kExitInterrupted;
      run.status = stopped_ ? RunStatus::stopped : RunStatus::done;
      seconds_ += std::chrono::duration<double>(Clock::now() - begin).count();
      flops_ += run.facts.flops_per_token *
                static_cast<double>((trainer.step() - first) * tokens_per_step(trainer.settings()));
    } catch (const RunFailed& error) {
      run.status = RunStatus::failed;
      failed_ = true;
      print(fmt::format("{}: {}\n", run.facts.name, error.what()));
    }
  }
  // A run that failed before its first step has none.
  const fs::path metrics = fs::path(line.settings.out) / "metrics.jsonl";
  std::error_code ignored;
  if (run.status != RunStatus::failed || fs::exists(metrics, ignored)) histories_[i].read(metrics);
  run.history = &histories_[i];
  write_page();
}

void Contest::write_page() {
  Comparison comparison = compare(runs_);
  page_.write({.title = fmt::format("{} models side by side", comparison.table.rows.size()),
               .subtitle = subtitle_,
               .findings = std::move(comparison.findings),
               .table_json = to_json(comparison.table),
               .runs = runs_});
}

void Contest::conclude() {
  const Comparison comparison = compare(runs_);
  print("\n" + to_text(comparison.table, terminal_.color) + "\n");
  for (const std::string& finding : comparison.findings) print(finding + "\n");
  print(fmt::format("{}curves in {}\n", comparison.findings.empty() ? "" : "\n", page_.file().string()));
  if (stopped_) print("stopped; the same command goes on from here\n");
}

}  // namespace

int run_contest(CompareRequest request, const std::function<bool()>& stop) {
  return Contest(std::move(request), stop).run();
}

}  // namespace nf
