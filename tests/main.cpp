// The one main of the test program.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdlib>

#include "tests/support/folder.h"

int main(int argc, char** argv) {
  const nf::Folder cache;  // tests leave nothing in the user's
  ::setenv("NF_CACHE", cache.path.c_str(), 1);
  return doctest::Context(argc, argv).run();
}
