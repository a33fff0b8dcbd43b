#include "tools/trainer/tensors.h"

#include <algorithm>
#include <set>

#include "nf/error.h"
#include "nf/file.h"
#include "tools/load_model.h"
#include "tools/lora.h"

namespace nf {

namespace fs = std::filesystem;

std::vector<std::string> weight_names(const std::vector<Parameter>& parameters) {
  std::vector<std::string> names;
  for (const Parameter& parameter : parameters)
    if (parameter.trained) names.push_back(parameter.name);
  return names;
}

std::vector<std::string> optimizer_names(const State& state, const std::vector<Parameter>& parameters) {
  std::set<std::string_view> weights;
  for (const Parameter& parameter : parameters) weights.insert(parameter.name);
  std::vector<std::string> names;
  for (const std::string& name : state.names())
    if (state.type(name).dtype == DType::f32 && !weights.contains(name) && !name.starts_with("grad/"))
      names.push_back(name);
  return names;
}

std::vector<NamedTensor> tensors_of(const State& state, const std::vector<std::string>& names,
                                    std::vector<Buffer>& copies) {
  std::vector<NamedTensor> tensors;
  for (const std::string& name : names) {
    const TensorType& type = state.type(name);
    tensors.push_back({name, type.dtype, type.shape, state.host_bytes(name, copies)});
  }
  return tensors;
}

void restore_tensors(State& state, const std::vector<std::string>& names, const SafetensorsFile& file,
                     std::string_view prefix) {
  const std::string path = file.path().string();
  std::set<std::string> known;
  for (const std::string& own : names) {
    const TensorType& type = state.type(own);
    const std::string& name = *known.insert(std::string(prefix) + own).first;
    const NamedTensor* found = file.find(name);
    require(found != nullptr, "{}: has no tensor '{}', which this model needs", path, name);
    require(found->shape == type.shape, "{}: tensor '{}' has shape {}, this model needs {}", path, name,
            found->shape, type.shape);
    require(found->dtype == type.dtype, "{}: tensor '{}' is {}, not {}", path, name, nf::name(found->dtype),
            nf::name(type.dtype));
  }
  for (const NamedTensor& tensor : file.tensors())
    require(known.contains(tensor.name), "{}: tensor '{}' is not part of this run", path, tensor.name);
  for (const std::string& own : names) state.write(own, file.at(std::string(prefix) + own).bytes);
}

fs::path find_weights(const fs::path& path) {
  std::error_code error;
  if (fs::is_regular_file(path, error)) return path;
  require(fs::is_directory(path, error), "{}: no such file or folder to take weights from", path.string());
  const fs::path folder = find_model_folder(path);
  require(!is_adapter(folder),
          "{}: is an adapter; write it and its base as one model first, with nf-export -m {} --merge --to hf",
          folder.string(), path.string());
  return folder;
}

std::string weights_fingerprint(const fs::path& weights) {
  std::error_code ignored;
  std::vector<fs::path> files;
  if (fs::is_regular_file(weights, ignored)) {
    files = {weights};
  } else if (fs::exists(weights / "model.safetensors", ignored)) {
    files = {weights / "model.safetensors"};
  } else {
    for (const auto& entry : fs::directory_iterator(weights))
      if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
    std::sort(files.begin(), files.end());
  }
  uint64_t hash = 0;
  for (const fs::path& file : files) hash = hash * 31 + hash_file(file);
  return fmt::format("{:016x}", hash);
}

}  // namespace nf
