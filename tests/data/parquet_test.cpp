#include "tools/data/parquet.h"

#include <doctest/doctest.h>
#include <nf/error.h>

#include <fstream>
#include <iterator>

#include "tests/data/packing.h"
#include "tests/support/folder.h"
#include "tools/data/parquet_thrift.h"
#include "tools/data/parquet_values.h"
#include "tools/data/shuffle.h"

using namespace nf;
using namespace nf::parquet;
namespace fs = std::filesystem;
using namespace std::literals;

namespace {

using Texts = std::vector<std::string>;

Texts read(std::string_view bytes, Encoding encoding, int64_t count, const Texts& dictionary = {}) {
  const std::vector<std::string_view> views(dictionary.begin(), dictionary.end());
  const auto reader = read_byte_arrays(bytes, static_cast<int32_t>(encoding), count, views);
  Texts texts;
  for (int64_t i = 0; i < count; ++i) texts.emplace_back(reader->next());
  return texts;
}

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Everything in the string columns of a file.
Texts read_columns(const std::string& path) {
  Texts texts;
  const ParquetFile file(path);
  for (const Column& column : file.columns())
    if (column.binary && !column.nested)
      file.read_strings(column.name, [&](int64_t, std::string_view text) { texts.emplace_back(text); });
  return texts;
}

fs::path seeds() { return fs::path(NF_TESTS_DIR) / "fuzz/corpus/parquet_fuzz"; }

}  // namespace

TEST_CASE("parquet: the hybrid of runs and bit packing, by the example of the specification") {
  // 0 to 7 in three bits each: one packed group.
  HybridReader packed("\x03\x88\xC6\xFA"sv, 3);
  for (uint32_t i = 0; i < 8; ++i) CHECK(packed.next(100).value == i);
  CHECK_THROWS_AS(packed.next(100), Error);

  HybridReader runs("\x0A\x02\x04\x01"sv, 2);  // five times 2, twice 1
  const auto first = runs.next(3), second = runs.next(3), third = runs.next(3);
  CHECK((first.value == 2 && first.count == 3));
  CHECK((second.value == 2 && second.count == 2));
  CHECK((third.value == 1 && third.count == 2));
  CHECK_THROWS_AS(HybridReader("", 33), Error);
}

TEST_CASE("parquet: delta encoding, by the examples of the specification") {
  // 1 2 3 4 5: one block of 128 in 4 miniblocks, first value 1, all differences 1.
  DeltaReader ones("\x80\x01\x04\x05\x02\x02\x00\x00\x00\x00"sv);
  REQUIRE(ones.count() == 5);
  for (int64_t i = 1; i <= 5; ++i) CHECK(ones.next() == i);
  CHECK(ones.used() == 10);

  // 7 5 3 1 2 3 4 5: least difference -2, the rest in two bits, of a miniblock of 32.
  const std::string block = "\x80\x01\x04\x08\x0E\x03\x02\x00\x00\x00"s + "\xC0\x3F" + std::string(6, '\0');
  DeltaReader mixed(block);
  for (const int64_t value : {7, 5, 3, 1, 2, 3, 4, 5}) CHECK(mixed.next() == value);
  CHECK(mixed.used() == block.size());
  CHECK_THROWS_AS(DeltaReader("\x80\x01\x03\x05\x02"sv), Error);  // three parts of 128
  CHECK_THROWS_AS(DeltaReader("\x80"sv), Error);
}

TEST_CASE("parquet: the encodings of byte arrays") {
  CHECK(read("\x02\0\0\0ab\0\0\0\0\x01\0\0\0c"sv, Encoding::plain, 3) == Texts{"ab", "", "c"});
  CHECK_THROWS_AS(read("\x02\0\0\0a"sv, Encoding::plain, 1), Error);
  CHECK_THROWS_AS(read("\xFF\xFF\xFF\xFF"sv, Encoding::plain, 1), Error);

  CHECK(read("\x01\x04\x01\x02\x00"sv, Encoding::rle_dictionary, 3, {"x", "y"}) == Texts{"y", "y", "x"});
  CHECK_THROWS_WITH_AS(read("\x02\x04\x03"sv, Encoding::rle_dictionary, 1, {"x", "y"}),
                       doctest::Contains("index 3 in a dictionary of 2"), Error);
  CHECK_THROWS_AS(read("", Encoding::rle_dictionary, 1, {"x"}), Error);

  const std::string two_each = "\x80\x01\x04\x02\x04\x00\x00\x00\x00\x00"s;  // 2 2
  CHECK(read(two_each + "abcd", Encoding::delta_length_byte_array, 2) == Texts{"ab", "cd"});
  CHECK_THROWS_AS(read(two_each + "abc", Encoding::delta_length_byte_array, 2), Error);
  CHECK_THROWS_AS(read(two_each + "abcd", Encoding::delta_length_byte_array, 3), Error);

  const std::string none_then_one = "\x80\x01\x04\x02\x00\x02\x00\x00\x00\x00"s;  // 0 1
  CHECK(read(none_then_one + two_each + "abcd", Encoding::delta_byte_array, 2) == Texts{"ab", "acd"});
  CHECK_THROWS_AS(read(two_each + two_each + "abcd", Encoding::delta_byte_array, 2), Error);
  CHECK_THROWS_WITH_AS(read("x", static_cast<Encoding>(9), 1), doctest::Contains("BYTE_STREAM_SPLIT"), Error);
}

