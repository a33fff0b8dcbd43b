#include "nf/safetensors.h"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "nf/error.h"
#include "tests/support/folder.h"

using namespace nf;
namespace fs = std::filesystem;

namespace {

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

// A file as bytes: the length, the header, the data.
std::string file_of(std::string_view header, std::string_view data) {
  const uint64_t length = header.size();
  std::string out(reinterpret_cast<const char*>(&length), sizeof length);
  return out + std::string(header) + std::string(data);
}

// The message that opening such a file gives; empty when it opens.
std::string refusal(const std::string& bytes) {
  const Folder folder;
  folder.write("x.safetensors", bytes);
  try {
    SafetensorsFile::open(folder.path / "x.safetensors");
  } catch (const Error& error) {
    const std::string what = error.what();
    CHECK(what.find("x.safetensors") != std::string::npos);
    return what;
  }
  return "";
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// Every byte of every tensor, so that a sanitizer sees each access.
uint64_t sum(const SafetensorsFile& file) {
  uint64_t total = 0;
  for (const NamedTensor& tensor : file.tensors())
    for (const std::byte byte : tensor.bytes) total += static_cast<uint64_t>(byte);
  return total;
}

const std::vector<float> kFloats = {1, 2, 3, 4, 5, 6};
const std::vector<uint16_t> kHalves = {7, 8, 9};
const std::vector<double> kDoubles = {0.5};
const std::vector<uint8_t> kBytes = {1, 0, 1};

SafetensorsWriter sample() {
  SafetensorsWriter writer(Metadata{{"format", "pt"}, {"note", "ä \"quoted\"\n"}});
  writer.add({"halves", DType::bf16, {3}, bytes_of(kHalves)});
  writer.add({"b.floats", DType::f32, {2, 3}, bytes_of(kFloats)});
  writer.add({"a.floats", DType::f32, {6}, bytes_of(kFloats)});
  writer.add({"double", DType::f64, {}, bytes_of(kDoubles)});
  writer.add({"flags", DType::boolean, {3}, bytes_of(kBytes)});
  writer.add({"none", DType::i64, {0, 5}, {}});
  return writer;
}

}  // namespace

TEST_CASE("safetensors: what is written is read back, aligned, in a stable order") {
  const Folder folder;
  const fs::path path = folder.path / "x.safetensors";
  const WrittenFile written = sample().write(path);
  CHECK(folder.names().size() == 1);
  CHECK(static_cast<uint64_t>(written.bytes) == fs::file_size(path));
  CHECK(written.hash == hash_file(path));

  const SafetensorsFile file = SafetensorsFile::open(path);
  std::vector<std::string> names;
  for (const NamedTensor& tensor : file.tensors()) {
    names.push_back(tensor.name);
    CHECK(reinterpret_cast<uintptr_t>(tensor.bytes.data()) % static_cast<uintptr_t>(size_of(tensor.dtype)) ==
          0);
  }
  CHECK(names == std::vector<std::string>{"double", "none", "b.floats", "a.floats", "halves", "flags"});
  const NamedTensor& floats = file.at("b.floats");
  CHECK(floats.dtype == DType::f32);
  CHECK(floats.shape == Shape{2, 3});
  CHECK(std::memcmp(floats.bytes.data(), kFloats.data(), 24) == 0);
  CHECK(file.at("double").shape == Shape{});
  CHECK(file.at("none").shape == Shape{0, 5});
  CHECK(file.at("none").bytes.empty());
  CHECK(file.metadata() == Metadata{{"format", "pt"}, {"note", "ä \"quoted\"\n"}});
  CHECK(file.find("b.float") == nullptr);
  CHECK_THROWS_WITH_AS(file.at("b.float"), doctest::Contains("no tensor 'b.float'"), Error);
}

TEST_CASE("safetensors: spans live as long as a copy of the file object") {
  const Folder folder;
  sample().write(folder.path / "x.safetensors");
  SafetensorsFile copy;
  std::span<const std::byte> bytes;
  {
    const SafetensorsFile file = SafetensorsFile::open(folder.path / "x.safetensors");
    bytes = file.at("halves").bytes;
    copy = file;
  }
  CHECK(std::memcmp(bytes.data(), kHalves.data(), 6) == 0);
}

TEST_CASE("safetensors: every dtype has its name") {
  const std::pair<DType, const char*> names[] = {
      {DType::f64, "F64"}, {DType::f32, "F32"}, {DType::bf16, "BF16"}, {DType::f16, "F16"},
      {DType::i64, "I64"}, {DType::i32, "I32"}, {DType::u8, "U8"},     {DType::boolean, "BOOL"}};
  for (const auto& [dtype, text] : names) {
    CHECK(safetensors_name(dtype) == text);
    CHECK(parse_safetensors_dtype(text) == dtype);
  }
  CHECK_THROWS_WITH_AS(parse_safetensors_dtype("F8_E4M3"), doctest::Contains("'F8_E4M3' is not supported"),
                       Error);
}

TEST_CASE("safetensors: a file that lies about itself is refused with what was expected") {
  const auto tensor = [](std::string_view fields) { return fmt::format(R"({{"w": {{{}}}}})", fields); };
  const std::string good = tensor(R"("dtype": "F32", "shape": [2], "data_offsets": [0, 8])");
  const std::string data = "12345678";
  CHECK(refusal(file_of(good, data)) == "");
  CHECK(contains(refusal(""), "0 bytes"));
  CHECK(contains(refusal("1234567"), "7 bytes"));
  CHECK(contains(refusal(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10)), "at most 104857600"));
  CHECK(contains(refusal(file_of(good, data).substr(0, 40)), "the file is cut short"));
  CHECK(contains(refusal(file_of(good, "1234567")),
                 "tensor 'w': data_offsets [0, 8] do not lie in the 7 bytes"));
  CHECK(contains(refusal(file_of(good, data + "9")), "9 bytes of data, the tensors cover 8"));
  CHECK(contains(refusal(file_of(" " + good, data)), "begin with '{'"));
  CHECK(contains(refusal(file_of("{\"w\": ", data)), "not valid JSON"));
  CHECK(contains(refusal(file_of("[]", "")), "begin with '{'"));
  CHECK(contains(refusal(file_of(R"({"w": 1})", "")), "dtype, shape and data_offsets"));
  const auto bad = [&](std::string_view fields) { return refusal(file_of(tensor(fields), data)); };
  CHECK(contains(bad(R"("dtype": "F32", "shape": [3], "data_offsets": [0, 8])"),
                 "span 8 bytes, f32 [3] needs 12"));
  CHECK(contains(bad(R"("dtype": "F33", "shape": [2], "data_offsets": [0, 8])"),
                 "dtype 'F33' is not supported"));
  CHECK(contains(bad(R"("dtype": 1, "shape": [2], "data_offsets": [0, 8])"), "'dtype' must be a string"));
  CHECK(contains(bad(R"("dtype": "F32", "shape": [-2], "data_offsets": [0, 8])"), "whole numbers"));
  CHECK(contains(bad(R"("dtype": "F32", "shape": [2.0], "data_offsets": [0, 8])"), "whole numbers"));
  CHECK(contains(bad(R"("dtype": "F32", "shape": 2, "data_offsets": [0, 8])"), "a list"));
  CHECK(contains(bad(R"("dtype": "U8", "shape": [1,1,1,1,1,1,1,1,8], "data_offsets": [0, 8])"), "at most 8"));
  CHECK(contains(bad(R"("dtype": "F32", "shape": [2], "data_offsets": [8, 0])"), "do not lie"));
  CHECK(contains(bad(R"("dtype": "F32", "shape": [2], "data_offsets": [0])"), "two whole numbers"));
  CHECK(contains(bad(R"("dtype": "F32", "shape": [2], "data_offsets": [0, 18446744073709551615])"),
                 "do not lie"));
  // 2^62 elements of 4 bytes wrap around to 0 in 64 bits
  CHECK(contains(bad(R"("dtype": "F32", "shape": [4611686018427387904], "data_offsets": [0, 0])"),
                 "more than a file"));
  CHECK(contains(bad(R"("dtype": "F32", "shape": [2], "data_offsets": [0, 8], "x": 1)"), "exactly the keys"));
  CHECK(contains(refusal(file_of(R"({"__metadata__": {"a": 1}})", "")), "must be a string"));
  CHECK(contains(refusal(file_of(R"({"__metadata__": []})", "")), "an object of strings"));
}

