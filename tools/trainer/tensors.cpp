#include "tools/trainer/tensors.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "nf/error.h"
#include "tools/trainer/checkpoint.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

NamedTensor tensor_of(const State& state, const std::string& name) {
  const TensorType& type = state.type(name);
  return {name, type.dtype, type.shape, state.memory(name)};
}

void check_tensor(const NamedTensor* found, const std::string& name, const Shape& shape,
                  const fs::path& file) {
  require(found != nullptr, "{}: has no tensor '{}', which this model needs", file.string(), name);
  require(found->shape == shape, "{}: tensor '{}' has shape {}, this model needs {}", file.string(), name,
          to_string(found->shape), to_string(shape));
}

template <typename T, typename Convert>
void convert(std::span<const std::byte> from, std::span<float> to, Convert to_f32) {
  for (size_t i = 0; i < to.size(); ++i) {
    T value;  // the file's elements may not be aligned
    std::memcpy(&value, from.data() + i * sizeof(T), sizeof(T));
    to[i] = to_f32(value);
  }
}

void read_floats(const NamedTensor& tensor, std::span<float> to, const fs::path& file) {
  switch (tensor.dtype) {
    case DType::f32: return convert<float>(tensor.bytes, to, [](float v) { return v; });
    case DType::bf16: return convert<bf16>(tensor.bytes, to, [](bf16 v) { return to_float(v); });
    case DType::f16: return convert<f16>(tensor.bytes, to, [](f16 v) { return to_float(v); });
    case DType::f64: return convert<double>(tensor.bytes, to, [](double v) { return static_cast<float>(v); });
    default:
      fail("{}: tensor '{}' is {}, not floating point", file.string(), tensor.name, name(tensor.dtype));
  }
}

// What Hugging Face's files hold besides weights: tables that are computed here, and a tied head.
bool is_known_extra(std::string_view name, const std::set<std::string_view>& known) {
  return name.ends_with("rotary_emb.inv_freq") || (name == "lm_head.weight" && !known.contains(name));
}

}  // namespace

std::vector<NamedTensor> weight_tensors(const State& state, const std::vector<Parameter>& parameters) {
  std::vector<NamedTensor> tensors;
  for (const Parameter& parameter : parameters) tensors.push_back(tensor_of(state, parameter.name));
  return tensors;
}

std::vector<NamedTensor> optimizer_tensors(const State& state, const std::vector<Parameter>& parameters) {
  std::set<std::string_view> weights;
  for (const Parameter& parameter : parameters) weights.insert(parameter.name);
  std::vector<NamedTensor> tensors;
  for (const std::string& name : state.names())
    if (state.type(name).dtype == DType::f32 && !weights.contains(name) && !name.starts_with("grad/"))
      tensors.push_back(tensor_of(state, name));
  return tensors;
}

void restore_tensors(State& state, const std::vector<NamedTensor>& wanted, const SafetensorsFile& file) {
  std::set<std::string_view> known;
  for (const NamedTensor& tensor : wanted) {
    const NamedTensor* found = file.find(tensor.name);
    check_tensor(found, tensor.name, tensor.shape, file.path());
    require(found->dtype == tensor.dtype, "{}: tensor '{}' is {}, not {}", file.path().string(), tensor.name,
            name(found->dtype), name(tensor.dtype));
    known.insert(tensor.name);
  }
  for (const NamedTensor& tensor : file.tensors())
    require(known.contains(tensor.name), "{}: tensor '{}' is not part of this run", file.path().string(),
            tensor.name);
  for (const NamedTensor& tensor : wanted) state.write(tensor.name, file.at(tensor.name).bytes);
}

fs::path find_weights(const fs::path& path) {
  std::error_code error;
  if (fs::is_regular_file(path, error) || fs::exists(path / "model.safetensors", error) ||
      fs::exists(path / "model.safetensors.index.json", error))
    return path;
  require(fs::is_directory(path, error), "{}: no such file or folder to take weights from", path.string());
  if (fs::exists(path / "best" / "model.safetensors", error)) return path / "best";
  return *find_checkpoint(path).folder;
}

void load_weights(State& state, const std::vector<Parameter>& parameters, const SafetensorsFile& file) {
  std::set<std::string_view> known;
  for (const Parameter& parameter : parameters) {
    check_tensor(file.find(parameter.name), parameter.name, parameter.shape, file.path());
    known.insert(parameter.name);
  }
  for (const NamedTensor& tensor : file.tensors())
    require(known.contains(tensor.name) || is_known_extra(tensor.name, known),
            "{}: this model has no tensor '{}'; the file is of another model", file.path().string(),
            tensor.name);
  std::vector<float> values;
  for (const Parameter& parameter : parameters) {
    values.resize(static_cast<size_t>(parameter.shape.elements()));
    read_floats(file.at(parameter.name), values, file.path());
    state.write(parameter.name, std::as_bytes(std::span<const float>(values)));
  }
}

}  // namespace nf
