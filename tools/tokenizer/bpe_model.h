// Byte-pair encoding of one word (Sennrich et al., arXiv 1508.07909): a word is a row of symbols, single
// bytes or single characters, and of all neighbours that have a merge the pair of the lowest rank (the
// leftmost of equals) becomes one token, again and again.
//
//     BpeModel model(std::move(parts));
//     BpeModel::Cache cache;                       // one for each thread
//     model.encode("word", cache, ids);
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/tokenizer/token_table.h"

namespace nf {

struct BpeMerge {
  int32_t left, right;
  bool operator==(const BpeMerge&) const = default;
};

// What a model consists of.
struct BpeParts {
  // The bytes of each id; empty where the model has no token of that id (or none that text can become).
  std::vector<std::string> tokens;
  std::vector<BpeMerge> merges;  // by rank
  bool bytes = true;             // symbols are bytes; else characters, and words are valid UTF-8
  bool ignore_merges = false;    // a word that is a token is that token, whatever the merges give
  // The tokens of single bytes, for characters that are no token. All 256 or none.
  std::vector<int32_t> byte_fallback;
  std::optional<int32_t> unknown;  // the token of symbols that have none
  bool fuse_unknown = false;       // a row of such symbols is one token
};

// Immutable; several threads may encode at once, each with a Cache of its own.
class BpeModel {
 public:
  // Throws Error for a merge that names no token, or gives none.
  explicit BpeModel(BpeParts parts);

  const BpeParts& parts() const { return parts_; }

  // The id of exactly these bytes, where it is a token of the model.
  std::optional<int32_t> find(std::string_view token) const { return ids_.find(token); }

  // Words that were encoded before, with their ids: most of a text is a few thousand words. Of a fixed size;
  // a word that comes later takes the place of an earlier one. Belongs to one thread and one model.
  class Cache {
   public:
    Cache() : entries_(size_t{1} << kBits) {}

   private:
    friend class BpeModel;
    static constexpr int kBits = 15;
    static constexpr size_t kLongestWord = 32, kMostIds = 6;
    struct alignas(64) Entry {
      std::array<uint64_t, kLongestWord / 8> key{};  // the word, zeros behind it
      uint32_t length = 0;                           // 0: nothing here
      uint32_t count = 0;
      std::array<int32_t, kMostIds> ids{};
    };
    std::vector<Entry> entries_;
  };

  // Appends the ids of a word, which is not empty. Throws Error that shows a symbol without a token when the
  // model has neither byte fallback nor an unknown token. Time: linear in the word, times the logarithm of
  // its length.
  void encode(std::string_view word, Cache& cache, std::vector<int32_t>& ids) const;

 private:
  struct Merge {
    uint32_t rank;
    int32_t token;
  };
  static constexpr Merge kNone{UINT32_MAX, -1};

  // Merges by their pair: open addressing over a power of two, at most half full.
  struct Slot {
    uint64_t pair = UINT64_MAX;
    Merge merge = kNone;
  };
  static uint64_t key(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
  }
  Merge merge_of(int32_t left, int32_t right) const {
    const uint64_t pair = key(left, right);
    for (size_t at = (pair * 0x9E3779B97F4A7C15ULL) >> shift_;; at = (at + 1) & mask_) {
      if (slots_[at].pair == pair) return slots_[at].merge;
      if (slots_[at].pair == UINT64_MAX) return kNone;
    }
  }

  void add_merges();
  void add_seams();
  void encode_long(std::string_view word, Cache& cache, std::vector<int32_t>& ids) const;
  void encode_anew(std::string_view word, std::vector<int32_t>& ids) const;
  void add_symbols(std::string_view word, std::vector<int32_t>& ids) const;
  void merge_short(std::vector<int32_t>& ids, size_t from) const;
  void merge_long(std::vector<int32_t>& ids, size_t from) const;

  BpeParts parts_;
  TokenTable ids_;                     // views of parts_.tokens
  std::array<int32_t, 256> byte_ids_;  // tokens of one byte, -1: none
  std::vector<Slot> slots_;
  size_t mask_ = 0;
  int shift_ = 0;
  size_t longest_token_ = 0;
  // Whether two bytes ever meet inside a token where one of its merges joined: where they do not, a word may
  // be cut between them without changing what becomes of it. Empty: words are never cut.
  std::vector<bool> seams_;
};

}  // namespace nf
