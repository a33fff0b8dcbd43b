#include "tools/trainer/trainer.h"

#include <algorithm>
#include <cmath>

#include "nf/file.h"
#include "tools/export/tokenizer_files.h"
#include "tools/load_model.h"
#include "tools/lora.h"
#include "tools/output_paths.h"
#include "tools/program.h"
#include "tools/trainer/memory.h"
#include "tools/trainer/tensors.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int64_t kWarmSteps = 3;       // before the machine's peak is measured and a profile begins
constexpr int64_t kProfiledSteps = 20;  // a profile keeps every run of every kernel

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool is_multiple(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

fs::path folder_of(const fs::path& weights) {
  std::error_code error;
  return fs::is_directory(weights, error) ? weights : weights.parent_path();
}

// The tokenizer that the weights were trained with, where their folder has it.
std::shared_ptr<const Tokenizer> tokenizer_beside(const fs::path& weights) {
  std::error_code error;
  const fs::path folder = folder_of(weights);
  return fs::exists(folder / "tokenizer.json", error) ? load_tokenizer(folder) : nullptr;
}

// Whether settings that say `wanted` mean this tokenizer. A file that is no more is taken at its word: runs
// keep their tokenizer with them.
bool is_tokenizer(const Tokenizer& tokenizer, const std::string& wanted) {
  if (wanted == "byte" || wanted == "char") return tokenizer.name() == wanted;
  std::error_code error;
  return !fs::exists(wanted, error) || load_tokenizer(wanted)->fingerprint() == tokenizer.fingerprint();
}

}  // namespace

Trainer::Trainer(const CommandLine& command, const RunOptions& options)
    : settings_(command.settings), options_(options), notes_(command.notes) {
  check_dump_folder();
  open_run();
  std::shared_ptr<const Tokenizer> tokenizer;
  if (checkpoint_)
    tokenizer = load_tokenizer(checkpoint_->folder);
  else if (!settings_.init_from.empty())
    tokenizer = tokenizer_beside(find_weights(settings_.init_from));
  settle_tokenizer(tokenizer.get());
  data_ = load_training_data(settings_, std::move(tokenizer));
  const ModelConfig model = with_vocabulary(command.model, *data_.tokenizer);
  batches_ = training_batches(data_, settings_);
  if (settings_.eval_every > 0 && data_.validation.tokens() > 0)
    validation_ = validation_batches(data_, settings_);

  total_ = total_steps(settings_, *batches_);
  schedule_ = {.schedule = settings_.schedule,
               .warmup_steps = settings_.warmup_for(total_),
               .total_steps = total_,
               .min_lr_ratio = settings_.min_lr_ratio,
               .decay_fraction = settings_.decay_fraction,
               .decay_shape = settings_.decay_shape};
  if (model.lora) settle_base();
  identity_ = run_identity(model, settings_, data_, model.lora ? weights_fingerprint(base_) : "");
  if (checkpoint_) {
    run_state_ = parse_run_state(checkpoint_->trainer_state_json, identity_,
                                 (checkpoint_->folder / "trainer_state.json").string());
    for (std::string& line : changed_settings(checkpoint_->config_json, merged_config_json(model, settings_),
                                              (checkpoint_->folder / "config.json").string()))
      notes_.push_back(std::move(line));
  }
  session_ = std::make_unique<TrainingSession>(
      model, settings_, data_.documents, options_.device ? options_.device : open_device(settings_),
      model.head_sim_loss_after_warmup ? schedule_.warmup_steps + 1 : 0);
  start_weights();
}

// Decides where the run is written and what it resumes from, and that this overwrites nothing.
void Trainer::open_run() {
  folder_ = settings_.out;
  check_output_folder(folder_, "--out");
  const FoundCheckpoint present = latest_valid(folder_);
  if (!settings_.resume) {
    require(!present.folder && present.messages.empty(),
            "{}: has a run already; continue it with --resume {}, or give another --out", folder_.string(),
            folder_.string());
    return;
  }
  const FoundCheckpoint found = find_checkpoint(settings_.resume_from);
  require(!present.folder || present.step <= found.step,
          "{}: has {} already, later than step {}; give another --out to go on from there", folder_.string(),
          present.folder ? present.folder->filename().string() : "", found.step);
  notes_.insert(notes_.end(), found.messages.begin(), found.messages.end());
  checkpoint_ = open_checkpoint(*found.folder);
}

