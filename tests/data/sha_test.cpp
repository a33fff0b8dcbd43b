#include "tools/data/sha.h"

#include <doctest/doctest.h>

using namespace nf;

namespace {

std::string hex(Sha kind, std::string_view text, size_t step = 1000) {
  ShaHash hash(kind);
  for (size_t at = 0; at < text.size(); at += step) hash.add(text.substr(at, step));
  return hash.hex();
}

}  // namespace

TEST_CASE("sha: the examples of FIPS 180-4") {
  CHECK(hex(Sha::sha1, "") == "da39a3ee5e6b4b0d3255bfef95601890afd80709");
  CHECK(hex(Sha::sha1, "abc") == "a9993e364706816aba3e25717850c26c9cd0d89d");
  CHECK(hex(Sha::sha256, "") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hex(Sha::sha256, "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::string_view two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  const std::string million(1'000'000, 'a');
  for (const size_t step : {size_t{1}, size_t{63}, size_t{64}, size_t{1000}}) {
    CHECK(hex(Sha::sha1, two_blocks, step) == "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    CHECK(hex(Sha::sha256, two_blocks, step) ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(hex(Sha::sha1, million, step) == "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    CHECK(hex(Sha::sha256, million, step) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
}
