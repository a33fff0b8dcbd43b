// The bf16 kernel: VDPBF16PS adds two products per lane, so a unit is a pair of neighbours along k.
// This file alone is compiled for AVX512_BF16; callers ask cpu_features() first.
#include "cpu/gemm_kernel.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "cpu/transpose_avx512.h"

namespace nf::cpu {
namespace {

constexpr int kLanes = 16;
constexpr int kRows = 14;  // 28 accumulators, 2 vectors of b and a broadcast: 31 of 32 registers
constexpr int kVectors = 2;

// Bits [0, count) set, for count clamped to [0, 16] or [0, 32].
__mmask16 mask16(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1);
}
__mmask32 mask32(int64_t count) {
  return count >= 32 ? ~__mmask32{0} : count <= 0 ? 0 : (__mmask32{1} << count) - 1;
}

// Sixteen rows of 32 elements become sixteen steps. Rows from `rows` on and elements outside `valid` count as
// zero.
[[gnu::always_inline]] inline void load_block(const uint16_t* from, int64_t stride, int64_t rows,
                                              __mmask32 valid, __m512i (&v)[16]) {
  if (rows >= 16 && valid == ~__mmask32{0}) {
#pragma GCC unroll 16
    for (int row = 0; row < 16; ++row) v[row] = _mm512_loadu_si512(from + row * stride);
  } else {
#pragma GCC unroll 16
    for (int row = 0; row < 16; ++row)
      v[row] = row < rows ? _mm512_maskz_loadu_epi16(valid, from + row * stride) : _mm512_setzero_si512();
  }
  transpose_avx512(v);
}

// One panel. k is contiguous, and so are the pairs: 16 x 16 blocks of units are transposed.
void pack_transposed(const uint16_t* panel, const PanelSource& s, int64_t readable, int64_t pitch,
                     uint32_t* to) {
  for (int64_t i = 0; i < pitch; i += kLanes) {
    const uint16_t* from = panel + i * s.width_stride;
    uint32_t* out = to + i;
    __m512i v[16];
    int64_t k = 0;
    for (; k + 32 <= s.k; k += 32, out += 16 * pitch) {
      // Sixteen streams are more than the processor follows by itself: eight lines ahead along the row.
#pragma GCC unroll 16
      for (int row = 0; row < kLanes; ++row) _mm_prefetch(from + row * s.width_stride + k + 256, _MM_HINT_T0);
      load_block(from + k, s.width_stride, readable - i, ~__mmask32{0}, v);
#pragma GCC unroll 16
      for (int step = 0; step < 16; ++step) _mm512_storeu_si512(out + step * pitch, v[step]);
    }
    if (k == s.k) continue;
    load_block(from + k, s.width_stride, readable - i, mask32(s.k - k), v);
    for (int step = 0; step < (s.k - k + 1) / 2; ++step) _mm512_storeu_si512(out + step * pitch, v[step]);
  }
}

// Units of one step, `low` from the even element of k, `high` from the odd one: sixteen elements of both,
// from `begin` on.
[[gnu::always_inline]] inline __m512i pairs(__m512i low, __m512i high, int64_t begin) {
  alignas(64) static constexpr auto kOrder = [] {
    std::array<uint16_t, 32> order{};
    for (uint16_t i = 0; i < 32; ++i) order[i] = static_cast<uint16_t>(i / 2 + (i % 2 != 0 ? 32 : 0));
    return order;
  }();
  const __m512i order =
      _mm512_add_epi16(_mm512_load_si512(kOrder.data()), _mm512_set1_epi16(static_cast<short>(begin)));
  return _mm512_permutex2var_epi16(low, order, high);
}

// Elements [k, k + kRowGroup) of one vector of units, or of two, whose elements begin `shift` apart in a row.
// Of each row `valid` elements are read. The rows of the next group are called early, since a row's part is
// too short for the processor to see a stream in it.
template <bool kTwo, bool kWhole>
void pack_rows(const uint16_t* from, int64_t shift, const PanelSource& s, int64_t k, __mmask32 valid,
               uint32_t* first, uint32_t* second, int64_t pitch) {
  const auto row = [&](int64_t at) {
    const uint16_t* start = from + at * s.k_stride;
    _mm_prefetch(start + kRowGroup * s.k_stride, _MM_HINT_T0);
    return kWhole ? _mm512_loadu_si512(start) : _mm512_maskz_loadu_epi16(valid, start);
  };
  const auto put = [&](int64_t at, __m512i low, __m512i high) {
    _mm512_store_si512(first + at / 2 * pitch, pairs(low, high, 0));
    if constexpr (kTwo) _mm512_store_si512(second + at / 2 * pitch, pairs(low, high, shift));
  };
  if (k + kRowGroup <= s.k) {
#pragma GCC unroll 4
    for (int64_t at = k; at < k + kRowGroup; at += 2) put(at, row(at), row(at + 1));
    return;
  }
  for (int64_t at = k; at < s.k; at += 2)
    put(at, row(at), at + 1 < s.k ? row(at + 1) : _mm512_setzero_si512());
}

// The same for all of `parts`. What one vector of a row holds is packed at once: both vectors of a panel of
// b, or two neighbouring panels of a.
void pack_row_group(const uint16_t* from, const PanelSource& s, int64_t k, std::span<const RowPart> parts,
                    uint32_t* to) {
  const int64_t steps = (s.k + 1) / 2;
  for (size_t i = 0; i < parts.size(); ++i) {
    const RowPart& part = parts[i];
    uint32_t* const first = to + part.offset * steps;
    uint32_t* second = nullptr;
    int64_t shift = kLanes;
    if (part.pitch > kLanes) {
      second = first + kLanes;
    } else if (i + 1 < parts.size() && parts[i + 1].pitch == kLanes) {
      const RowPart& next = parts[++i];
      second = to + next.offset * steps;
      shift = next.begin - part.begin;
    }
    const bool whole = part.readable >= 2 * kLanes;
    const auto pack = second == nullptr ? (whole ? pack_rows<false, true> : pack_rows<false, false>)
                                        : (whole ? pack_rows<true, true> : pack_rows<true, false>);
    pack(from + part.begin, shift, s, k, mask32(part.readable), first, second, part.pitch);
  }
}

void pack_any(const uint16_t* from, const PanelSource& s, int64_t readable, int64_t pitch, uint32_t* to) {
  for (int64_t k = 0; k < s.k; k += 2, from += 2 * s.k_stride, to += pitch)
    for (int64_t i = 0; i < pitch; ++i) {
      const uint16_t* at = from + i * s.width_stride;
      const uint32_t low = i < readable ? at[0] : 0, high = i < readable && k + 1 < s.k ? at[s.k_stride] : 0;
      to[i] = low | high << 16;
    }
}

void pack(const PanelSource& s, const Panels& panels, int64_t first, int64_t last, void* to) {
  const auto* from = static_cast<const uint16_t*>(s.data);
  if (s.k_stride != 1 && s.width_stride == 1) {
    return in_row_groups(s, panels, first, last, [&](int64_t k, std::span<const RowPart> parts) {
      pack_row_group(from, s, k, parts, static_cast<uint32_t*>(to));
    });
  }
  const auto target = [&](int64_t p) {
    return static_cast<uint32_t*>(to) + (panels.offset(p) - panels.offset(first)) * ((s.k + 1) / 2);
  };
  for (int64_t p = first; p < last; ++p) {
    const auto one = s.k_stride == 1 ? pack_transposed : pack_any;
    one(from + panels.begin(p) * s.width_stride, s, panels.readable(p), panels.pitch(p), target(p));
  }
}

inline __m512bh as_pairs(__m512i bits) { return reinterpret_cast<__m512bh>(bits); }

// The lanes `kept` of a vector of sums to element `at` of c. Whole vectors go without a mask: masked stores,
// above all of 16-bit lanes, take many cycles on some processors.
[[gnu::always_inline]] inline void store(__m512 sum, __mmask16 kept, const TileArgs& args, int64_t at) {
  const bool whole = kept == 0xffff;
  if (args.store == TileStore::set_bf16) {
    const auto rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(sum));
    bf16* c = static_cast<bf16*>(args.c) + at;
    if (whole)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(c), rounded);
    else
      _mm256_mask_storeu_epi16(c, kept, rounded);
    return;
  }
  float* c = static_cast<float*>(args.c) + at;
  if (args.store == TileStore::add_f32)
    sum = _mm512_add_ps(whole ? _mm512_loadu_ps(c) : _mm512_maskz_loadu_ps(kept, c), sum);
  if (whole)
    _mm512_storeu_ps(c, sum);
  else
    _mm512_mask_storeu_ps(c, kept, sum);
}

