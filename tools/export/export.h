// Models for other programs: a folder that Hugging Face's transformers loads, or a GGUF file for llama.cpp.
//
// A model is written only if the other program then computes what it computes here: every setting that the
// target has no word for is an Error that names the config's key. What acts in training alone (dropout,
// z_loss, head similarity) does not matter.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "nf/safetensors.h"
#include "tools/load_model.h"
#include "tools/tokenizer/tokenizer.h"

namespace nf {

enum class ExportFormat : uint8_t { hugging_face, gguf };

struct ExportOptions {
  ExportFormat format = ExportFormat::hugging_face;
  DType dtype = DType::f32;                              // of the matrices: f32, bf16 or f16
  int64_t shard_bytes = SafetensorsWriter::kShardBytes;  // hugging_face: see SafetensorsWriter
};

// Writes the folder `out` (config.json, model.safetensors or its shards, generation_config.json,
// tokenizer.json, tokenizer_config.json), or the file `out`. Error when a weight does not fit f16.
void export_model(const LoadedModel& model, const Tokenizer& tokenizer, const std::filesystem::path& out,
                  const ExportOptions& options);

// config.json: mha and gqa as Llama, with a window as Mistral, with biases of q, k and v alone as Qwen2, with
// norms of q and k as Qwen3; diff as DiffLlama; mla as DeepseekV3 with dense layers alone. Throws Error for
// ngpt, which no class of that library is, and for keys that the class lacks.
std::string hugging_face_config(const ModelConfig& config, const Tokenizer& tokenizer, DType dtype);

// The weights in `dtype`, but for what has one axis, which stays f32 when `wide_vectors`. They keep their own
// memory where they are converted.
class ConvertedWeights {
 public:
  ConvertedWeights(const LoadedModel& model, DType dtype, bool wide_vectors);
  const std::vector<NamedTensor>& tensors() const { return tensors_; }

 private:
  std::vector<NamedTensor> tensors_;
  std::vector<std::vector<std::byte>> memory_;
};

// The GGUF file; see gguf.cpp for what has a place in it.
void write_gguf(const LoadedModel& model, const Tokenizer& tokenizer, const std::filesystem::path& out,
                DType dtype);

}  // namespace nf
