#include "tools/tokenizer/bpe_model.h"

#include <nf/error.h>
#include <nf/json.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <queue>

#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

constexpr size_t kShort = 64;  // symbols up to which trying all pairs again is quicker than a heap

constexpr size_t index(uint8_t left, uint8_t right) { return size_t{left} * 256 + right; }

}  // namespace

BpeModel::BpeModel(BpeParts parts) : parts_(std::move(parts)) {
  byte_ids_.fill(-1);
  ids_ = TokenTable(parts_.tokens.size());
  for (size_t i = 0; i < parts_.tokens.size(); ++i) {
    const std::string& token = parts_.tokens[i];
    if (token.empty()) continue;
    ids_.add(token, static_cast<int32_t>(i));
    longest_token_ = std::max(longest_token_, token.size());
    if (token.size() == 1) byte_ids_[static_cast<uint8_t>(token[0])] = static_cast<int32_t>(i);
  }
  add_merges();
  add_seams();
}

void BpeModel::add_merges() {
  const size_t size = std::bit_ceil(std::max(parts_.merges.size() * 2, size_t{16}));
  slots_.resize(size);
  mask_ = size - 1;
  shift_ = 64 - std::countr_zero(size);
  std::string joined;
  for (size_t rank = 0; rank < parts_.merges.size(); ++rank) {
    const BpeMerge& merge = parts_.merges[rank];
    const auto token = [&](int32_t id) -> const std::string& {
      require(id >= 0 && static_cast<size_t>(id) < parts_.tokens.size() &&
                  !parts_.tokens[static_cast<size_t>(id)].empty(),
              "merge {} joins a token that is not in the vocabulary", rank);
      return parts_.tokens[static_cast<size_t>(id)];
    };
    joined.assign(token(merge.left)).append(token(merge.right));
    const std::optional<int32_t> found = ids_.find(joined);
    if (!found) fail("merge {} gives '{}', which is not in the vocabulary", rank, printable(joined));
    const uint64_t pair = key(merge.left, merge.right);
    size_t at = (pair * 0x9E3779B97F4A7C15ULL) >> shift_;
    while (slots_[at].pair != UINT64_MAX && slots_[at].pair != pair) at = (at + 1) & mask_;
    slots_[at] = {pair, {static_cast<uint32_t>(rank), *found}};  // of a pair that comes twice, the last
  }
}

// A symbol without a token may join its like across a cut, so there are cuts only where every symbol has one.
void BpeModel::add_seams() {
  const bool complete =
      parts_.bytes ? std::ranges::find(byte_ids_, -1) == byte_ids_.end() : parts_.byte_fallback.size() == 256;
  if (!complete || parts_.ignore_merges) return;
  seams_.assign(size_t{256} * 256, false);
  for (const BpeMerge& merge : parts_.merges) {
    const std::string& left = parts_.tokens[static_cast<size_t>(merge.left)];
    const std::string& right = parts_.tokens[static_cast<size_t>(merge.right)];
    seams_[index(static_cast<uint8_t>(left.back()), static_cast<uint8_t>(right.front()))] = true;
  }
}

void BpeModel::encode(std::string_view word, Cache& cache, std::vector<int32_t>& ids) const {
  if (word.size() > Cache::kLongestWord) return encode_long(word, cache, ids);

  Cache::Entry wanted;
  std::memcpy(wanted.key.data(), word.data(), word.size());
  uint64_t hash = word.size();
  for (size_t i = 0; i * 8 < word.size(); ++i) {
    hash = (hash ^ wanted.key[i]) * 0x9E3779B97F4A7C15ULL;
    hash ^= hash >> 32;
  }
  hash *= 0x9E3779B97F4A7C15ULL;
  Cache::Entry& entry = cache.entries_[hash >> (64 - Cache::kBits)];
  if (entry.length == word.size() && entry.key == wanted.key) {
    const size_t before = ids.size();
    ids.resize(before + entry.count);
    std::copy_n(entry.ids.begin(), entry.count, ids.begin() + static_cast<ptrdiff_t>(before));
    return;
  }
  const size_t before = ids.size();
  encode_anew(word, ids);
  const size_t count = ids.size() - before;
  if (count > Cache::kMostIds) return;
  entry.key = wanted.key;
  entry.length = static_cast<uint32_t>(word.size());
  entry.count = static_cast<uint32_t>(count);
  std::copy(ids.begin() + static_cast<ptrdiff_t>(before), ids.end(), entry.ids.begin());
}

// Cuts where no token crosses, as often as there is such a place: the pieces are mostly short, and known.
void BpeModel::encode_long(std::string_view word, Cache& cache, std::vector<int32_t>& ids) const {
  if (seams_.empty()) return encode_anew(word, ids);
  size_t begin = 0;
  for (size_t at = 1; at <= word.size(); ++at) {
    if (at < word.size()) {
      const auto next = static_cast<uint8_t>(word[at]);
      if (!parts_.bytes && (next & 0xC0U) == 0x80U) continue;  // inside a character
      if (seams_[index(static_cast<uint8_t>(word[at - 1]), next)]) continue;
    }
    const std::string_view piece = word.substr(begin, at - begin);
    if (piece.size() <= Cache::kLongestWord)
      encode(piece, cache, ids);
    else
      encode_anew(piece, ids);
    begin = at;
  }
}

