// Rows gathered, scattered and copied: against loops that say what is meant.
#include "cpu/rows.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "tests/support/graphs.h"

using namespace nf;

namespace {

std::vector<int32_t> random_ids(int64_t count, int64_t low, int64_t high) {
  std::vector<int32_t> ids;
  for (const double id : test::random_integers({count}, 9, low, high).data)
    ids.push_back(static_cast<int32_t>(id));
  return ids;
}

std::vector<float> random_floats(int64_t count, uint64_t seed) {
  const auto data = test::random_tensor({count}, seed).data;
  return {data.begin(), data.end()};
}

std::vector<float> scatter(int64_t rows, int64_t width, const std::vector<int32_t>& ids,
                           const TensorView& updates, std::vector<float> sums, bool accumulate, int threads) {
  const auto count = static_cast<int64_t>(ids.size());
  std::vector<std::byte> workspace(cpu::scatter_rows_workspace(count, rows));
  cpu::scatter_rows(count, rows, width, ids.data(), updates, sums.data(), accumulate, workspace.data(),
                    threads);
  return sums;
}

}  // namespace

TEST_CASE("rows: gather copies rows of any size, on any number of threads") {
  constexpr int64_t kRows = 17, kCount = 301;
  const std::vector<int32_t> ids = random_ids(kCount, 0, kRows - 1);
  for (const int64_t row_bytes : {1, 2, 6, 64, 100})
    for (const int threads : {1, 2, 3}) {
      std::vector<uint8_t> table(static_cast<size_t>(kRows * row_bytes)),
          out(static_cast<size_t>(kCount * row_bytes));
      for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<uint8_t>(i * 37 + i / 251);
      CHECK(cpu::gather_rows(kCount, kRows, row_bytes, 1, table.data(), ids.data(), out.data(), threads) ==
            -1);
      int wrong = 0;
      for (int64_t i = 0; i < kCount; ++i)
        for (int64_t j = 0; j < row_bytes; ++j)
          wrong += out[static_cast<size_t>(i * row_bytes + j)] ==
                           table[static_cast<size_t>(ids[static_cast<size_t>(i)] * row_bytes + j)]
                       ? 0
                       : 1;
      CHECK(wrong == 0);
    }
}

TEST_CASE("rows: ids outside the table give zeros and the first is reported") {
  const std::vector<float> table = {1, 2, 3, 4};
  std::vector<int32_t> ids(200, 1);
  ids[150] = 2;
  ids[70] = -1;
  ids[199] = 1 << 30;
  for (const int threads : {1, 3}) {
    std::vector<float> out(400, 9);
    CHECK(cpu::gather_rows(200, 2, 2, 4, table.data(), ids.data(), out.data(), threads) == 70);
    for (const size_t bad : {70U, 150U, 199U}) CHECK((out[2 * bad] == 0 && out[2 * bad + 1] == 0));
    CHECK((out[0] == 3 && out[1] == 4));
  }
}

TEST_CASE("rows: scatter sums in the order of the ids and skips those outside") {
  constexpr int64_t kRows = 130, kCount = 1000, kWidth = 5;
  const std::vector<int32_t> ids = random_ids(kCount, -3, kRows + 3);
  const std::vector<float> updates = random_floats(kCount * kWidth, 1),
                           start = random_floats(kRows * kWidth, 2);
  std::vector<bf16> narrow;
  for (const float x : updates) narrow.push_back(to_bf16(x));
  for (const bool accumulate : {false, true})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      std::vector<float> expected = accumulate ? start : std::vector<float>(start.size());
      for (int64_t i = 0; i < kCount; ++i) {
        const int64_t row = ids[static_cast<size_t>(i)];
        if (row < 0 || row >= kRows) continue;
        for (int64_t j = 0; j < kWidth; ++j) {
          const auto at = static_cast<size_t>(i * kWidth + j);
          expected[static_cast<size_t>(row * kWidth + j)] +=
              dtype == DType::f32 ? updates[at] : to_float(narrow[at]);
        }
      }
      const Shape shape = {kCount, kWidth};
      const TensorView view = {dtype == DType::f32 ? static_cast<void*>(const_cast<float*>(updates.data()))
                                                   : static_cast<void*>(narrow.data()),
                               dtype, shape, dense_strides(shape)};
      for (const int threads : {1, 2, 3})
        CHECK(scatter(kRows, kWidth, ids, view, start, accumulate, threads) == expected);
    }
}

TEST_CASE("rows: copies between any strides") {
  const Shape shape = {3, 70, 4};
  std::vector<float> from(3 * 70 * 4), to(3 * 70 * 8, -1);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<float>(i);
  struct Layout {
    Strides from, to;
  };
  const Layout layouts[] = {{{280, 4, 1}, {280, 4, 1}},
                            {{1, 3, 210}, {280, 4, 1}},
                            {{280, 4, 1}, {560, 8, 2}},
                            {{280, 4, 1}, {4, 12, 1}}};
  for (const Layout& layout : layouts)
    for (const int threads : {1, 3}) {
      std::fill(to.begin(), to.end(), -1.0F);
      cpu::copy_tensor({from.data(), DType::f32, shape, layout.from},
                       {to.data(), DType::f32, shape, layout.to}, threads);
      int wrong = 0;
      for (int64_t i = 0; i < 3; ++i)
        for (int64_t j = 0; j < 70; ++j)
          for (int64_t k = 0; k < 4; ++k) {
            const auto offset = [&](const Strides& s) {
              return static_cast<size_t>(i * s[0] + j * s[1] + k * s[2]);
            };
            wrong += to[offset(layout.to)] == from[offset(layout.from)] ? 0 : 1;
          }
      CHECK(wrong == 0);
      CHECK(std::count(to.begin(), to.end(), -1.0F) == 3 * 70 * 4);
    }
}

TEST_CASE("rows: a scalar and nothing at all") {
  float from = 3, to = 0;
  cpu::copy_tensor({&from, DType::f32, {}, {}}, {&to, DType::f32, {}, {}}, 2);
  CHECK(to == 3);
  cpu::copy_tensor({nullptr, DType::f32, {0, 4}, {4, 1}}, {nullptr, DType::f32, {0, 4}, {4, 1}}, 2);
  CHECK(cpu::gather_rows(0, 5, 4, 4, &from, nullptr, nullptr, 2) == -1);
}
