#include "tools/data/dataset.h"

#include <doctest/doctest.h>
#include <nf/error.h>

#include <cmath>
#include <numeric>
#include <set>

#include "tests/support/folder.h"
#include "tools/tokenizer/byte_tokenizer.h"

using namespace nf;

namespace {

// Documents of the given lengths whose tokens are 0, 1, 2, … throughout.
TokenDataset counted(const std::vector<int64_t>& lengths) {
  std::vector<int32_t> tokens(
      static_cast<size_t>(std::accumulate(lengths.begin(), lengths.end(), int64_t{0})));
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto vocabulary = static_cast<int32_t>(tokens.size());
  return TokenDataset(std::move(tokens), lengths, vocabulary);
}

std::vector<int32_t> ids_of(const TokenDataset& dataset) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < dataset.documents(); ++i)
    for (const int32_t id : dataset.document(i)) ids.push_back(id);
  return ids;
}

// A tokenizer that begins and ends documents.
class Framed final : public Tokenizer {
 public:
  std::string_view name() const override { return "framed"; }
  int32_t vocab_size() const override { return 258; }
  void encode(std::string_view text, std::vector<int32_t>& ids) const override {
    ByteTokenizer().encode(text, ids);
  }
  std::string decode(std::span<const int32_t> ids) const override { return ByteTokenizer().decode(ids); }
  std::optional<int32_t> bos_id() const override { return 257; }
  std::optional<int32_t> eos_id() const override { return 256; }
  std::string to_json() const override { return "framed"; }
};

}  // namespace

TEST_CASE("dataset: several documents are framed, a running text is not") {
  const Folder folder;
  const auto many = open_documents({folder.write("a.jsonl", "{\"text\":\"ab\"}\n{\"text\":\"c\"}\n")});
  const auto one = open_documents({folder.write("b.txt", "ab")});
  CHECK(ids_of(tokenize(*many, ByteTokenizer())) == std::vector<int32_t>{'a', 'b', 256, 'c', 256});
  CHECK(ids_of(tokenize(*many, Framed())) == std::vector<int32_t>{257, 'a', 'b', 256, 257, 'c', 256});
  CHECK(ids_of(tokenize(*many, Framed(), {.bos = false, .eos = false})) ==
        std::vector<int32_t>{'a', 'b', 'c'});
  CHECK(ids_of(tokenize(*one, Framed())) == std::vector<int32_t>{'a', 'b'});
  CHECK(ids_of(tokenize(*one, Framed(), {.bos = true})) == std::vector<int32_t>{257, 'a', 'b'});
  CHECK(ids_of(tokenize(*one, Framed(), {.eos = true})) == std::vector<int32_t>{'a', 'b', 256});
  CHECK_THROWS_AS(tokenize(*one, ByteTokenizer(), {.bos = true}), Error);
}

TEST_CASE("dataset: no text, and text the tokenizer refuses") {
  const Folder folder;
  const auto empty = open_documents({folder.write("empty.txt", "")});
  CHECK_THROWS_WITH_AS(tokenize(*empty, ByteTokenizer()), doctest::Contains("there is no text in "), Error);

  const auto tokenizer = make_tokenizer("char", [](const auto& add) { add("ab"); });
  const auto file = folder.write("a.jsonl", "{\"text\":\"ab\"}\n{\"text\":\"bx\"}\n");
  CHECK_THROWS_WITH_AS(tokenize(*open_documents({file}), *tokenizer),
                       doctest::Contains((file + ":2: tokenizer: 'x' (U+0078) at character 1").c_str()),
                       Error);
}

TEST_CASE("dataset: a buffer that does not match its documents") {
  const std::vector<int64_t> wrong_sum = {2, 2}, empty_document = {3, 0}, negative = {4, -1}, good = {1, 2};
  CHECK_THROWS_AS(TokenDataset({0, 1, 2}, wrong_sum, 3), Error);
  CHECK_THROWS_AS(TokenDataset({0, 1, 2}, empty_document, 3), Error);
  CHECK_THROWS_AS(TokenDataset({0, 1, 2}, negative, 3), Error);
  CHECK_THROWS_AS(TokenDataset({0, 1, 2}, good, 2), Error);
  CHECK_THROWS_AS(TokenDataset({0, -1, 2}, good, 3), Error);
  CHECK(TokenDataset({0, 1, 2}, good, 3).document(1).size() == 2);
}

