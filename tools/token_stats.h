// What there is to know about the tokens of a text.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tools/data/encode.h"

namespace nf {

// What tokens a text becomes.
struct TokenStats {
  int64_t documents = 0, bytes = 0, characters = 0, tokens = 0;
  std::vector<int64_t> counts;  // by id
  double seconds = 0;           // reading and encoding

  double bytes_per_token() const;
  int64_t tokens_used() const;  // distinct ones
  // The entropy of single tokens: nats per token, and bits per byte of text, which vocabularies of any size
  // can be compared by (lower: the tokens alone, without context, say more about the text).
  double entropy() const;
  double bits_per_byte() const;
};

struct CountedToken {
  int32_t id;
  int64_t count;
  std::string bytes;
};
// The tokens that occur with the most bytes, longest first; of equals, the more frequent.
std::vector<CountedToken> longest_tokens(const TokenStats& stats, const Tokenizer& tokenizer,
                                         size_t how_many);

TokenStats count_tokens(const DocumentSource& source, const Tokenizer& tokenizer,
                        const EncodeOptions& options,
                        const std::function<void(const TokenStats& so_far)>& progress = {});

}  // namespace nf