TEST_CASE("parquet: a page's claim gets no memory that its bytes cannot fill") {
  std::string out;
  for (const Codec codec : {Codec::none, Codec::snappy, Codec::gzip, Codec::zstd})
    CHECK_THROWS_AS(unpack(static_cast<int32_t>(codec), "\xFF\xFF\xFF\xFF\x03", 0x3FFFFFFF, out), Error);
  CHECK(out.capacity() < (1 << 20));
  for (const size_t size : {size_t{4}, size_t{6}}) {
    CHECK_THROWS_AS(unpack(static_cast<int32_t>(Codec::gzip), gzip("12345"), size, out), Error);
    CHECK_THROWS_AS(unpack(static_cast<int32_t>(Codec::zstd), zstd("12345"), size, out), Error);
  }
  unpack(static_cast<int32_t>(Codec::gzip), gzip("123") + gzip("45"), 5, out);
  CHECK(out == "12345");
  unpack(static_cast<int32_t>(Codec::zstd), zstd("12345"), 5, out);
  CHECK(out == "12345");
  CHECK_THROWS_WITH_AS(unpack(4, "", 0, out), doctest::Contains("Brotli"), Error);
}

TEST_CASE("parquet: metadata that nests without end or claims too much is refused") {
  using Type = CompactReader::Type;
  CHECK_THROWS_WITH_AS(CompactReader(std::string(100, '\x1C')).skip(Type::structure),
                       doctest::Contains("levels of nesting"), Error);
  CHECK_THROWS_AS(CompactReader("\xFC\xFF\xFF\xFF\xFF\x0F"sv).skip(Type::list), Error);
  CHECK_THROWS_AS(CompactReader("\x15"sv).skip(Type::structure), CompactReader::Short);
  CHECK_THROWS_AS(CompactReader(std::string(20, '\xFF')).skip(Type::i64), Error);
}

TEST_CASE("parquet: what is no Parquet file") {
  const Folder folder;
  for (const std::string& bytes :
       {""s, "PAR1"s, "PAR1PAR1"s, std::string(100, 'x'), "PAR1\xFF\xFF\xFF\x7FPAR1"s})
    CHECK_THROWS_AS(ParquetFile(folder.write("a.parquet", bytes)), Error);
  CHECK_THROWS_WITH_AS(ParquetFile(folder.write("a.parquet", "PARE\1\0\0\0\0PARE"s)),
                       doctest::Contains("encrypted"), Error);
}

TEST_CASE("parquet: files that are altered anywhere are read or refused, never worse") {
  const Folder folder;
  int files = 0, refused = 0, tries = 0;
  for (const auto& entry : fs::directory_iterator(seeds())) {
    const std::string bytes = read_file(entry.path());
    if (!bytes.starts_with("PAR1")) continue;
    ++files;
    CHECK_FALSE(read_columns(entry.path().string()).empty());
    for (uint64_t round = 0; round < 300; ++round) {
      std::string altered = bytes;
      const int64_t changes = 1 + random_below(4, 1, round, 0);
      for (int64_t i = 1; i <= changes; ++i) {
        const auto at =
            static_cast<size_t>(random_below(static_cast<int64_t>(bytes.size()), 1, round, 10 * i));
        altered[at] = static_cast<char>(random_below(256, 1, round, 10 * i + 1));
      }
      if (round % 10 == 0) altered.erase(altered.size() / 3, round);
      ++tries;
      try {
        read_columns(folder.write("a.parquet", altered));
      } catch (const Error&) {
        ++refused;
      }
    }
  }
  CHECK(files >= 4);
  CHECK(tries >= 1000);
  CHECK(refused > tries / 10);
}
