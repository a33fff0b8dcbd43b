// Byte-pair encoding learned from text (Sennrich et al., arXiv 1508.07909; over bytes as in GPT-2, Radford et
// al., 2019): of all neighbours inside words the most frequent pair becomes a token, again and again.
//
//     WordCounter counter(kLlama3Pattern);
//     counter.add(texts);                                         // as often as there is text
//     auto tokenizer = train_bpe(counter, {.vocab_size = 32000});
//
// Counting is cut among threads, but which merges are learned depends on the text and the options alone. Of
// pairs that are equally frequent, the one of the lower ids (the left first) is taken.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tools/tokenizer/bpe_tokenizer.h"

namespace nf {

// How often each word occurs in some text.
class WordCounter {
 public:
  // `pattern` cuts text into words, as tokenizer.json's Split does (isolated). Throws Error for a bad one.
  explicit WordCounter(std::string pattern);

  // Counts the words of several texts (valid UTF-8) with up to so many threads.
  void add(std::span<const std::string> texts, int threads);

  const std::string& pattern() const { return pattern_; }
  size_t distinct() const { return counts_.size(); }

  struct Word {
    std::string_view bytes;
    int64_t count;
  };
  std::vector<Word> words() const;  // by their bytes

 private:
  std::string pattern_;
  PreTokenizer pre_tokenizer_;
  std::unordered_map<std::string, int64_t> counts_;
};

struct TrainBpeOptions {
  int32_t vocab_size = 0;  // bytes, merges and special tokens together
  int64_t min_count = 2;   // of a pair that becomes a token
  // Special tokens get the last ids, in this order. The first whose name says so ends documents.
  std::vector<std::string> special = {"<|endoftext|>"};
};

// The tokenizer: ids 0 … 255 are the bytes in the order of their letters (byte_letters.h), then the merges by
// rank, then the special tokens. The vocabulary is smaller than asked for when no pair is frequent enough any
// more. `progress` hears now and then how many tokens there are. Throws Error for a vocabulary too small for
// bytes and special tokens, or a special token that is empty, no UTF-8 or comes twice.
std::unique_ptr<BpeTokenizer> train_bpe(const WordCounter& counter, const TrainBpeOptions& options,
                                        const std::function<void(int32_t tokens)>& progress = {});

}  // namespace nf
