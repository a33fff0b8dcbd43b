// What a training run would need, known before anything is allocated: parameters, FLOPs, memory to the byte,
// tokens.
#pragma once

#include <optional>
#include <string>

#include "tools/data/dataset.h"
#include "tools/trainer/memory.h"

namespace nf {

// For batches of the longest length. `model` has its vocabulary; documents: see TrainingData.
MemoryEstimate estimate_memory(const ModelConfig& model, const TrainSettings& settings, bool documents,
                               const Device& device);

struct Estimate {
  ModelConfig model;
  ParameterCount parameters;
  std::optional<DatasetStats> text;  // the training part; without --data nothing
  int64_t validation_tokens = 0;
  int64_t tokens_per_step = 0;
  std::optional<int64_t> steps;  // known when stated, or when there is text to count epochs on
  bool steps_are_set = false;    // by the config or the command line; else they follow from the text
  double forward_flops = 0;      // per token
  double training_flops = 0;     // per token: forward, and twice as much backward
  double executed_flops = 0;     // per token: training_flops and what gradient checkpointing computes again
  MemoryEstimate memory;
  std::optional<std::string> shortage;  // why it does not fit into this machine
  int64_t kv_cache_bytes = 0;           // per token of a generated sequence
  double peak_flops = 0;                // FLOP/s of the device's matrix products, measured; 0: not known

  std::optional<int64_t> tokens() const;  // of the whole run
  // Of the whole run, at kAssumedShare of the peak.
  std::optional<double> seconds() const;
};

constexpr double kAssumedShare = 0.5;
// Tokens per parameter at which training is compute-optimal (Hoffmann et al., arXiv 2203.15556).
constexpr double kChinchillaTokens = 20;

// Reads the text if there is one; throws Error for what is wrong with it, and when nothing says how large the
// vocabulary is. Never allocates the model.
Estimate estimate(const CommandLine& line);

std::string to_text(const Estimate& estimate);
std::string to_json(const Estimate& estimate);  // one line

// Prints the estimate, as text or with --json as one object, or the help. Returns an exit status.
int run_estimate(const CommandLine& line);

}  // namespace nf
