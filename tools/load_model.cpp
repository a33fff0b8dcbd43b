#include "tools/load_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <span>

#include "models/training_step.h"
#include "tools/config_file.h"
#include "tools/lora.h"
#include "tools/trainer/checkpoint.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

bool has_weights(const fs::path& folder) {
  return fs::exists(folder / "model.safetensors") || fs::exists(folder / "model.safetensors.index.json") ||
         is_adapter(folder);
}

template <typename T, typename Convert>
void convert(std::span<const std::byte> from, std::span<float> to, Convert to_f32) {
  for (size_t i = 0; i < to.size(); ++i) {
    T value;  // the file's elements may not be aligned
    std::memcpy(&value, from.data() + i * sizeof(T), sizeof(T));
    to[i] = to_f32(value);
  }
}

void read_floats(const NamedTensor& tensor, std::span<float> to, const std::string& file) {
  switch (tensor.dtype) {
    case DType::f32: convert<float>(tensor.bytes, to, [](float v) { return v; }); break;
    case DType::bf16: convert<bf16>(tensor.bytes, to, [](bf16 v) { return to_float(v); }); break;
    case DType::f16: convert<f16>(tensor.bytes, to, [](f16 v) { return to_float(v); }); break;
    default: convert<double>(tensor.bytes, to, [](double v) { return static_cast<float>(v); });
  }
  const auto bad = std::find_if(to.begin(), to.end(), [](float value) { return !std::isfinite(value); });
  require(bad == to.end(), "{}: tensor '{}' holds a value that is not finite at element {}", file,
          tensor.name, bad - to.begin());
}

void check_tensor(const NamedTensor* found, const std::string& wanted, const Shape& shape,
                  const std::string& file) {
  require(found != nullptr, "{}: has no tensor '{}', which this model needs", file, wanted);
  require(found->shape == shape, "{}: tensor '{}' has shape {}, this model needs {}", file, wanted,
          found->shape, shape);
  require(is_float(found->dtype), "{}: tensor '{}' is {}, not floating point", file, wanted,
          name(found->dtype));
}

// What Hugging Face's files hold besides weights: tables that are computed here, and a tied head.
bool is_known_extra(std::string_view name, const std::set<std::string>& known) {
  return name.ends_with("rotary_emb.inv_freq") ||
         (name == "lm_head.weight" && !known.contains("lm_head.weight"));
}

void write_narrow(State& state, const std::string& name, std::span<const float> values) {
  state.overwrite(name, [&](std::span<std::byte> memory) {
    for (size_t i = 0; i < values.size(); ++i) {
      const bf16 narrow = to_bf16(values[i]);
      std::memcpy(memory.data() + i * sizeof(bf16), &narrow, sizeof narrow);
    }
  });
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
  require(
      !fs::exists(path / "pytorch_model.bin"),
      "{}: pytorch_model.bin is not read, a pickle runs the code it holds; convert it where transformers is: "
      "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW, safe_serialization=True)",
      path.string());
  require(found.folder.has_value(), "{}: neither model.safetensors nor a checkpoint is in this folder; {}",
          path.string(), kWanted);
  return *found.folder;
}

void load_weights(State& state, const std::vector<Parameter>& parameters, const SafetensorsFile& file,
                  std::string_view prefix) {
  const std::string path = file.path().string();
  std::set<std::string> known;
  for (const Parameter& p : parameters) {
    const std::string& wanted = *known.insert(std::string(prefix) + p.name).first;
    check_tensor(file.find(wanted), wanted, p.shape, path);
  }
  for (const NamedTensor& tensor : file.tensors())
    require(known.contains(tensor.name) || is_known_extra(tensor.name, known),
            "{}: this model has no tensor '{}'; the file is of another model", path, tensor.name);
  std::vector<float> wide;
  for (const Parameter& p : parameters) {
    const NamedTensor& tensor = file.at(std::string(prefix) + p.name);
    if (!state.contains(p.name) && state.contains(narrow_name(p.name))) {
      wide.resize(static_cast<size_t>(p.shape.elements()));
      read_floats(tensor, wide, path);
      write_narrow(state, narrow_name(p.name), wide);
      continue;
    }
    state.ensure(p.name, {DType::f32, p.shape});
    state.overwrite(p.name, [&](std::span<std::byte> memory) {
      read_floats(tensor, {reinterpret_cast<float*>(memory.data()), memory.size() / sizeof(float)}, path);
    });
  }
}

