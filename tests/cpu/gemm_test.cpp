#include "cpu/gemm.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cpu/isa.h"
#include "nf/error.h"

namespace nf::cpu {
namespace {

enum class Layout { row_major, column_major, scattered };

constexpr std::array kLayouts{Layout::row_major, Layout::column_major, Layout::scattered};
constexpr std::array kDtypes{DType::f32, DType::bf16};

// A batch of matrices with gaps between the rows, filled with normal numbers.
struct Operand {
  std::vector<float> values;
  std::vector<bf16> rounded;
  MatrixView view;
  int64_t batch_stride = 0;

  Operand(DType dtype, Layout layout, int64_t batch, int64_t rows, int64_t columns, std::mt19937& random) {
    view.dtype = dtype;
    view.row_stride = layout == Layout::row_major      ? columns + 3
                      : layout == Layout::column_major ? 1
                                                       : 3 * columns + 1;
    view.col_stride = layout == Layout::row_major ? 1 : layout == Layout::column_major ? rows + 5 : 3;
    batch_stride = std::max(rows * view.row_stride, columns * view.col_stride);
    values.resize(static_cast<size_t>(batch * batch_stride + 1));
    std::normal_distribution<float> normal;
    for (float& value : values) {
      value = normal(random);
      if (dtype == DType::bf16) {
        rounded.push_back(to_bf16(value));
        value = to_float(rounded.back());
      }
    }
    view.data = dtype == DType::f32 ? static_cast<const void*>(values.data()) : rounded.data();
  }

  double at(int64_t item, int64_t row, int64_t column) const {
    return values[static_cast<size_t>(item * batch_stride + row * view.row_stride +
                                      column * view.col_stride)];
  }
};

struct Product {
  Operand a, b;
  GemmArgs args;
  std::vector<float> start;  // of c, with a gap of kGap behind every row

  static constexpr int64_t kGap = 3;

  Product(DType a_dtype, Layout a_layout, DType b_dtype, Layout b_layout, DType c_dtype, int64_t batch,
          int64_t m, int64_t n, int64_t k, std::mt19937& random)
      : a(a_dtype, a_layout, batch, m, k, random), b(b_dtype, b_layout, batch, k, n, random) {
    args = {
        .batch = batch, .m = m, .n = n, .k = k, .a = a.view, .a_batch_stride = a.batch_stride, .b = b.view};
    args.b_batch_stride = b.batch_stride;
    args.c_dtype = c_dtype;
    args.c_row_stride = n + kGap;
    args.c_batch_stride = m * args.c_row_stride;
    start.resize(static_cast<size_t>(batch * args.c_batch_stride));
    std::normal_distribution<float> normal;
    for (float& value : start) value = to_float(to_bf16(normal(random)));
  }

  // All of c, gaps included, as f32.
  std::vector<float> run(int threads) const { return run(args, threads); }

  std::vector<float> run(GemmArgs changed, int threads) const {
    std::vector<float> c = start;
    std::vector<bf16> c16;
    for (float value : c) c16.push_back(to_bf16(value));
    changed.c = changed.c_dtype == DType::f32 ? static_cast<void*>(c.data()) : c16.data();
    // Guard bytes show whether the workspace is as large as it was said to be.
    const size_t bytes = gemm_workspace(changed, threads);
    std::vector<unsigned char> workspace(bytes + 65, 0xa5);
    gemm(changed, workspace.data() + 1, threads);
    for (size_t i = bytes + 1; i < workspace.size(); ++i) REQUIRE(workspace[i] == 0xa5);
    if (changed.c_dtype == DType::bf16)
      for (size_t i = 0; i < c.size(); ++i) c[i] = to_float(c16[i]);
    return c;
  }

