#include "tools/load_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "models/training_step.h"
#include "nf/safetensors.h"
#include "tools/config_file.h"
#include "tools/trainer/checkpoint.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

bool has_weights(const fs::path& folder) {
  return fs::exists(folder / "model.safetensors") || fs::exists(folder / "model.safetensors.index.json");
}

float widen(float value) { return value; }
float widen(double value) { return static_cast<float>(value); }
float widen(bf16 value) { return to_float(value); }
float widen(f16 value) { return to_float(value); }

// Bytes in a file need not be aligned to their elements.
template <typename T>
void copy_widened(std::span<const std::byte> bytes, std::span<float> to) {
  for (size_t i = 0; i < to.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    to[i] = widen(value);
  }
}

void copy_widened(const NamedTensor& tensor, std::span<float> to) {
  switch (tensor.dtype) {
    case DType::f32: return copy_widened<float>(tensor.bytes, to);
    case DType::bf16: return copy_widened<bf16>(tensor.bytes, to);
    case DType::f16: return copy_widened<f16>(tensor.bytes, to);
    default: return copy_widened<double>(tensor.bytes, to);
  }
}

constexpr std::string_view kWanted = "-m takes a run of nf-train, or the folder of a checkpoint";

[[noreturn]] void fail_no_folder(const fs::path& path) {
  require(!fs::exists(path), "{}: is a file; {}", path.string(), kWanted);
  try {
    find_config(path.string());
  } catch (const Error&) {
    fail("{}: no such folder; {}", path.string(), kWanted);
  }
  fail("{}: is a config without weights: train it with nf-train -m {} first, and give the run's folder",
       path.string(), path.string());
}

}  // namespace

fs::path find_model_folder(const fs::path& path) {
  if (!fs::is_directory(path)) fail_no_folder(path);
  if (has_weights(path)) return path;
  if (has_weights(path / "best")) return path / "best";
  const FoundCheckpoint found = latest_valid(path);
  if (!found.folder && !found.messages.empty())
    fail("{}: has no whole checkpoint ({})", path.string(), found.messages.front());
  require(found.folder.has_value(), "{}: neither model.safetensors nor a checkpoint is in this folder; {}",
          path.string(), kWanted);
  return *found.folder;
}

void load_weights(State& state, const std::vector<Parameter>& parameters, const fs::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  for (const Parameter& p : parameters) {
    const NamedTensor& tensor = file.at(p.name);
    require(tensor.shape == p.shape && is_float(tensor.dtype),
            "{}: tensor '{}' is {}{}, the config needs f32{}", path.string(), p.name, name(tensor.dtype),
            to_string(tensor.shape), to_string(p.shape));
    state.ensure(p.name, {DType::f32, p.shape});
    const std::span<std::byte> memory = state.memory(p.name);
    const std::span<float> values(reinterpret_cast<float*>(memory.data()), memory.size() / sizeof(float));
    copy_widened(tensor, values);
    const auto bad = std::ranges::find_if(values, [](float value) { return !std::isfinite(value); });
    require(bad == values.end(), "{}: tensor '{}' holds a value that is not finite at element {}",
            path.string(), p.name, bad - values.begin());
  }
  const auto known = [&](const NamedTensor& tensor) {
    return std::any_of(parameters.begin(), parameters.end(),
                       [&](const Parameter& p) { return p.name == tensor.name; });
  };
  for (const NamedTensor& tensor : file.tensors())
    require(known(tensor), "{}: tensor '{}' has no place in the model of config.json", path.string(),
            tensor.name);
}

LoadedModel load_model(const fs::path& path, std::shared_ptr<const Device> device) {
  LoadedModel model;
  model.folder = find_model_folder(path);
  const fs::path config = model.folder / "config.json";
  require(fs::exists(config), "{}: config.json is missing beside the weights", model.folder.string());
  model.config = parse_model_config(read_config_file(config), config.string());
  require(model.config.vocab_size > 0, "{}: vocab_size is missing", config.string());
  model.parameters = model_parameters(model.config);
  model.state = std::make_shared<State>(std::move(device));
  load_weights(
      *model.state, model.parameters,
      fs::exists(model.folder / "model.safetensors") ? model.folder / "model.safetensors" : model.folder);
  copy_narrow(*model.state, model.parameters);
  return model;
}

}  // namespace nf
