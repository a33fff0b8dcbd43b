#include "tools/tokenizer/bpe_model.h"

#include <doctest/doctest.h>
#include <nf/error.h>

#include <algorithm>
#include <map>
#include <random>

#include "tests/tokenizer/texts.h"
#include "tools/tokenizer/train_bpe.h"

using namespace nf;

namespace {

BpeParts bytes_alone() {
  BpeParts parts;
  for (int byte = 0; byte < 256; ++byte) parts.tokens.emplace_back(1, static_cast<char>(byte));
  return parts;
}

void add_merge(BpeParts& parts, int32_t left, int32_t right) {
  const std::string joined =
      parts.tokens[static_cast<size_t>(left)] + parts.tokens[static_cast<size_t>(right)];
  if (std::ranges::find(parts.tokens, joined) == parts.tokens.end()) parts.tokens.push_back(joined);
  parts.merges.push_back({left, right});
}

// Merges of random pairs of tokens over a few letters.
BpeParts random_parts(uint64_t seed) {
  std::mt19937_64 random(seed);
  BpeParts parts = bytes_alone();
  std::vector<int32_t> usable = {'a', 'b', 'c', ' '};
  for (int i = 0; i < 60; ++i) {
    const int32_t left = usable[random() % usable.size()], right = usable[random() % usable.size()];
    if (std::ranges::find(parts.merges, BpeMerge{left, right}) != parts.merges.end()) continue;
    const size_t before = parts.tokens.size();
    add_merge(parts, left, right);
    if (parts.tokens.size() > before) usable.push_back(static_cast<int32_t>(before));
  }
  return parts;
}

// The definition, word for word: the pair of the lowest rank, the leftmost of equals, again and again.
std::vector<int32_t> by_definition(const BpeParts& parts, std::string_view word) {
  std::map<std::pair<int32_t, int32_t>, size_t> ranks;
  std::map<std::string, int32_t> ids;
  for (size_t i = 0; i < parts.tokens.size(); ++i) ids.emplace(parts.tokens[i], static_cast<int32_t>(i));
  for (size_t i = 0; i < parts.merges.size(); ++i) ranks[{parts.merges[i].left, parts.merges[i].right}] = i;
  std::vector<int32_t> symbols;
  for (const char c : word) symbols.push_back(static_cast<uint8_t>(c));
  while (true) {
    size_t best = SIZE_MAX, place = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = ranks.find({symbols[i], symbols[i + 1]});
      if (found == ranks.end() || found->second >= best) continue;
      best = found->second;
      place = i;
    }
    if (best == SIZE_MAX) return symbols;
    const auto text = [&](size_t i) { return parts.tokens[static_cast<size_t>(symbols[i])]; };
    symbols[place] = ids.at(text(place) + text(place + 1));
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(place) + 1);
  }
}

std::string random_word(std::mt19937_64& random, size_t length) {
  std::string word;
  while (word.size() < length) word += "aaabbc d"[random() % 8];
  return word;
}

std::vector<int32_t> encode(const BpeModel& model, std::string_view word, BpeModel::Cache& cache) {
  std::vector<int32_t> ids;
  model.encode(word, cache, ids);
  return ids;
}

}  // namespace

TEST_CASE("bpe: words of every length become what the definition says, cached or not, cut or not") {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    BpeParts parts = random_parts(seed);
    parts.ignore_merges = false;
    const BpeModel model(parts);
    BpeModel::Cache cache;
    std::mt19937_64 random(seed);
    for (size_t length = 1; length < 200; length += 1 + length / 6) {
      const std::string word = random_word(random, length);
      const std::vector<int32_t> expected = by_definition(parts, word);
      CHECK(encode(model, word, cache) == expected);
      CHECK(encode(model, word, cache) == expected);
    }
  }
}

TEST_CASE("bpe: a word of a million symbols takes no quadratic time") {
  BpeParts parts = bytes_alone();
  for (int32_t token = 'a'; parts.tokens.size() < 270; token = static_cast<int32_t>(parts.tokens.size()) - 1)
    add_merge(parts, token, token);
  const BpeModel model(parts);
  BpeModel::Cache cache;
  CHECK(encode(model, std::string(1 << 20, 'a'), cache) == std::vector<int32_t>(1 << 6, 269));
}

TEST_CASE("bpe: the cache does not take one word for another") {
  BpeParts parts = bytes_alone();
  const BpeModel model(parts);
  BpeModel::Cache cache;
  const std::string zeros(4, '\0');
  for (int round = 0; round < 2; ++round) {
    for (size_t length = 1; length <= 4; ++length)
      CHECK(encode(model, zeros.substr(0, length), cache) == std::vector<int32_t>(length, 0));
    for (int32_t word = 0; word < 50000; ++word) {  // more than there is room for
      const std::string bytes(reinterpret_cast<const char*>(&word), 3);
      REQUIRE(encode(model, bytes, cache) ==
              std::vector<int32_t>{word & 0xFF, (word >> 8) & 0xFF, (word >> 16) & 0xFF});
    }
  }
}

TEST_CASE("bpe: merges that make no sense, symbols without a token") {
  BpeParts parts = bytes_alone();
  parts.merges.push_back({'a', 'b'});
  CHECK_THROWS_WITH_AS(BpeModel{parts},
                       doctest::Contains("merge 0 gives 'ab', which is not in the vocabulary"), Error);
  parts.merges = {{'a', 400}};
  CHECK_THROWS_WITH_AS(BpeModel{parts}, doctest::Contains("merge 0 joins a token that is not"), Error);
  parts.merges.clear();
  parts.tokens['x'].clear();
  BpeModel::Cache cache;
  CHECK_THROWS_WITH_AS(encode(BpeModel(parts), "axb", cache), doctest::Contains("'x' has no token"), Error);
  parts.unknown = '?';
  BpeModel::Cache other;
  CHECK(encode(BpeModel(parts), "axxb", other) == std::vector<int32_t>{'a', '?', '?', 'b'});
  parts.fuse_unknown = true;
  BpeModel::Cache third;
  CHECK(encode(BpeModel(parts), "axxb", third) == std::vector<int32_t>{'a', '?', 'b'});
}

