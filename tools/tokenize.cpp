#include "tools/tokenize.h"

#include <nf/error.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <exception>
#include <thread>

#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

constexpr size_t kBatchBytes = size_t{8} << 20;

void encode_one(const Tokenizer& tokenizer, bool special, EncodedDocument& document) {
  try {
    if (special)
      tokenizer.encode_special(document.text, document.ids);
    else
      tokenizer.encode(document.text, document.ids);
  } catch (const Error& error) {
    fail("{}: {}", document.origin, error.what());
  }
}

// Each thread takes the next document that nobody has; the error of the first document that has one is
// thrown.
void encode_batch(const Tokenizer& tokenizer, const EncodeOptions& options,
                  std::vector<EncodedDocument>& batch) {
  std::atomic<size_t> next = 0;
  std::vector<std::exception_ptr> errors(batch.size());
  const auto work = [&] {
    for (size_t i; (i = next.fetch_add(1)) < batch.size();) {
      try {
        encode_one(tokenizer, options.special, batch[i]);
      } catch (...) {
        errors[i] = std::current_exception();
      }
    }
  };
  const size_t wanted =
      options.threads > 0 ? static_cast<size_t>(options.threads) : std::thread::hardware_concurrency();
  {
    std::vector<std::jthread> others;
    for (size_t i = 1; i < std::min(wanted, batch.size()); ++i) others.emplace_back(work);
    work();
  }
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

}  // namespace

void encode_documents(const DocumentSource& source, const Tokenizer& tokenizer, const EncodeOptions& options,
                      const std::function<void(const EncodedDocument&)>& sink) {
  std::vector<EncodedDocument> batch;
  size_t bytes = 0;
  const auto flush = [&] {
    encode_batch(tokenizer, options, batch);
    for (const EncodedDocument& document : batch) sink(document);
    batch.clear();
    bytes = 0;
  };
  source.visit([&](const Document& document) {
    batch.push_back({std::string(document.text), document.origin(), {}, document.more});
    bytes += document.text.size();
    if (bytes >= kBatchBytes) flush();
  });
  flush();
}

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
  encode_documents(source, tokenizer, options, [&](const EncodedDocument& document) {
    if (!document.more) ++stats.documents;
    stats.bytes += static_cast<int64_t>(document.text.size());
    stats.characters += static_cast<int64_t>(count_characters(document.text));
    stats.tokens += static_cast<int64_t>(document.ids.size());
    for (const int32_t id : document.ids) ++stats.counts[static_cast<size_t>(id)];
    stats.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (progress) progress(stats);
  });
  return stats;
}

}  // namespace nf
