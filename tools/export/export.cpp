#include "tools/export/export.h"

#include <cmath>
#include <cstring>

#include "nf/error.h"
#include "nf/file.h"
#include "tools/export/tokenizer_files.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

template <typename T, typename Convert>
std::vector<std::byte> converted(std::span<const std::byte> from, Convert convert) {
  std::vector<std::byte> to(from.size() / sizeof(float) * sizeof(T));
  for (size_t i = 0; i < from.size() / sizeof(float); ++i) {
    float value;
    std::memcpy(&value, from.data() + i * sizeof(float), sizeof value);
    const T narrow = convert(value);
    std::memcpy(to.data() + i * sizeof(T), &narrow, sizeof narrow);
  }
  return to;
}

std::vector<std::byte> narrowed(const NamedTensor& tensor, DType dtype) {
  if (dtype == DType::bf16) return converted<bf16>(tensor.bytes, [](float value) { return to_bf16(value); });
  return converted<f16>(tensor.bytes, [&](float value) {
    const f16 narrow = to_f16(value);
    require(std::isfinite(to_float(narrow)),
            "export: tensor '{}' holds {}, which is too large for f16; use bf16", tensor.name, value);
    return narrow;
  });
}

void write_folder(const LoadedModel& model, const Tokenizer& tokenizer, const fs::path& out,
                  const ExportOptions& options) {
  const std::string config = hugging_face_config(model.config, tokenizer, options.dtype);
  std::error_code error;
  fs::create_directories(out, error);
  require(!error, "{}: cannot create folder: {}", out.string(), error.message());
  const ConvertedWeights weights(model, options.dtype, false);
  SafetensorsWriter writer(Metadata{{"format", "pt"}});  // Hugging Face's loaders want this said
  for (const NamedTensor& tensor : weights.tensors()) writer.add(tensor);
  writer.write_model(out, options.shard_bytes);
  write_file(out / "tokenizer.json", hugging_face_tokenizer(tokenizer));
  write_file(out / "tokenizer_config.json",
             tokenizer_config(tokenizer, model.config.max_position_embeddings));
  write_file(out / "generation_config.json", generation_config(tokenizer));
  write_file(out / "config.json", config);  // last: a folder with a config is complete
}

}  // namespace

ConvertedWeights::ConvertedWeights(const LoadedModel& model, DType dtype, bool wide_vectors) {
  for (const Parameter& p : model.parameters) {
    NamedTensor tensor{p.name, DType::f32, p.shape, std::as_const(*model.state).memory(p.name)};
    if (dtype != DType::f32 && !(wide_vectors && p.shape.rank() == 1)) {
      memory_.push_back(narrowed(tensor, dtype));
      tensor.dtype = dtype;
      tensor.bytes = memory_.back();
    }
    tensors_.push_back(std::move(tensor));
  }
}

void export_model(const LoadedModel& model, const Tokenizer& tokenizer, const fs::path& out,
                  const ExportOptions& options) {
  require(tokenizer.vocab_size() <= model.config.vocab_size,
          "export: the tokenizer knows {} tokens, the model {}", tokenizer.vocab_size(),
          model.config.vocab_size);
  if (options.format == ExportFormat::gguf)
    write_gguf(model, tokenizer, out, options.dtype);
  else
    write_folder(model, tokenizer, out, options);
}

}  // namespace nf
