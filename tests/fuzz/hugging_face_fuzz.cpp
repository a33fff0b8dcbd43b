// Any bytes as Hugging Face's tokenizer.json, with a text behind the first zero byte, in one file so that the
// fuzzer can change both. Whatever the file says, encoding ends, and its ids are of the vocabulary.
#include <vector>

#include "tests/fuzz/fuzz.h"
#include "tools/tokenizer/tokenizer.h"

using namespace nf;
using namespace nf::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string input = text_of(data, size);
  const size_t end = input.find('\0');
  const std::string text = end == std::string::npos ? "the text, 123 \xE4\xBD\xA0" : input.substr(end + 1);
  const std::string path = folder().write("tokenizer.json", input.substr(0, end));
  std::unique_ptr<Tokenizer> tokenizer;
  if (!accepts([&] { tokenizer = load_tokenizer(path); })) return 0;

  std::vector<int32_t> ids, special;
  if (!accepts([&] { tokenizer->encode(text, ids); })) return 0;
  if (!accepts([&] { tokenizer->encode_special(text, special); })) return 0;
  for (const std::vector<int32_t>* row : {&ids, &special}) {
    for (const int32_t id : *row)
      expect(id >= 0 && id < tokenizer->vocab_size(), "ids are of the vocabulary");
    tokenizer->decode(*row);
  }
  expect(load_tokenizer(folder().write("written.json", tokenizer->to_json()))->fingerprint() ==
             tokenizer->fingerprint(),
         "a tokenizer is read back");
  return 0;
}
