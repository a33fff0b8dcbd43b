#include "tools/tracking/protobuf.h"

#include <doctest/doctest.h>

#include <vector>

using namespace nf;
using namespace std::string_literals;

TEST_CASE("protobuf: the bytes of its documentation") {
  CHECK(ProtoMessage().number(1, 150).bytes() == "\x08\x96\x01");
  CHECK(ProtoMessage().number(1, 0).bytes().empty());
  CHECK(ProtoMessage().number(1, -2).bytes() == "\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01");
  CHECK(ProtoMessage().text(2, "testing").bytes() == "\x12\x07testing");
  CHECK(ProtoMessage().message(3, ProtoMessage().number(1, 150)).bytes() == "\x1a\x03\x08\x96\x01");
  CHECK(ProtoMessage().real(1, 1).bytes() == "\x09\0\0\0\0\0\0\xf0\x3f"s);
  CHECK(ProtoMessage().single(2, 1).bytes() == "\x15\0\0\x80\x3f"s);
  CHECK(ProtoMessage().text(200, "").bytes() == "\xc2\x0c\0"s);
}

TEST_CASE("protobuf: what is written is read") {
  const std::string bytes =
      ProtoMessage().number(1, 1'000'000'007).text(16, "abc").single(3, 2).real(4, 3).number(1, -5).bytes();
  CHECK(number_field(bytes, 1) == -5);  // the last one counts
  CHECK(bytes_field(bytes, 16) == "abc");
  CHECK(bytes_field(bytes, 3) == "\0\0\0\x40"s);
  CHECK(!number_field(bytes, 2));
  std::vector<int> fields;
  CHECK(for_each_field(bytes, [&](int field, uint64_t, std::string_view) { fields.push_back(field); }));
  CHECK(fields == std::vector<int>{1, 16, 3, 4, 1});
}

TEST_CASE("protobuf: broken messages have no fields") {
  const std::string whole = ProtoMessage().number(1, 300).text(2, "abc").real(3, 1).bytes();
  const size_t ends[] = {0, 3, 8, whole.size()};  // where fields end
  for (size_t length = 0; length <= whole.size(); ++length)
    CHECK(for_each_field(std::string_view(whole).substr(0, length), [](int, uint64_t, std::string_view) {}) ==
          (std::find(std::begin(ends), std::end(ends), length) != std::end(ends)));
  CHECK(!number_field("\x08"s + std::string(11, '\xff'), 1));  // a varint without end
  CHECK(!bytes_field("\x12\xff\xff\xff\xff\x0f"s, 2));         // longer than the message
  CHECK(!number_field("\x0b"s, 1));                            // a group
  CHECK(!number_field("\0\0"s, 0));                            // no field has the number 0
}
