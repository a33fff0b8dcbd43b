// Any bytes as text: the tokenizers give them back, and a stream may be cut anywhere.
#include <vector>

#include "tests/fuzz/fuzz.h"
#include "tools/tokenizer/byte_tokenizer.h"
#include "tools/tokenizer/char_tokenizer.h"
#include "tools/tokenizer/utf8.h"

using namespace nf;
using namespace nf::fuzz;

namespace {

std::string round_trip(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<int32_t> ids;
  tokenizer.encode(text, ids);
  return tokenizer.decode(ids);
}

void check_char_tokenizer(std::string_view text, bool is_valid) {
  CharTokenizer::Builder builder;
  expect(accepts([&] { builder.add(text); }) == is_valid, "exactly valid UTF-8 is training text");
  if (is_valid && !text.empty())
    expect(round_trip(*builder.finish(true), text) == text, "a char tokenizer gives its training text back");
}

void check_stream(std::string_view text, bool is_valid) {
  Utf8Stream whole, pieces;
  std::string shown = whole.feed(text), in_pieces;
  shown += whole.finish();
  for (const char& byte : text) in_pieces += pieces.feed({&byte, 1});
  in_pieces += pieces.finish();
  expect(in_pieces == shown, "a stream of bytes shows what the whole text shows");
  expect(!find_invalid_utf8(shown), "a stream shows valid UTF-8");
  if (is_valid) expect(shown == text, "a stream shows valid text as it is");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text = text_of(data, size);
  const bool is_valid = !find_invalid_utf8(text);
  expect(round_trip(ByteTokenizer(), text) == text, "the byte tokenizer gives any bytes back");
  check_char_tokenizer(text, is_valid);
  check_stream(text, is_valid);
  if (is_valid) expect(count_characters(text) <= text.size(), "a character has at least one byte");
  return 0;
}