TEST_CASE("dataset: the split of one text is its first nine tenths and its last") {
  const auto [train, validation] = counted({1115394}).split();
  CHECK(train.tokens() == 1003854);  // int(0.9 * 1115394), as the usual script computes it
  CHECK(validation.tokens() == 111540);
  CHECK(train.document(0).back() + 1 == validation.document(0).front());
}

TEST_CASE("dataset: short texts keep two tokens on both sides, shorter ones are refused") {
  for (const double fraction : {0.001, 0.1, 0.5, 0.99}) {
    const auto [train, validation] = counted({4}).split(fraction);
    CHECK(train.tokens() == 2);
    CHECK(validation.tokens() == 2);
  }
  CHECK_THROWS_WITH_AS(counted({3}).split(0.1), doctest::Contains("too short"), Error);
}

TEST_CASE("dataset: few documents give their tails, many are held out whole") {
  const auto few = counted({100, 50}).split(0.1);
  CHECK(few.train.documents() == 2);
  CHECK(few.train.tokens() == 135);
  CHECK(few.validation.document(0).front() == 90);
  CHECK(few.validation.document(1).front() == 145);

  const TokenDataset all = counted(std::vector<int64_t>(200, 3));
  const auto many = all.split(0.1, 1);
  CHECK(many.validation.documents() == 20);
  CHECK(many.train.documents() == 180);
  const auto train = ids_of(many.train), validation = ids_of(many.validation);
  CHECK(std::is_sorted(train.begin(), train.end()));
  CHECK(std::is_sorted(validation.begin(), validation.end()));
  std::set<int32_t> both(train.begin(), train.end());
  both.insert(validation.begin(), validation.end());
  CHECK(both.size() == 600);

  CHECK(all.split(0.1, 1).validation.fingerprint() == many.validation.fingerprint());
  CHECK(all.split(0.1, 2).validation.fingerprint() != many.validation.fingerprint());
  CHECK(all.split(0.0001).validation.documents() == 1);
  CHECK(all.split(0.9999).train.documents() == 1);
}

TEST_CASE("dataset: nothing held out, and fractions that make no sense") {
  const auto [train, validation] = counted({10}).split(0);
  CHECK(train.tokens() == 10);
  CHECK(validation.documents() == 0);
  CHECK(validation.stats().describe() == "no documents");
  CHECK_THROWS_AS(counted({10}).split(1), Error);
  CHECK_THROWS_AS(counted({10}).split(-0.1), Error);
  CHECK_THROWS_AS(counted({10}).split(std::nan("")), Error);
}

TEST_CASE("dataset: statistics") {
  const std::vector<int64_t> lengths = {1, 5, 2};
  const TokenDataset dataset({0, 0, 0, 0, 0, 1, 1, 2}, lengths, 5);
  const DatasetStats stats = dataset.stats();
  CHECK(stats.documents == 3);
  CHECK(stats.tokens == 8);
  CHECK(stats.min_length == 1);
  CHECK(stats.max_length == 5);
  CHECK(stats.mean_length == doctest::Approx(8.0 / 3));
  const double expected =
      -(5.0 / 8 * std::log(5.0 / 8) + 2.0 / 8 * std::log(2.0 / 8) + 1.0 / 8 * std::log(1.0 / 8));
  CHECK(stats.unigram_entropy == doctest::Approx(expected).epsilon(1e-12));
  CHECK(counted({64}).stats().unigram_entropy == doctest::Approx(std::log(64.0)).epsilon(1e-12));
  CHECK(stats.describe() == "3 documents, 8 tokens (1 to 5, mean 2.7), 0.900 nats/token unigram");
}

TEST_CASE("dataset: the fingerprint tells documents and their boundaries apart") {
  CHECK(counted({2, 3}).fingerprint() == counted({2, 3}).fingerprint());
  CHECK(counted({2, 3}).fingerprint() != counted({3, 2}).fingerprint());
  CHECK(counted({2, 3}).fingerprint() != counted({5}).fingerprint());
}
