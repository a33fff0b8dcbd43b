// What nf-train and nf-estimate are told: one struct, read from a config's "training" section and the command
// line.
//
// Precedence: defaults < the config's "training" section < the command line (flags, then --set). Defaults
// that depend on the optimizer (lr, betas, momentum, weight decay) or on the variant (nGPT: no warm-up, no
// decay) are filled last.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/config.h"
#include "nf/optim.h"
#include "tools/data/batches.h"

namespace nf {

enum class ComputeType : uint8_t { bf16, f32 };  // operands of the matrix products
enum class DeviceKind : uint8_t { cpu, cuda, reference };

std::string_view name(Optimizer optimizer);
std::string_view name(Schedule schedule);
std::string_view name(DecayShape shape);
std::string_view name(MuonScaling scaling);
std::string_view name(ComputeType type);
std::string_view name(DeviceKind device);
std::string_view name(BatchMode mode);

// Where metrics go besides metrics.jsonl.
struct Tracking {
  bool tensorboard = false, wandb = false;
  bool operator==(const Tracking&) const = default;
};

struct TrainSettings {
  // Data
  std::vector<std::string> data;  // files or folders of text; may be empty for nf-estimate
  std::string text_field = "text";
  std::string subset, split = "train";  // of datasets that are fetched from the Hugging Face hub
  double val_fraction = 0.05;           // [0, 1): share of the text kept for validation
  std::string tokenizer = "byte";       // byte, char or a path, as make_tokenizer() takes it
  BatchMode batch_mode = BatchMode::pack;
  int64_t batch_size = 8;  // sequences of a micro-batch
  int64_t grad_accum = 1;  // micro-batches of a step
  int64_t seq_len = 256;   // tokens of a sequence; at most the model's max_position_embeddings

  // Length
  int64_t steps = 0;  // optimizer steps; 0: as many as `epochs` give
  double epochs = 1;  // passes over the text; 0 when steps rule

  // Optimizer
  Optimizer optimizer = Optimizer::adamw;
  double lr = 1e-3;  // peak
  double weight_decay = 0.1;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double momentum = 0.95;  // sgd and muon
  bool nesterov = true;
  MuonScaling muon_scaling = MuonScaling::original;
  double clip = 1;  // largest gradient norm; 0: no clipping
  double ema = 0;   // decay of the averaged weights; 0: none

  // Schedule
  Schedule schedule = Schedule::cosine;
  int64_t warmup_steps = 0;  // used when warmup_ratio is 0; see warmup_for()
  double warmup_ratio = 0.02;
  double min_lr_ratio = 0.1;
  double decay_fraction = 0.2;  // wsd
  DecayShape decay_shape = DecayShape::linear;

  // Machine
  ComputeType dtype = ComputeType::bf16;
  DeviceKind device = DeviceKind::cpu;
  int threads = 1;  // default: the cores this process may use. Results do not depend on it
  int64_t seed = 1;
  int64_t split_seed = 1;  // of which documents validate; default: seed

  // Run
  std::string out;            // the run's folder
  std::string run_name;       // label in logs; default: the last part of `out`
  int64_t eval_every = 100;   // steps; 0: never
  int64_t eval_batches = 20;  // at most this many
  int64_t save_every = 200;   // steps; 0: only at the end
  int64_t keep = 3;           // checkpoints kept, besides the best
  Tracking track;             // "jsonl,tensorboard,wandb", jsonl always
  bool resume = false;        // continue a run
  std::string resume_from;    // run or checkpoint folder; `out` when not given
  std::string init_from;      // weights to start from: a folder with model.safetensors
  bool profile = false;
  bool json = false;      // machine-readable lines on standard output
  bool estimate = false;  // nf-train acts as nf-estimate

  bool operator==(const TrainSettings&) const = default;

  // Warm-up steps of a run of `total` steps.
  int64_t warmup_for(int64_t total) const;
};

enum class Program : uint8_t { train, estimate, compare };

struct CommandLine {
  TrainSettings settings;
  ModelConfig model;                // resolved; vocab_size 0 unless given
  std::string config_source;        // file the model came from; empty when given by flags
  std::vector<std::string> notes;   // lines to show the user: flags that have no effect here, and why
  std::optional<std::string> help;  // --help: print this and exit 0; nothing else is filled
};

// Reads a whole command line. Throws Error, one line, for anything wrong: the program prints it and exits 2.
CommandLine parse_command_line(int argc, const char* const* argv, Program program);

// The "training" section of a config (JSON object text; empty: none) over the defaults, checked against the
// model. The second form: for a section that was put together, the source of each key, for messages.
TrainSettings parse_training(std::string_view json, const ModelConfig& model, std::string_view source);
using SourceOfKey = std::function<std::string(std::string_view key)>;
TrainSettings parse_training(std::string_view json, const ModelConfig& model, const SourceOfKey& source_of);

// What is written to a run's folder as config.json: the model and, under "training", the settings.
// parse_config and parse_training read the same values back. Left out: what belongs to the machine or to one
// start (threads, resume, …).
std::string merged_config_json(const ModelConfig& model, const TrainSettings& settings);

}  // namespace nf
