#include "tools/data/batches.h"

#include <doctest/doctest.h>
#include <nf/error.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <set>

#include "tests/trainer/allocations.h"
#include "tools/data/shuffle.h"

using namespace nf;

namespace {

// Documents whose tokens are 0, 1, 2, … throughout, so that a token tells its place.
TokenDataset counted(const std::vector<int64_t>& lengths) {
  std::vector<int32_t> tokens(
      static_cast<size_t>(std::accumulate(lengths.begin(), lengths.end(), int64_t{0})));
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto vocabulary = static_cast<int32_t>(tokens.size());
  return TokenDataset(std::move(tokens), lengths, vocabulary);
}

std::vector<int64_t> mixed_lengths(int64_t documents) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < documents; ++i)
    lengths.push_back(1 + random_below(90, 7, 7, static_cast<uint64_t>(i)));
  return lengths;
}

// Checks all that the header promises of any batch, for a counted dataset.
void check_batch(const Batch& batch, const TokenDataset& dataset) {
  const auto size = static_cast<size_t>(batch.batch * batch.length);
  REQUIRE(batch.ids.size() == size);
  REQUIRE(batch.targets.size() == size);
  REQUIRE(batch.documents.size() == size);
  REQUIRE(batch.positions.size() == size);
  std::map<int32_t, int64_t> document_of;
  for (int64_t i = 0; i < dataset.documents(); ++i)
    for (const int32_t id : dataset.document(i)) document_of[id] = i;

  int64_t real = 0;
  bool good = true;
  for (int64_t row = 0; row < batch.batch; ++row) {
    for (int64_t t = 0; t < batch.length; ++t) {
      const auto at = static_cast<size_t>(row * batch.length + t);
      const int32_t id = batch.ids[at], target = batch.targets[at];
      if (batch.documents[at] == kPaddingDocument) {
        good &= target == kIgnoreIndex && batch.positions[at] == 0;
        good &= t + 1 == batch.length || batch.documents[at + 1] == kPaddingDocument;
        continue;
      }
      const bool begins = t == 0 || document_of[batch.ids[at - 1]] != document_of[id];
      good &= begins || batch.ids[at - 1] + 1 == id;
      good &= batch.positions[at] == (begins ? 0 : batch.positions[at - 1] + 1);
      good &= batch.documents[at] == (t == 0 ? 0 : batch.documents[at - 1] + (begins ? 1 : 0));
      const bool more = document_of.count(id + 1) > 0 && document_of[id + 1] == document_of[id];
      good &= target == (more ? id + 1 : kIgnoreIndex);
      real += target != kIgnoreIndex;
    }
  }
  CHECK(good);
  CHECK(batch.real_target_tokens == real);
}

// How often each token is a target in one epoch.
std::map<int32_t, int> count_targets(Batches& batches, const TokenDataset& dataset) {
  std::map<int32_t, int> counts;
  Batch batch;
  for (int64_t i = 0; i < batches.batches_per_epoch(); ++i) {
    batches.next(batch);
    check_batch(batch, dataset);
    for (const int32_t target : batch.targets)
      if (target != kIgnoreIndex) ++counts[target];
  }
  return counts;
}

// Every token but the first of each document.
std::map<int32_t, int> all_targets(const TokenDataset& dataset) {
  std::map<int32_t, int> counts;
  for (int64_t i = 0; i < dataset.documents(); ++i)
    for (int64_t at = 1; at < dataset.length(i); ++at)
      counts[dataset.document(i)[static_cast<size_t>(at)]] = 1;
  return counts;
}

bool same(const Batch& a, const Batch& b) {
  return a.batch == b.batch && a.length == b.length && a.ids == b.ids && a.targets == b.targets &&
         a.documents == b.documents && a.positions == b.positions &&
         a.real_target_tokens == b.real_target_tokens;
}

const BatchOptions kVariants[] = {
    {.mode = BatchMode::pack, .batch = 3, .length = 16},
    {.mode = BatchMode::pack, .batch = 3, .length = 16, .shuffle = false},
    {.mode = BatchMode::pack, .batch = 3, .length = 16, .drop_last = true},
    {.mode = BatchMode::pack, .batch = 3, .length = 16, .random_offsets = true},
    {.mode = BatchMode::pad, .batch = 3, .length = 16},
    {.mode = BatchMode::pad, .batch = 3, .length = 37, .shuffle = false},
    {.mode = BatchMode::pad, .batch = 3, .length = 16, .drop_last = true},
    {.mode = BatchMode::pad, .batch = 3, .length = 37, .truncate = true, .pool_batches = 2},
};

}  // namespace

