// A model from a folder: config.json and model.safetensors (or shards with an index), weights under the names
// of models/model.h in any float dtype.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "models/model.h"

namespace nf {

struct LoadedModel {
  std::filesystem::path folder;  // where the weights were: see find_model_folder()
  ModelConfig config;
  std::vector<Parameter> parameters;
  std::shared_ptr<State> state;  // weights in f32, and their bf16 copies
};

// The folder that holds the weights: `path` itself, or if `path` is a run of nf-train its best checkpoint,
// else its newest valid one. Throws Error when there is none.
std::filesystem::path find_model_folder(const std::filesystem::path& path);

// Throws Error naming file and tensor for a missing, unexpected or misshapen tensor, and for a weight that is
// not finite.
LoadedModel load_model(const std::filesystem::path& path, std::shared_ptr<const Device> device);

// Copies the file's tensors into f32 states of these names.
void load_weights(State& state, const std::vector<Parameter>& parameters,
                  const std::filesystem::path& file_or_folder);

}  // namespace nf