TEST_CASE("safetensors: overlaps, holes and duplicates") {
  const auto two = [](std::string_view name, int a, int b, int c, int d) {
    return file_of(fmt::format(R"({{"a": {{"dtype": "U8", "shape": [{}], "data_offsets": [{}, {}]}},
                                   "{}": {{"dtype": "U8", "shape": [{}], "data_offsets": [{}, {}]}}}})",
                               b - a, a, b, name, d - c, c, d),
                   "12345678");
  };
  CHECK(refusal(two("b", 0, 4, 4, 8)) == "");
  CHECK(refusal(two("b", 4, 8, 0, 4)) == "");
  CHECK(contains(refusal(two("b", 0, 5, 4, 8)), "tensor 'b' begins at byte 4 of the data, expected 5"));
  CHECK(contains(refusal(two("b", 0, 3, 4, 8)), "a hole"));
  CHECK(contains(refusal(two("b", 0, 8, 0, 8)), "overlap"));
  CHECK(contains(refusal(two("a", 0, 4, 4, 8)), "key 'a' is given twice"));
}

TEST_CASE("safetensors: deep or endless nesting ends in an error") {
  CHECK(contains(refusal(file_of("{\"w\": " + std::string(100000, '['), "")), "nested deeper"));
}

TEST_CASE("safetensors: a folder, pipe or missing file") {
  const Folder folder;
  CHECK_THROWS_WITH_AS(SafetensorsFile::open(folder.path / "no.safetensors"),
                       doctest::Contains("cannot open"), Error);
  CHECK_THROWS_WITH_AS(SafetensorsFile::open(folder.path), doctest::Contains("neither model.safetensors"),
                       Error);
  CHECK_THROWS_WITH_AS(SafetensorsFile::open("/dev/null"), doctest::Contains("not a regular file"), Error);
}

