#include "tools/data/byte_stream.h"

#include <doctest/doctest.h>
#include <nf/error.h>

#include <vector>

#include "tests/data/packing.h"
#include "tests/support/folder.h"

using namespace nf;

namespace {

std::string read_all(const std::string& file, size_t step) {
  const auto stream = open_stream(file);
  std::string all;
  std::vector<char> block(step);
  while (const size_t count = stream->read(block)) all.append(block.data(), count);
  CHECK(stream->read(block) == 0);
  return all;
}

// Compressible and longer than any block inside.
std::string long_text() {
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += "line " + std::to_string(i * 7919 % 10007) + "\n";
  return text;
}

}  // namespace

TEST_CASE("byte stream: plain, gzip and zstd give the same bytes, whatever the steps") {
  const Folder folder;
  for (const std::string& text : {std::string(), std::string("short"), long_text()}) {
    const std::string plain = folder.write("a.txt", text), gz = folder.write("a.txt.gz", gzip(text)),
                      zst = folder.write("a.txt.zst", zstd(text));
    for (const size_t step : {size_t{1000}, size_t{1} << 16, size_t{10} << 20}) {
      CHECK(read_all(plain, step) == text);
      CHECK(read_all(gz, step) == text);
      CHECK(read_all(zst, step) == text);
    }
  }
}

TEST_CASE("byte stream: parts that stand back to back are one text") {
  const Folder folder;
  CHECK(read_all(folder.write("a.gz", gzip("one ") + gzip("") + gzip("two")), 3) == "one two");
  CHECK(read_all(folder.write("a.zst", zstd("one ") + zstd("") + zstd("two")), 3) == "one two");
}

TEST_CASE("byte stream: a packed file that is cut short or altered is refused by name") {
  const Folder folder;
  const std::string text = long_text();
  for (const std::string name : {"a.gz", "a.zst"}) {
    const std::string packed = name == "a.gz" ? gzip(text) : zstd(text);
    for (const size_t size : {size_t{1}, size_t{5}, packed.size() / 2, packed.size() - 1}) {
      const std::string file = folder.write(name, packed.substr(0, size));
      CHECK_THROWS_WITH_AS(read_all(file, 4096),
                           doctest::Contains((name + " is damaged: it ends before its content does").c_str()),
                           Error);
    }
    std::string altered = packed;
    altered[packed.size() / 2] ^= 0x10;
    CHECK_THROWS_WITH_AS(read_all(folder.write(name, altered), 4096),
                         doctest::Contains((name + " is damaged").c_str()), Error);
    CHECK_THROWS_WITH_AS(read_all(folder.write(name, "plain text"), 4096),
                         doctest::Contains((name + " is damaged").c_str()), Error);
  }
}
