#include "nf/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <utility>

#include "io/descriptor.h"
#include "nf/error.h"
#include "nf/json.h"

namespace nf {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the format is little endian");

constexpr uint64_t kPrefix = 8;                       // bytes of the header's length
constexpr uint64_t kMaxHeader = uint64_t{100} << 20;  // the limit of the format's own reader
constexpr std::string_view kMetadata = "__metadata__";
constexpr std::string_view kSingle = "model.safetensors";
constexpr std::string_view kIndex = "model.safetensors.index.json";

struct DTypeName {
  DType dtype;
  std::string_view name;
};
constexpr std::array<DTypeName, 8> kDTypes = {{{DType::f64, "F64"},
                                               {DType::f32, "F32"},
                                               {DType::bf16, "BF16"},
                                               {DType::f16, "F16"},
                                               {DType::i64, "I64"},
                                               {DType::i32, "I32"},
                                               {DType::u8, "U8"},
                                               {DType::boolean, "BOOL"}}};

// One entry of a header, checked as far as it can be without its neighbours.
struct Entry {
  NamedTensor tensor;
  uint64_t begin = 0, end = 0;
};

Shape read_shape(const json& value, const std::string& where) {
  require(value.is_array() && value.size() <= Shape::kMaxRank,
          "{}: 'shape' must be a list of at most {} sizes", where, int{Shape::kMaxRank});
  Shape shape;
  for (const json& size : value) {
    require(size.is_number_unsigned() && size.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX),
            "{}: 'shape' must hold whole numbers from 0", where);
    shape.push_back(size.get<int64_t>());
  }
  return shape;
}

Entry read_entry(const std::string& name, const json& value, uint64_t data_size, const std::string& file) {
  const std::string where = fmt::format("{}: tensor '{}'", file, printable(name));
  require(value.is_object() && value.size() == 3 && value.contains("dtype") && value.contains("shape") &&
              value.contains("data_offsets"),
          "{}: expected exactly the keys dtype, shape and data_offsets", where);
  Entry entry;
  entry.tensor.name = name;
  require(value["dtype"].is_string(), "{}: 'dtype' must be a string", where);
  try {
    entry.tensor.dtype = parse_safetensors_dtype(value["dtype"].get_ref<const std::string&>());
  } catch (const Error& error) {
    fail("{}: {}", where, error.what());
  }
  entry.tensor.shape = read_shape(value["shape"], where);

  const json& offsets = value["data_offsets"];
  require(offsets.is_array() && offsets.size() == 2 && offsets[0].is_number_unsigned() &&
              offsets[1].is_number_unsigned(),
          "{}: 'data_offsets' must be two whole numbers from 0", where);
  entry.begin = offsets[0].get<uint64_t>();
  entry.end = offsets[1].get<uint64_t>();
  require(entry.begin <= entry.end && entry.end <= data_size,
          "{}: data_offsets [{}, {}] do not lie in the {} bytes of data; the file is cut short or altered",
          where, entry.begin, entry.end, data_size);
  const std::optional<uint64_t> bytes = byte_count(entry.tensor.shape, entry.tensor.dtype);
  require(bytes == entry.end - entry.begin, "{}: data_offsets span {} bytes, {} {} needs {}", where,
          entry.end - entry.begin, nf::name(entry.tensor.dtype), entry.tensor.shape,
          bytes ? std::to_string(*bytes) : "more than a file can hold");
  return entry;
}

void read_metadata(const json& value, const std::string& file, Metadata& metadata) {
  require(value.is_object(), "{}: '{}' must be an object of strings", file, kMetadata);
  for (const auto& [key, text] : value.items()) {
    require(text.is_string(), "{}: '{}' key '{}' must be a string", file, kMetadata, printable(key));
    metadata[key] = text.get<std::string>();
  }
}

// In the order of the data, which must be covered without overlaps or holes.
void sort_and_check_cover(std::vector<Entry>& entries, uint64_t data_size, const std::string& file) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.tensor.name) < std::tie(b.begin, b.end, b.tensor.name);
  });
  uint64_t reached = 0;
  for (const Entry& entry : entries) {
    require(entry.begin == reached, "{}: tensor '{}' begins at byte {} of the data, expected {} ({})", file,
            printable(entry.tensor.name), entry.begin, reached,
            entry.begin < reached ? "tensors overlap" : "a hole");
    reached = entry.end;
  }
  require(reached == data_size, "{}: {} bytes of data, the tensors cover {}", file, data_size, reached);
}

