// One token per byte: works on any text, needs no training, vocabulary 257.
#pragma once

#include "tools/tokenizer/tokenizer.h"

namespace nf {

// Ids 0 … 255 are the bytes; 256 is <|endoftext|>, which ends a document.
class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr int32_t kEndOfText = 256;

  std::string_view name() const override { return "byte"; }
  int32_t vocab_size() const override { return kEndOfText + 1; }
  void encode(std::string_view text, std::vector<int32_t>& ids) const override;
  std::string decode(std::span<const int32_t> ids) const override;
  std::optional<int32_t> eos_id() const override { return kEndOfText; }
  std::string to_json() const override;
};

}  // namespace nf
