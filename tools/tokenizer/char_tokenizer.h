// One token per Unicode character of the training text, as the small character models of the literature use.
#pragma once

#include <array>

#include "tools/tokenizer/tokenizer.h"

namespace nf {

// Ids 0 … n - 1 are the characters in the order of their code points; n is <|endoftext|> where there is one.
class CharTokenizer final : public Tokenizer {
 public:
  // Collects the characters of a text that comes in pieces.
  class Builder {
   public:
    // Throws Error with the byte offset when `text` is not valid UTF-8.
    void add(std::string_view text);
    // Throws Error when no text was added.
    std::unique_ptr<CharTokenizer> finish(bool end_of_text) const;

   private:
    std::vector<bool> seen_;  // by code point
  };

  // `characters`: distinct code points, ascending, at least one; else Error.
  CharTokenizer(std::vector<char32_t> characters, bool end_of_text);

  std::string_view name() const override { return "char"; }
  int32_t vocab_size() const override;
  // Throws Error naming the character and its place for one that the vocabulary lacks, and for invalid UTF-8.
  void encode(std::string_view text, std::vector<int32_t>& ids) const override;
  std::string decode(std::span<const int32_t> ids) const override;
  std::optional<int32_t> eos_id() const override;
  std::string to_json() const override;

  const std::vector<char32_t>& characters() const { return characters_; }

 private:
  int32_t find(char32_t code_point) const;  // -1 when unknown

  std::vector<char32_t> characters_;
  bool end_of_text_;
  std::array<int32_t, 128> ascii_;  // ids of the ASCII characters, -1 when unknown
};

}  // namespace nf
