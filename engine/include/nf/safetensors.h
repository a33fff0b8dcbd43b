// Tensors in files: the safetensors format (https://github.com/huggingface/safetensors).
//
// A file is 8 bytes header length (little endian), a JSON header {"name": {"dtype", "shape", "data_offsets"},
// …} with optional string pairs in "__metadata__", then the data, row-major, little endian, without holes.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nf/file.h"
#include "nf/named_tensor.h"

namespace nf {

using Metadata = std::map<std::string, std::string>;

// A file (or a folder of them) mapped into memory, read only. Files are untrusted: every length and offset is
// checked before use, and Error names the file, the tensor and what was expected. The spans stay valid as
// long as one copy of this object lives. As with every mapping, another process that shortens the file
// meanwhile ends this one.
class SafetensorsFile {
 public:
  // A .safetensors file; or a folder: its model.safetensors, or the shards that model.safetensors.index.json
  // names.
  static SafetensorsFile open(const std::filesystem::path& path);

  // All tensors in the order of their data (shards in order of their names).
  const std::vector<NamedTensor>& tensors() const { return tensors_; }
  const NamedTensor* find(std::string_view name) const;  // nullptr when absent
  const NamedTensor& at(std::string_view name) const;    // Error when absent

  const Metadata& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  void add_file(const std::filesystem::path& path);
  void add_shards(const std::filesystem::path& index_path);
  void index_names();

  std::filesystem::path path_;
  std::vector<NamedTensor> tensors_;
  std::map<std::string, size_t, std::less<>> position_;
  Metadata metadata_;
  std::vector<std::shared_ptr<const void>> mappings_;
};

// Collects tensors, then writes them as one file. The bytes are read by write(), so they must live until
// then.
class SafetensorsWriter {
 public:
  explicit SafetensorsWriter(Metadata metadata = {}) : metadata_(std::move(metadata)) {}

  // Error for a name given twice or reserved, or for bytes that do not fit dtype and shape.
  void add(NamedTensor tensor);

  // Wide elements come first, else in the order of add(), so that every tensor is aligned. Replaces `path` as
  // a whole or not at all; see write_file.
  WrittenFile write(const std::filesystem::path& path) const;

  // Writes FOLDER/model.safetensors; or, when the tensors have more than `shard_bytes`, as Hugging Face names
  // them, model-00001-of-00003.safetensors, …, each with at most so many bytes (or one tensor that is larger)
  // in the order of add(), and then model.safetensors.index.json. Returns the names of the files written,
  // with what write_file said of each.
  std::vector<std::pair<std::string, WrittenFile>> write_model(const std::filesystem::path& folder,
                                                               int64_t shard_bytes = kShardBytes) const;

  static constexpr int64_t kShardBytes = 5'000'000'000;  // what Hugging Face's libraries write by default

 private:
  WrittenFile write_tensors(const std::filesystem::path& path, std::vector<const NamedTensor*> tensors) const;

  Metadata metadata_;
  std::vector<NamedTensor> tensors_;
  std::set<std::string> names_;
};

// "F32", "BF16", … as the format writes them, and back (Error that lists those supported).
std::string_view safetensors_name(DType dtype);
DType parse_safetensors_dtype(std::string_view name);

}  // namespace nf
