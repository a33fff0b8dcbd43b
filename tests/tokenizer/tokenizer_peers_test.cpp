// Ids and texts of real tokenizers, and of one trained here, against Hugging Face's library. Skipped with a
// notice where node or a package is absent; `make peers` installs them.
#include <doctest/doctest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "tests/support/folder.h"

using namespace nf;

TEST_CASE(
    "tokenizers: the ids are those of Hugging Face's library, for files of several families of models") {
  const Folder folder;
  const std::string command = "node " NF_TESTS_DIR "/peers/tokenizers.mjs " NF_BIN_DIR "/peers " NF_BIN_DIR
                              "/nf-tokenize " +
                              folder.path.string();
  const int status = std::system(command.c_str());
  constexpr int kPackageAbsent = 77, kNoNode = 127;
  const int exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  if (exit_status == kPackageAbsent || exit_status == kNoNode) {
    MESSAGE("skipped: node, tokenizers or a tokenizer's package is not installed (make peers)");
    return;
  }
  CHECK(exit_status == 0);
}
