#include "tools/trainer/buckets.h"

#include <doctest/doctest.h>

#include <set>

#include "tests/trainer/allocations.h"

using namespace nf;

TEST_CASE("buckets: few lengths, none shorter than the batch, none beyond the longest") {
  std::set<int64_t> seen;
  for (int64_t length = 1; length <= 512; ++length) {
    const int64_t bucket = bucket_length(length, 512);
    CHECK(bucket >= length);
    CHECK(bucket <= 512);
    seen.insert(bucket);
  }
  CHECK(seen.size() == 8 + 14);  // 8, 16 … 64, then 96, 128 … 512
  CHECK(bucket_length(8, 512) == 8);
  CHECK(bucket_length(65, 512) == 96);
  CHECK(bucket_length(65, 80) == 80);     // not beyond what the run was planned for
  CHECK(bucket_length(104, 100) == 104);  // and never shorter than the batch
}

TEST_CASE("buckets: a lengthened batch is the same rows with padding behind them") {
  Batch batch{.batch = 2,
              .length = 2,
              .ids = {1, 2, 3, 4},
              .targets = {2, 5, 4, 6},
              .documents = {0, 0, 0, 1},
              .positions = {0, 1, 0, 0},
              .real_target_tokens = 4};
  lengthen(batch, 5);
  CHECK(batch.length == 5);
  CHECK(batch.ids == std::vector<int32_t>{1, 2, 0, 0, 0, 3, 4, 0, 0, 0});
  CHECK(batch.targets == std::vector<int32_t>{2, 5, -100, -100, -100, 4, 6, -100, -100, -100});
  CHECK(batch.documents == std::vector<int32_t>{0, 0, -1, -1, -1, 0, 1, -1, -1, -1});
  CHECK(batch.positions == std::vector<int32_t>{0, 1, 0, 0, 0, 0, 0, 0, 0, 0});
  CHECK(batch.real_target_tokens == 4);

  const std::vector<int32_t> before = batch.ids;
  lengthen(batch, 5);
  CHECK(batch.ids == before);
}

TEST_CASE("buckets: lengthening again allocates nothing") {
  Batch batch{.batch = 3,
              .length = 8,
              .ids = std::vector<int32_t>(24),
              .targets = std::vector<int32_t>(24),
              .documents = std::vector<int32_t>(24),
              .positions = std::vector<int32_t>(24)};
  lengthen(batch, 32);
  for (std::vector<int32_t>* values : {&batch.ids, &batch.targets, &batch.documents, &batch.positions})
    values->resize(24);
  batch.length = 8;
  const int64_t before = allocations();
  lengthen(batch, 32);
  CHECK(allocations() == before);
}