void BpeModel::encode_anew(std::string_view word, std::vector<int32_t>& ids) const {
  if (parts_.ignore_merges && word.size() <= longest_token_) {
    if (const auto found = ids_.find(word)) {
      ids.push_back(*found);
      return;
    }
  }
  const size_t from = ids.size();
  add_symbols(word, ids);
  if (ids.size() - from <= kShort)
    merge_short(ids, from);
  else
    merge_long(ids, from);
}

void BpeModel::add_symbols(std::string_view word, std::vector<int32_t>& ids) const {
  bool after_unknown = false;
  for (size_t at = 0; at < word.size();) {
    const size_t length = parts_.bytes ? 1 : first_character(word.substr(at)).length;
    const std::string_view symbol = word.substr(at, length);
    at += length;
    int32_t id = byte_ids_[static_cast<uint8_t>(symbol[0])];
    if (length > 1) {
      id = ids_.find(symbol).value_or(-1);
    }
    const bool known = id >= 0 || !parts_.byte_fallback.empty();
    if (id >= 0) {
      ids.push_back(id);
    } else if (known) {
      for (const char c : symbol) ids.push_back(parts_.byte_fallback[static_cast<uint8_t>(c)]);
    } else {
      require(parts_.unknown.has_value(), "tokenizer: '{}' has no token, and the vocabulary no unknown token",
              printable(symbol));
      if (!after_unknown || !parts_.fuse_unknown) ids.push_back(*parts_.unknown);
    }
    after_unknown = !known;
  }
}

// Looks at all pairs for each merge: quadratic, but of few symbols.
void BpeModel::merge_short(std::vector<int32_t>& ids, size_t from) const {
  size_t count = ids.size() - from;
  if (count < 2) return;
  int32_t* symbols = ids.data() + from;
  std::array<Merge, kShort> merges;  // of symbol i and the next
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = merge_of(symbols[i], symbols[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i)
      if (merges[i].rank < merges[best].rank) best = i;
    if (merges[best].rank == kNone.rank) break;
    symbols[best] = merges[best].token;
    for (size_t i = best + 1; i + 1 < count; ++i) {
      symbols[i] = symbols[i + 1];
      merges[i] = merges[i + 1];
    }
    --count;
    merges[count - 1] = kNone;
    if (best > 0) merges[best - 1] = merge_of(symbols[best - 1], symbols[best]);
    if (best + 1 < count) merges[best] = merge_of(symbols[best], symbols[best + 1]);
  }
  ids.resize(from + count);
}

// A chain of symbols, and a heap of the merges that may be due.
void BpeModel::merge_long(std::vector<int32_t>& ids, size_t from) const {
  struct Symbol {
    int32_t id, before, next;  // places; -1: none
  };
  struct Due {
    uint32_t rank;
    int32_t place, left, right;  // the symbols it joins, to notice that they are no more
    bool operator<(const Due& o) const { return rank != o.rank ? rank > o.rank : place > o.place; }
  };
  const auto count = static_cast<int32_t>(ids.size() - from);
  std::vector<Symbol> symbols;
  symbols.reserve(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i)
    symbols.push_back({ids[from + static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1});
  const auto at = [&](int32_t place) -> Symbol& { return symbols[static_cast<size_t>(place)]; };

  std::vector<Due> first;
  const auto due_at = [&](int32_t place) -> std::optional<Due> {
    if (place < 0 || at(place).next < 0) return std::nullopt;
    const int32_t left = at(place).id, right = at(at(place).next).id;
    const Merge merge = merge_of(left, right);
    if (merge.rank == kNone.rank) return std::nullopt;
    return Due{merge.rank, place, left, right};
  };
  for (int32_t i = 0; i < count; ++i)
    if (const auto due = due_at(i)) first.push_back(*due);
  std::priority_queue<Due> heap(std::less<Due>{}, std::move(first));

  while (!heap.empty()) {
    const Due due = heap.top();
    heap.pop();
    Symbol& left = at(due.place);
    if (left.id != due.left || left.next < 0 || at(left.next).id != due.right) continue;
    Symbol& right = at(left.next);
    left.id = merge_of(due.left, due.right).token;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) at(left.next).before = due.place;
    for (const int32_t place : {left.before, due.place})
      if (const auto next = due_at(place)) heap.push(*next);
  }
  size_t kept = from;
  for (int32_t place = 0; place >= 0; place = at(place).next) ids[kept++] = at(place).id;
  ids.resize(kept);
}

}  // namespace nf
