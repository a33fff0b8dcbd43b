// From the settings to tokens: texts, tokenizer, split, batches.
#pragma once

#include <memory>

#include "models/config.h"
#include "tools/data/batches.h"
#include "tools/data/dataset.h"
#include "tools/settings.h"
#include "tools/tokenizer/tokenizer.h"

namespace nf {

struct TrainingData {
  std::shared_ptr<const Tokenizer> tokenizer;
  TokenDataset train, validation;  // the second is empty when nothing is held out
  DatasetStats stats;              // of train
  // Rows may hold several documents or padding before their end, so attention must be told who is who.
  bool documents = false;
};

// Reads settings.data. The tokenizer is made from the text unless one is given (a run that resumes, weights
// that were trained with it). Throws Error for texts that cannot be read or are too short.
TrainingData load_training_data(const TrainSettings& settings,
                                std::shared_ptr<const Tokenizer> tokenizer = nullptr);

// The config with the tokenizer's vocabulary where it states none; Error when it states a smaller one.
ModelConfig with_vocabulary(ModelConfig config, const Tokenizer& tokenizer);

// Endless shuffled batches to train on; and the batches of the validation set, in order, each time the same.
std::unique_ptr<Batches> training_batches(const TrainingData& data, const TrainSettings& settings);
std::unique_ptr<Batches> validation_batches(const TrainingData& data, const TrainSettings& settings);

// Optimizer steps of the run: settings.steps, or as many as the epochs need.
int64_t total_steps(const TrainSettings& settings, const Batches& batches);

}  // namespace nf
