#include "tools/data/dataset.h"

#include <nf/error.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tools/data/shuffle.h"

namespace nf {
namespace {

constexpr uint64_t kSplitStream = 0x73706c6974;  // apart from the streams of the epochs

// Tokens of a text to keep for training: the first (1 - fraction), leaving both sides at least two, which is
// what a single prediction takes.
int64_t kept_tokens(int64_t length, double fraction) {
  require(length >= 4,
          "data: a text of {} tokens is too short to hold out a part for validation; give more text, a "
          "validation "
          "file, or hold out nothing",
          length);
  return std::clamp(static_cast<int64_t>(static_cast<double>(length) * (1.0 - fraction)), int64_t{2},
                    length - 2);
}

}  // namespace

std::string DatasetStats::describe() const {
  if (documents == 0) return "no documents";
  if (documents == 1)
    return fmt::format("1 document, {} tokens, {:.3f} nats/token unigram", tokens, unigram_entropy);
  return fmt::format("{} documents, {} tokens ({} to {}, mean {:.1f}), {:.3f} nats/token unigram", documents,
                     tokens, min_length, max_length, mean_length, unigram_entropy);
}

TokenDataset::TokenDataset(std::vector<int32_t> tokens, std::span<const int64_t> lengths, int32_t vocab_size)
    : vocab_size_(vocab_size) {
  ranges_.reserve(lengths.size());
  for (const int64_t length : lengths) {
    require(length > 0, "data: document {} has {} tokens", ranges_.size(), length);
    ranges_.push_back({token_count_, length});
    token_count_ += length;
  }
  require(token_count_ == static_cast<int64_t>(tokens.size()),
          "data: documents of {} tokens in a buffer of {}", token_count_, tokens.size());
  for (const int32_t id : tokens)
    require(id >= 0 && id < vocab_size, "data: token id {} is outside the vocabulary of {}", id, vocab_size);
  tokens_ = std::make_shared<const std::vector<int32_t>>(std::move(tokens));
}

TokenDataset TokenDataset::with_ranges(std::vector<Range> ranges) const {
  TokenDataset part;
  part.tokens_ = tokens_;
  part.vocab_size_ = vocab_size_;
  for (const Range& range : ranges) part.token_count_ += range.length;
  part.ranges_ = std::move(ranges);
  return part;
}

DatasetSplit TokenDataset::split(double fraction, uint64_t seed) const {
  require(fraction >= 0 && fraction < 1, "data: the held-out fraction must be in 0 … 1 (1 excluded), got {}",
          fraction);
  if (fraction == 0 || documents() == 0) return {*this, with_ranges({})};

  std::vector<Range> train, validation;
  if (documents() < kManyDocuments) {
    for (const Range& range : ranges_) {
      const int64_t kept = kept_tokens(range.length, fraction);
      train.push_back({range.begin, kept});
      validation.push_back({range.begin + kept, range.length - kept});
    }
  } else {
    const auto wanted = static_cast<int64_t>(std::llround(static_cast<double>(documents()) * fraction));
    const int64_t held_out = std::clamp(wanted, int64_t{1}, documents() - 1);
    std::vector<int64_t> order(ranges_.size());
    std::iota(order.begin(), order.end(), 0);
    shuffle(std::span(order), seed, kSplitStream);
    std::vector<bool> is_held_out(ranges_.size());
    for (int64_t i = 0; i < held_out; ++i)
      is_held_out[static_cast<size_t>(order[static_cast<size_t>(i)])] = true;
    for (size_t i = 0; i < ranges_.size(); ++i) (is_held_out[i] ? validation : train).push_back(ranges_[i]);
  }
  return {with_ranges(std::move(train)), with_ranges(std::move(validation))};
}

DatasetStats TokenDataset::stats() const {
  DatasetStats stats;
  stats.documents = documents();
  stats.tokens = token_count_;
  if (ranges_.empty()) return stats;

  stats.min_length = ranges_[0].length;
  std::vector<int64_t> counts(static_cast<size_t>(vocab_size_));
  for (int64_t i = 0; i < documents(); ++i) {
    const auto ids = document(i);
    stats.min_length = std::min(stats.min_length, static_cast<int64_t>(ids.size()));
    stats.max_length = std::max(stats.max_length, static_cast<int64_t>(ids.size()));
    for (const int32_t id : ids) ++counts[static_cast<size_t>(id)];
  }
  stats.mean_length = static_cast<double>(token_count_) / static_cast<double>(documents());
  for (const int64_t count : counts) {
    if (count == 0) continue;
    const double share = static_cast<double>(count) / static_cast<double>(token_count_);
    stats.unigram_entropy -= share * std::log(share);
  }
  return stats;
}

uint64_t TokenDataset::fingerprint() const {
  uint64_t hash = mix_bits(static_cast<uint64_t>(vocab_size_));
  for (int64_t i = 0; i < documents(); ++i) {
    hash = mix_bits(hash ^ document(i).size());
    for (const int32_t id : document(i)) hash = mix_bits(hash ^ static_cast<uint64_t>(id));
  }
  return hash;
}

TokenDataset tokenize(const DocumentSource& source, const Tokenizer& tokenizer,
                      const TokenizeOptions& options) {
  const auto bos = tokenizer.bos_id(), eos = tokenizer.eos_id();
  require(bos || !options.bos.value_or(false), "data: the {} tokenizer has no token to begin a document with",
          tokenizer.name());
  require(eos || !options.eos.value_or(false), "data: the {} tokenizer has no token to end a document with",
          tokenizer.name());

  std::vector<int32_t> tokens;
  std::vector<int64_t> lengths;
  source.visit([&](const Document& document) {
    const size_t before = tokens.size();
    try {
      if (bos && options.bos.value_or(true)) tokens.push_back(*bos);
      tokenizer.encode(document.text, tokens);
      if (eos && options.eos.value_or(true)) tokens.push_back(*eos);
    } catch (const Error& error) {
      fail("data: {}: {}", document.origin(), error.what());
    }
    lengths.push_back(static_cast<int64_t>(tokens.size() - before));
  });
  require(!lengths.empty(), "data: there is no text in {}", source.description());

  if (lengths.size() == 1) {  // a running text: neither begun nor ended unless asked for
    if (eos && !options.eos) tokens.pop_back();
    if (bos && !options.bos) tokens.erase(tokens.begin());
    lengths[0] = static_cast<int64_t>(tokens.size());
  }
  tokens.shrink_to_fit();
  return TokenDataset(std::move(tokens), lengths, tokenizer.vocab_size());
}

}  // namespace nf
