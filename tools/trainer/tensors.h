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
// averages): the f32 tensors that are neither weights nor accumulated gradients, by name.
std::vector<std::string> weight_names(const std::vector<Parameter>& parameters);
std::vector<std::string> optimizer_names(const State& state, const std::vector<Parameter>& parameters);

// Tensors of the State as files take them. The bytes are the State's own, or copies that `copies` owns where
// the device has memory of its own.
std::vector<NamedTensor> tensors_of(const State& state, const std::vector<std::string>& names,
                                    std::vector<Buffer>& copies);

// Overwrites exactly `names`, tensors of the State, with the file's, which stand there with `prefix` before
// their names. Throws Error that names the file and the first tensor that is missing, has another shape or
// dtype, or is not part of the run; then nothing is written.
void restore_tensors(State& state, const std::vector<std::string>& names, const SafetensorsFile& file,
                     std::string_view prefix = {});

// Where weights from elsewhere are, for --init-from: a .safetensors file; a folder with model.safetensors (or
// its shards); or the folder of a run, of which the best checkpoint is taken, else the newest.
std::filesystem::path find_weights(const std::filesystem::path& path);

// A hash of what find_weights found, to know it again.
std::string weights_fingerprint(const std::filesystem::path& weights);

}  // namespace nf
