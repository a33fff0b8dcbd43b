// trainer_state.json: where a run stands, and what it may not change on the way.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/trainer/training_data.h"

namespace nf {

struct RunState {
  int64_t step = 0;                                // steps done
  int64_t tokens = 0;                              // targets learned from
  BatchPosition position;                          // of the next batch
  int64_t evaluated_step = 0;                      // the last step with a validation loss
  std::optional<double> best_loss = std::nullopt;  // the lowest validation loss, and
  int64_t best_step = 0;                           // where it was measured
};

// What decides the course of a run besides its State: the model, the data, the order of the batches, the
// optimizer's kind. A resumed run must agree in all of it; learning rates and lengths may change. JSON text
// of one object, {"batch_size": 8, "model.hidden_size": 256, …}.
// `base`: the fingerprint of frozen weights, where there are some.
std::string run_identity(const ModelConfig& model, const TrainSettings& settings, const TrainingData& data,
                         const std::string& base = {});

// What a resumed run does otherwise than before, a line each ("lr 0.001 in the checkpoint, 0.002 now"): what
// two texts of merged_config_json() differ in, but for names and what run_identity() is about. Throws Error
// `source: …` when `before` is no such text.
std::vector<std::string> changed_settings(std::string_view before, std::string_view now,
                                          std::string_view source);

std::string to_json(const RunState& run, const std::string& identity);

// Reads it back; Error `source: …` for text that is not this, and, when `identity` differs from the one
// written, for the first key that does, with both values.
RunState parse_run_state(std::string_view text, const std::string& identity, std::string_view source);

}  // namespace nf
