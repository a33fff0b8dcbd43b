// Packing and small matrix products of the attention kernels. Included once per instruction set.
//
// A Policy says how operands sit in 4-byte cells (attention_internal.h) and how they are multiplied:
//   kPair                  values in a cell: neighbours along the summed axis
//   kBf16Cells             cells are made of bf16
//   pack_row               a row of f32 or bf16 -> cells, zero padded
//   transpose              rows of cells -> columns: dst[c][r] = src[r][c]
//   pair                   two neighbouring rows -> two vectors of cells that hold both (kPair 2 only)
//   pair_rows              the same of many rows, stored
//   store_row              f32 lanes of one row -> cells
//   store_pair             f32 lanes of kPair neighbouring rows -> cells that hold kPair rows
//   store_both             both of these
//   exp2                   0 for -infinity
//   write_values           f32 lanes -> neighbouring values of a bf16 operand
//   load, load_any (not aligned), broadcast, multiply_add
#if defined(NF_CPU_ATTENTION_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NF_CPU_ATTENTION_PRODUCT_INL_H_
#undef NF_CPU_ATTENTION_PRODUCT_INL_H_
#else
#define NF_CPU_ATTENTION_PRODUCT_INL_H_
#endif

#include "cpu/attention_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nf::cpu::attention {
namespace HWY_NAMESPACE {
namespace {

// Rows of cells: row r begins at cells + r * row.
struct CellRows {
  const Cell* cells;
  int64_t row;
};

// Whether rows of the operand are rows of cells where they lie, with no need of padding.
template <typename Policy>
bool has_cells(const Operand& src, int64_t width) {
  const int64_t size = src.bf16 ? 2 : 4;
  return src.bf16 == Policy::kBf16Cells && width % (kGroup * Policy::kPair) == 0 &&
         (src.batch * size | src.row * size | src.head * size) % 4 == 0 &&
         reinterpret_cast<uintptr_t>(src.data) % 4 == 0;
}

// Rows [first, first + rows) of head `head` as cells, zero padded to a whole group of rows and of cells.
// Where they lie in memory as such they are used in place; else they are packed into buffer[rows][padded].
template <typename Policy>
CellRows pack_rows(const Operand& src, int64_t batch, int64_t first, int64_t head, int64_t rows,
                   int64_t width, Cell* HWY_RESTRICT buffer, int64_t padded) {
  const char* from = src.at(batch, first, head);
  const int64_t stride = src.row * (src.bf16 ? 2 : 4);
  if (rows % kGroup == 0 && has_cells<Policy>(src, width))
    return {reinterpret_cast<const Cell*>(from), stride / 4};
  for (int64_t r = 0; r < rows; ++r)
    Policy::pack_row(from + r * stride, src.bf16, width, buffer + r * padded, padded);
  for (int64_t r = rows; r < round_up(rows, kGroup); ++r)
    Policy::pack_row(from, src.bf16, 0, buffer + r * padded, padded);
  return {buffer, padded};
}

// dst[0, width) = scale * src, as f32 or bf16.
template <typename Policy>
HWY_INLINE void write_row(const float* HWY_RESTRICT src, float scale, int64_t width, char* HWY_RESTRICT dst,
                          bool bf16) {
  const Vector factor = set(scale);
  int64_t c = 0;
  for (; c + kLanes <= width; c += kLanes) {
    const Vector value = hn::Mul(hn::LoadU(Floats(), src + c), factor);
    if (bf16)
      Policy::write_values(value, reinterpret_cast<uint16_t*>(dst) + c);
    else
      hn::StoreU(value, Floats(), reinterpret_cast<float*>(dst) + c);
  }
  for (; c < width; ++c) {
    const float value = src[c] * scale;
    if (bf16)
      reinterpret_cast<uint16_t*>(dst)[c] = to_bf16(value).bits;
    else
      reinterpret_cast<float*>(dst)[c] = value;
  }
}

// Asks for rows of an operand that will be read soon: they are far apart, which the processor does not
// foresee. Of several heads at once, row by row, since memory gives neighbours faster.
HWY_INLINE void prefetch_rows(const Operand& src, int64_t batch, int64_t first, int64_t head, int64_t rows,
                              int64_t width, int64_t heads = 1) {
  const int64_t size = src.bf16 ? 2 : 4;
  const char* from = src.at(batch, first, head);
  for (int64_t r = 0; r < rows; ++r, from += src.row * size)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t byte = 0; byte < width * size; byte += 64)
        __builtin_prefetch(from + h * src.head * size + byte);
}

// dst[c][r] = src[r][c] for r < rows (a multiple of 4) and c < columns (rounded up to 4), cell by cell.
HWY_INLINE void transpose_cells(const CellRows& src, int64_t rows, int64_t columns, Cell* HWY_RESTRICT dst,
                                int64_t dst_row) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c)
      __builtin_memcpy(dst + c * dst_row + r, src.cells + r * src.row + c, sizeof(Cell));