json parse_header(std::span<const std::byte> bytes, const std::string& file, uint64_t& data_begin) {
  require(bytes.size() >= kPrefix, "{}: {} bytes, a safetensors file has at least {}", file, bytes.size(),
          kPrefix);
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kPrefix);
  require(length <= kMaxHeader, "{}: header of {} bytes, at most {} are accepted; not a safetensors file?",
          file, length, kMaxHeader);
  require(length <= bytes.size() - kPrefix,
          "{}: header of {} bytes, but only {} follow; the file is cut short", file, length,
          bytes.size() - kPrefix);
  data_begin = kPrefix + length;
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kPrefix, length);
  require(text.starts_with('{'), "{}: the header does not begin with '{{'; not a safetensors file?", file);
  check_json(text, file + " header");
  return json::parse(text);
}

json read_index(const std::filesystem::path& path) {
  const std::string text = read_file(path, static_cast<int64_t>(kMaxHeader));
  check_json(text, path.string());
  json index = json::parse(text);
  require(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(),
          "{}: expected an object with a 'weight_map' of tensor names to files", path.string());
  return index;
}

}  // namespace

std::string_view safetensors_name(DType dtype) {
  for (const DTypeName& row : kDTypes)
    if (row.dtype == dtype) return row.name;
  fail("safetensors: dtype {} has no name", static_cast<int>(dtype));
}

DType parse_safetensors_dtype(std::string_view text) {
  for (const DTypeName& row : kDTypes)
    if (row.name == text) return row.dtype;
  fail("dtype '{}' is not supported; expected F64, F32, BF16, F16, I64, I32, U8 or BOOL", printable(text));
}

void SafetensorsFile::add_file(const std::filesystem::path& path) {
  const Mapping mapping = map_file(path);
  const std::string file = path.string();
  uint64_t data_begin = 0;
  const json header = parse_header(mapping.bytes, file, data_begin);
  const std::span<const std::byte> data = mapping.bytes.subspan(data_begin);

  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadata)
      read_metadata(value, file, metadata_);
    else
      entries.push_back(read_entry(name, value, data.size(), file));
  }
  sort_and_check_cover(entries, data.size(), file);
  for (Entry& entry : entries) {
    entry.tensor.bytes = data.subspan(entry.begin, entry.end - entry.begin);
    tensors_.push_back(std::move(entry.tensor));
  }
  mappings_.push_back(mapping.owner);
}

void SafetensorsFile::index_names() {
  for (size_t i = 0; i < tensors_.size(); ++i)
    require(position_.emplace(tensors_[i].name, i).second, "{}: tensor '{}' is in two files", path_.string(),
            printable(tensors_[i].name));
}

void SafetensorsFile::add_shards(const std::filesystem::path& index_path) {
  const json index = read_index(index_path);
  std::map<std::string, std::set<std::string>> names_of;  // by shard
  for (const auto& [name, shard] : index["weight_map"].items()) {
    require(shard.is_string(), "{}: the file of tensor '{}' must be a string", index_path.string(),
            printable(name));
    names_of[shard.get<std::string>()].insert(name);
  }
  for (const auto& [shard, names] : names_of) {
    // A name with a folder in it could reach outside the model's own.
    require(!shard.empty() && shard.find('/') == std::string::npos && shard != "." && shard != "..",
            "{}: shard '{}' must be a plain file name", index_path.string(), printable(shard));
    const size_t first = tensors_.size();
    add_file(index_path.parent_path() / shard);
    std::set<std::string> found;
    for (size_t i = first; i < tensors_.size(); ++i) {
      require(names.contains(tensors_[i].name), "{}: tensor '{}' of {} is not listed for that file",
              index_path.string(), printable(tensors_[i].name), shard);
      found.insert(tensors_[i].name);
    }
    for (const std::string& name : names)
      require(found.contains(name), "{}: tensor '{}' is not in {}", index_path.string(), printable(name),
              shard);
  }
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile file;
  file.path_ = path;
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored))
    file.add_file(path);
  else if (std::filesystem::exists(path / kSingle, ignored))
    file.add_file(path / kSingle);
  else if (std::filesystem::exists(path / kIndex, ignored))
    file.add_shards(path / kIndex);
  else
    fail("{}: neither {} nor {} in this folder", path.string(), kSingle, kIndex);
  file.index_names();
  return file;
}

