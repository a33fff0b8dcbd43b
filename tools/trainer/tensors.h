// Between a training State and safetensors files.
#pragma once

#include <filesystem>
#include <vector>

#include "models/model.h"
#include "nf/safetensors.h"
#include "nf/state.h"

namespace nf {

// The weights, in the model's order; and everything else that a resumed run needs (moments, averages): the
// f32 tensors that are neither weights nor accumulated gradients, by name. The bytes are the State's own.
std::vector<NamedTensor> weight_tensors(const State& state, const std::vector<Parameter>& parameters);
std::vector<NamedTensor> optimizer_tensors(const State& state, const std::vector<Parameter>& parameters);

// Overwrites exactly `wanted` (tensors of the State) with the file's. Throws Error that names the file and
// the first tensor that is missing, has another shape or dtype, or is not part of the run; then nothing is
// written.
void restore_tensors(State& state, const std::vector<NamedTensor>& wanted, const SafetensorsFile& file);

// Weights from elsewhere, for --init-from: a .safetensors file; a folder with model.safetensors (or its
// shards); or the folder of a run, of which the best checkpoint is taken, else the newest. f16, bf16 and f64
// are converted. Missing and unknown tensors and other shapes are Errors.
std::filesystem::path find_weights(const std::filesystem::path& path);
void load_weights(State& state, const std::vector<Parameter>& parameters, const SafetensorsFile& file);

}  // namespace nf