TEST_CASE("batches: every batch is well formed in every mode") {
  const TokenDataset dataset = counted(mixed_lengths(60));
  for (const BatchOptions& options : kVariants) {
    const auto batches = make_batches(dataset, options);
    Batch batch;
    for (int64_t i = 0; i < 2 * batches->batches_per_epoch(); ++i) {
      batches->next(batch);
      check_batch(batch, dataset);
      CHECK(batch.batch == options.batch);
      if (options.mode == BatchMode::pack) CHECK(batch.length == options.length);
      if (options.mode == BatchMode::pad) CHECK(batch.length % kLengthMultiple == 0);
    }
  }
}

TEST_CASE("batches: every token with one before it in its document is a target exactly once per epoch") {
  const TokenDataset dataset = counted(mixed_lengths(60));
  for (const BatchOptions& options : kVariants) {
    if (options.random_offsets || options.drop_last || options.truncate) continue;
    const auto batches = make_batches(dataset, options);
    for (int epoch = 0; epoch < 3; ++epoch) CHECK(count_targets(*batches, dataset) == all_targets(dataset));
  }
}

TEST_CASE("batches: a run resumes at every position with the very next batch") {
  const TokenDataset dataset = counted(mixed_lengths(25));
  for (BatchOptions options : kVariants) {
    options.seed = 11;
    const auto whole = make_batches(dataset, options);
    std::vector<Batch> expected;
    std::vector<BatchPosition> positions;
    for (int64_t i = 0; i < 2 * whole->batches_per_epoch() + 1; ++i) {
      positions.push_back(whole->position());
      whole->next(expected.emplace_back());
    }
    CHECK(positions.back() == BatchPosition{11, 2, 0});
    options.seed = 999;  // the position brings its own
    const auto jumping = make_batches(dataset, options);
    Batch batch;
    for (size_t i = positions.size(); i-- > 0;) {
      jumping->seek(positions[i]);
      jumping->next(batch);
      CHECK(same(batch, expected[i]));
      if (i + 1 < positions.size()) CHECK(jumping->position() == positions[i + 1]);
    }
  }
}

TEST_CASE("batches: epochs and seeds differ when shuffled, and not otherwise") {
  const TokenDataset dataset = counted(mixed_lengths(60));
  for (const BatchOptions& options : kVariants) {
    const auto batches = make_batches(dataset, options);
    const auto first_of = [&](uint64_t seed, int64_t epoch) {
      Batch batch;
      batches->seek({seed, epoch, 0});
      batches->next(batch);
      return batch;
    };
    CHECK(same(first_of(1, 1), first_of(1, 1)));
    CHECK(same(first_of(1, 0), first_of(1, 1)) == !options.shuffle);
    CHECK(same(first_of(1, 0), first_of(2, 0)) == !options.shuffle);
  }
}

TEST_CASE("batches: pack, the small example by hand") {
  const TokenDataset dataset = counted({3, 1, 4});  // 0 1 2 | 3 | 4 5 6 7
  const auto batches = make_batches(
      dataset, {.mode = BatchMode::pack, .batch = 3, .length = 3, .shuffle = false, .padding_id = 9});
  CHECK(batches->batches_per_epoch() == 1);
  Batch batch;
  batches->next(batch);
  CHECK(batch.ids == std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 9});
  CHECK(batch.targets == std::vector<int32_t>{1, 2, -100, -100, 5, 6, 7, -100, -100});
  CHECK(batch.documents == std::vector<int32_t>{0, 0, 0, 0, 1, 1, 0, 0, -1});
  CHECK(batch.positions == std::vector<int32_t>{0, 1, 2, 0, 0, 1, 0, 1, 0});
  CHECK(batch.real_target_tokens == 5);
}

TEST_CASE("batches: pad, the small example by hand") {
  const TokenDataset dataset = counted({3, 1, 12});
  const auto batches =
      make_batches(dataset, {.mode = BatchMode::pad, .batch = 2, .length = 8, .shuffle = false});
  CHECK(batches->batches_per_epoch() == 2);  // rows: 0 1>2, 4 … 11>12, 12 13 14>15; the lone token gives none
  Batch batch;
  batches->next(batch);
  CHECK(batch.length == 8);
  CHECK(batch.ids == std::vector<int32_t>{0, 1, 0, 0, 0, 0, 0, 0, 4, 5, 6, 7, 8, 9, 10, 11});
  CHECK(batch.targets ==
        std::vector<int32_t>{1, 2, -100, -100, -100, -100, -100, -100, 5, 6, 7, 8, 9, 10, 11, 12});
  CHECK(batch.documents == std::vector<int32_t>{0, 0, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0});
  CHECK(batch.positions == std::vector<int32_t>{0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7});
  CHECK(batch.real_target_tokens == 10);
  batches->next(batch);
  CHECK(batch.real_target_tokens == 3);
  CHECK(std::count(batch.documents.begin() + 8, batch.documents.end(), kPaddingDocument) == 8);
  CHECK(batches->position() == BatchPosition{0, 1, 0});
}

