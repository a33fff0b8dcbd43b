#include "tools/config_file.h"

#include <doctest/doctest.h>

#include "nf/error.h"
#include "tests/support/folder.h"

namespace nf {
namespace {

TEST_CASE("a config is a file, a folder that holds one, or a shipped name") {
  const Folder folder;
  const std::string file = folder.write("run/config.json", "{}");
  CHECK(find_config_file(file) == file);
  CHECK(find_config_file((folder.path / "run").string()) == file);
  CHECK(find_config_file("ngpt").filename() == "ngpt.json");
  CHECK(find_config_file("ngpt.json").filename() == "ngpt.json");
}

TEST_CASE("what is no config says what was looked for, and what there is") {
  const Folder folder;
  const std::string path = folder.path.string();
  CHECK_THROWS_WITH_AS(
      find_config_file(path),
      doctest::Contains((path + ": no config.json in this folder; give a config file").c_str()), Error);
  CHECK_THROWS_WITH_AS(find_config_file(path), doctest::Contains("mha, gqa, diff, ngpt and mla"), Error);
  CHECK_THROWS_WITH_AS(find_config_file("nosuch.json"),
                       doctest::Contains("no file 'nosuch.json', and no shipped config of that name"), Error);
}

TEST_CASE("an empty config says so") {
  const Folder folder;
  for (const char* text : {"", " \n\t\n"}) {
    const std::string file = folder.write("empty.json", text);
    CHECK_THROWS_WITH_AS(read_config_file(file), doctest::Contains("empty.json: the file is empty"), Error);
  }
  CHECK(read_config_file(folder.write("full.json", "{} ")) == "{} ");
  CHECK_THROWS_AS(read_config_file(folder.path / "nowhere"), Error);
}

}  // namespace
}  // namespace nf