#else
  const hn::FixedTag<uint32_t, 4> d;
  const hn::FixedTag<uint64_t, 2> d64;
  for (int64_t r = 0; r < rows; r += 4) {
    for (int64_t c = 0; c < columns; c += 4) {
      const Cell* from = src.cells + r * src.row + c;
      const auto r0 = hn::LoadU(d, from), r1 = hn::LoadU(d, from + src.row);
      const auto r2 = hn::LoadU(d, from + 2 * src.row), r3 = hn::LoadU(d, from + 3 * src.row);
      const auto a = hn::BitCast(d64, hn::InterleaveLower(d, r0, r1)),
                 b = hn::BitCast(d64, hn::InterleaveLower(d, r2, r3));
      const auto e = hn::BitCast(d64, hn::InterleaveUpper(d, r0, r1)),
                 f = hn::BitCast(d64, hn::InterleaveUpper(d, r2, r3));
      Cell* to = dst + c * dst_row + r;
      hn::Store(hn::BitCast(d, hn::InterleaveLower(d64, a, b)), d, to);
      hn::Store(hn::BitCast(d, hn::InterleaveUpper(d64, a, b)), d, to + dst_row);
      hn::Store(hn::BitCast(d, hn::InterleaveLower(d64, e, f)), d, to + 2 * dst_row);
      hn::Store(hn::BitCast(d, hn::InterleaveUpper(d64, e, f)), d, to + 3 * dst_row);
    }
  }
#endif
}

// The sums of kLanes vectors, each in its own lane.
HWY_INLINE Vector sums_of(const Vector (&v)[kLanes]) {
#if HWY_TARGET == HWY_SCALAR
  return v[0];
#else
  const Floats d;
  const hn::RepartitionToWide<Floats> pairs;
  // The sums of each block of four lanes of four vectors.
  const auto four = [&](int64_t i) HWY_ATTR {
    const auto two = [&](int64_t j) HWY_ATTR {
      return hn::BitCast(
          pairs, hn::Add(hn::InterleaveLower(d, v[j], v[j + 1]), hn::InterleaveUpper(d, v[j], v[j + 1])));
    };
    const auto low = two(i), high = two(i + 2);
    return hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, low, high)),
                   hn::BitCast(d, hn::InterleaveUpper(pairs, low, high)));
  };
  if constexpr (kLanes == 4) {
    return four(0);
  } else {
    const auto fold = [&](Vector low, Vector high) HWY_ATTR {
      return hn::Add(hn::ConcatLowerLower(d, high, low), hn::ConcatUpperUpper(d, high, low));
    };
    if constexpr (kLanes == 8) return fold(four(0), four(4));
    const Vector even = fold(four(0), four(8)), odd = fold(four(4), four(12));
    return hn::OddEvenBlocks(hn::Add(odd, hn::SwapAdjacentBlocks(odd)),
                             hn::Add(even, hn::SwapAdjacentBlocks(even)));
  }
#endif
}

// c[m][n] = <row m of a, row n of b>, `depth` cells each, a multiple of kLanes; columns: a multiple of
// kGroup. For so few rows that to transpose b would cost more than it saves.
template <typename Policy>
void multiply_rows(const CellRows& a, int64_t rows, const CellRows& b, int64_t columns, int64_t depth,
                   float* HWY_RESTRICT c, int64_t c_row) {
  for (int64_t n = 0; n < columns; n += kLanes) {
    for (int64_t m = 0; m < rows; ++m) {
      const Cell *left = a.cells + m * a.row, *right = b.cells + n * b.row;
      Vector sum[kLanes];
#pragma GCC unroll 16
      for (Vector& one : sum) one = hn::Zero(Floats());
      for (int64_t k = 0; k < depth; k += kLanes) {
        const typename Policy::Cells factor = Policy::load_any(left + k);
#pragma GCC unroll 16
        for (int64_t i = 0; i < kLanes; ++i)
          sum[i] = Policy::multiply_add(factor, Policy::load_any(right + i * b.row + k), sum[i]);
      }
      hn::Store(sums_of(sum), Floats(), c + m * c_row + n);
    }
  }
}

