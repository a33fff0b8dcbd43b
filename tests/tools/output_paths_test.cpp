#include "tools/output_paths.h"

#include <doctest/doctest.h>

#include <cstdlib>

#include "nf/error.h"
#include "tests/support/folder.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

std::string refusal(const fs::path& folder) {
  try {
    check_output_folder(folder, "--out");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("a folder that can be written in passes, and nothing stays behind") {
  const Folder folder;
  for (const fs::path& path : {folder.path, folder.path / "a", folder.path / "a/b/c", folder.path / "a/../b/",
                               folder.path / "a/b/"}) {
    CAPTURE(path.string());
    CHECK(refusal(path).empty());
    CHECK(fs::is_empty(folder.path));
  }
  fs::create_directory(folder.path / "there");
  CHECK(refusal(folder.path / "there/x").empty());
  CHECK(fs::exists(folder.path / "there"));
}

TEST_CASE("one that cannot is an Error that names the flag and the path") {
  const Folder folder;
  const std::string file = folder.write("file", "content");
  CHECK(refusal(file) == "--out: " + file + ": is a file, not a folder");
  CHECK(refusal(file + "/a/b").starts_with("--out: " + file + "/a/b: cannot create folder " + file + "/a: "));
  CHECK(refusal("/proc/nowhere/run")
            .starts_with("--out: /proc/nowhere/run: cannot create folder /proc/nowhere: "));
  CHECK(refusal("/proc/self").starts_with("--out: /proc/self: cannot be written in: "));
}

TEST_CASE("files") {
  const Folder folder;
  CHECK_NOTHROW(check_output_file(folder.path / "new/x.safetensors", "--logits"));
  CHECK_NOTHROW(check_output_file(folder.write("old", "content"), "--logits"));
  CHECK_NOTHROW(check_output_file("plain-name", "--logits"));
  CHECK_THROWS_WITH_AS(check_output_file(folder.path, "--logits"),
                       doctest::Contains("is a folder, not a file"), Error);
  CHECK_THROWS_WITH_AS(check_output_file("/proc/nowhere/x", "--logits"),
                       doctest::Contains("--logits: /proc/nowhere"), Error);
}

TEST_CASE("NF_DUMP, when it is set") {
  const char* before = std::getenv("NF_DUMP");
  const std::string kept = before ? before : "";
  ::unsetenv("NF_DUMP");
  CHECK_NOTHROW(check_dump_folder());
  ::setenv("NF_DUMP", "/proc/nowhere", 1);
  CHECK_THROWS_WITH_AS(check_dump_folder(), doctest::Contains("NF_DUMP: /proc/nowhere: "), Error);
  if (before)
    ::setenv("NF_DUMP", kept.c_str(), 1);
  else
    ::unsetenv("NF_DUMP");
}

}  // namespace
}  // namespace nf