// Weights know the tokens they were trained with: a run goes on with these, and a new one that begins with
// them takes them over.
void Trainer::settle_tokenizer(const Tokenizer* tokenizer) {
  std::string& wanted = settings_.tokenizer;
  if (!tokenizer || is_tokenizer(*tokenizer, wanted)) return;
  require(!checkpoint_, "{}: the run was made with the {} tokenizer, now it is {}; resume with the same",
          checkpoint_ ? checkpoint_->folder.string() : "", tokenizer->name(), wanted);
  notes_.push_back(
      fmt::format("the tokenizer is {}, as that of the weights, not {}", tokenizer->name(), wanted));
  const bool is_kind = tokenizer->name() == "byte" || tokenizer->name() == "char";
  wanted = is_kind ? std::string(tokenizer->name()) : folder_of(find_weights(settings_.init_from)).string();
}

// What an adapter is trained for: the model it begins with, or the one that its checkpoint names.
void Trainer::settle_base() {
  require(checkpoint_ || !settings_.init_from.empty(),
          "--lora adapts a trained model: say which one with --init-from DIR");
  base_ = checkpoint_ ? find_base(read_adapter(checkpoint_->folder), checkpoint_->folder)
                      : fs::canonical(find_weights(settings_.init_from));
  require(fs::is_directory(base_), "{}: an adapter needs its base's folder, not a file", base_.string());
}

void Trainer::start_weights() {
  State& state = session_->state();
  const bool lora = session_->model().lora.has_value();
  if (lora) {
    std::vector<Parameter> frozen = session_->parameters();
    std::erase_if(frozen, [](const Parameter& p) { return p.trained; });
    load_weights(state, frozen, SafetensorsFile::open(base_));
  }
  if (checkpoint_) {
    restore_tensors(state, weight_names(session_->parameters()), checkpoint_->model,
                    lora ? kAdapterPrefix : "");
    restore_tensors(state, optimizer_names(state, session_->parameters()), checkpoint_->optimizer);
    session_->weights_changed();
    batches_->seek(run_state_.position);
    first_step_ = run_state_.step;
    saved_ = checkpoint_->folder;
    if (saved_.parent_path().lexically_normal() == folder_.lexically_normal()) saved_step_ = first_step_;
  } else if (!settings_.init_from.empty() && !lora) {
    load_weights(state, session_->parameters(), SafetensorsFile::open(find_weights(settings_.init_from)));
    session_->weights_changed();
  } else {
    session_->initialize();
  }
}

int Trainer::run(const std::function<bool()>& stop) {
  run_accepted([&] {
    data_.tokenizer->save(folder_);
    write_file(folder_ / "config.json", merged_config_json(session_->model(), settings_));
    report_ = std::make_unique<RunReport>(settings_, folder_, first_step_, total_, checkpoint_.has_value(),
                                          options_);
    writer_ = std::make_unique<CheckpointWriter>(
        folder_, settings_.keep, [this](const fs::path& folder) { report_->saved(folder); },
        [] { return machine_memory().available; });
    for (const std::string& note : notes_) report_->note(note);
    report_->begin(*session_, data_, seconds_since(began_));
    checkpoint_.reset();
    train(stop);
    profile();
    report_->end(run_state_, saved_, seconds_, run_state_.step < total_);
  });
  return run_state_.step < total_ ? kExitInterrupted : kExitDone;
}

void Trainer::train(const std::function<bool()>& stop) {
  // Fresh weights of whatever seed begin at about the same loss, which one batch tells.
  if (run_state_.step == 0 && validation_) evaluate(settings_.init_from.empty() ? 1 : settings_.eval_batches);
  if (evaluation_due()) evaluate(settings_.eval_batches);  // the run was stopped before it came to this
  bool stopped = false;
  while (run_state_.step < total_ && !stopped) {
    train_step();
    writer_->poll();
    stopped = stop();
    while (stopped && !launched_.empty()) finish_step();
    if (!launched_.empty()) continue;  // nothing follows the steps that are finished
    if (!stopped && evaluation_due()) evaluate(settings_.eval_batches);
    if (stopped || run_state_.step == total_ || is_multiple(run_state_.step, settings_.save_every)) save();
  }
  save();  // for a run that resumed at its end, into another folder
  writer_->finish();
}

// Launches a step, and finishes the one before it meanwhile where the device works by itself, otherwise this
// one. Where something waits for this one, nothing is under way any more when it returns.
void Trainer::train_step() {
  launch_step();
  const bool leaves_one = session_->may_overlap() && !waits_for(launched_.back().step);
  while (launched_.size() > (leaves_one ? 1U : 0U)) finish_step();
}

bool Trainer::waits_for(int64_t step) const {
  return step == total_ || is_multiple(step, settings_.save_every) ||
         (validation_ && is_multiple(step, settings_.eval_every)) || step - first_step_ == kWarmSteps ||
         (settings_.profile && step - first_step_ == kWarmSteps + kProfiledSteps);
}

