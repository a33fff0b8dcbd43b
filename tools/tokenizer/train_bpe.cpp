#include "tools/tokenizer/train_bpe.h"

#include <nf/error.h>
#include <nf/json.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <queue>
#include <thread>

#include "tools/tokenizer/byte_letters.h"
#include "tools/tokenizer/hugging_face.h"
#include "tools/tokenizer/hugging_face_file.h"
#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

using Json = nlohmann::ordered_json;

constexpr int32_t kBytes = 256;
constexpr size_t kLongestWord = 1 << 16;  // longer ones (a line of base64, say) teach nothing

// Ids of the bytes: the order of their letters, as in GPT-2's vocabulary.
std::array<int32_t, kBytes> ids_of_bytes() {
  std::array<int32_t, kBytes> order, ids;
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, {}, [](int32_t byte) { return byte_letters()[static_cast<size_t>(byte)]; });
  for (int32_t id = 0; id < kBytes; ++id) ids[static_cast<size_t>(order[static_cast<size_t>(id)])] = id;
  return ids;
}

// Words as rows of tokens, and for every pair of neighbours how often it occurs and in which words. A merge
// touches only the words that hold its pair.
class Learner {
 public:
  explicit Learner(const std::vector<WordCounter::Word>& words) {
    const std::array<int32_t, kBytes> ids = ids_of_bytes();
    for (const WordCounter::Word& word : words) {
      if (word.bytes.size() < 2 || word.bytes.size() > kLongestWord) continue;
      Word& added = words_.emplace_back();
      added.count = word.count;
      for (const char c : word.bytes) added.tokens.push_back(ids[static_cast<uint8_t>(c)]);
      const auto place = static_cast<uint32_t>(words_.size() - 1);
      for (size_t i = 0; i + 1 < added.tokens.size(); ++i)
        add(added.tokens[i], added.tokens[i + 1], word.count, place);
    }
    for (const auto& [pair, seen] : pairs_) heap_.push({seen.count, pair});
  }

  // Makes the most frequent pair the token that `id_of` says; nullopt when none occurs so often.
  std::optional<BpeMerge> merge(int64_t min_count, const std::function<int32_t(const BpeMerge&)>& id_of) {
    while (!heap_.empty()) {
      const Candidate best = heap_.top();
      heap_.pop();
      const auto found = pairs_.find(best.pair);
      if (found == pairs_.end()) continue;
      if (found->second.count != best.count) {  // it has fallen since; one that rose is in the heap as such
        if (found->second.count > 0) heap_.push({found->second.count, best.pair});
        continue;
      }
      if (best.count < min_count) return std::nullopt;
      const BpeMerge merge = {static_cast<int32_t>(best.pair >> 32),
                              static_cast<int32_t>(best.pair & 0xFFFFFFFFU)};
      std::vector<uint32_t> places = std::move(found->second.words);
      pairs_.erase(found);
      std::sort(places.begin(), places.end());
      places.erase(std::unique(places.begin(), places.end()), places.end());
      const int32_t id = id_of(merge);
      for (const uint32_t place : places) replace(place, merge, id);
      for (const uint64_t pair : risen_)
        if (const auto at = pairs_.find(pair); at != pairs_.end()) heap_.push({at->second.count, pair});
      risen_.clear();
      return merge;
    }
    return std::nullopt;
  }

 private:
  struct Word {
    std::vector<int32_t> tokens;
    int64_t count = 0;
  };
  struct Seen {
    int64_t count = 0;
    std::vector<uint32_t> words;  // some more than once, some no longer
  };
  struct Candidate {
    int64_t count;
    uint64_t pair;
    bool operator<(const Candidate& o) const { return count != o.count ? count < o.count : pair > o.pair; }
  };
  static uint64_t key(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
  }

  void add(int32_t left, int32_t right, int64_t count, uint32_t word) {
    Seen& seen = pairs_[key(left, right)];
    seen.count += count;
    if (seen.words.empty() || seen.words.back() != word) seen.words.push_back(word);
  }
  void remove(int32_t left, int32_t right, int64_t count) {
    if (const auto found = pairs_.find(key(left, right)); found != pairs_.end()) found->second.count -= count;
  }

  void replace(uint32_t place, const BpeMerge& merge, int32_t id) {
    Word& word = words_[place];
    std::vector<int32_t>& tokens = word.tokens;
    const auto arrives = [&](int32_t left, int32_t right) {
      add(left, right, word.count, place);
      risen_.push_back(key(left, right));
    };
    size_t kept = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i + 1 == tokens.size() || tokens[i] != merge.left || tokens[i + 1] != merge.right) {
        tokens[kept++] = tokens[i];
        continue;
      }
      if (kept > 0) {
        remove(tokens[kept - 1], merge.left, word.count);
        arrives(tokens[kept - 1], id);
      }
      if (i + 2 < tokens.size()) {
        remove(merge.right, tokens[i + 2], word.count);
        arrives(id, tokens[i + 2]);
      }
      tokens[kept++] = id;
      ++i;
    }
    tokens.resize(kept);
  }

  std::vector<Word> words_;
  std::unordered_map<uint64_t, Seen> pairs_;
  std::vector<uint64_t> risen_;
  std::priority_queue<Candidate> heap_;
};

