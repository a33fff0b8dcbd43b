// Byte-pair encoding with all that surrounds it in Hugging Face's tokenizer.json: added tokens, normalizer,
// pre-tokenizer, model, decoder. hugging_face.h reads one from such a file, train_bpe.h makes one from text.
#pragma once

#include <memory>
#include <mutex>

#include "tools/tokenizer/added_tokens.h"
#include "tools/tokenizer/bpe_model.h"
#include "tools/tokenizer/normalizer.h"
#include "tools/tokenizer/pre_tokenizer.h"
#include "tools/tokenizer/tokenizer.h"

namespace nf {

// Characters taken from the ends of a decoded text: at most so many of them, where they are this one.
struct DecodedStrip {
  std::string character;
  int64_t start = 0, stop = 0;

  std::string apply(std::string_view text) const;
};

struct BpeTokenizerParts {
  BpeParts model;
  std::vector<AddedToken> added;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::vector<std::string> pieces;        // what each id becomes inside a text; special tokens: nothing
  std::vector<std::string> first_pieces;  // the same at the start of a text; empty: no difference
  std::vector<DecodedStrip> strips;
  std::optional<int32_t> bos, eos, pad;
  std::string json;  // the whole tokenizer.json
};

class BpeTokenizer final : public Tokenizer {
 public:
  // Throws Error where the parts do not fit together.
  explicit BpeTokenizer(BpeTokenizerParts parts);
  ~BpeTokenizer() override;

  std::string_view name() const override { return "bpe"; }
  int32_t vocab_size() const override { return static_cast<int32_t>(parts_.pieces.size()); }
  // Any bytes: what is no UTF-8 is encoded byte by byte where the vocabulary has tokens of bytes, else an
  // Error.
  void encode(std::string_view text, std::vector<int32_t>& ids) const override;
  void encode_special(std::string_view text, std::vector<int32_t>& ids) const override;
  std::string decode(std::span<const int32_t> ids) const override;
  std::string piece(int32_t id) const override;
  std::optional<int32_t> bos_id() const override { return parts_.bos; }
  std::optional<int32_t> eos_id() const override { return parts_.eos; }
  std::optional<int32_t> pad_id() const override { return parts_.pad; }
  std::string to_json() const override { return parts_.json; }

  const BpeModel& model() const { return model_; }

 private:
  // What one call of encode() works with. Kept between calls, as many as there were calls at once.
  struct Workspace;
  class Lease;

  void encode(std::string_view text, bool special, std::vector<int32_t>& ids) const;
  void encode_valid(std::string_view text, bool at_start, bool special, Workspace& work,
                    std::vector<int32_t>& ids) const;
  void encode_invalid(std::string_view bytes, size_t place, Workspace& work, std::vector<int32_t>& ids) const;
  size_t check(int32_t id) const;

  BpeTokenizerParts parts_;
  BpeModel model_;
  AddedTokenFinder raw_added_, normalized_added_;
  bool any_ordinary_added_ = false;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> idle_;
};

}  // namespace nf
