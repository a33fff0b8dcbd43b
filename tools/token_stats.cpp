#include "tools/token_stats.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "tools/tokenizer/utf8.h"

namespace nf {
double TokenStats::bytes_per_token() const {
  return tokens == 0 ? 0 : static_cast<double>(bytes) / static_cast<double>(tokens);
}

int64_t TokenStats::tokens_used() const {
  return std::ranges::count_if(counts, [](int64_t count) { return count > 0; });
}

double TokenStats::entropy() const {
  double sum = 0;
  for (const int64_t count : counts) {
    if (count == 0) continue;
    const double share = static_cast<double>(count) / static_cast<double>(tokens);
    sum -= share * std::log(share);
  }
  return sum;
}

double TokenStats::bits_per_byte() const {
  return bytes == 0 ? 0 : entropy() / std::log(2.0) / bytes_per_token();
}

std::vector<CountedToken> longest_tokens(const TokenStats& stats, const Tokenizer& tokenizer,
                                         size_t how_many) {
  std::vector<CountedToken> found;
  for (size_t id = 0; id < stats.counts.size(); ++id) {
    const auto token = static_cast<int32_t>(id);
    if (stats.counts[id] > 0) found.push_back({token, stats.counts[id], tokenizer.piece(token)});
  }
  const auto before = [](const CountedToken& a, const CountedToken& b) {
    if (a.bytes.size() != b.bytes.size()) return a.bytes.size() > b.bytes.size();
    return a.count != b.count ? a.count > b.count : a.id < b.id;
  };
  std::ranges::sort(found, before);
  found.resize(std::min(found.size(), how_many));
  return found;
}

TokenStats count_tokens(const DocumentSource& source, const Tokenizer& tokenizer,
                        const EncodeOptions& options,
                        const std::function<void(const TokenStats&)>& progress) {
  TokenStats stats;
  stats.counts.resize(static_cast<size_t>(tokenizer.vocab_size()));
  const auto start = std::chrono::steady_clock::now();
  encode_documents(source, tokenizer, options, [&](const Document& document, std::span<const int32_t> ids) {
    if (!document.more) ++stats.documents;
    stats.bytes += static_cast<int64_t>(document.text.size());
    stats.characters += static_cast<int64_t>(count_characters(document.text));
    stats.tokens += static_cast<int64_t>(ids.size());
    for (const int32_t id : ids) ++stats.counts[static_cast<size_t>(id)];
    stats.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (progress) progress(stats);
  });
  return stats;
}

}  // namespace nf
