// What the real GPU's side says where there is none.
#include <doctest/doctest.h>

#include "nf/device.h"
#include "nf/error.h"

using namespace nf;

TEST_CASE("cuda: without a GPU one clear line") {
  std::string why;
  try {
    cuda_device(0)->allocate(64);
    MESSAGE("skipped: there is a GPU here");
    return;
  } catch (const Error& error) {
    why = error.what();
  }
  CHECK(why.starts_with("cuda: "));
  CHECK(why.find("use --device cpu") != std::string::npos);
  CHECK(why.find('\n') == std::string::npos);
}