namespace {

bool is_narrow_alone(const Parameter& p) { return p.used_narrow && !p.used_wide; }

// Without bf16 copies; with `narrow` matrices that products alone read are bf16.
LoadedModel load_stored(const fs::path& path, std::shared_ptr<const Device> device, bool narrow) {
  LoadedModel model;
  model.folder = find_model_folder(path);
  require(!is_adapter(model.folder), "{}: is an adapter where a model is expected", model.folder.string());
  const fs::path config = model.folder / "config.json";
  require(fs::exists(config), "{}: config.json is missing beside the weights", model.folder.string());
  model.config = parse_model_config(read_config_file(config), config.string());
  require(model.config.vocab_size > 0, "{}: vocab_size is missing", config.string());
  model.parameters = model_parameters(model.config);
  model.state = std::make_shared<State>(std::move(device));
  for (const Parameter& p : model.parameters)
    if (narrow && is_narrow_alone(p)) model.state->ensure(narrow_name(p.name), {DType::bf16, p.shape});
  load_weights(*model.state, model.parameters, SafetensorsFile::open(model.folder));
  return model;
}

LoadedModel load_adapted(const fs::path& folder, std::shared_ptr<const Device> device) {
  const Adapter adapter = read_adapter(folder);
  LoadedModel model = load_stored(find_base(adapter, folder), std::move(device), false);
  ModelConfig adapted = model.config;
  adapted.lora = adapter.lora;
  adapted = resolve(adapted, (folder / kAdapterConfig).string());
  std::vector<Parameter> parameters = model_parameters(adapted);
  std::erase_if(parameters, [](const Parameter& p) { return !p.adapter; });
  load_weights(*model.state, parameters, SafetensorsFile::open(folder / kAdapterModel), kAdapterPrefix);
  merge_lora(*model.state, adapted, parameters);
  model.adapter = true;
  if (fs::exists(folder / "tokenizer.json")) model.folder = folder;  // PEFT does not always put one there
  return model;
}

// What graphs of bf16 read of a model in f32. In a State of its own: where some tensors of one are erased,
// the slabs of those that stay go on to take their memory.
std::shared_ptr<State> what_bf16_reads(const State& whole, const std::vector<Parameter>& parameters) {
  auto state = std::make_shared<State>(whole.device());
  for (const Parameter& p : parameters)
    for (const std::string& name : {p.name, narrow_name(p.name)}) {
      if (!whole.contains(name) || (name == p.name && is_narrow_alone(p))) continue;
      std::vector<Buffer> copies;
      const std::span<const std::byte> from = whole.host_bytes(name, copies);
      state->ensure(name, whole.type(name));
      state->write(name, from);
    }
  return state;
}

}  // namespace

LoadedModel load_model(const fs::path& path, std::shared_ptr<const Device> device,
                       std::optional<DType> compute) {
  const fs::path folder = find_model_folder(path);
  LoadedModel model = is_adapter(folder) ? load_adapted(folder, std::move(device))
                                         : load_stored(folder, std::move(device), compute == DType::bf16);
  if (compute != DType::f32) copy_narrow(*model.state, model.parameters);
  // An adapter was merged in f32.
  if (model.adapter && compute == DType::bf16) model.state = what_bf16_reads(*model.state, model.parameters);
  return model;
}

}  // namespace nf