void check_special(const std::vector<std::string>& special) {
  for (size_t i = 0; i < special.size(); ++i) {
    require(!special[i].empty() && !find_invalid_utf8(special[i]),
            "tokenizer: special token {} is empty or no UTF-8", i);
    require(std::ranges::count(special, special[i]) == 1, "tokenizer: special token '{}' comes twice",
            printable(special[i]));
  }
}

// As Hugging Face's library writes it, a line to a token.
std::string file_of(const std::string& pattern, const std::vector<std::string>& tokens,
                    const std::vector<BpeMerge>& merges, const std::vector<std::string>& special) {
  Json vocabulary = Json::object(), pairs = Json::array(), added = Json::array();
  auto& entries = vocabulary.get_ref<Json::object_t&>();  // past the search for an equal key: tokens differ
  for (const std::string& token : tokens) entries.emplace_back(to_byte_letters(token), entries.size());
  for (const BpeMerge& merge : merges)
    pairs.push_back(Json::array({to_byte_letters(tokens[static_cast<size_t>(merge.left)]),
                                 to_byte_letters(tokens[static_cast<size_t>(merge.right)])}));
  for (const std::string& name : special)
    added.push_back(special_token(std::ssize(tokens) + std::ssize(added), name));
  const Json split = {
      {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  const Json file =
      bpe_file({std::move(vocabulary),
                std::move(pairs),
                std::move(added),
                {{"type", "Sequence"}, {"pretokenizers", Json::array({split, byte_level(false)})}},
                byte_level(true)});
  return file.dump(1) + "\n";
}

}  // namespace

WordCounter::WordCounter(std::string pattern) : pattern_(std::move(pattern)) {
  pre_tokenizer_.cut(pattern_, false, SplitBehavior::isolated, false);
}

// Each thread counts the texts it takes in a table of its own; sums do not depend on who counted.
void WordCounter::add(std::span<const std::string> texts, int threads) {
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  using Counts = std::unordered_map<std::string, int64_t, Hash, std::equal_to<>>;
  const size_t workers =
      std::min(static_cast<size_t>(std::max(threads, 1)), std::max(texts.size(), size_t{1}));
  std::vector<Counts> counts(workers);
  std::vector<std::exception_ptr> errors(workers);
  std::atomic<size_t> next = 0;
  const auto work = [&](size_t worker) {
    try {
      Counts& mine = counts[worker];
      Regex::Matcher matcher;
      const WordSink word = [&](std::string_view bytes) {
        const auto found = mine.find(bytes);
        if (found == mine.end())
          mine.emplace(bytes, 1);
        else
          ++found->second;
      };
      for (size_t i; (i = next.fetch_add(1)) < texts.size();)
        pre_tokenizer_.split(texts[i], true, matcher, word);
    } catch (...) {
      errors[worker] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> others;
    for (size_t worker = 1; worker < workers; ++worker) others.emplace_back(work, worker);
    work(0);
  }
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
  for (const Counts& part : counts)
    for (const auto& [word, count] : part) counts_[word] += count;
}

std::vector<WordCounter::Word> WordCounter::words() const {
  std::vector<Word> words;
  words.reserve(counts_.size());
  for (const auto& [bytes, count] : counts_) words.push_back({bytes, count});
  std::ranges::sort(words, {}, &Word::bytes);
  return words;
}

std::unique_ptr<BpeTokenizer> train_bpe(const WordCounter& counter, const TrainBpeOptions& options,
                                        const std::function<void(int32_t)>& progress) {
  check_special(options.special);
  const auto special = static_cast<int32_t>(options.special.size());
  require(options.vocab_size >= kBytes + special,
          "tokenizer: a vocabulary of {} is too small: {} bytes and {} special tokens need {}",
          options.vocab_size, kBytes, special, kBytes + special);

  std::vector<std::string> tokens(kBytes);
  const std::array<int32_t, kBytes> ids = ids_of_bytes();
  for (size_t byte = 0; byte < kBytes; ++byte)
    tokens[static_cast<size_t>(ids[byte])] = static_cast<char>(byte);
  std::vector<BpeMerge> merges;
  Learner learner(counter.words());
  std::unordered_map<std::string, int32_t> known;
  for (size_t id = 0; id < tokens.size(); ++id) known.emplace(tokens[id], static_cast<int32_t>(id));
  // Two merges may spell one token: (a, bc) and (ab, c).
  const auto id_of = [&](const BpeMerge& merge) {
    std::string joined = tokens[static_cast<size_t>(merge.left)] + tokens[static_cast<size_t>(merge.right)];
    const auto [entry, is_new] = known.try_emplace(joined, static_cast<int32_t>(tokens.size()));
    if (is_new) tokens.push_back(std::move(joined));
    return entry->second;
  };
  while (static_cast<int32_t>(tokens.size()) < options.vocab_size - special) {
    const std::optional<BpeMerge> merge = learner.merge(options.min_count, id_of);
    if (!merge) break;
    merges.push_back(*merge);
    if (progress) progress(static_cast<int32_t>(tokens.size()));
  }
  return parse_hugging_face(file_of(counter.pattern(), tokens, merges, options.special),
                            "the trained tokenizer");
}

}  // namespace nf