const NamedTensor* SafetensorsFile::find(std::string_view name) const {
  const auto at = position_.find(name);
  return at == position_.end() ? nullptr : &tensors_[at->second];
}

const NamedTensor& SafetensorsFile::at(std::string_view name) const {
  const NamedTensor* tensor = find(name);
  require(tensor != nullptr, "{}: no tensor '{}' among the {} of this file", path_.string(), printable(name),
          tensors_.size());
  return *tensor;
}

void SafetensorsWriter::add(NamedTensor tensor) {
  require(tensor.name != kMetadata, "safetensors: the name '{}' is reserved", kMetadata);
  check_bytes(tensor, "safetensors");
  require(names_.insert(tensor.name).second, "safetensors: tensor '{}' is given twice",
          printable(tensor.name));
  tensors_.push_back(std::move(tensor));
}

WrittenFile SafetensorsWriter::write(const std::filesystem::path& path) const {
  std::vector<const NamedTensor*> all;
  for (const NamedTensor& tensor : tensors_) all.push_back(&tensor);
  return write_tensors(path, std::move(all));
}

std::vector<std::pair<std::string, WrittenFile>> SafetensorsWriter::write_model(
    const std::filesystem::path& folder, int64_t shard_bytes) const {
  std::vector<std::vector<const NamedTensor*>> shards(1);
  uint64_t total = 0, in_shard = 0;
  for (const NamedTensor& tensor : tensors_) {
    if (in_shard + tensor.bytes.size() > static_cast<uint64_t>(shard_bytes) && !shards.back().empty()) {
      shards.emplace_back();
      in_shard = 0;
    }
    shards.back().push_back(&tensor);
    in_shard += tensor.bytes.size();
    total += tensor.bytes.size();
  }
  if (shards.size() == 1) return {{std::string(kSingle), write(folder / kSingle)}};

  std::vector<std::pair<std::string, WrittenFile>> written;
  nlohmann::json weight_map = nlohmann::json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    for (const NamedTensor* tensor : shards[i]) weight_map[tensor->name] = name;
    written.emplace_back(name, write_tensors(folder / name, std::move(shards[i])));
  }
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  written.emplace_back(kIndex, write_file(folder / kIndex, index.dump(2) + "\n"));
  return written;
}

WrittenFile SafetensorsWriter::write_tensors(const std::filesystem::path& path,
                                             std::vector<const NamedTensor*> order) const {
  std::stable_sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return size_of(a->dtype) > size_of(b->dtype);
  });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  auto& items = header.get_ref<nlohmann::ordered_json::object_t&>();
  if (!metadata_.empty()) items.emplace_back(kMetadata, metadata_);
  uint64_t offset = 0;
  for (const NamedTensor* tensor : order) {
    nlohmann::ordered_json entry = {
        {"dtype", safetensors_name(tensor->dtype)},
        {"shape", std::vector<int64_t>(tensor->shape.begin(), tensor->shape.end())},
        {"data_offsets", {offset, offset + tensor->bytes.size()}}};
    items.emplace_back(tensor->name, std::move(entry));  // past the object's own linear search for the key
    offset += tensor->bytes.size();
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception&) {
    fail("{}: a tensor's name or the metadata is not UTF-8", path.string());
  }
  text.append((kPrefix - text.size() % kPrefix) % kPrefix, ' ');  // the data begins aligned
  require(text.size() <= kMaxHeader, "{}: a header of {} bytes, readers accept at most {}", path.string(),
          text.size(), kMaxHeader);

  const uint64_t length = text.size();
  std::vector<std::span<const std::byte>> pieces = {std::as_bytes(std::span(&length, 1)),
                                                    std::as_bytes(std::span(text))};
  for (const NamedTensor* tensor : order) pieces.push_back(tensor->bytes);
  return write_file(path, pieces);
}

}  // namespace nf
