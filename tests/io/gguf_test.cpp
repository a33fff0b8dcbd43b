#include "nf/gguf.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "nf/error.h"
#include "tests/support/folder.h"

using namespace nf;
namespace fs = std::filesystem;

namespace {

const std::vector<float> kFloats = {1, 2, 3, 4, 5, 6};
const std::vector<uint16_t> kHalves = {7, 8, 9};

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

// A key of every type, and arrays of them.
GgufWriter sample() {
  GgufWriter writer;
  writer.set("general.architecture", std::string("llama"));
  writer.set("u8", uint8_t{200});
  writer.set("i8", int8_t{-3});
  writer.set("u16", uint16_t{60000});
  writer.set("i16", int16_t{-300});
  writer.set("u32", uint32_t{4'000'000'000});
  writer.set("i32", int32_t{-70000});
  writer.set("f32", 1.5F);
  writer.set("yes", true);
  writer.set("u64", uint64_t{1} << 63);
  writer.set("i64", int64_t{-1} << 40);
  writer.set("f64", 0.1);
  writer.set("tokens", GgufArray(std::vector<std::string>{"a", "", "Ġthe"}));
  writer.set("types", GgufArray(std::vector<int32_t>{1, 1, 3}));
  writer.set("flags", GgufArray(std::vector<bool>{true, false, true}));
  writer.add({"matrix", DType::f32, {2, 3}, bytes_of(kFloats)});
  writer.add({"halves", DType::bf16, {3}, bytes_of(kHalves)});
  writer.add({"last", DType::f32, {6}, bytes_of(kFloats)});
  return writer;
}

template <typename T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void append_text(std::string& bytes, std::string_view text) {
  append<uint64_t>(bytes, text.size());
  bytes += text;
}

// The beginning of a file with so many tensors and keys.
std::string head(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
  std::string bytes = "GGUF";
  append(bytes, version);
  append(bytes, tensors);
  append(bytes, keys);
  return bytes;
}

// One tensor of one axis, its entry padded as the data must begin.
std::string one_tensor(uint64_t size, uint32_t type, uint64_t offset, size_t data) {
  std::string bytes = head(1, 0);
  append_text(bytes, "x");
  append(bytes, uint32_t{1});
  append(bytes, size);
  append(bytes, type);
  append(bytes, offset);
  bytes.resize((bytes.size() + 31) / 32 * 32);
  return bytes + std::string(data, '\1');
}

// The message that opening such a file gives; empty when it opens.
std::string refusal(const std::string& bytes) {
  const Folder folder;
  try {
    GgufFile::open(folder.write("x.gguf", bytes));
  } catch (const Error& error) {
    CHECK(std::string(error.what()).find("x.gguf") != std::string::npos);
    return error.what();
  }
  return "";
}

void check_refused(const std::string& bytes, const char* part) {
  const std::string message = refusal(bytes);
  CHECK_MESSAGE(message.find(part) != std::string::npos, part << " is not in: " << message);
}

}  // namespace

TEST_CASE("gguf: what is written is read back") {
  const Folder folder;
  const fs::path path = folder.path / "x.gguf";
  const WrittenFile written = sample().write(path);
  CHECK(written.bytes == static_cast<int64_t>(fs::file_size(path)));
  const GgufFile file = GgufFile::open(path);
  CHECK(file.metadata().size() == 15);
  CHECK(file.get<std::string>("general.architecture") == "llama");
  CHECK(file.get<uint8_t>("u8") == 200);
  CHECK(file.get<int8_t>("i8") == -3);
  CHECK(file.get<uint16_t>("u16") == 60000);
  CHECK(file.get<int16_t>("i16") == -300);
  CHECK(file.get<uint32_t>("u32") == 4'000'000'000);
  CHECK(file.get<int32_t>("i32") == -70000);
  CHECK(file.get<float>("f32") == 1.5F);
  CHECK(file.get<bool>("yes"));
  CHECK(file.get<uint64_t>("u64") == uint64_t{1} << 63);
  CHECK(file.get<int64_t>("i64") == int64_t{-1} << 40);
  CHECK(file.get<double>("f64") == 0.1);
  CHECK(file.list<std::string>("tokens") == std::vector<std::string>{"a", "", "Ġthe"});
  CHECK(file.list<int32_t>("types") == std::vector<int32_t>{1, 1, 3});
  CHECK(file.list<bool>("flags") == std::vector<bool>{true, false, true});
  CHECK_THROWS_WITH_AS(file.get<float>("u32"), doctest::Contains("'u32' has another type"), Error);
  CHECK_THROWS_WITH_AS(file.list<float>("types"), doctest::Contains("'types' has another type"), Error);
  CHECK_THROWS_WITH_AS(file.get<float>("nothing"), doctest::Contains("no key 'nothing'"), Error);

  REQUIRE(file.tensors().size() == 3);
  const NamedTensor& matrix = file.tensors()[0];
  CHECK(matrix.shape == Shape{2, 3});
  CHECK(std::ranges::equal(matrix.bytes, bytes_of(kFloats)));
  REQUIRE(file.find("halves") != nullptr);
  CHECK(file.find("halves")->dtype == DType::bf16);
  CHECK(std::ranges::equal(file.find("last")->bytes, bytes_of(kFloats)));
  CHECK(file.find("other") == nullptr);
  for (const NamedTensor& tensor : file.tensors())
    CHECK(reinterpret_cast<uintptr_t>(tensor.bytes.data()) % 32 == 0);
}

// Byte by byte as the format's description says it.
TEST_CASE("gguf: the bytes of a small file") {
  std::string expected = head(1, 1);
  append_text(expected, "n");
  append(expected, uint32_t{9});  // an array
  append(expected, uint32_t{4});  // of u32
  append(expected, uint64_t{2});
  append(expected, uint32_t{5});
  append(expected, uint32_t{6});
  append_text(expected, "w");
  append(expected, uint32_t{2});
  append(expected, uint64_t{3});  // innermost first
  append(expected, uint64_t{2});
  append(expected, uint32_t{0});  // F32
  append(expected, uint64_t{0});
  expected.resize((expected.size() + 31) / 32 * 32);
  expected.append(reinterpret_cast<const char*>(kFloats.data()), kFloats.size() * sizeof(float));
  expected.resize((expected.size() + 31) / 32 * 32);

  GgufWriter writer;
  writer.set("n", GgufArray(std::vector<uint32_t>{5, 6}));
  writer.add({"w", DType::f32, {2, 3}, bytes_of(kFloats)});
  const Folder folder;
  writer.write(folder.path / "x.gguf");
  CHECK(read_file(folder.path / "x.gguf") == expected);
}

TEST_CASE("gguf: a file that lies about itself is refused") {
  check_refused("", "the magic word takes 4 bytes, only 0 follow");
  check_refused("GGML" + head(0, 0).substr(4), "does not begin with \"GGUF\"");
  check_refused(head(0, 0, 2), "version 2, only version 3");
  check_refused(head(1, 0).substr(0, 12), "cut short");
  check_refused(head(uint64_t{1} << 60, 0), "tensors do not fit");
  check_refused(head(0, uint64_t{1} << 60), "keys do not fit");
  const auto key = [](uint32_t type, std::string_view value) {
    std::string bytes = head(0, 1);
    append_text(bytes, "key");
    append(bytes, type);
    return bytes + std::string(value);
  };
  check_refused(key(13, "12345678"), "key 'key' is of the unknown type 13");
  check_refused(key(7, "\2"), "bool of 2");
  check_refused(key(4, "abc"), "takes 4 bytes, only 3 follow");
  check_refused(key(9, std::string("\x09\0\0\0\1\0\0\0\0\0\0\0", 12)), "array of arrays");
  check_refused(key(9, std::string("\x04\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", 12)), "do not fit");
  check_refused(key(9, std::string("\x0d\0\0\0\1\0\0\0\0\0\0\0", 12)), "unknown type 13");
  std::string twice = head(0, 2);
  for (int i = 0; i < 2; ++i) {
    append_text(twice, "key");
    append(twice, uint32_t{7});
    twice += '\1';
  }
  check_refused(twice, "key 'key' is given twice");
  std::string odd = head(0, 1);
  append_text(odd, "general.alignment");
  append(odd, uint32_t{4});
  append(odd, uint32_t{24});
  check_refused(odd, "power of two");

  CHECK(refusal(one_tensor(2, 0, 0, 8)).empty());
  check_refused(one_tensor(2, 0, 0, 7), "ends at byte 8 of the data, which has 7");
  check_refused(one_tensor(2, 2, 0, 8), "ggml's type 2; only F32");
  check_refused(one_tensor(2, 0, 32, 40), "begins at byte 32 of the data, expected 0");
  check_refused(one_tensor(uint64_t{1} << 63, 0, 0, 8), "a size is");
  check_refused(one_tensor(uint64_t{1} << 61, 0, 0, 8), "more than a file can hold");
}

TEST_CASE("gguf: the writer refuses what could not be read") {
  GgufWriter writer;
  writer.set("key", true);
  CHECK_THROWS_WITH_AS(writer.set("key", true), doctest::Contains("set twice"), Error);
  CHECK_THROWS_WITH_AS(writer.add({"x", DType::f32, {5}, bytes_of(kFloats)}),
                       doctest::Contains("24 bytes, f32 [5] needs 20"), Error);
  CHECK_THROWS_WITH_AS(writer.add({"x", DType::u8, {24}, bytes_of(kFloats)}),
                       doctest::Contains("no tensors of u8"), Error);
  CHECK_THROWS_WITH_AS(writer.add({std::string(64, 'x'), DType::f32, {6}, bytes_of(kFloats)}),
                       doctest::Contains("1 to 63 bytes"), Error);
  CHECK_THROWS_WITH_AS(writer.add({"x", DType::f32, {1, 1, 1, 1, 6}, bytes_of(kFloats)}),
                       doctest::Contains("5 axes"), Error);
  writer.add({"x", DType::f32, {6}, bytes_of(kFloats)});
  CHECK_THROWS_WITH_AS(writer.add({"x", DType::f32, {6}, bytes_of(kFloats)}),
                       doctest::Contains("given twice"), Error);
}

TEST_CASE("gguf: flipped bits and cuts give an error or a valid read, never a crash") {
  const Folder folder;
  sample().write(folder.path / "x.gguf");
  const std::string original = read_file(folder.path / "x.gguf");
  std::mt19937 random(7);
  const auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  int refused = 0, read = 0;
  for (int round = 0; round < 800; ++round) {
    std::string bytes = original;
    for (size_t i = below(3) + 1; i > 0; --i) {
      switch (below(3)) {
        case 0: bytes[below(bytes.size())] ^= static_cast<char>(1U << below(8)); break;
        case 1: bytes.resize(1 + below(bytes.size())); break;
        default: bytes.insert(below(bytes.size()), 1, static_cast<char>(below(256)));
      }
    }
    try {
      const GgufFile file = GgufFile::open(folder.write("mutant.gguf", bytes));
      for (const NamedTensor& tensor : file.tensors())  // a sanitizer sees each access
        CHECK(std::ranges::count(tensor.bytes, std::byte{255}) <= std::ssize(tensor.bytes));
      ++read;
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(refused + read == 800);
  CHECK(refused > 400);  // the edits do reach what is checked
}
