// A model from a folder: config.json and model.safetensors (or shards with an index), weights under the names
// of models/model.h in any float dtype. Or an adapter's folder (tools/lora.h), which names its base.
//
// pytorch_model.bin is not read: it is a pickle, which runs whatever code it holds.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/model.h"
#include "nf/safetensors.h"

namespace nf {

struct LoadedModel {
  std::filesystem::path folder;  // where the weights were, or the adapter: see find_model_folder()
  ModelConfig config;
  std::vector<Parameter> parameters;
  std::shared_ptr<State> state;  // weights in f32 and their bf16 copies, or what load_model() was asked for
  bool adapter = false;          // the folder is an adapter's; it has been merged into its base's weights
};

// The folder that holds the weights: `path` itself, or if `path` is a run of nf-train its best checkpoint,
// else its newest valid one. Throws Error when there is none.
std::filesystem::path find_model_folder(const std::filesystem::path& path);

// With `compute` the State gets only what graphs of that type read (models/model.h): of the matrices that
// products alone read f32 or bf16, not both. Throws Error naming file and tensor for a missing, unexpected or
// misshapen tensor, and for a weight that is not finite.
LoadedModel load_model(const std::filesystem::path& path, std::shared_ptr<const Device> device,
                       std::optional<DType> compute = {});

// Copies tensors from a file into the State, each converted to f32; a parameter of which the State holds the
// bf16 copy alone goes there. `prefix`: what the file puts before the names. Rotary tables and a tied head,
// which Hugging Face's files may hold besides, are passed over. Errors as above; what is missing or misshapen
// is found before anything is written.
void load_weights(State& state, const std::vector<Parameter>& parameters, const SafetensorsFile& file,
                  std::string_view prefix = {});

}  // namespace nf
