// Any bytes as tokenizer.json. What loads says the same when it is written and loaded again.
#include <numeric>
#include <vector>

#include "tests/fuzz/fuzz.h"
#include "tools/tokenizer/tokenizer.h"

using namespace nf;
using namespace nf::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string path = folder().write("tokenizer.json", text_of(data, size));
  std::unique_ptr<Tokenizer> tokenizer;
  if (!accepts([&] { tokenizer = load_tokenizer(path); })) return 0;

  std::vector<int32_t> all(static_cast<size_t>(tokenizer->vocab_size())), ids;
  std::iota(all.begin(), all.end(), 0);
  const std::string text = tokenizer->decode(all);
  tokenizer->encode(text, ids);
  expect(tokenizer->decode(ids) == text, "the text of all ids is encoded");

  const auto again = load_tokenizer(folder().write("written.json", tokenizer->to_json()));
  expect(again->fingerprint() == tokenizer->fingerprint(), "a tokenizer is read back");
  return 0;
}