template <int kTileRows, int kTileVectors, bool kPacked>
void tile_of(const TileArgs& args) {
  const auto* a = static_cast<const int32_t*>(args.a);
  RowPointers<kTileRows> rows(args.a, args.a_row_bytes);
  const auto* b = static_cast<const int32_t*>(args.b);
  __m512 sum[kTileRows][kTileVectors];
#pragma GCC unroll 14
  for (int i = 0; i < kTileRows; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < kTileVectors; ++j) sum[i][j] = _mm512_setzero_ps();
  const TileCalls<kTileRows> calls(args, (kTileVectors - 1) * kLanes);
  for (int64_t run = 0, step = 0; step < args.steps; ++run) {
    auto [line, stride] = calls.runs[static_cast<size_t>(run)];
    for (const int64_t end = calls.end(run); step < end; ++step, line += stride, b += kTileVectors * kLanes) {
      __m512bh row[kTileVectors];
      __builtin_prefetch(line);
#pragma GCC unroll 2
      for (int j = 0; j < kTileVectors; ++j) row[j] = as_pairs(_mm512_load_si512(b + j * kLanes));
#pragma GCC unroll 14
      for (int i = 0; i < kTileRows; ++i) {
        const __m512bh factor = as_pairs(_mm512_set1_epi32(kPacked ? a[i] : rows.template load<int32_t>(i)));
#pragma GCC unroll 2
        for (int j = 0; j < kTileVectors; ++j) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], factor, row[j]);
      }
      if constexpr (kPacked)
        a += kLanes;
      else
        rows.next();
    }
  }