void Trainer::launch_step() {
  const int64_t step = (launched_.empty() ? run_state_.step : launched_.back().step) + 1;
  const int64_t done = step - 1 - first_step_;
  if (done == kWarmSteps) measure_peak();
  if (settings_.profile && done == kWarmSteps) session_->executables().set_profiling(true);
  if (settings_.profile && done == kWarmSteps + kProfiledSteps) session_->executables().set_profiling(false);

  const double learning_rate = settings_.lr * learning_rate_factor(schedule_, step);
  const Clock::time_point start = Clock::now();
  session_->launch(*batches_, step, learning_rate);
  launched_.push_back({step, learning_rate, batches_->position(), start});
}

void Trainer::finish_step() {
  const auto [step, learning_rate, position, start] = launched_.front();
  launched_.erase(launched_.begin());
  const StepResult result = session_->finish();
  const Clock::time_point finish = Clock::now();
  const double seconds = std::chrono::duration<double>(finish - std::max(start, last_finish_)).count();
  last_finish_ = finish;

  seconds_ += seconds;
  speed_.add(static_cast<double>(result.tokens), seconds);
  run_state_.step = step;
  run_state_.tokens += result.tokens;
  run_state_.position = position;

  StepReport report{.step = step,
                    .result = result,
                    .learning_rate = learning_rate,
                    .tokens = run_state_.tokens,
                    .seconds = seconds_,
                    .tokens_per_second = speed_.per_second()};
  if (peak_flops_ && *peak_flops_ > 0 && report.tokens_per_second)
    report.peak_share = training_flops_per_token(session_->model(), settings_.seq_len) *
                        *report.tokens_per_second / *peak_flops_;
  report_->step(report);
  if (!std::isfinite(result.gradient_norm)) report_->skipped(step, result.gradient_norm);
}

bool Trainer::evaluation_due() const {
  const int64_t step = run_state_.step;
  return validation_ && step > run_state_.evaluated_step &&
         (step == total_ || is_multiple(step, settings_.eval_every));
}

void Trainer::evaluate(int64_t batches) {
  require(launched_.empty(), "trainer: an evaluation amid a step");
  BatchPosition start = validation_->position();
  start.epoch = start.index = 0;
  validation_->seek(start);
  const double loss = session_->evaluate(*validation_, std::min(batches, validation_->batches_per_epoch()));
  const int64_t step = run_state_.step;
  const bool best =
      step > 0 && std::isfinite(loss) && (!run_state_.best_loss || loss < *run_state_.best_loss);
  run_state_.evaluated_step = step;
  report_->evaluated(step, loss, best);
  if (!best) return;
  run_state_.best_loss = loss;
  run_state_.best_step = step;
  if (options_.keep_best) save(true);
}

void Trainer::save(bool best) {
  require(launched_.empty(), "trainer: a checkpoint amid a step");
  const int64_t step = run_state_.step;
  if (saved_step_ == step) {
    if (best) writer_->mark_best(step);
    return;
  }
  report_->flush();
  const State& state = session_->state();
  const ModelConfig& model = session_->model();
  const Tokenizer& tokenizer = *data_.tokenizer;
  std::vector<Buffer> copies;
  std::vector<NamedTensor> weights = tensors_of(state, weight_names(session_->parameters()), copies);
  std::vector<NamedTensor> optimizer =
      tensors_of(state, optimizer_names(state, session_->parameters()), copies);
  CheckpointData data{
      .model = std::move(weights),
      .optimizer = std::move(optimizer),
      .copies = std::move(copies),
      .config_json = merged_config_json(model, settings_),
      .trainer_state_json = to_json(run_state_, identity_),
      .files = {{"tokenizer.json", tokenizer.to_json()},
                {"tokenizer_config.json", tokenizer_config(tokenizer, model.max_position_embeddings)},
                {"generation_config.json", generation_config(tokenizer)}}};
  if (model.lora) {
    data.adapter = true;
    data.model = adapter_tensors(std::move(data.model));
    data.files.emplace_back(kAdapterConfig, to_json(Adapter{*model.lora, base_.string()}));
  }
  saved_ = writer_->save(step, std::move(data), best, step == total_);
  saved_step_ = step;
}

void Trainer::measure_peak() {
  if (!peak_flops_) peak_flops_ = session_->state().device()->peak_flops(session_->compute());
}

void Trainer::profile() {
  if (!settings_.profile) return;
  const std::vector<const Executable*> executables = session_->executables().all();
  const fs::path trace = folder_ / "trace.json";
  write_file(trace, profile_trace(executables));
  report_->profile(profile_table(executables), trace);
}

}  // namespace nf