// One product: c[m][n] = (c[m][n] * rescale[m], or 0) + sum over k of a[m][k] * b[k][n], where a[m][k] is the
// cell at m * a_row + k * a_step, n is a cell of b, and k counts cells. With kPairs, b is rows of cells that
// are paired on the way.
struct Product {
  int64_t depth;
  const Cell* a;
  int64_t a_row, a_step;
  const Cell* b;
  int64_t b_row;
  float* c;
  int64_t c_row;
  bool accumulate;
  const float* rescale;  // null: 1
};

template <typename Policy, bool kPairs, int kRows, int kVectors>
HWY_NOINLINE void product_tile(const Product& p, int64_t row, int64_t column) {
  const Floats d;
  float* c = p.c + row * p.c_row + column;
  Vector sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n)
      sum[m][n] = p.accumulate ? hn::Load(d, c + m * p.c_row + n * kLanes) : hn::Zero(d);
  }
  if (p.rescale != nullptr) {
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
      const Vector factor = set(p.rescale[row + m]);
#pragma GCC unroll 4
      for (int n = 0; n < kVectors; ++n) sum[m][n] = hn::Mul(sum[m][n], factor);
    }
  }
  const Cell* a = p.a + row * p.a_row;
  const Cell* b = p.b + (kPairs ? column / 2 : column);
  const int64_t a_row = p.a_row, a_step = p.a_step, b_row = p.b_row, b_step = kPairs ? 2 * b_row : b_row;
  for (int64_t k = p.depth; k > 0; --k, a += a_step, b += b_step) {
    typename Policy::Cells right[kVectors + kVectors % 2];
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; n += kPairs ? 2 : 1) {
      if constexpr (kPairs)
        Policy::pair(b + n / 2 * kLanes, b_row, right + n);
      else
        right[n] = Policy::load(b + n * kLanes);
    }
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
      const typename Policy::Cells left = Policy::broadcast(a + m * a_row);
#pragma GCC unroll 4
      for (int n = 0; n < kVectors; ++n) sum[m][n] = Policy::multiply_add(left, right[n], sum[m][n]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n) hn::Store(sum[m][n], d, c + m * p.c_row + n * kLanes);
  }
}

template <typename Policy, bool kPairs, int kVectors>
void product_panel(const Product& p, int64_t rows, int64_t column) {
  constexpr int kTall = kVectors <= 2 && kLanes == kGroup ? 8 : 4;  // as many sums as hide the latency of one
  int64_t row = 0;
  for (; row + kTall <= rows; row += kTall) product_tile<Policy, kPairs, kTall, kVectors>(p, row, column);
  if (kTall > 4 && row + 4 <= rows) {
    product_tile<Policy, kPairs, 4, kVectors>(p, row, column);
    row += 4;
  }
  switch (rows - row) {
    case 3: product_tile<Policy, kPairs, 3, kVectors>(p, row, column); break;
    case 2: product_tile<Policy, kPairs, 2, kVectors>(p, row, column); break;
    case 1: product_tile<Policy, kPairs, 1, kVectors>(p, row, column); break;
    default: break;
  }
}

// columns: a multiple of kGroup.
template <typename Policy, bool kPairs = false>
void multiply(const Product& p, int64_t rows, int64_t columns) {
  constexpr int kWide = kLanes == kGroup ? 4 : 2;
  int64_t column = 0;
  for (; column + kWide * kLanes <= columns; column += kWide * kLanes)
    product_panel<Policy, kPairs, kWide>(p, rows, column);
  switch ((columns - column) / kLanes) {
    case 3: product_panel<Policy, kPairs, 3>(p, rows, column); break;
    case 2: product_panel<Policy, kPairs, 2>(p, rows, column); break;
    case 1: product_panel<Policy, kPairs, 1>(p, rows, column); break;
    default: break;
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nf::cpu::attention
HWY_AFTER_NAMESPACE();

#endif
