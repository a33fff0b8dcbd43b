#include "tools/data/shuffle.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <vector>

using namespace nf;

TEST_CASE("shuffle: a permutation that seed and stream decide, and the same on every machine") {
  std::vector<int> a(100), b, c;
  std::iota(a.begin(), a.end(), 0);
  const auto sorted = a;
  b = c = a;
  shuffle(std::span(a), 1, 2);
  shuffle(std::span(b), 1, 2);
  shuffle(std::span(c), 1, 3);
  CHECK(a == b);
  CHECK(a != c);
  CHECK(a != sorted);
  std::sort(a.begin(), a.end());
  CHECK(a == sorted);
  CHECK(mix_bits(0) == 0xe220a8397b1dcdafULL);  // the first output of SplitMix64 seeded with 0
  CHECK(random_bits(0, 0, 0) == 2558736989570252433ULL);
}

TEST_CASE("shuffle: all orders of four are equally likely") {
  std::map<std::vector<int>, int> counts;
  constexpr int kTrials = 24'000;
  for (uint64_t stream = 0; stream < kTrials; ++stream) {
    std::vector<int> items = {0, 1, 2, 3};
    shuffle(std::span(items), 5, stream);
    ++counts[items];
  }
  CHECK(counts.size() == 24);
  double chi_square = 0;
  for (const auto& [order, count] : counts) chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  CHECK(chi_square < 49.7);  // 23 degrees of freedom, p = 0.001; the seed is fixed, so this cannot flicker
}
