// Tokenised documents, and their split into training and validation.
//
//     TokenDataset all = tokenize(*source, *tokenizer);
//     auto [train, validation] = all.split(0.1, seed);
//     fmt::print("{}\n", train.stats().describe());
//
// The tokens lie in a mapped file of the cache (token_file.h, cache.h), so a corpus may be larger than
// memory. A dataset is immutable and cheap to copy: copies and splits share the tokens. Safe to read from
// many threads.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tools/data/source.h"
#include "tools/data/token_file.h"
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

  // Of a few tokens in memory: `lengths` of the documents, which lie back to back in `tokens`. Throws Error
  // when a length is not positive, they do not add up, or an id is outside 0 … vocab_size - 1.
  TokenDataset(const std::vector<int32_t>& tokens, std::span<const int64_t> lengths, int32_t vocab_size);

  // Of all documents of a file.
  explicit TokenDataset(std::shared_ptr<const TokenFile> file);

  int64_t documents() const { return static_cast<int64_t>(ranges_.size()); }
  int64_t tokens() const { return token_count_; }
  int32_t vocab_size() const { return file_ ? file_->vocab_size() : 0; }

  // Tokens of document i, end-of-text included where the tokenizer has one.
  int64_t length(int64_t i) const { return ranges_[static_cast<size_t>(i)].length; }

  // Copies out.size() tokens of document i from its token `offset` on.
  void copy(int64_t i, int64_t offset, std::span<int32_t> out) const {
    file_->copy(ranges_[static_cast<size_t>(i)].begin + offset, out);
  }

  // All tokens of document i.
  std::vector<int32_t> document(int64_t i) const;

  // Holds out about `fraction` (0 … below 1) for validation. With kManyDocuments or more, whole documents
  // drawn by `seed`, at least one; with fewer, the tail of each (of a single text: its last tenth), which
  // `seed` does not change. The order of documents is kept. 0 gives an empty validation set. Throws Error
  // when a document is too short to give both sides two tokens.
  DatasetSplit split(double fraction = 0.1, uint64_t seed = 0) const;
  static constexpr int64_t kManyDocuments = 10;

  // Reads all tokens once; keeps none of them in memory.
  DatasetStats stats() const;

  // A hash of all documents, for checking that a resumed run reads the data it began with.
  uint64_t fingerprint() const;

 private:
  struct Range {
    int64_t begin, length;
  };
  TokenDataset with_ranges(std::vector<Range> ranges) const;

  std::shared_ptr<const TokenFile> file_;
  std::vector<Range> ranges_;
  int64_t token_count_ = 0;
};

struct DatasetSplit {
  TokenDataset train, validation;
};

struct TokenizeOptions {
  // Whether documents begin and end with the tokenizer's bos and eos. By default they do where it has them
  // and there is more than one document; a single running text gets neither. true without such a token is an
  // Error.
  std::optional<bool> bos = std::nullopt, eos = std::nullopt;
  int threads = 0;  // that encode; 0: all cores. The tokens do not depend on it
};

// The tokens of every document: from the cache when these files were tokenised with this tokenizer before,
// else written there first (cache_folder()/tokens). What the cache holds is checked byte by byte, and made
// again when it is damaged. Two processes that need the same tokens make them once. Throws Error when there
// is no text at all, with the document's origin when the tokenizer refuses one, and when the cache cannot be
// written.
TokenDataset tokenize(const DocumentSource& source, const Tokenizer& tokenizer,
                      const TokenizeOptions& options = {});

}  // namespace nf
