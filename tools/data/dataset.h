// Tokenised documents in memory, and their split into training and validation.
//
//     TokenDataset all = tokenize(*source, *tokenizer);
//     auto [train, validation] = all.split(0.1, seed);
//     fmt::print("{}\n", train.stats().describe());
//
// A dataset is immutable and cheap to copy: copies and splits share the tokens. Safe to read from many
// threads.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tools/data/source.h"
#include "tools/tokenizer/tokenizer.h"

namespace nf {

struct DatasetStats {
  int64_t documents = 0;
  int64_t tokens = 0;
  int64_t min_length = 0, max_length = 0;  // of a document, in tokens
  double mean_length = 0;
  // Entropy of single tokens, nats per token: the loss of the best model that ignores context. A training
  // loss that does not fall below it has learned only the frequencies.
  double unigram_entropy = 0;

  std::string describe() const;  // one line
};

struct DatasetSplit;

class TokenDataset {
 public:
  TokenDataset() = default;  // no documents

  // `lengths`: tokens of each document, which lie back to back in `tokens`. Throws Error when a length is not
  // positive, they do not add up, or an id is outside 0 … vocab_size - 1.
  TokenDataset(std::vector<int32_t> tokens, std::span<const int64_t> lengths, int32_t vocab_size);

  int64_t documents() const { return static_cast<int64_t>(ranges_.size()); }
  int64_t tokens() const { return token_count_; }
  int32_t vocab_size() const { return vocab_size_; }

  // Token ids of document i, end-of-text included where the tokenizer has one.
  std::span<const int32_t> document(int64_t i) const {
    const Range& range = ranges_[static_cast<size_t>(i)];
    return std::span(*tokens_).subspan(static_cast<size_t>(range.begin), static_cast<size_t>(range.length));
  }

  // Holds out about `fraction` (0 … below 1) for validation. With kManyDocuments or more, whole documents
  // drawn by `seed`, at least one; with fewer, the tail of each (of a single text: its last tenth), which
  // `seed` does not change. The order of documents is kept. 0 gives an empty validation set. Throws Error
  // when a document is too short to give both sides two tokens.
  DatasetSplit split(double fraction = 0.1, uint64_t seed = 0) const;
  static constexpr int64_t kManyDocuments = 10;

  DatasetStats stats() const;

  // A hash of all documents, for checking that a resumed run reads the data it began with.
  uint64_t fingerprint() const;

 private:
  struct Range {
    int64_t begin, length;
  };
  TokenDataset with_ranges(std::vector<Range> ranges) const;

  std::shared_ptr<const std::vector<int32_t>> tokens_;
  std::vector<Range> ranges_;
  int64_t token_count_ = 0;
  int32_t vocab_size_ = 0;
};

struct DatasetSplit {
  TokenDataset train, validation;
};

struct TokenizeOptions {
  // Whether documents begin and end with the tokenizer's bos and eos. By default they do where it has them
  // and there is more than one document; a single running text gets neither. true without such a token is an
  // Error.
  std::optional<bool> bos = std::nullopt, eos = std::nullopt;
};

// Reads and tokenises every document; 4 bytes per token are kept. Throws Error when there is no text at all,
// and with the document's origin when the tokenizer refuses one.
TokenDataset tokenize(const DocumentSource& source, const Tokenizer& tokenizer,
                      const TokenizeOptions& options = {});

}  // namespace nf
