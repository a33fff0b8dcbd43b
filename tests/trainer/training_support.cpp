#include "tests/trainer/training_support.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <iterator>

namespace nf {
namespace {

int divert(int descriptor) {
  const int saved = ::dup(descriptor), nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  ::dup2(nowhere, descriptor);
  ::close(nowhere);
  return saved;
}

void put_back(int saved, int descriptor) {
  ::dup2(saved, descriptor);
  ::close(saved);
}

}  // namespace

std::string small_text(int64_t words) {
  constexpr const char* kWords[] = {"the", "king", "is", "in", "a", "castle", "and", "sees", "rain"};
  std::string text;
  uint32_t random = 1;
  for (int64_t i = 0; i < words; ++i) {
    random = random * 1664525 + 1013904223;
    text += kWords[(random >> 16) % std::size(kWords)];
    text += i % 7 == 6 ? ".\n" : " ";
  }
  return text;
}

ModelConfig small_model(AttentionType type) {
  ModelConfig config;
  config.attention_type = type;
  config.hidden_size = 32;
  config.intermediate_size = 64;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.max_position_embeddings = 64;
  return resolve(config);
}

TrainSettings small_settings(const std::string& data) {
  TrainSettings settings;
  settings.data = {data};
  settings.val_fraction = 0;
  settings.batch_size = 2;
  settings.seq_len = 16;
  settings.steps = 20;
  settings.epochs = 0;
  settings.lr = 3e-3;
  settings.dtype = ComputeType::f32;
  settings.eval_every = 0;
  settings.save_every = 0;
  return settings;
}

std::vector<float> weights_of(const TrainingSession& session) {
  std::vector<float> weights;
  for (const Parameter& parameter : session.parameters()) {
    const std::span<const std::byte> bytes = session.state().memory(parameter.name);
    const size_t at = weights.size();
    weights.resize(at + bytes.size() / sizeof(float));
    std::memcpy(weights.data() + at, bytes.data(), bytes.size());
  }
  return weights;
}

Silence::Silence() {
  std::fflush(stdout);
  saved_out_ = divert(STDOUT_FILENO);
  saved_error_ = divert(STDERR_FILENO);
}

Silence::~Silence() {
  std::fflush(stdout);
  put_back(saved_out_, STDOUT_FILENO);
  put_back(saved_error_, STDERR_FILENO);
}

int train(const CommandLine& line, const std::function<bool(const Trainer&)>& stop) {
  const Silence silence;
  Trainer trainer(line);
  return trainer.run([&] { return stop && stop(trainer); });
}

std::string refusal(const CommandLine& line) {
  try {
    train(line);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace nf
