#include "nf/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <type_traits>

#include "io/descriptor.h"
#include "nf/error.h"
#include "nf/json.h"

namespace nf {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little endian");

constexpr std::string_view kMagic = "GGUF";
constexpr uint32_t kVersion = 3;
constexpr const char* kAlignmentKey = "general.alignment";
constexpr uint64_t kAlignment = 32;
constexpr uint64_t kMaxAlignment = 1 << 20;
constexpr uint32_t kMaxAxes = 4;
constexpr size_t kMaxName = 64;

struct TensorKind {
  DType dtype;
  uint32_t number;  // of ggml_type
};
constexpr std::array<TensorKind, 6> kKinds = {{{DType::f32, 0},
                                               {DType::f16, 1},
                                               {DType::i32, 26},
                                               {DType::i64, 27},
                                               {DType::f64, 28},
                                               {DType::bf16, 30}}};

uint64_t aligned(uint64_t offset, uint64_t alignment) {
  return (offset + alignment - 1) / alignment * alignment;
}

// --- reading

// The bytes from the front to the end, each piece checked before it is taken.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, std::string file) : bytes_(bytes), file_(std::move(file)) {}

  uint64_t position() const { return position_; }
  const std::string& file() const { return file_; }

  std::span<const std::byte> take(uint64_t size, std::string_view what) {
    require(size <= bytes_.size() - position_,
            "{}: byte {}: {} takes {} bytes, only {} follow; the file is cut short", file_, position_, what,
            size, bytes_.size() - position_);
    const auto piece = bytes_.subspan(position_, size);
    position_ += size;
    return piece;
  }