TEST_CASE("safetensors: shards by their index") {
  const Folder folder;
  const std::vector<float> one = {1}, two = {2};
  SafetensorsWriter first(Metadata{{"part", "1"}}), second;
  first.add({"a", DType::f32, {1}, bytes_of(one)});
  second.add({"b", DType::f32, {1}, bytes_of(two)});
  first.write(folder.path / "s1.safetensors");
  second.write(folder.path / "s2.safetensors");
  const auto with = [&](std::string_view map) {
    folder.write("model.safetensors.index.json",
                 fmt::format(R"({{"metadata": {{"total_size": 8}}, "weight_map": {}}})", map));
    return SafetensorsFile::open(folder.path);
  };
  const SafetensorsFile file = with(R"({"b": "s2.safetensors", "a": "s1.safetensors"})");
  REQUIRE(file.tensors().size() == 2);
  CHECK(file.tensors()[0].name == "a");
  CHECK(std::memcmp(file.at("b").bytes.data(), two.data(), 4) == 0);
  CHECK(file.metadata().at("part") == "1");
  CHECK_THROWS_WITH_AS(with(R"({"a": "s1.safetensors", "c": "s1.safetensors"})"),
                       doctest::Contains("'c' is not in"), Error);
  CHECK_THROWS_WITH_AS(with(R"({"c": "s2.safetensors"})"),
                       doctest::Contains("'b' of s2.safetensors is not listed"), Error);
  CHECK_THROWS_WITH_AS(with(R"({"a": "../s1.safetensors"})"), doctest::Contains("plain file name"), Error);
  CHECK_THROWS_WITH_AS(with(R"({"a": 1})"), doctest::Contains("must be a string"), Error);
  CHECK_THROWS_WITH_AS(with(R"([])"), doctest::Contains("weight_map"), Error);
  CHECK_THROWS_WITH_AS(with(R"({"a": "s3.safetensors"})"), doctest::Contains("cannot open"), Error);
}

