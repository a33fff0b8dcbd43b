#include "tools/data/parquet_values.h"

#include <algorithm>
#include <cstring>

#include "nf/error.h"

namespace nf::parquet {
namespace {

[[noreturn]] void too_short() { fail("a page ends before its values do"); }

std::string_view take(std::string_view& rest, size_t count) {
  if (count > rest.size()) too_short();
  const std::string_view bytes = rest.substr(0, count);
  rest.remove_prefix(count);
  return bytes;
}

uint64_t little_endian(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i > 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[i - 1]);
  return value;
}

uint64_t take_varint(std::string_view& rest) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = static_cast<uint8_t>(take(rest, 1)[0]);
    value |= uint64_t{byte & 0x7Fu} << shift;
    if ((byte & 0x80) == 0) return value;
  }
  fail("a number of more than 64 bits");
}

uint64_t take_zigzag(std::string_view& rest) {
  const uint64_t value = take_varint(rest);
  return (value >> 1) ^ (~(value & 1) + 1);
}

// `width` (at most 56) bits from bit `at`, the lowest first.
uint64_t bits(std::string_view packed, size_t at, int width) {
  uint64_t word = 0;
  const size_t byte = at / 8;
  if (byte + sizeof word <= packed.size())
    std::memcpy(&word, packed.data() + byte, sizeof word);  // a little-endian machine, as the engine needs
  else
    word = little_endian(packed.substr(std::min(byte, packed.size())));
  return (word >> (at % 8)) & ((uint64_t{1} << width) - 1);
}

std::string_view take_plain(std::string_view& rest) {
  return take(rest, static_cast<size_t>(little_endian(take(rest, 4))));
}

size_t checked_length(int64_t length) {
  require(length >= 0 && length <= INT32_MAX, "a value of {} bytes", length);
  return static_cast<size_t>(length);
}

// --- the four ways byte arrays are stored

class PlainReader final : public ByteArrayReader {
 public:
  explicit PlainReader(std::string_view bytes) : rest_(bytes) {}
  std::string_view next() override { return take_plain(rest_); }

 private:
  std::string_view rest_;
};

class DictionaryReader final : public ByteArrayReader {
 public:
  DictionaryReader(std::string_view bytes, const std::vector<std::string_view>& dictionary)
      : dictionary_(dictionary), indices_(bytes.substr(1), static_cast<uint8_t>(bytes[0])) {}

  std::string_view next() override {
    if (run_.count == 0) run_ = indices_.next(INT64_MAX);
    --run_.count;
    require(run_.value < dictionary_.size(), "index {} in a dictionary of {}", run_.value,
            dictionary_.size());
    return dictionary_[run_.value];
  }

 private:
  const std::vector<std::string_view>& dictionary_;
  HybridReader indices_;
  HybridReader::Run run_{0, 0};
};

// The lengths of all values, then their bytes back to back.
class DeltaLengthReader final : public ByteArrayReader {
 public:
  DeltaLengthReader(std::string_view bytes, int64_t count) : lengths_(bytes) {
    require(lengths_.count() == count, "a page of {} values has {} lengths", count, lengths_.count());
    DeltaReader ahead = lengths_;  // read twice instead of kept
    for (int64_t i = 0; i < count; ++i) ahead.next();
    rest_ = bytes.substr(ahead.used());
  }

  std::string_view next() override { return take(rest_, checked_length(lengths_.next())); }

 private:
  DeltaReader lengths_;
  std::string_view rest_;
};

// How much of the value before each begins with, then what follows as DELTA_LENGTH_BYTE_ARRAY.
class DeltaByteArrayReader final : public ByteArrayReader {
 public:
  DeltaByteArrayReader(std::string_view bytes, int64_t count)
      : prefixes_(bytes), suffixes_(after_prefixes(bytes, count), count) {}

  std::string_view next() override {
    const size_t kept = checked_length(prefixes_.next());
    require(kept <= value_.size(), "a value begins with {} bytes of one that has {}", kept, value_.size());
    value_.resize(kept);
    value_ += suffixes_.next();
    return value_;
  }

 private:
  std::string_view after_prefixes(std::string_view bytes, int64_t count) const {
    require(prefixes_.count() == count, "a page of {} values has {} prefixes", count, prefixes_.count());
    DeltaReader ahead = prefixes_;
    for (int64_t i = 0; i < count; ++i) ahead.next();
    return bytes.substr(ahead.used());
  }

  DeltaReader prefixes_;
  DeltaLengthReader suffixes_;
  std::string value_;
};

}  // namespace

