// Parquet files of two independent writers, DuckDB and hyparquet-writer, read back exactly. Skipped with a
// notice where node or a package is absent; `make peers` installs them.
#include <doctest/doctest.h>
#include <nf/error.h>
#include <sys/wait.h>

#include <cstdlib>

#include "tests/support/folder.h"
#include "tools/data/source.h"

using namespace nf;
namespace fs = std::filesystem;

namespace {

std::vector<std::string> texts(const fs::path& file) {
  std::vector<std::string> out;
  bool more = false;
  open_documents({file.string()})->visit([&](const Document& document) {
    if (!more) out.emplace_back();
    out.back() += document.text;
    more = document.more;
  });
  return out;
}

}  // namespace

TEST_CASE("parquet: what DuckDB and hyparquet-writer write is read back exactly") {
  const Folder folder;
  const std::string command = "node " NF_TESTS_DIR "/peers/write_parquet.mjs " NF_BIN_DIR "/peers " +
                              folder.path.string() + " 2> " + (folder.path / "errors").string();
  const int status = std::system(command.c_str());
  constexpr int kPackageAbsent = 77, kNoNode = 127;
  const int exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  if (exit_status == kPackageAbsent || exit_status == kNoNode) {
    MESSAGE("skipped: node, @duckdb/node-api or hyparquet-writer is not installed (make peers)");
    return;
  }
  REQUIRE(exit_status == 0);

  int files = 0;
  for (const std::string& name : folder.names()) {
    if (!name.ends_with(".parquet") || name.starts_with("refused-")) continue;
    const fs::path file = folder.path / name;
    CAPTURE(name);
    const auto expected = texts(fs::path(file).replace_extension(".jsonl"));
    CHECK(texts(file) == expected);
    ++files;
  }
  CHECK(files > 180);

  const auto refused = [&](const char* name, const char* message) {
    CHECK_THROWS_WITH_AS(texts(folder.path / name), doctest::Contains(message), Error);
  };
  refused("refused-nested.parquet", "column \"text\" is nested");
  refused("refused-choice.parquet", "there is no field \"text\"; name one with --text-field: title, body");
  refused("refused-number.parquet", "field \"text\" is not a string");
  refused("refused-brotli.parquet", "Brotli are not supported");
}