TEST_CASE("safetensors: a model beyond the limit is written in shards that hold together") {
  const Folder folder;
  CHECK(sample().write_model(folder.path).size() == 1);
  CHECK(folder.names() == std::vector<std::string>{"model.safetensors"});
  const SafetensorsFile whole = SafetensorsFile::open(folder.path);

  const Folder cut;
  const auto written = sample().write_model(cut.path, 30);  // 6 + 24 bytes, then 24, then the rest
  std::vector<std::string> names;
  for (const auto& [name, file] : written) {
    names.push_back(name);
    CHECK(hash_file(cut.path / name) == file.hash);
  }
  CHECK(names ==
        std::vector<std::string>{"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                 "model-00003-of-00003.safetensors", "model.safetensors.index.json"});
  CHECK(contains(read_file(cut.path / names[3]), "\"total_size\": 65"));
  const SafetensorsFile shards = SafetensorsFile::open(cut.path);
  CHECK(shards.tensors().size() == whole.tensors().size());
  for (const NamedTensor& tensor : whole.tensors()) {
    CHECK(shards.at(tensor.name).shape == tensor.shape);
    CHECK(std::ranges::equal(shards.at(tensor.name).bytes, tensor.bytes));
  }
  CHECK(sample().write_model(cut.path, 1).size() ==
        7);  // a tensor that is larger than the limit is one shard
}

TEST_CASE("safetensors: the writer refuses what it could not read back") {
  SafetensorsWriter writer;
  writer.add({"a", DType::f32, {6}, bytes_of(kFloats)});
  CHECK_THROWS_WITH_AS(writer.add({"a", DType::f32, {6}, bytes_of(kFloats)}),
                       doctest::Contains("given twice"), Error);
  CHECK_THROWS_WITH_AS(writer.add({"b", DType::f32, {5}, bytes_of(kFloats)}), doctest::Contains("needs 20"),
                       Error);
  CHECK_THROWS_WITH_AS(writer.add({"b", DType::f32, {-6}, bytes_of(kFloats)}), doctest::Contains("needs"),
                       Error);
  CHECK_THROWS_WITH_AS(writer.add({"__metadata__", DType::f32, {6}, bytes_of(kFloats)}),
                       doctest::Contains("reserved"), Error);
  const Folder folder;
  SafetensorsWriter latin;
  latin.add({"\xe4", DType::f32, {6}, bytes_of(kFloats)});
  CHECK_THROWS_WITH_AS(latin.write(folder.path / "x"), doctest::Contains("UTF-8"), Error);
  CHECK(folder.names().size() == 0);
}

TEST_CASE("safetensors: a write that fails leaves the old file and nothing else") {
  const Folder folder;
  const fs::path path = folder.path / "x.safetensors";
  sample().write(path);
  const uint64_t before = hash_file(path);
  SafetensorsWriter large;
  const std::vector<float> many(100'000, 1.0F);
  large.add({"many", DType::f32, {100'000}, bytes_of(many)});

  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &limit) == 0);
  const rlimit small{.rlim_cur = 50'000, .rlim_max = limit.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  std::string message;
  try {
    large.write(path);
  } catch (const Error& error) {
    message = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);

  CHECK(contains(message, "x.safetensors: cannot write: File too large"));
  CHECK(hash_file(path) == before);
  CHECK(folder.names().size() == 1);
  CHECK_THROWS_WITH_AS(large.write(folder.path / "none/x"), doctest::Contains("cannot create"), Error);
}

TEST_CASE("safetensors: flipped bits and cuts give an error or a valid read, never a crash") {
  const Folder folder;
  const fs::path path = folder.path / "x.safetensors";
  sample().write(path);
  const std::string original = read_file(path);
  const fs::path mutant = folder.path / "mutant.safetensors";
  std::mt19937 random(7);
  const auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  int refused = 0, read = 0;
  for (int round = 0; round < 800; ++round) {
    std::string bytes = original;
    const size_t edits = 1 + below(3);
    for (size_t i = 0; i < edits; ++i) {
      const size_t header = bytes.size() > 40 ? bytes.size() - 40 : bytes.size();  // mostly where meaning is
      switch (below(4)) {
        case 0: bytes[below(header)] ^= static_cast<char>(1U << below(8)); break;
        case 1: bytes[below(header)] = static_cast<char>("0123456789,:[]{}\" -"[below(19)]); break;
        case 2: bytes.resize(1 + below(bytes.size())); break;
        default: bytes.insert(below(header), 1, static_cast<char>(below(256)));
      }
    }
    folder.write("mutant.safetensors", bytes);
    try {
      sum(SafetensorsFile::open(mutant));
      ++read;
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(refused + read == 800);
  CHECK(refused > 400);  // the edits do reach what is checked
}