#pragma GCC unroll 2
  for (int j = 0; j < kTileVectors; ++j) {
    const __mmask16 kept = mask16(args.columns - j * kLanes);
#pragma GCC unroll 14
    for (int i = 0; i < kTileRows; ++i) store(sum[i][j], kept, args, i * args.c_stride + j * kLanes);
  }
}

using TileFunction = void (*)(const TileArgs&);

template <bool kPacked, size_t... kIndex>
constexpr std::array<TileFunction, sizeof...(kIndex)> all_tiles(std::index_sequence<kIndex...>) {
  return {tile_of<kIndex / kVectors + 1, kIndex % kVectors + 1, kPacked>...};
}

constexpr auto kPanelTiles = all_tiles<true>(std::make_index_sequence<kRows * kVectors>());
constexpr auto kRowTiles = all_tiles<false>(std::make_index_sequence<kRows * kVectors>());

void tile(int rows, int vectors, const TileArgs& args) {
  (args.a_row_bytes == 0 ? kPanelTiles : kRowTiles)[(rows - 1) * kVectors + vectors - 1](args);
}

// Rows of a as steps of pairs.
struct ThinRows {
  const char* first;
  int64_t row_bytes;

  __m512bh unit(int row, int64_t step) const {
    int32_t value;
    std::memcpy(&value, first + row * row_bytes + step * 4, sizeof value);
    return as_pairs(_mm512_set1_epi32(value));
  }
};

// Adds steps [step, end) of sixteen columns, of which `columns` exist: 16 x 16 units are transposed in
// registers, and a column's sum is a lane.
template <int kThinRows>
[[gnu::always_inline]] inline void add_columns(const ThinRows& a, const uint16_t* b, int64_t column,
                                               int64_t columns, int64_t step, int64_t end,
                                               __m512 (&sum)[kThinRows][1]) {
  for (; step < end; step += kLanes) {
    // The columns after these are called into the second-level cache.
    for (int i = 0; i < kLanes; ++i) _mm_prefetch(b + (kLanes + i) * column + 2 * step, _MM_HINT_T1);
    __m512i units[kLanes];
    load_block(b + 2 * step, column, columns, mask32(2 * (end - step)), units);
    const int64_t count = std::min<int64_t>(kLanes, end - step);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      if (i == count) break;
#pragma GCC unroll 4
      for (int row = 0; row < kThinRows; ++row)
        sum[row][0] = _mm512_dpbf16_ps(sum[row][0], a.unit(row, step + i), as_pairs(units[i]));
    }
  }
}

