// Any bytes as a file of cached tokens: as they are, and with a header that has the right hashes, so that the
// checks behind these are reached.
#include <xxhash.h>

#include <cstring>
#include <vector>

#include "tests/fuzz/fuzz.h"
#include "tools/data/dataset.h"

using namespace nf;
using namespace nf::fuzz;

namespace {

void read(const std::string& bytes) {
  const std::string path = folder().write("input.tokens", bytes);
  accepts([&] {
    const TokenDataset dataset(TokenFile::open(path, 7));
    int64_t tokens = 0;
    for (int64_t i = 0; i < dataset.documents(); ++i)
      for (const int32_t id : dataset.document(i)) {
        expect(id >= 0 && id < dataset.vocab_size(), "ids are in the vocabulary");
        ++tokens;
      }
    expect(tokens == dataset.tokens() && dataset.documents() <= tokens, "documents have tokens");
    if (dataset.vocab_size() < 1 << 20) dataset.stats();
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes = text_of(data, size);
  read(bytes);
  constexpr size_t kHeader = 64, kContentHash = 48, kHeaderHash = 56;
  if (size < kHeader) return 0;
  const auto put = [&](size_t at, uint64_t value, size_t count) { std::memcpy(&bytes[at], &value, count); };
  std::memcpy(bytes.data(), "NFTOKENS", 8);
  put(8, 1, 4);   // version
  put(16, 7, 8);  // key
  put(kContentHash, ::XXH3_64bits(bytes.data() + kHeader, size - kHeader), 8);
  put(kHeaderHash, ::XXH3_64bits(bytes.data(), kHeaderHash), 8);
  read(bytes);
  return 0;
}
