#include "tools/lora.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "models/config_values.h"
#include "nf/error.h"
#include "nf/file.h"
#include "nf/json.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kMaxConfig = int64_t{1} << 24;

// Features of PEFT that change what is computed. A file may mention them as long as they are off.
constexpr std::string_view kMustBeOff[] = {"use_rslora",
                                           "use_dora",
                                           "fan_in_fan_out",
                                           "lora_bias",
                                           "modules_to_save",
                                           "rank_pattern",
                                           "alpha_pattern",
                                           "layers_to_transform",
                                           "layers_pattern",
                                           "layer_replication",
                                           "exclude_modules",
                                           "target_parameters",
                                           "trainable_token_indices",
                                           "alora_invocation_tokens",
                                           "use_qalora"};

void check_plain(const json& object, std::string_view source) {
  require(object.value("peft_type", json()) == "LORA", "{}: 'peft_type' is {}, only LORA is supported",
          source, shown(object.value("peft_type", json())));
  const json bias = object.value("bias", json("none"));
  require(bias == "none", "{}: 'bias' is {}, only none is supported", source, shown(bias));
  for (const std::string_view key : kMustBeOff) {
    const auto at = object.find(key);
    if (at == object.end()) continue;
    const bool off = at->is_null() || *at == false || ((at->is_object() || at->is_array()) && at->empty());
    require(off, "{}: '{}' is {}, which is not supported", source, key, shown(*at));
  }
}

std::vector<std::string> read_targets(const json& object, std::string_view source) {
  const json value = object.value("target_modules", json());
  if (value == "all-linear") return {"all-linear"};
  require(value.is_array() && !value.empty(), "{}: 'target_modules' must be a list of names, not {}", source,
          shown(value));
  std::vector<std::string> targets;
  for (const json& target : value) {
    require(target.is_string(), "{}: 'target_modules' holds {}, which is no name", source, shown(target));
    targets.push_back(target.get<std::string>());
  }
  return targets;
}

double read_number(const json& object, const char* key, double otherwise, std::string_view source) {
  const json value = object.value(key, json(otherwise));
  require(value.is_number(), "{}: '{}' is {}, not a number", source, key, shown(value));
  return value.get<double>();
}

}  // namespace

bool is_adapter(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / kAdapterModel, ignored) && !fs::exists(folder / "model.safetensors", ignored) &&
         !fs::exists(folder / "model.safetensors.index.json", ignored);
}

std::string to_json(const Adapter& adapter) {
  const nlohmann::ordered_json object = {{"peft_type", "LORA"},
                                         {"task_type", "CAUSAL_LM"},
                                         {"base_model_name_or_path", adapter.base},
                                         {"inference_mode", true},
                                         {"r", adapter.lora.rank},
                                         {"lora_alpha", adapter.lora.alpha},
                                         {"lora_dropout", adapter.lora.dropout},
                                         {"target_modules", adapter.lora.targets},
                                         {"bias", "none"},
                                         {"fan_in_fan_out", false},
                                         {"modules_to_save", nullptr},
                                         {"use_rslora", false},
                                         {"use_dora", false}};
  return object.dump(2) + "\n";
}

Adapter parse_adapter(std::string_view text, std::string_view source) {
  check_json(text, source);
  const json object = json::parse(text);
  require(object.is_object(), "{}: not a JSON object", source);
  check_plain(object, source);
  Adapter adapter;
  const json base = object.value("base_model_name_or_path", json());
  require(base.is_string() && !base.get_ref<const std::string&>().empty(),
          "{}: 'base_model_name_or_path' is {}, it must name the base model's folder", source, shown(base));
  adapter.base = base.get<std::string>();
  const json rank = object.value("r", json());
  require(rank.is_number_unsigned() && rank.get<uint64_t>() <= INT32_MAX, "{}: 'r' is {}, not a rank", source,
          shown(rank));
  adapter.lora.rank = rank.get<int64_t>();
  adapter.lora.alpha = read_number(object, "lora_alpha", 8, source);
  adapter.lora.dropout = read_number(object, "lora_dropout", 0, source);
  adapter.lora.targets = read_targets(object, source);
  return adapter;
}

Adapter read_adapter(const fs::path& folder) {
  const fs::path file = folder / kAdapterConfig;
  return parse_adapter(read_file(file, kMaxConfig), file.string());
}

fs::path find_base(const Adapter& adapter, const fs::path& folder) {
  std::error_code ignored;
  for (const fs::path& candidate : {folder / adapter.base, fs::path(adapter.base)})
    if (fs::is_directory(candidate, ignored)) return candidate;
  fail("{}: the base model '{}' is no folder here; put its path under 'base_model_name_or_path'",
       (folder / kAdapterConfig).string(), printable(adapter.base));
}

std::vector<NamedTensor> adapter_tensors(std::vector<NamedTensor> tensors) {
  for (NamedTensor& tensor : tensors) tensor.name.insert(0, kAdapterPrefix);
  return tensors;
}

}  // namespace nf