// The same of a packed panel: memory is one stream, called so far ahead that two sums to a row keep up.
template <int kThinRows, int kVectors>
[[gnu::always_inline]] inline void add_panel(const ThinRows& a, const uint16_t* b, int64_t step, int64_t end,
                                             __m512 (&sum)[kThinRows][kVectors]) {
  constexpr int64_t kAhead = 2048;  // elements
#pragma GCC unroll 4
  for (; step < end; ++step)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const uint16_t* const units = b + 2 * (step * kVectors + v) * kLanes;
      _mm_prefetch(units + kAhead, _MM_HINT_T0);
      const __m512bh column = as_pairs(_mm512_load_si512(units));
#pragma GCC unroll 4
      for (int row = 0; row < kThinRows; ++row)
        sum[row][v] = _mm512_dpbf16_ps(sum[row][v], a.unit(row, step), column);
    }
}

template <int kThinRows, bool kPacked>
void thin_of(const ThinArgs& s) {
  constexpr int kThinVectors = (kPacked ? kPackedColumns : kThinColumns) / kLanes;
  const int64_t column = kPacked ? s.k : s.b_column_bytes / 2, steps = s.k / 2;
  const bool adds = s.store == TileStore::add_f32;
  const ThinRows a{static_cast<const char*>(s.a), s.a_row_bytes};
  TileArgs out;
  out.c = s.c;
  out.store = adds ? TileStore::set_f32 : s.store;
  for (int64_t j = 0; j < s.columns; j += kThinVectors * kLanes) {
    const auto kept = [&](int v) { return mask16(s.columns - j - v * kLanes); };
    const auto c_index = [&](int row, int v) { return row * s.c_stride + j + v * kLanes; };
    const auto* from = static_cast<const uint16_t*>(s.b) + j * column;
    __m512 total[kThinRows][kThinVectors];
    for (int row = 0; row < kThinRows; ++row)
      for (int v = 0; v < kThinVectors; ++v)
        if (adds)
          total[row][v] = _mm512_maskz_loadu_ps(kept(v), static_cast<const float*>(s.c) + c_index(row, v));
    for (int64_t block = 0; block < s.k_blocks; ++block) {
      const int64_t begin = part_begin(steps, s.k_blocks, block),
                    end = part_begin(steps, s.k_blocks, block + 1);
      __m512 sum[kThinRows][kThinVectors] = {};
      if constexpr (kPacked)
        add_panel(a, from, begin, end, sum);
      else
        add_columns(a, from, column, s.columns - j, begin, end, sum);
      for (int row = 0; row < kThinRows; ++row)
        for (int v = 0; v < kThinVectors; ++v)
          total[row][v] = block == 0 && !adds ? sum[row][v] : _mm512_add_ps(total[row][v], sum[row][v]);
    }
    for (int row = 0; row < kThinRows; ++row)
      for (int v = 0; v < kThinVectors; ++v) store(total[row][v], kept(v), out, c_index(row, v));
  }
}

template <bool kPacked, int... kThinRows>
void thin_any(int rows, const ThinArgs& args, std::integer_sequence<int, kThinRows...>) {
  static constexpr void (*kFunctions[])(const ThinArgs&) = {thin_of<kThinRows + 1, kPacked>...};
  kFunctions[rows - 1](args);
}

void thin(int rows, const ThinArgs& args) {
  const std::make_integer_sequence<int, kMaxThinRows> all;
  args.packed ? thin_any<true>(rows, args, all) : thin_any<false>(rows, args, all);
}

constexpr int kSpinVectors = 24;

float spin(int64_t rounds, float seed) {
  const __m512bh x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(seed), _mm512_set1_ps(0.5F * seed));
  __m512 sum[kSpinVectors];
#pragma GCC unroll 24
  for (int i = 0; i < kSpinVectors; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  for (int64_t round = 0; round < rounds; ++round)
#pragma GCC unroll 24
    for (int i = 0; i < kSpinVectors; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], x, x);
  __m512 total = sum[0];
#pragma GCC unroll 24
  for (int i = 1; i < kSpinVectors; ++i) total = _mm512_add_ps(total, sum[i]);
  return _mm512_reduce_add_ps(total);
}

constexpr GemmKernel kKernel = {"avx512_bf16", DType::bf16, 2,    kLanes, kRows, kLanes,
                                kVectors,      pack,        tile, thin,   spin,  4 * kLanes* kSpinVectors};

}  // namespace

const GemmKernel* bf16_kernel() { return &kKernel; }

}  // namespace nf::cpu

#else

namespace nf::cpu {

const GemmKernel* bf16_kernel() { return nullptr; }

}  // namespace nf::cpu

#endif
