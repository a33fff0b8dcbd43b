// Reads Thrift's compact protocol, in which Parquet keeps its footer and page headers.
//
//     CompactReader reader(bytes);
//     reader.structure([&](int id, CompactReader::Type type) {
//       if (id == 1) rows = reader.integer(type); else reader.skip(type);
//     });
//
// Source: thrift-compact-protocol.md of the Apache Thrift specification. Throws CompactReader::Short where
// the bytes end too early, so that a caller may come back with more of them, and Error for bytes that are
// wrong.
#pragma once

#include <cstdint>
#include <string_view>

#include "nf/error.h"

namespace nf {

class CompactReader {
 public:
  enum class Type : uint8_t {
    stop = 0,
    yes = 1,
    no = 2,
    byte = 3,
    i16 = 4,
    i32 = 5,
    i64 = 6,
    number = 7,
    binary = 8,
    list = 9,
    set = 10,
    map = 11,
    structure = 12,
    uuid = 13,
  };

  class Short : public Error {
   public:
    Short() : Error("it ends too early") {}
  };

  explicit CompactReader(std::string_view bytes) : rest_(bytes), size_(bytes.size()) {}

  size_t used() const { return size_ - rest_.size(); }

  // Calls field(id, type) for every field of a struct; it must read or skip the value.
  template <typename Field>
  void structure(Field&& field) {
    const Nested nested(*this);
    int id = 0;
    while (true) {
      const uint8_t head = next_byte();
      const auto type = static_cast<Type>(head & 0x0F);
      if (type == Type::stop) return;
      const int delta = head >> 4;
      id = delta != 0 ? id + delta : static_cast<int>(static_cast<int16_t>(zigzag()));
      field(id, type);
    }
  }

  // Calls item(type) for every element.
  template <typename Item>
  void list(Type type, Item&& item) {
    expect(type == Type::list || type == Type::set, "a list");
    const Nested nested(*this);
    const uint8_t head = next_byte();
    uint64_t count = head >> 4;
    if (count == 15) count = varint();
    require(count <= rest_.size(), "a list of {} elements in {} bytes", count, rest_.size());
    for (uint64_t i = 0; i < count; ++i) item(static_cast<Type>(head & 0x0F));
  }

  int64_t integer(Type type);
  int32_t small(Type type);  // an integer that fits 32 bits
  bool boolean(Type type);   // of a field, whose type holds the value
  std::string_view text(Type type);
  void skip(Type type);

 private:
  // Keeps the stack small, whatever the bytes say.
  class Nested {
   public:
    explicit Nested(CompactReader& reader) : reader_(reader) {
      constexpr int kDeepest = 16;
      require(++reader_.depth_ <= kDeepest, "more than {} levels of nesting", kDeepest);
    }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;
    ~Nested() { --reader_.depth_; }

   private:
    CompactReader& reader_;
  };

  static void expect(bool right, std::string_view what) { require(right, "{} is expected", what); }
  uint8_t next_byte();
  uint64_t varint();
  int64_t zigzag();
  std::string_view take(uint64_t count);

  std::string_view rest_;
  size_t size_;
  int depth_ = 0;
};

}  // namespace nf