  template <typename T>
  T number(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  std::string text(std::string_view what) {
    const auto bytes = take(number<uint64_t>(what), what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  bool boolean(std::string_view what) {
    const auto value = number<uint8_t>(what);
    require(value <= 1, "{}: byte {}: {} is a bool of {}, not 0 or 1", file_, position_ - 1, what, value);
    return value == 1;
  }

  // A count of items that take at least `size` bytes each: never more than the rest of the file can hold.
  uint64_t count(uint64_t size, std::string_view what) {
    const auto value = number<uint64_t>(what);
    require(value <= (bytes_.size() - position_) / size, "{}: byte {}: {} {} do not fit into the file", file_,
            position_ - sizeof(uint64_t), value, what);
    return value;
  }

 private:
  std::span<const std::byte> bytes_;
  std::string file_;
  uint64_t position_ = 0;
};

template <typename T>
T read_item(Reader& reader, std::string_view what) {
  if constexpr (std::is_same_v<T, std::string>)
    return reader.text(what);
  else if constexpr (std::is_same_v<T, bool>)
    return reader.boolean(what);
  else
    return reader.number<T>(what);
}

template <typename T>
constexpr uint64_t kSmallest = std::is_same_v<T, std::string> ? sizeof(uint64_t) : sizeof(T);

template <typename T>
std::vector<T> read_items(Reader& reader, std::string_view what) {
  std::vector<T> items(reader.count(kSmallest<T>, "array elements"));
  for (size_t i = 0; i < items.size(); ++i) items[i] = read_item<T>(reader, what);
  return items;
}

// Calls read.template operator()<I>() for the type of that number.
template <typename Variant, typename Read, size_t... I>
Variant read_alternative(uint32_t type, const Read& read, std::index_sequence<I...>) {
  Variant value;
  ((type == I ? static_cast<void>(value = read.template operator()<I>()) : static_cast<void>(0)), ...);
  return value;
}

GgufArray read_array(Reader& reader, std::string_view what) {
  const auto type = reader.number<uint32_t>(what);
  const auto read = [&]<size_t I>() -> GgufArray {
    using Items = std::variant_alternative_t<I, GgufArray>;
    if constexpr (std::is_same_v<Items, std::monostate>)
      fail("{}: byte {}: {} is an array of arrays, which is not supported", reader.file(), reader.position(),
           what);
    else
      return read_items<typename Items::value_type>(reader, what);
  };
  constexpr size_t kTypes = std::variant_size_v<GgufArray>;
  require(type < kTypes, "{}: byte {}: {} has elements of the unknown type {}", reader.file(),
          reader.position(), what, type);
  return read_alternative<GgufArray>(type, read, std::make_index_sequence<kTypes>());
}

GgufValue read_value(Reader& reader, std::string_view what) {
  const auto type = reader.number<uint32_t>(what);
  const auto read = [&]<size_t I>() -> GgufValue {
    using Item = std::variant_alternative_t<I, GgufValue>;
    if constexpr (std::is_same_v<Item, GgufArray>)
      return read_array(reader, what);
    else
      return read_item<Item>(reader, what);
  };
  constexpr size_t kTypes = std::variant_size_v<GgufValue>;
  require(type < kTypes, "{}: byte {}: {} is of the unknown type {}", reader.file(), reader.position(), what,
          type);
  return read_alternative<GgufValue>(type, read, std::make_index_sequence<kTypes>());
}

struct Entry {
  NamedTensor tensor;
  uint64_t offset = 0, bytes = 0;
};

Entry read_entry(Reader& reader) {
  Entry entry;
  entry.tensor.name = reader.text("a tensor's name");
  const std::string where = fmt::format("{}: tensor '{}'", reader.file(), printable(entry.tensor.name));
  require(!entry.tensor.name.empty(), "{}: has no name", where);
  const auto axes = reader.number<uint32_t>("a tensor's number of axes");
  require(axes <= kMaxAxes, "{}: has {} axes, at most {} are possible", where, axes, kMaxAxes);
  std::vector<int64_t> sizes;
  for (uint32_t i = 0; i < axes; ++i) {
    const auto size = reader.number<uint64_t>("a tensor's size");
    require(size <= static_cast<uint64_t>(INT64_MAX), "{}: a size is {}", where, size);
    sizes.push_back(static_cast<int64_t>(size));
  }
  for (auto size = sizes.rbegin(); size != sizes.rend(); ++size) entry.tensor.shape.push_back(*size);
  const auto number = reader.number<uint32_t>("a tensor's type");
  const auto kind = std::ranges::find(kKinds, number, &TensorKind::number);
  require(kind != kKinds.end(), "{}: is of ggml's type {}; only F32, F16, BF16, F64, I32 and I64 are read",
          where, number);
  entry.tensor.dtype = kind->dtype;
  entry.offset = reader.number<uint64_t>("a tensor's offset");
  const std::optional<uint64_t> bytes = byte_count(entry.tensor.shape, entry.tensor.dtype);
  require(bytes.has_value(), "{}: {} is more than a file can hold", where, entry.tensor.shape);
  entry.bytes = *bytes;
  return entry;
}

// The data of the tensors follow each other in their order, each from the next aligned offset on.
void bind_data(std::vector<Entry>& entries, std::span<const std::byte> data, uint64_t alignment,
               const std::string& file) {
  uint64_t expected = 0;
  for (Entry& entry : entries) {
    const std::string& name = entry.tensor.name;
    require(entry.offset == expected, "{}: tensor '{}' begins at byte {} of the data, expected {}", file,
            printable(name), entry.offset, expected);
    require(entry.offset <= data.size() && entry.bytes <= data.size() - entry.offset,
            "{}: tensor '{}' ends at byte {} of the data, which has {}; the file is cut short", file,
            printable(name), entry.offset + entry.bytes, data.size());
    entry.tensor.bytes = data.subspan(entry.offset, entry.bytes);
    expected = aligned(entry.offset + entry.bytes, alignment);
  }
}

uint64_t alignment_of(const std::map<std::string, GgufValue, std::less<>>& metadata,
                      const std::string& file) {
  const auto at = metadata.find(kAlignmentKey);
  if (at == metadata.end()) return kAlignment;
  const auto* value = std::get_if<uint32_t>(&at->second);
  require(value != nullptr && std::has_single_bit(*value) && *value >= 8 && *value <= kMaxAlignment,
          "{}: '{}' must be a u32 that is a power of two from 8 to {}", file, kAlignmentKey, kMaxAlignment);
  return *value;
}

// --- writing

class Bytes {
 public:
  template <typename T>
  void number(T value) {
    static_assert(std::is_arithmetic_v<T>);
    const auto* bytes = reinterpret_cast<const char*>(&value);
    bytes_.append(bytes, sizeof(T));
  }
  void text(std::string_view text) {
    number<uint64_t>(text.size());
    bytes_ += text;
  }
  void item(const std::string& value) { text(value); }
  void item(bool value) { number<uint8_t>(value ? 1 : 0); }
  template <typename T>
  void item(T value) {
    number(value);
  }

  void value(const GgufValue& value) {
    number(static_cast<uint32_t>(value.index()));
    std::visit([&](const auto& item) { this->alternative(item); }, value);
  }

  std::string& bytes() { return bytes_; }

 private:
  template <typename T>
  void alternative(const T& value) {
    if constexpr (std::is_same_v<T, GgufArray>)
      array(value);
    else
      item(value);
  }
  void array(const GgufArray& array) {
    number(static_cast<uint32_t>(array.index()));
    std::visit(
        [&](const auto& items) {
          using Items = std::decay_t<decltype(items)>;
          if constexpr (std::is_same_v<Items, std::monostate>) {
            fail("gguf: an array without a type cannot be written");
          } else {
            number<uint64_t>(items.size());
            for (size_t i = 0; i < items.size(); ++i)
              item(static_cast<const typename Items::value_type&>(items[i]));
          }
        },
        array);
  }

  std::string bytes_;
};

uint32_t kind_number(DType dtype) {
  const auto kind = std::ranges::find(kKinds, dtype, &TensorKind::dtype);
  require(kind != kKinds.end(), "gguf: has no tensors of {}", name(dtype));
  return kind->number;
}

}  // namespace

GgufFile GgufFile::open(const std::filesystem::path& path) {
  GgufFile file;
  file.path_ = path;
  const Mapping mapping = map_file(path);
  file.mapping_ = mapping.owner;
  const std::string name = path.string();
  Reader reader(mapping.bytes, name);
  const auto magic = reader.take(kMagic.size(), "the magic word");
  require(std::memcmp(magic.data(), kMagic.data(), kMagic.size()) == 0,
          "{}: does not begin with \"GGUF\"; not a GGUF file", name);
  const auto version = reader.number<uint32_t>("the version");
  require(version == kVersion, "{}: is GGUF version {}, only version {} is read", name, version, kVersion);
  constexpr uint64_t kSmallestTensor = 8 + 4 + 4 + 8, kSmallestKey = 8 + 4 + 1;
  const uint64_t tensors = reader.count(kSmallestTensor, "tensors");
  const uint64_t keys = reader.count(kSmallestKey, "keys");
  for (uint64_t i = 0; i < keys; ++i) {
    std::string key = reader.text("a key");
    GgufValue value = read_value(reader, fmt::format("key '{}'", printable(key)));
    const auto [at, added] = file.metadata_.emplace(std::move(key), std::move(value));
    require(added, "{}: key '{}' is given twice", name, printable(at->first));
  }
  std::vector<Entry> entries;
  for (uint64_t i = 0; i < tensors; ++i) {
    entries.push_back(read_entry(reader));
    const std::string& tensor = entries.back().tensor.name;
    require(file.position_.emplace(tensor, i).second, "{}: tensor '{}' is given twice", name,
            printable(tensor));
  }
  const uint64_t alignment = alignment_of(file.metadata_, name);
  const uint64_t begin = std::min<uint64_t>(aligned(reader.position(), alignment), mapping.bytes.size());
  bind_data(entries, mapping.bytes.subspan(begin), alignment, name);
  for (Entry& entry : entries) file.tensors_.push_back(std::move(entry.tensor));
  return file;
}

const NamedTensor* GgufFile::find(std::string_view name) const {
  const auto at = position_.find(name);
  return at == position_.end() ? nullptr : &tensors_[at->second];
}

const GgufValue& GgufFile::at(std::string_view key) const {
  const auto at = metadata_.find(key);
  require(at != metadata_.end(), "{}: has no key '{}'", path_.string(), printable(key));
  return at->second;
}

void GgufFile::fail_type(std::string_view key) const {
  fail("{}: key '{}' has another type than expected", path_.string(), printable(key));
}

void GgufWriter::set(std::string key, GgufValue value) {
  require(key_names_.insert(key).second, "gguf: key '{}' is set twice", printable(key));
  require(key != kAlignmentKey, "gguf: '{}' is not free to choose", kAlignmentKey);
  keys_.emplace_back(std::move(key), std::move(value));
}

void GgufWriter::add(NamedTensor tensor) {
  check_bytes(tensor, "gguf");
  kind_number(tensor.dtype);
  require(!tensor.name.empty() && tensor.name.size() < kMaxName,
          "gguf: '{}' is no tensor name of 1 to {} bytes", printable(tensor.name), kMaxName - 1);
  require(tensor.shape.rank() <= static_cast<int>(kMaxAxes),
          "gguf: tensor '{}' has {} axes, at most {} are possible", printable(tensor.name),
          tensor.shape.rank(), kMaxAxes);
  require(tensor_names_.insert(tensor.name).second, "gguf: tensor '{}' is given twice",
          printable(tensor.name));
  tensors_.push_back(std::move(tensor));
}

WrittenFile GgufWriter::write(const std::filesystem::path& path) const {
  Bytes head;
  head.bytes() += kMagic;
  head.number(kVersion);
  head.number<uint64_t>(tensors_.size());
  head.number<uint64_t>(keys_.size());
  for (const auto& [key, value] : keys_) {
    head.text(key);
    head.value(value);
  }
  uint64_t offset = 0;
  for (const NamedTensor& tensor : tensors_) {
    head.text(tensor.name);
    const std::vector<int64_t> sizes(tensor.shape.begin(), tensor.shape.end());
    head.number(static_cast<uint32_t>(sizes.size()));
    for (auto size = sizes.rbegin(); size != sizes.rend(); ++size) head.number(static_cast<uint64_t>(*size));
    head.number(kind_number(tensor.dtype));
    head.number(offset);
    offset = aligned(offset + tensor.bytes.size(), kAlignment);
  }
  std::string& text = head.bytes();
  text.resize(aligned(text.size(), kAlignment), '\0');

  static constexpr std::array<std::byte, kAlignment> kPadding{};
  std::vector<std::span<const std::byte>> pieces = {std::as_bytes(std::span(text))};
  for (const NamedTensor& tensor : tensors_) {
    pieces.push_back(tensor.bytes);
    pieces.push_back(
        std::span(kPadding).first(aligned(tensor.bytes.size(), kAlignment) - tensor.bytes.size()));
  }
  return write_file(path, pieces);
}

}  // namespace nf
