// Between a training State and safetensors files.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "models/model.h"
#include "nf/safetensors.h"
#include "nf/state.h"

namespace nf {

// The trained weights, in the model's order; and everything else that a resumed run needs (moments,
// averages): the f32 tensors that are neither weights nor accumulated gradients, by name. The bytes are the
// State's own.
std::vector<NamedTensor> weight_tensors(const State& state, const std::vector<Parameter>& parameters);
std::vector<NamedTensor> optimizer_tensors(const State& state, const std::vector<Parameter>& parameters);

// Overwrites exactly `wanted` (tensors of the State) with the file's, which stand there with `prefix` before
// their names. Throws Error that names the file and the first tensor that is missing, has another shape or
// dtype, or is not part of the run; then nothing is written.
void restore_tensors(State& state, const std::vector<NamedTensor>& wanted, const SafetensorsFile& file,
                     std::string_view prefix = {});

// Where weights from elsewhere are, for --init-from: a .safetensors file; a folder with model.safetensors (or
// its shards); or the folder of a run, of which the best checkpoint is taken, else the newest.
std::filesystem::path find_weights(const std::filesystem::path& path);

// A hash of what find_weights found, to know it again.
std::string weights_fingerprint(const std::filesystem::path& weights);

}  // namespace nf
