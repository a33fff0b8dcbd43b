#include "tools/data/parquet_thrift.h"

#include <limits>

namespace nf {

std::string_view CompactReader::take(uint64_t count) {
  if (count > rest_.size()) throw Short();
  const std::string_view bytes = rest_.substr(0, count);
  rest_.remove_prefix(count);
  return bytes;
}

uint8_t CompactReader::next_byte() { return static_cast<uint8_t>(take(1)[0]); }

uint64_t CompactReader::varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const uint8_t byte = next_byte();
    value |= uint64_t{byte & 0x7Fu} << shift;
    if ((byte & 0x80) == 0) return value;
  }
  fail("a number of more than 64 bits");
}

int64_t CompactReader::zigzag() {
  const uint64_t value = varint();
  return static_cast<int64_t>((value >> 1) ^ (~(value & 1) + 1));
}

int64_t CompactReader::integer(Type type) {
  if (type == Type::byte) return static_cast<int8_t>(next_byte());
  expect(type == Type::i16 || type == Type::i32 || type == Type::i64, "a whole number");
  return zigzag();
}

int32_t CompactReader::small(Type type) {
  const int64_t value = integer(type);
  expect(value >= std::numeric_limits<int32_t>::min() && value <= std::numeric_limits<int32_t>::max(),
         "a number of 32 bits");
  return static_cast<int32_t>(value);
}

bool CompactReader::boolean(Type type) {
  expect(type == Type::yes || type == Type::no, "true or false");
  return type == Type::yes;
}

std::string_view CompactReader::text(Type type) {
  expect(type == Type::binary, "a string");
  return take(varint());
}

void CompactReader::skip(Type type) {
  switch (type) {
    case Type::yes:
    case Type::no: return;
    case Type::byte: take(1); return;
    case Type::i16:
    case Type::i32:
    case Type::i64: varint(); return;
    case Type::number: take(8); return;
    case Type::uuid: take(16); return;
    case Type::binary: take(varint()); return;
    case Type::structure: structure([&](int, Type inner) { skip(inner); }); return;
    case Type::list:
    case Type::set:
      list(type, [&](Type inner) {
        if (inner == Type::yes || inner == Type::no)
          take(1);  // in a list, a byte of its own
        else
          skip(inner);
      });
      return;
    case Type::map: {
      const Nested nested(*this);
      const uint64_t count = varint();
      if (count == 0) return;
      require(count <= rest_.size(), "a map of {} entries in {} bytes", count, rest_.size());
      const uint8_t types = next_byte();
      for (uint64_t i = 0; i < count; ++i)
        for (const int half : {types >> 4, types & 0x0F}) {
          const auto inner = static_cast<Type>(half);
          if (inner == Type::yes || inner == Type::no)
            take(1);
          else
            skip(inner);
        }
      return;
    }
    case Type::stop: break;
  }
  fail("there is no type {}", static_cast<int>(type));
}

}  // namespace nf
