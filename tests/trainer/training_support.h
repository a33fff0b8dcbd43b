// Small runs for the tests of the trainer.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/support/folder.h"
#include "tools/settings.h"
#include "tools/trainer/session.h"
#include "tools/trainer/trainer.h"
#include "tools/trainer/training_data.h"

namespace nf {

// A running text of about `words` words with something to learn in it.
std::string small_text(int64_t words);

// A model of some ten thousand parameters.
ModelConfig small_model(AttentionType type = AttentionType::gqa);

// Settings for it: f32, two rows of 16 tokens, 20 steps, no evaluation.
TrainSettings small_settings(const std::string& data);

// All weights, one after another.
std::vector<float> weights_of(const TrainingSession& session);

// Sends standard output to nowhere while it lives.
class Silence {
 public:
  Silence();
  ~Silence();
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

 private:
  int saved_out_, saved_error_;
};

// Trains without a word; `stop` is asked after every step. Returns the exit status.
int train(const CommandLine& line, const std::function<bool(const Trainer&)>& stop = {});

// Why that throws Error; empty when it does not.
std::string refusal(const CommandLine& line);

}  // namespace nf