// ---- training

namespace {

std::vector<std::string> training_texts() {
  std::vector<std::string> texts;
  for (uint64_t seed = 0; seed < 30; ++seed)
    texts.push_back(random_text(seed, 200) + " low lower lowest newer wider");
  return texts;
}

std::unique_ptr<BpeTokenizer> train(const std::vector<std::string>& texts, const TrainBpeOptions& options,
                                    int threads) {
  WordCounter counter{std::string(kLlama3Pattern)};
  counter.add(texts, threads);
  return train_bpe(counter, options);
}

// Counts all pairs of all words anew for every merge.
std::vector<BpeMerge> merges_by_definition(const WordCounter& counter, const BpeModel& alphabet,
                                           size_t how_many) {
  BpeModel::Cache cache;
  std::vector<std::pair<std::vector<int32_t>, int64_t>> words;
  for (const WordCounter::Word& word : counter.words())
    words.emplace_back(encode(alphabet, word.bytes, cache), word.count);
  std::vector<std::string> tokens(alphabet.parts().tokens.begin(), alphabet.parts().tokens.begin() + 256);
  std::vector<BpeMerge> merges;
  while (merges.size() < how_many) {
    std::map<std::pair<int32_t, int32_t>, int64_t> counts;
    for (const auto& [ids, count] : words)
      for (size_t i = 0; i + 1 < ids.size(); ++i) counts[{ids[i], ids[i + 1]}] += count;
    const auto best = std::ranges::max_element(counts, [](const auto& a, const auto& b) {
      return a.second != b.second ? a.second < b.second : a.first > b.first;
    });
    const auto [left, right] = best->first;
    const std::string joined = tokens[static_cast<size_t>(left)] + tokens[static_cast<size_t>(right)];
    const auto id = static_cast<int32_t>(std::ranges::find(tokens, joined) - tokens.begin());
    if (static_cast<size_t>(id) == tokens.size()) tokens.push_back(joined);
    merges.push_back({left, right});
    for (auto& [ids, count] : words)
      for (size_t i = 0; i + 1 < ids.size(); ++i)
        if (ids[i] == left && ids[i + 1] == right) {
          ids[i] = id;
          ids.erase(ids.begin() + static_cast<ptrdiff_t>(i) + 1);
        }
  }
  return merges;
}

}  // namespace

TEST_CASE("bpe training: the merges are those of the definition") {
  const std::vector<std::string> texts = training_texts();
  const auto tokenizer = train(texts, {.vocab_size = 457, .special = {"<|endoftext|>"}}, 1);
  CHECK(tokenizer->vocab_size() == 457);
  CHECK(tokenizer->eos_id() == 456);
  WordCounter counter{std::string(kLlama3Pattern)};
  counter.add(texts, 1);
  const auto alphabet = train(texts, {.vocab_size = 256, .special = {}}, 1);
  const std::vector<BpeMerge>& merges = tokenizer->model().parts().merges;
  CHECK(merges.size() >= 200);
  CHECK(merges == merges_by_definition(counter, alphabet->model(), merges.size()));
}

TEST_CASE("bpe training: the same for any number of threads and any order of texts") {
  std::vector<std::string> texts = training_texts();
  const std::string once = train(texts, {.vocab_size = 400}, 1)->to_json();
  std::ranges::reverse(texts);
  CHECK(train(texts, {.vocab_size = 400}, 3)->to_json() == once);
}

TEST_CASE("bpe training: any bytes come back, and no pair is rarer than asked for") {
  const auto tokenizer = train(training_texts(), {.vocab_size = 5000, .min_count = 3}, 2);
  CHECK(tokenizer->vocab_size() < 5000);
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  for (const std::string& text :
       {all, std::string("lower \xFF\xC3 caf\xC3\xA9 <|endoftext|>\xE4\xBD"), random_text(99, 500)}) {
    std::vector<int32_t> ids;
    tokenizer->encode(text, ids);
    CHECK(tokenizer->decode(ids) == text);
    std::string pieces;
    for (const int32_t id : ids) pieces += tokenizer->piece(id);
    CHECK(pieces == text);
  }
  std::vector<int32_t> ids;
  tokenizer->encode_special("a<|endoftext|>", ids);
  CHECK(ids.back() == tokenizer->eos_id());
  CHECK(tokenizer->decode(ids) == "a");
  CHECK_THROWS_AS(tokenizer->decode(std::vector<int32_t>{tokenizer->vocab_size()}), Error);
}

TEST_CASE("bpe training: bad requests") {
  CHECK_THROWS_WITH_AS(train({"a"}, {.vocab_size = 256}, 1), doctest::Contains("need 257"), Error);
  CHECK_THROWS_WITH_AS(train({"a"}, {.vocab_size = 300, .special = {"x", "x"}}, 1),
                       doctest::Contains("comes twice"), Error);
  CHECK_THROWS_WITH_AS(train({"a"}, {.vocab_size = 300, .special = {"\xFF"}}, 1),
                       doctest::Contains("no UTF-8"), Error);
  CHECK_THROWS_AS(WordCounter{"("}, Error);
}
