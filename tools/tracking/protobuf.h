// Protocol Buffers' wire format (protobuf.dev/programming-guides/encoding), as much as the logs of trackers
// need: a message is fields, each with its number.
//
//     ProtoMessage event;
//     event.number(2, step).message(5, ProtoMessage().text(1, "loss").single(2, 1.5F));
//     file.append(event.bytes());
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace nf {

// Numbers in these files are little-endian.
void append_fixed(std::string& bytes, uint64_t value, int count);  // its lowest `count` bytes
uint64_t read_fixed(std::string_view bytes, size_t at, int count);

// The encoder. Fields appear in the order of the calls.
class ProtoMessage {
 public:
  ProtoMessage& number(int field, int64_t value);  // int32, int64, enum, bool; 0 is what a missing one is
  ProtoMessage& real(int field, double value);     // double
  ProtoMessage& single(int field, float value);    // float
  ProtoMessage& text(int field, std::string_view value);  // string, bytes
  ProtoMessage& message(int field, const ProtoMessage& value) { return text(field, value.bytes_); }

  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// The decoder of one level: calls visit(field, number, bytes) for every field in turn; a number for varints
// and fixed sizes, bytes for the rest. False when the text is not in this format; visit may have been called.
bool for_each_field(std::string_view message,
                    const std::function<void(int field, uint64_t number, std::string_view bytes)>& visit);

// The last field of that number, as a number or as bytes; none when it is missing or the message is broken.
std::optional<int64_t> number_field(std::string_view message, int field);
std::optional<std::string_view> bytes_field(std::string_view message, int field);

}  // namespace nf
