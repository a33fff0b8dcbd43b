// Tensors and metadata in GGUF files, version 3, as llama.cpp reads them
// (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
//
// A file is "GGUF", u32 version, u64 tensor count, u64 key count; the keys, each with a typed value; per
// tensor its name, sizes, type and offset; then, aligned to `general.alignment` (32 by default), the tensors'
// data, each aligned alike. Everything is little endian. Sizes stand innermost first, in reverse of ours:
// this reader and writer turn them, so that a Shape means the same as everywhere.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "nf/file.h"
#include "nf/named_tensor.h"

namespace nf {

// The number of a type in the file is its place in these variants. Arrays of arrays exist in the format, but
// nobody writes them: they are refused.
using GgufArray =
    std::variant<std::vector<uint8_t>, std::vector<int8_t>, std::vector<uint16_t>, std::vector<int16_t>,
                 std::vector<uint32_t>, std::vector<int32_t>, std::vector<float>, std::vector<bool>,
                 std::vector<std::string>, std::monostate, std::vector<uint64_t>, std::vector<int64_t>,
                 std::vector<double>>;
using GgufValue = std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool,
                               std::string, GgufArray, uint64_t, int64_t, double>;

// A file mapped into memory, read only. Files are untrusted: every length and offset is checked before use,
// and Error names the file, the place and what was expected. Tensors of f32, bf16, f16, f64, i32 and i64 are
// read; a file with others (quantised ones) is refused by the tensor's name. The spans stay valid as long as
// one copy of this object lives. As with every mapping, another process that shortens the file meanwhile ends
// this one.
class GgufFile {
 public:
  static GgufFile open(const std::filesystem::path& path);

  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  // The value of a key; Error when it is absent or of another type.
  template <typename T>
  const T& get(std::string_view key) const {
    const T* value = std::get_if<T>(&at(key));
    if (value == nullptr) fail_type(key);
    return *value;
  }
  // The same for the elements of an array.
  template <typename T>
  const std::vector<T>& list(std::string_view key) const {
    const auto* value = std::get_if<std::vector<T>>(&get<GgufArray>(key));
    if (value == nullptr) fail_type(key);
    return *value;
  }

  // In the order of the file.
  const std::vector<NamedTensor>& tensors() const { return tensors_; }
  const NamedTensor* find(std::string_view name) const;  // nullptr when absent

  const std::filesystem::path& path() const { return path_; }

 private:
  const GgufValue& at(std::string_view key) const;
  [[noreturn]] void fail_type(std::string_view key) const;

  std::filesystem::path path_;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::vector<NamedTensor> tensors_;
  std::map<std::string, size_t, std::less<>> position_;
  std::shared_ptr<const void> mapping_;
};

// Collects keys and tensors, then writes them as one file. The tensors' bytes are read by write(), so they
// must live until then.
class GgufWriter {
 public:
  // Keys are written in the order they are set. Error for one that is set twice.
  void set(std::string key, GgufValue value);
  // Error for a name given twice or longer than the format's 64 bytes, for more than four axes, for a dtype
  // that the format lacks, or for bytes that do not fit dtype and shape.
  void add(NamedTensor tensor);

  // In the order of add(). Replaces `path` as a whole or not at all; see write_file.
  WrittenFile write(const std::filesystem::path& path) const;

 private:
  std::vector<std::pair<std::string, GgufValue>> keys_;
  std::vector<NamedTensor> tensors_;
  std::set<std::string> key_names_, tensor_names_;
};

}  // namespace nf
