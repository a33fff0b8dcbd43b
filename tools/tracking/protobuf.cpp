#include "tools/tracking/protobuf.h"

#include <bit>

namespace nf {
namespace {

// How a field's value is stored, the lowest bits of its key.
enum WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void append_varint(std::string& bytes, uint64_t value) {
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  bytes += static_cast<char>(value);
}

void append_key(std::string& bytes, int field, WireType type) {
  append_varint(bytes, static_cast<uint64_t>(field) << 3 | type);
}

// Takes a varint off the front.
std::optional<uint64_t> take_varint(std::string_view& bytes) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes.front());
    bytes.remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  return std::nullopt;
}

}  // namespace

void append_fixed(std::string& bytes, uint64_t value, int count) {
  for (int i = 0; i < count; ++i) bytes += static_cast<char>(value >> (8 * i));
}

uint64_t read_fixed(std::string_view bytes, size_t at, int count) {
  uint64_t value = 0;
  for (int i = 0; i < count; ++i)
    value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes[at + static_cast<size_t>(i)])) << (8 * i);
  return value;
}

ProtoMessage& ProtoMessage::number(int field, int64_t value) {
  if (value == 0) return *this;
  append_key(bytes_, field, kVarint);
  append_varint(bytes_, static_cast<uint64_t>(value));
  return *this;
}

ProtoMessage& ProtoMessage::real(int field, double value) {
  append_key(bytes_, field, kFixed64);
  append_fixed(bytes_, std::bit_cast<uint64_t>(value), 8);
  return *this;
}

ProtoMessage& ProtoMessage::single(int field, float value) {
  append_key(bytes_, field, kFixed32);
  append_fixed(bytes_, std::bit_cast<uint32_t>(value), 4);
  return *this;
}

ProtoMessage& ProtoMessage::text(int field, std::string_view value) {
  append_key(bytes_, field, kBytes);
  append_varint(bytes_, value.size());
  bytes_ += value;
  return *this;
}

bool for_each_field(std::string_view message,
                    const std::function<void(int field, uint64_t number, std::string_view bytes)>& visit) {
  while (!message.empty()) {
    const std::optional<uint64_t> key = take_varint(message);
    if (!key || *key >> 3 == 0 || *key >> 3 >= (1U << 29)) return false;
    const auto field = static_cast<int>(*key >> 3);
    size_t length = 0;
    switch (*key & 7) {
      case kVarint:
        if (const std::optional<uint64_t> value = take_varint(message))
          visit(field, *value, {});
        else
          return false;
        continue;
      case kFixed64: length = 8; break;
      case kFixed32: length = 4; break;
      case kBytes:
        if (const std::optional<uint64_t> size = take_varint(message); size && *size <= message.size())
          length = *size;
        else
          return false;
        break;
      default: return false;
    }
    if (length > message.size()) return false;
    const std::string_view value = message.substr(0, length);
    visit(field, (*key & 7) == kBytes ? 0 : read_fixed(value, 0, static_cast<int>(length)), value);
    message.remove_prefix(length);
  }
  return true;
}

std::optional<int64_t> number_field(std::string_view message, int field) {
  std::optional<int64_t> found;
  const bool whole = for_each_field(message, [&](int f, uint64_t number, std::string_view) {
    if (f == field) found = static_cast<int64_t>(number);
  });
  return whole ? found : std::nullopt;
}

std::optional<std::string_view> bytes_field(std::string_view message, int field) {
  std::optional<std::string_view> found;
  const bool whole = for_each_field(message, [&](int f, uint64_t, std::string_view bytes) {
    if (f == field) found = bytes;
  });
  return whole ? found : std::nullopt;
}

}  // namespace nf
