#include "tools/data/dataset.h"

#include <nf/error.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tools/data/shuffle.h"

namespace nf {
namespace {

constexpr uint64_t kSplitStream = 0x73706c6974;  // apart from the streams of the epochs
constexpr int64_t kBlock = 1 << 14;              // tokens read at once
constexpr int64_t kForgotten = 1 << 22;          // tokens after which memory is given back

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

TokenDataset::TokenDataset(const std::vector<int32_t>& tokens, std::span<const int64_t> lengths,
                           int32_t vocab_size)
    : TokenDataset(TokenFile::in_memory(tokens, lengths, vocab_size)) {}

TokenDataset::TokenDataset(std::shared_ptr<const TokenFile> file) : file_(std::move(file)) {
  ranges_.reserve(static_cast<size_t>(file_->documents()));
  for (int64_t i = 0; i < file_->documents(); ++i) {
    const int64_t begin = file_->begin(i), length = file_->end(i) - begin;
    ranges_.push_back({begin, length});
    token_count_ += length;
  }
}

std::vector<int32_t> TokenDataset::document(int64_t i) const {
  std::vector<int32_t> ids(static_cast<size_t>(length(i)));
  copy(i, 0, ids);
  return ids;
}

TokenDataset TokenDataset::with_ranges(std::vector<Range> ranges) const {
  TokenDataset part;
  part.file_ = file_;
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

  std::vector<int64_t> counts(static_cast<size_t>(vocab_size()));
  std::vector<int32_t> block(kBlock);
  stats.min_length = ranges_[0].length;
  int64_t kept = ranges_[0].begin;  // tokens from here on are still in memory
  for (const Range& range : ranges_) {
    stats.min_length = std::min(stats.min_length, range.length);
    stats.max_length = std::max(stats.max_length, range.length);
    const int64_t end = range.begin + range.length;
    for (int64_t at = range.begin; at < end; at += kBlock) {
      const auto ids = std::span(block).first(static_cast<size_t>(std::min(kBlock, end - at)));
      file_->copy(at, ids);
      for (const int32_t id : ids) ++counts[static_cast<size_t>(id)];
      if (at - kept < kForgotten) continue;
      file_->forget(kept, at);
      kept = at;
    }
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
  uint64_t hash = mix_bits(file_ ? file_->hash() : 0);
  for (const Range& range : ranges_)
    hash =
        mix_bits(mix_bits(hash ^ static_cast<uint64_t>(range.begin)) ^ static_cast<uint64_t>(range.length));
  return hash;
}

}  // namespace nf