TEST_CASE("batches: one text shorter than a row") {
  const TokenDataset dataset = counted({5});
  for (const bool random_offsets : {false, true}) {
    const auto batches = make_batches(
        dataset, {.mode = BatchMode::pack, .batch = 2, .length = 16, .random_offsets = random_offsets});
    CHECK(batches->batches_per_epoch() == 1);
    Batch batch;
    batches->next(batch);
    check_batch(batch, dataset);
    CHECK(batch.real_target_tokens == (random_offsets ? 8 : 4));
  }
  const auto padded = make_batches(dataset, {.mode = BatchMode::pad, .batch = 2, .length = 16});
  CHECK(count_targets(*padded, dataset) == all_targets(dataset));
}

TEST_CASE("batches: random offsets reach every window and never the end") {
  const TokenDataset dataset = counted({20});
  const auto batches =
      make_batches(dataset, {.mode = BatchMode::pack, .batch = 4, .length = 8, .random_offsets = true});
  CHECK(batches->batches_per_epoch() == 1);  // 19 targets in 32 places
  std::set<int32_t> starts;
  Batch batch;
  for (int i = 0; i < 100; ++i) {
    batches->next(batch);
    CHECK(batch.real_target_tokens == 32);
    for (size_t row = 0; row < 4; ++row) starts.insert(batch.ids[row * 8]);
  }
  CHECK(starts.size() == 12);
  CHECK(*starts.rbegin() == 11);  // its last target is token 19
}

TEST_CASE("batches: pools keep padding low") {
  const TokenDataset dataset = counted(mixed_lengths(2000));
  const auto padding = [&](bool shuffle) {
    const auto batches = make_batches(
        dataset, {.mode = BatchMode::pad, .batch = 8, .length = 128, .shuffle = shuffle, .pool_batches = 50});
    Batch batch;
    int64_t padded = 0, total = 0;
    for (int64_t i = 0; i < batches->batches_per_epoch(); ++i) {
      batches->next(batch);
      padded += std::count(batch.documents.begin(), batch.documents.end(), kPaddingDocument);
      total += batch.batch * batch.length;
    }
    return static_cast<double>(padded) / static_cast<double>(total);
  };
  CHECK(padding(true) < 0.12);
  CHECK(padding(false) > 0.4);
}

TEST_CASE("batches: dropping the last leaves no padding rows, and other documents each epoch") {
  const TokenDataset dataset = counted(std::vector<int64_t>(10, 9));
  for (const BatchMode mode : {BatchMode::pack, BatchMode::pad}) {
    const auto batches = make_batches(dataset, {.mode = mode, .batch = 4, .length = 8, .drop_last = true});
    std::set<int32_t> targets;
    for (int epoch = 0; epoch < 20; ++epoch)
      for (const auto& [target, count] : count_targets(*batches, dataset)) targets.insert(target);
    CHECK(targets.size() == all_targets(dataset).size());
  }
  const auto batches =
      make_batches(dataset, {.mode = BatchMode::pad, .batch = 64, .length = 8, .drop_last = true});
  CHECK(batches->batches_per_epoch() == 1);  // the only batch stays
}

TEST_CASE("batches: the ranks together see what one process sees") {
  const TokenDataset dataset = counted(mixed_lengths(60));
  for (BatchOptions options : kVariants) {
    options.batch = 6;
    const auto whole = make_batches(dataset, options);
    options.batch = 2;
    options.ranks = 3;
    std::vector<std::unique_ptr<Batches>> ranks;
    for (options.rank = 0; options.rank < 3; ++options.rank) ranks.push_back(make_batches(dataset, options));
    Batch batch;
    for (int64_t i = 0; i < whole->batches_per_epoch() + 1; ++i) {
      whole->next(batch);
      std::vector<int32_t> expected = batch.targets, found;
      for (const auto& rank : ranks) {
        CHECK(rank->batches_per_epoch() == whole->batches_per_epoch());
        rank->next(batch);
        found.insert(found.end(), batch.targets.begin(), batch.targets.end());
      }
      std::erase(expected, kIgnoreIndex);
      std::erase(found, kIgnoreIndex);
      CHECK(found == expected);
    }
  }
}