  // The largest error in units of the bound: k + 1 roundings of partial sums no larger than the sum of
  // magnitudes.
  double error(const std::vector<float>& c) const {
    double worst = 0;
    for (int64_t item = 0; item < args.batch; ++item)
      for (int64_t i = 0; i < args.m; ++i)
        for (int64_t j = 0; j < args.n + kGap; ++j) {
          const auto at = static_cast<size_t>(item * args.c_batch_stride + i * args.c_row_stride + j);
          if (j >= args.n) {  // gaps stay untouched
            REQUIRE(c[at] == start[at]);
            continue;
          }
          double sum = args.accumulate ? start[at] : 0, magnitude = std::abs(sum);
          for (int64_t l = 0; l < args.k; ++l) {
            const double term = a.at(item, i, l) * b.at(item, l, j);
            sum += term;
            magnitude += std::abs(term);
          }
          double bound = static_cast<double>(args.k + 1) * 0x1p-24 * magnitude;
          if (args.c_dtype == DType::bf16) bound += (std::abs(sum) + bound) * 0x1p-8;
          worst = std::max(worst, bound > 0 ? std::abs(c[at] - sum) / bound : (c[at] == sum ? 0 : 1e30));
        }
    return worst;
  }
};

bool same_bits(const std::vector<float>& x, const std::vector<float>& y) {
  return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
}

int64_t pick(std::mt19937& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

}  // namespace

TEST_CASE("gemm: every pair of layouts and dtypes agrees with double precision") {
  std::mt19937 random(1);
  for (DType a_dtype : kDtypes)
    for (DType b_dtype : kDtypes)
      for (DType c_dtype : kDtypes)
        for (Layout a_layout : kLayouts)
          for (Layout b_layout : kLayouts)
            for (bool accumulate : {false, true}) {
              if (accumulate && c_dtype == DType::bf16) continue;
              Product product(a_dtype, a_layout, b_dtype, b_layout, c_dtype, pick(random, 1, 3),
                              pick(random, 1, 90), pick(random, 1, 90), pick(random, 1, 90), random);
              product.args.accumulate = accumulate;
              CAPTURE(std::string(gemm_kernel_name(product.args)));
              CAPTURE(product.args.m);
              CAPTURE(product.args.n);
              CAPTURE(product.args.k);
              CHECK(product.error(product.run(2)) <= 1);
            }
}

TEST_CASE("gemm: random shapes, skinny ones too") {
  std::mt19937 random(2);
  for (int round = 0; round < 150; ++round) {
    std::array<int64_t, 3> size{pick(random, 1, 200), pick(random, 1, 200), pick(random, 1, 200)};
    if (round % 3 == 0) size[static_cast<size_t>(pick(random, 0, 2))] = pick(random, 1, 3);
    const DType dtype = kDtypes[static_cast<size_t>(round % 2)];
    const Layout a_layout = kLayouts[static_cast<size_t>(pick(random, 0, 1))];
    const Layout b_layout = kLayouts[static_cast<size_t>(pick(random, 0, 1))];
    Product product(dtype, a_layout, dtype, b_layout, DType::f32, 1, size[0], size[1], size[2], random);
    product.args.accumulate = round % 4 == 0;
    CAPTURE(size[0]);
    CAPTURE(size[1]);
    CAPTURE(size[2]);
    CHECK(product.error(product.run(2)) <= 1);
  }
}

TEST_CASE("gemm: several blocks of k, of rows and of columns") {
  std::mt19937 random(3);
  for (DType dtype : kDtypes)
    for (DType c_dtype : kDtypes)
      for (const auto& [m, n, k] :
           {std::array<int64_t, 3>{3, 40, 1541}, {530, 5, 515}, {2, 2100, 33}, {50, 70, 1025}}) {
        Product product(dtype, Layout::row_major, dtype, Layout::column_major, c_dtype, 1, m, n, k, random);
        CHECK(product.error(product.run(1)) <= 1);
        CHECK(product.error(product.run(2)) <= 1);
      }
}

TEST_CASE("gemm: columns of a in several blocks of k, with few rows and with more") {
  std::mt19937 random(5);
  for (DType dtype : kDtypes)
    for (DType c_dtype : kDtypes)
      for (const auto& [m, n, k] : {std::array<int64_t, 3>{300, 203, 2100},
                                    {600, 70, 2100},
                                    {300, 400, 2100},
                                    {253, 290, 70},
                                    {448, 512, 70},
                                    {512, 513, 70},
                                    {513, 513, 70}}) {
        const Product product(dtype, Layout::column_major, dtype, Layout::row_major, c_dtype, 1, m, n, k,
                              random);
        const std::vector<float> one = product.run(1);
        CHECK(product.error(one) <= 1);
        for (const int threads : {2, 3, 8}) CHECK(same_bits(one, product.run(threads)));
      }
}

TEST_CASE("gemm: a workspace for any strides is enough for all") {
  std::mt19937 random(6);
  for (int round = 0; round < 300; ++round) {
    const DType dtype = kDtypes[static_cast<size_t>(round % 2)],
                c_dtype = kDtypes[static_cast<size_t>(round / 2 % 2)];
    GemmArgs args{.batch = pick(random, 1, 3),
                  .m = pick(random, 1, 700),
                  .n = pick(random, 1, 700),
                  .k = pick(random, 1, 4000)};
    args.a.dtype = args.b.dtype = dtype;
    args.c_dtype = c_dtype;
    const int threads = static_cast<int>(pick(random, 1, 8));
    const size_t enough = gemm_workspace_of_any_strides(args, threads);
    const int64_t aligned = 4096;  // rows so far apart are packed
    for (const int64_t a_row : {int64_t{1}, args.k, args.k + 3, aligned})
      for (const int64_t a_col : {int64_t{1}, args.m, int64_t{3}})
        for (const int64_t b_row : {int64_t{1}, args.n, int64_t{3}})
          for (const int64_t b_col : {int64_t{1}, args.k, int64_t{5}}) {
            args.a.row_stride = a_row;
            args.a.col_stride = a_col;
            args.b.row_stride = b_row;
            args.b.col_stride = b_col;
            CHECK(gemm_workspace(args, threads) <= enough);
          }
  }
}

TEST_CASE("gemm: the same bits for any number of threads, and for any part of a product") {
  std::mt19937 random(4);
  for (DType dtype : kDtypes)
    for (DType c_dtype : kDtypes)
      for (const auto& [a_layout, b_layout] : {std::pair{Layout::row_major, Layout::row_major},
                                               {Layout::column_major, Layout::column_major},
                                               {Layout::row_major, Layout::column_major}}) {  // few rows
        const Product product(dtype, a_layout, dtype, b_layout, c_dtype, 2, 131, 203, 1777, random);
        const std::vector<float> whole = product.run(1);
        CHECK(same_bits(whole, product.run(2)));
        CHECK(same_bits(whole, product.run(3)));
        for (int round = 0; round < 30; ++round) {
          const GemmArgs& args = product.args;
          const int64_t item = pick(random, 0, 1), row = pick(random, 0, args.m - 1),
                        column = pick(random, 0, args.n - 1);
          GemmArgs part = args;
          part.batch = 1;
          const int64_t rows_left = args.m - row;
          part.m = pick(random, 1, round % 3 == 0 ? std::min<int64_t>(4, rows_left) : rows_left);
          part.n = round % 3 == 1 ? 1 : pick(random, 1, args.n - column);
          const auto bytes = [](const MatrixView& view, int64_t index) {
            return static_cast<const char*>(view.data) + index * size_of(view.dtype);
          };
          part.a.data = bytes(args.a, item * args.a_batch_stride + row * args.a.row_stride);
          part.b.data = bytes(args.b, item * args.b_batch_stride + column * args.b.col_stride);
          const std::vector<float> c = product.run(part, 1 + round % 3);
          int64_t different = 0;
          for (int64_t i = 0; i < part.m; ++i)
            different += std::memcmp(&c[static_cast<size_t>(i * args.c_row_stride)],
                                     &whole[static_cast<size_t>(item * args.c_batch_stride +
                                                                (row + i) * args.c_row_stride + column)],
                                     static_cast<size_t>(part.n) * sizeof(float)) != 0;
          CHECK(different == 0);
        }
      }
}

TEST_CASE("gemm: packing b for few rows changes no bit") {
  std::mt19937 random(8);
  for (const auto& [a_dtype, b_dtype] : {std::pair{DType::f32, DType::f32},
                                         {DType::bf16, DType::bf16},
                                         {DType::f32, DType::bf16},
                                         {DType::bf16, DType::f32}})
    for (const auto& [n, k] : {std::array<int64_t, 2>{1, 2}, {31, 64}, {32, 34}, {97, 1030}, {1000, 2200}})
      for (int64_t m = 1; m <= 5; ++m) {
        const Product product(a_dtype, Layout::row_major, b_dtype, Layout::column_major, DType::f32, 1, m, n,
                              k, random);
        GemmArgs args = product.args;
        const size_t bytes = packed_b_bytes(args);
        CHECK((bytes > 0) == (gemm_workspace(args, 2) == 0));  // it is for products that need none
        CHECK((m <= 4 || bytes == 0));
        if (bytes == 0) continue;
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(k);
        // Guard bytes behind the panels, which are aligned as promised.
        std::vector<uint32_t> memory(bytes / 4 + 17, 0xa5a5a5a5);
        uint32_t* const packed =
            memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64 / 4;
        pack_b(args, packed, 2);
        CHECK(packed[bytes / 4] == 0xa5a5a5a5);
        for (const bool accumulate : {false, true})
          for (const DType c_dtype : kDtypes) {
            if (accumulate && c_dtype == DType::bf16) continue;
            args.accumulate = accumulate;
            args.c_dtype = c_dtype;
            args.packed_b = nullptr;
            const std::vector<float> plain = product.run(args, 2);
            args.packed_b = packed;
            args.b.data = nullptr;  // not read
            CHECK(same_bits(plain, product.run(args, 1)));
            CHECK(same_bits(plain, product.run(args, 3)));
            args.b.data = product.args.b.data;
          }
        for (const auto& [rows, batch] : {std::pair<int64_t, int64_t>{5, 1}, {m, 2}}) {
          args.m = rows;
          args.batch = batch;
          CHECK_THROWS_WITH_AS(gemm(args, nullptr, 1), doctest::Contains("packed for another product"),
                               Error);
        }
      }
  const Product rows(DType::f32, Layout::row_major, DType::f32, Layout::row_major, DType::f32, 1, 1, 50, 60,
                     random);
  CHECK(packed_b_bytes(rows.args) == 0);  // rows of b are contiguous
}

// Of 300 rows two threads share out the columns, three pack b together; of 128, b is not packed in chunks.
TEST_CASE("gemm: chunks of columns and of k, and who packs them, change no bit") {
  std::mt19937 random(7);
  for (DType dtype : kDtypes)
    for (const Layout a_layout : kLayouts)
      for (const auto& [n, k] : {std::array<int64_t, 2>{2040, 2200}, {2100, 40}, {2100, 1100}, {450, 70}}) {
        const Product product(dtype, a_layout, dtype, Layout::row_major, DType::f32, 1, 300, n, k, random);
        for (DType c_dtype : kDtypes)
          for (bool accumulate : {false, true}) {
            GemmArgs args = product.args;
            args.c_dtype = c_dtype;
            args.accumulate = accumulate && c_dtype == DType::f32;
            const std::vector<float> whole = product.run(args, 1);
            for (const int threads : {2, 3, 8}) CHECK(same_bits(whole, product.run(args, threads)));
            args.m = 128;
            const std::vector<float> part = product.run(args, 2);
            CHECK(std::memcmp(whole.data(), part.data(),
                              static_cast<size_t>(args.m * args.c_row_stride) * sizeof(float)) == 0);
          }
      }
}

TEST_CASE("gemm: layouts change no bit") {
  std::mt19937 random(5);
  for (DType dtype : kDtypes) {
    const int64_t m = 45, n = 77, k = 1101;
    const Product rows(dtype, Layout::row_major, dtype, Layout::row_major, DType::f32, 1, m, n, k, random);
    for (Layout a_layout : kLayouts)
      for (Layout b_layout : kLayouts) {
        Product product(dtype, a_layout, dtype, b_layout, DType::f32, 1, m, n, k, random);
        product.start = rows.start;
        const auto copy = [](const Operand& from, Operand& to, int64_t height, int64_t width) {
          for (int64_t i = 0; i < height; ++i)
            for (int64_t j = 0; j < width; ++j) {
              const auto at = static_cast<size_t>(i * to.view.row_stride + j * to.view.col_stride);
              to.values[at] = static_cast<float>(from.at(0, i, j));
              if (!to.rounded.empty()) to.rounded[at] = to_bf16(to.values[at]);
            }
        };
        copy(rows.a, product.a, m, k);
        copy(rows.b, product.b, k, n);
        CHECK(same_bits(rows.run(1), product.run(2)));
      }
  }
}

TEST_CASE("gemm: a shared operand, empty sizes, special values") {
  std::mt19937 random(6);
  Product product(DType::bf16, Layout::row_major, DType::bf16, Layout::column_major, DType::f32, 3, 20, 30,
                  41, random);
  SUBCASE("a batch stride of zero repeats the first matrix") {
    GemmArgs args = product.args;
    args.b_batch_stride = 0;
    const std::vector<float> all = product.run(args, 2);
    args.batch = 1;
    args.a.data = product.a.rounded.data() + 2 * product.a.batch_stride;
    const std::vector<float> last = product.run(args, 1);
    for (int64_t i = 0; i < args.m; ++i)
      for (int64_t j = 0; j < args.n; ++j)
        CHECK(all[static_cast<size_t>(2 * args.c_batch_stride + i * args.c_row_stride + j)] ==
              last[static_cast<size_t>(i * args.c_row_stride + j)]);
  }
  SUBCASE("k = 0 sets c to zero, or leaves it when accumulating") {
    product.args.k = 0;
    CHECK(product.error(product.run(2)) == 0);
    product.args.accumulate = true;
    CHECK(product.error(product.run(2)) == 0);
  }
  SUBCASE("no rows, columns or items: nothing is written") {
    for (int64_t GemmArgs::*size : {&GemmArgs::m, &GemmArgs::n, &GemmArgs::batch}) {
      GemmArgs args = product.args;
      args.*size = 0;
      CHECK(same_bits(product.run(args, 2), product.start));
    }
  }
  SUBCASE("an infinity spoils its own row alone, a NaN its own column") {
    product.a.rounded[0] = to_bf16(INFINITY);
    product.b.rounded[static_cast<size_t>(product.b.view.col_stride)] = to_bf16(NAN);
    const std::vector<float> c = product.run(2);
    for (int64_t i = 0; i < product.args.m; ++i)
      for (int64_t j = 0; j < product.args.n; ++j) {
        const float value = c[static_cast<size_t>(i * product.args.c_row_stride + j)];
        CHECK(std::isfinite(value) == (i != 0 && j != 1));
        CHECK(std::isnan(value) == (j == 1));
      }
  }
}

TEST_CASE("gemm: misuse throws") {
  GemmArgs args{.batch = 1, .m = 2, .n = 2, .k = 2};
  CHECK_NOTHROW(gemm_workspace(args, 1));
  args.m = -1;
  CHECK_THROWS_AS(gemm_workspace(args, 1), Error);
  args.m = 2;
  args.a.dtype = DType::f16;
  CHECK_THROWS_WITH_AS(gemm(args, nullptr, 1),
                       "gemm: dtypes f16 x f32 -> f32, only f32 and bf16 are supported", Error);
  args.a.dtype = DType::f32;
  args.c_dtype = DType::bf16;
  args.accumulate = true;
  CHECK_THROWS_AS(gemm(args, nullptr, 1), Error);
}

TEST_CASE("gemm: the kernel follows the processor and the dtypes") {
  const CpuFeatures& cpu = cpu_features();
  GemmArgs args;
  const std::string_view wide = gemm_kernel_name(args);
  CHECK(wide == (cpu.avx512 ? "avx512_f32" : cpu.avx2 ? "avx2_f32" : "portable"));
  args.a.dtype = DType::bf16;
  CHECK(gemm_kernel_name(args) == wide);
  args.b.dtype = DType::bf16;
  CHECK(gemm_kernel_name(args) == (cpu.avx512_bf16 ? "avx512_bf16" : wide));
}

TEST_CASE("gemm: peak") {
  CHECK(measure_peak_gflops(DType::f32, 1) > 0.1);
  CHECK(measure_peak_gflops(DType::bf16, 2) > 0.1);
}

}  // namespace nf::cpu
