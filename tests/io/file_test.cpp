#include "nf/file.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "nf/error.h"
#include "nf/json.h"
#include "tests/support/folder.h"

using namespace nf;
namespace fs = std::filesystem;

TEST_CASE("file: write replaces as a whole, read is bounded") {
  const Folder folder;
  const fs::path path = folder.path / "a.txt";
  const WrittenFile first = write_file(path, "hello");
  CHECK(first.bytes == 5);
  CHECK(read_file(path) == "hello");
  const WrittenFile second = write_file(path, "");
  CHECK(read_file(path).empty());
  CHECK(second.hash != first.hash);
  CHECK(second.hash == hash_file(path));
  write_file(path, "123456");
  CHECK_THROWS_WITH_AS(read_file(path, 5), doctest::Contains("a.txt: 6 bytes, at most 5"), Error);
  CHECK_THROWS_WITH_AS(read_file(folder.path), doctest::Contains("not a regular file"), Error);
  // a directory in the way: the rename fails, the partial file is removed
  fs::create_directories(folder.path / "d/e");
  CHECK_THROWS_WITH_AS(write_file(folder.path / "d", "x"), doctest::Contains("cannot replace"), Error);
  CHECK(folder.names() == std::vector<std::string>{"a.txt", "d"});
}

TEST_CASE("json: mistakes are placed by line and column") {
  CHECK_NOTHROW(check_json(R"({"a": [1, {"a": 2}], "b": {"a": 3}})", "x"));
  CHECK_THROWS_WITH_AS(check_json("{\n \"a\": tru }", "x"),
                       doctest::Contains("x: line 2, column 10: not valid JSON"), Error);
  CHECK_THROWS_WITH_AS(check_json(R"({"a": 1, "a": 2})", "x"), doctest::Contains("x: key 'a' is given twice"),
                       Error);
  CHECK_THROWS_AS(check_json("", "x"), Error);
  CHECK_THROWS_AS(check_json("{} {}", "x"), Error);
  CHECK_THROWS_AS(check_json("\"\xff\"", "x"), Error);
  CHECK_THROWS_AS(check_json("1e999", "x"), Error);
  CHECK_THROWS_WITH_AS(check_json(std::string(70, '[') + std::string(70, ']'), "x"),
                       doctest::Contains("nested deeper"), Error);
  CHECK_NOTHROW(check_json(std::string(60, '[') + std::string(60, ']'), "x"));
}

TEST_CASE("json: printable text is one short line") {
  CHECK(printable("plain ä") == "plain ä");
  CHECK(printable("a\nb\x1b") == "a\\x0ab\\x1b");
  CHECK(printable(std::string(1000, 'x')).size() < 130);
}
