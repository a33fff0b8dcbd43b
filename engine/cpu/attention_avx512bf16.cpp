// The attention kernels with bf16 products by VDPBF16PS. A translation unit of its own, for processors that
// have it.
#include "cpu/attention_internal.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>

#include <hwy/detect_targets.h>
// The AVX-512 pass of Highway alone; the baseline pass, which cannot be left out, is empty.
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX2 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/attention_avx512bf16.cpp"
#include <hwy/foreach_target.h>
// Must follow foreach_target.h.
#include <hwy/highway.h>
#if HWY_TARGET == HWY_AVX3
#include "cpu/attention_backward-inl.h"
#include "cpu/exp2_avx512.h"
#include "cpu/transpose_avx512.h"

HWY_BEFORE_NAMESPACE();
namespace nf::cpu::attention {
namespace HWY_NAMESPACE {
namespace {

// Cells hold neighbours 2 i, 2 i + 1 along the summed axis, the first in the lower half.
HWY_INLINE __mmask32 mask32(int64_t count) {
  return count >= 32 ? ~__mmask32{0} : count <= 0 ? 0 : (__mmask32{1} << count) - 1;
}

// 16-bit indices a, b, a + 1, b + 1, …
HWY_INLINE __m512i interleave_order(int a, int b) {
  const __m512i steps = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return _mm512_add_epi16(_mm512_set1_epi32(a | (b << 16)),
                          _mm512_or_si512(steps, _mm512_slli_epi32(steps, 16)));
}

struct Bf16Policy {
  static constexpr int kPair = 2;
  static constexpr bool kBf16Cells = true;
  using Cells = __m512i;

  static HWY_INLINE Cells load(const Cell* cells) { return _mm512_load_si512(cells); }
  static HWY_INLINE Cells load_any(const Cell* cells) { return _mm512_loadu_si512(cells); }
  static HWY_INLINE Cells broadcast(const Cell* cell) {
    int value;
    __builtin_memcpy(&value, cell, sizeof(value));
    return _mm512_set1_epi32(value);
  }
  static HWY_INLINE Vector multiply_add(Cells a, Cells b, Vector sum) {
    return Vector{_mm512_dpbf16_ps(sum.raw, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b))};
  }

  // Half the `padded` cells hold all values; the rest stays as it is and is never read.
  static HWY_INLINE void pack_row(const char* src, bool bf16, int64_t width, Cell* dst, int64_t padded) {
    const int64_t cells = round_up(padded / 2, kLanes);
    for (int64_t c = 0; c < cells; c += kLanes) {
      const int64_t left = width - 2 * c;
      if (bf16) {
        const auto* from = reinterpret_cast<const uint16_t*>(src) + 2 * c;
        _mm512_store_si512(dst + c, _mm512_maskz_loadu_epi16(mask32(left), from));
      } else {
        const auto* from = reinterpret_cast<const float*>(src) + 2 * c;
        const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask32(left)), from);
        const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask32(left - 16)), from + 16);
        _mm512_store_si512(dst + c, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
      }
    }
  }

  // Whole squares of kLanes cells: beyond `columns`, a row of src has cells to spare, and dst has rows.
  static HWY_INLINE void transpose(const CellRows& src, int64_t rows, int64_t columns, Cell* HWY_RESTRICT dst,
                                   int64_t dst_row) {
    for (int64_t r = 0; r < rows; r += kLanes)
      for (int64_t c = 0; c < columns; c += kLanes) {
        __m512i v[kLanes];
#pragma GCC unroll 16
        for (int64_t i = 0; i < kLanes; ++i) v[i] = load_any(src.cells + (r + i) * src.row + c);
        transpose_avx512(v);
#pragma GCC unroll 16
        for (int64_t i = 0; i < kLanes; ++i) _mm512_store_si512(dst + (c + i) * dst_row + r, v[i]);
      }
  }

  // to[i] = (values c of both rows) for c from 16 i on.
  static HWY_INLINE void pair(const Cell* from, int64_t row, Cells* to) {
    const __m512i first = load_any(from), second = load_any(from + row);
    to[0] = _mm512_permutex2var_epi16(first, interleave_order(0, 32), second);
    to[1] = _mm512_permutex2var_epi16(first, interleave_order(16, 48), second);
  }
  // cells[i][c] = (values 2 i, c and 2 i + 1, c) for rows of bf16 values.
  static HWY_INLINE void pair_rows(const CellRows& src, int64_t padded, int64_t rows, Cell* dst) {
    const Cell* from = src.cells;
    for (int64_t r = 0; r < rows; r += 2, from += 2 * src.row, dst += padded) {
      for (int64_t c = 0; c < padded; c += 2 * kLanes) {
        Cells both[2];
        pair(from + c / 2, src.row, both);
        _mm512_store_si512(dst + c, both[0]);
        if (c + kLanes < padded) _mm512_store_si512(dst + c + kLanes, both[1]);
      }
    }
  }

  static HWY_INLINE void store_row(Vector value, Cell* row, int64_t column) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(reinterpret_cast<uint16_t*>(row) + column),
                       reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value.raw)));
  }
  static HWY_INLINE void store_pair(const Vector* values, Cell* cells) {
    const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(values[1].raw, values[0].raw));
    _mm512_store_si512(cells, _mm512_permutexvar_epi16(interleave_order(0, 16), both));
  }
  static HWY_INLINE void store_both(const Vector* values, Cell* cells, Cell* rows, int64_t row_cells,
                                    int64_t column) {
    const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(values[1].raw, values[0].raw));
    _mm512_store_si512(cells, _mm512_permutexvar_epi16(interleave_order(0, 16), both));
    auto* to = reinterpret_cast<uint16_t*>(rows) + column;
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm512_maskz_extracti64x4_epi64(0xff, both, 0));
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + 2 * row_cells),
                       _mm512_maskz_extracti64x4_epi64(0xff, both, 1));
  }

  static HWY_INLINE Vector exp2(Vector y) { return Vector{exp2_avx512(y.raw)}; }
  static HWY_INLINE void write_values(Vector values, uint16_t* to) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values.raw)));
  }
};

}  // namespace
}  // namespace HWY_NAMESPACE

const Kernels& bf16_kernels() {
  static constexpr Kernels kKernels = HWY_NAMESPACE::kernels<HWY_NAMESPACE::Bf16Policy>("bf16");
  return kKernels;
}

}  // namespace nf::cpu::attention
HWY_AFTER_NAMESPACE();
#endif
#endif