HybridReader::HybridReader(std::string_view bytes, int width) : rest_(bytes), width_(width) {
  require(width <= 32, "numbers of {} bits, where 32 are the most", width);
}

HybridReader::Run HybridReader::next(int64_t most) {
  while (repeated_ == 0 && packed_left_ == 0) {
    const uint64_t head = take_varint(rest_);
    require(head >> 1 <= INT32_MAX, "a run of {} numbers", head >> 1);
    const auto count = static_cast<int64_t>(head >> 1);
    if ((head & 1) == 0) {
      repeated_ = count;
      value_ = static_cast<uint32_t>(little_endian(take(rest_, static_cast<size_t>(width_ + 7) / 8)));
    } else {
      // Writers may leave out the padding of the last group.
      const auto wanted = static_cast<size_t>(count * width_);
      packed_ = take(rest_, std::min(wanted, rest_.size()));
      packed_left_ = 8 * count;
      bit_ = 0;
    }
  }
  if (repeated_ > 0) {
    const int64_t count = std::min(most, repeated_);
    repeated_ -= count;
    return {value_, count};
  }
  if (bit_ + static_cast<size_t>(width_) > 8 * packed_.size()) too_short();
  const auto value = static_cast<uint32_t>(bits(packed_, bit_, width_));
  bit_ += static_cast<size_t>(width_);
  --packed_left_;
  return {value, 1};
}

DeltaReader::DeltaReader(std::string_view bytes) : bytes_(bytes) {
  std::string_view rest = bytes;
  const uint64_t block = take_varint(rest);
  miniblocks_ = take_varint(rest);
  const uint64_t count = take_varint(rest);
  value_ = take_zigzag(rest);
  constexpr uint64_t kMost = INT32_MAX;
  require(block > 0 && block <= kMost && miniblocks_ > 0 && block % miniblocks_ == 0 &&
              block / miniblocks_ % 8 == 0 && count <= kMost,
          "impossible delta blocks: {} numbers in {} parts", block, miniblocks_);
  per_miniblock_ = static_cast<int64_t>(block / miniblocks_);
  count_ = static_cast<int64_t>(count);
  miniblock_ = miniblocks_;
  at_ = bytes.size() - rest.size();
}

int64_t DeltaReader::next() {
  if (read_++ == 0) return static_cast<int64_t>(value_);
  if (left_ == 0) begin_miniblock();
  --left_;
  value_ += least_ + bits(packed_, bit_, width_);
  bit_ += static_cast<size_t>(width_);
  return static_cast<int64_t>(value_);
}

void DeltaReader::begin_block() {
  std::string_view rest = bytes_.substr(at_);
  least_ = take_zigzag(rest);
  widths_ = take(rest, miniblocks_);
  miniblock_ = 0;
  at_ = bytes_.size() - rest.size();
}

void DeltaReader::begin_miniblock() {
  if (miniblock_ == miniblocks_) begin_block();
  width_ = static_cast<uint8_t>(widths_[miniblock_++]);
  require(width_ <= 56, "differences of {} bits", width_);
  std::string_view rest = bytes_.substr(at_);
  packed_ = take(rest, static_cast<size_t>(per_miniblock_ / 8 * width_));
  at_ = bytes_.size() - rest.size();
  left_ = per_miniblock_;
  bit_ = 0;
}

std::vector<std::string_view> read_dictionary(std::string_view bytes, int32_t count) {
  require(count >= 0 && static_cast<size_t>(count) <= bytes.size() / 4,
          "{} values in a dictionary of {} bytes", count, bytes.size());
  std::vector<std::string_view> values(static_cast<size_t>(count));
  for (std::string_view& value : values) value = take_plain(bytes);
  return values;
}

std::unique_ptr<ByteArrayReader> read_byte_arrays(std::string_view bytes, int32_t encoding, int64_t count,
                                                  const std::vector<std::string_view>& dictionary) {
  if (count == 0) return std::make_unique<PlainReader>(std::string_view());
  switch (static_cast<Encoding>(encoding)) {
    case Encoding::plain: return std::make_unique<PlainReader>(bytes);
    case Encoding::plain_dictionary:
    case Encoding::rle_dictionary:
      if (bytes.empty()) too_short();
      return std::make_unique<DictionaryReader>(bytes, dictionary);
    case Encoding::delta_length_byte_array: return std::make_unique<DeltaLengthReader>(bytes, count);
    case Encoding::delta_byte_array: return std::make_unique<DeltaByteArrayReader>(bytes, count);
    case Encoding::rle: break;
  }
  fail("strings in the encoding {} are not supported", encoding_name(encoding));
}

}  // namespace nf::parquet