TEST_CASE("batches: a batch is filled in place once its vectors are large enough") {
  const TokenDataset dataset = counted(mixed_lengths(60));
  for (const BatchOptions& options : kVariants) {
    const auto batches = make_batches(dataset, options);
    Batch batch;
    for (auto* values : {&batch.ids, &batch.targets, &batch.documents, &batch.positions})
      values->reserve(1000);
    const auto places = [&] {
      return std::array{batch.ids.data(), batch.targets.data(), batch.documents.data(),
                        batch.positions.data()};
    };
    const auto before = places();
    for (int64_t i = 0; i < 3 * batches->batches_per_epoch(); ++i) batches->next(batch);
    CHECK(places() == before);
  }
}

TEST_CASE("batches: positions and options that do not exist") {
  const TokenDataset dataset = counted({40});
  const auto batches = make_batches(dataset, {.batch = 2, .length = 8});
  REQUIRE(batches->batches_per_epoch() == 3);
  batches->seek({0, 5, 2});
  CHECK_THROWS_AS(batches->seek({0, 0, 3}), Error);
  CHECK_THROWS_AS(batches->seek({0, 0, -1}), Error);
  CHECK_THROWS_AS(batches->seek({0, -1, 0}), Error);
  CHECK(batches->position() == BatchPosition{0, 5, 2});

  const auto make = [&](const BatchOptions& options) { make_batches(dataset, options); };
  CHECK_THROWS_AS(make({.batch = 0}), Error);
  CHECK_THROWS_AS(make({.length = 0}), Error);
  CHECK_THROWS_AS(make({.batch = int64_t{1} << 40}), Error);
  CHECK_THROWS_AS(make({.rank = 1}), Error);
  CHECK_THROWS_AS(make({.rank = -1}), Error);
  CHECK_THROWS_AS(make({.pool_batches = 0}), Error);
  CHECK_THROWS_AS(make({.mode = BatchMode::pad, .random_offsets = true}), Error);
  CHECK_THROWS_WITH_AS(make_batches(counted({1, 1}), {}), doctest::Contains("nothing to predict"), Error);
  CHECK_THROWS_AS(make_batches(TokenDataset(), {}), Error);
}

TEST_CASE("batches: made ahead they are the same, wherever one goes") {
  const TokenDataset dataset = counted(mixed_lengths(60));
  for (const BatchMode mode : {BatchMode::pack, BatchMode::pad}) {
    const BatchOptions options{.mode = mode, .batch = 3, .length = 16, .seed = 5};
    const auto plain = make_batches(dataset, options), ahead = prefetched(make_batches(dataset, options));
    REQUIRE(ahead->batches_per_epoch() == plain->batches_per_epoch());
    CHECK(ahead->position() == plain->position());
    Batch a, b;
    const auto check_next = [&] {
      plain->next(a);
      ahead->next(b);
      CHECK(a.ids == b.ids);
      CHECK(a.targets == b.targets);
      CHECK(a.documents == b.documents);
      CHECK(a.positions == b.positions);
      CHECK(a.length == b.length);
      CHECK(a.real_target_tokens == b.real_target_tokens);
      CHECK(ahead->position() == plain->position());
    };
    for (int64_t i = 0; i < 2 * plain->batches_per_epoch() + 3; ++i) check_next();
    for (const BatchPosition to : {BatchPosition{5, 0, 0}, {5, 7, 1}, {9, 7, 1}}) {
      plain->seek(to);
      ahead->seek(to);
      for (int i = 0; i < 3; ++i) check_next();
    }
    const auto dropped = prefetched(make_batches(dataset, options));  // never asked
  }
}

TEST_CASE("batches: made ahead they allocate nothing once each length has come") {
  const TokenDataset dataset = counted(mixed_lengths(200));
  for (const BatchMode mode : {BatchMode::pack, BatchMode::pad}) {
    const auto batches = prefetched(make_batches(dataset, {.mode = mode, .batch = 3, .length = 16}));
    Batch batch;
    for (int64_t i = 0; i <= batches->batches_per_epoch(); ++i) batches->next(batch);
    const int64_t before = allocations();
    for (int64_t i = 0; i < 3 * batches->batches_per_epoch(); ++i) batches->next(batch);
    CHECK(allocations() - before == 0);
  }
}
