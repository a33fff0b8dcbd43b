// Adapters in folders, as PEFT (https://github.com/huggingface/peft) lays them out:
//
//     adapter_config.json         rank, factor, targets, and where the base model is
//     adapter_model.safetensors   base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight, …
//
// Adapters that others wrote are untrusted: what is not plain LoRA (models/lora.h) is an Error that names the
// key.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "models/lora.h"
#include "nf/safetensors.h"

namespace nf {

inline constexpr const char* kAdapterConfig = "adapter_config.json";
inline constexpr const char* kAdapterModel = "adapter_model.safetensors";
inline constexpr std::string_view kAdapterPrefix = "base_model.model.";  // of the tensors' names in the file

struct Adapter {
  LoraConfig lora;
  std::string base;  // folder of the model it belongs to, as the file says it
};

// Whether the folder holds an adapter and no model of its own.
bool is_adapter(const std::filesystem::path& folder);

std::string to_json(const Adapter& adapter);
Adapter parse_adapter(std::string_view json, std::string_view source);
Adapter read_adapter(const std::filesystem::path& folder);

// The base's folder, from the adapter's or from here if its path is relative. Error when it is not there.
std::filesystem::path find_base(const Adapter& adapter, const std::filesystem::path& folder);

// The same tensors under their names in the file.
std::vector<NamedTensor> adapter_tensors(std::vector<NamedTensor> tensors);

}  // namespace nf
