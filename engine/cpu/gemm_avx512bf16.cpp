// The bf16 kernel: VDPBF16PS adds two products per lane, so a unit is a pair of neighbours along k.
// This file alone is compiled for AVX512_BF16; callers ask cpu_features() first.
#include "cpu/gemm_kernel.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

// GCC 12 takes the undefined vectors inside its own intrinsics for a mistake (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <utility>

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

// In place: lane j of vector i becomes lane i of vector j.
inline void transpose(__m512i (&v)[16]) {
  __m512i t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  // v[4 g + j]: in each 128-bit block, rows 4 g … 4 g + 3 of column 4 block + j.
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // Then a transpose of 4 x 4 blocks for each j.
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    t[j] = _mm512_shuffle_i32x4(v[j], v[4 + j], 0x44);
    t[4 + j] = _mm512_shuffle_i32x4(v[j], v[4 + j], 0xee);
    t[8 + j] = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0x44);
    t[12 + j] = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0xee);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    v[j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0x88);
    v[4 + j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0xdd);
    v[8 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0x88);
    v[12 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0xdd);
  }
}

// k is contiguous, and so are the pairs: 16 x 16 blocks of units are transposed.
void pack_transposed(const PanelSource& s, int64_t pitch, uint32_t* to) {
  const auto* from = static_cast<const uint16_t*>(s.data);
  for (int64_t k = 0; k < s.k; k += 32) {
    const __mmask32 valid = mask32(s.k - k);
    const int64_t steps = std::min<int64_t>(16, (s.k - k + 1) / 2);
    for (int64_t i = 0; i < pitch; i += 16) {
      const uint16_t* block = from + i * s.width_stride + k;
      __m512i v[16];
      const int64_t rows = s.width - i;
      for (int row = 0; row < 16; ++row)
        v[row] = row < rows ? _mm512_maskz_loadu_epi16(valid, block + row * s.width_stride)
                            : _mm512_setzero_si512();
      transpose(v);
      const __mmask16 kept = mask16(pitch - i);
      uint32_t* out = to + k / 2 * pitch + i;
      for (int step = 0; step < 16; ++step)
        if (step < steps) _mm512_mask_storeu_epi32(out + step * pitch, kept, v[step]);
    }
  }
}

// The width is contiguous: two steps along k are interleaved.
void pack_rows(const PanelSource& s, int64_t pitch, uint32_t* to) {
  const auto* from = static_cast<const uint16_t*>(s.data);
  for (int64_t k = 0; k < s.k; k += 2, from += 2 * s.k_stride, to += pitch)
    for (int64_t i = 0; i < pitch; i += 16) {
      const __mmask16 valid = mask16(s.width - i);
      const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(valid, from + i));
      const __m512i high = k + 1 < s.k
                               ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(valid, from + s.k_stride + i))
                               : _mm512_setzero_si512();
      _mm512_mask_storeu_epi32(to + i, mask16(pitch - i), _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

void pack_any(const PanelSource& s, int64_t pitch, uint32_t* to) {
  const auto* from = static_cast<const uint16_t*>(s.data);
  for (int64_t k = 0; k < s.k; k += 2, from += 2 * s.k_stride, to += pitch)
    for (int64_t i = 0; i < pitch; ++i) {
      const uint16_t* at = from + i * s.width_stride;
      const uint32_t low = i < s.width ? at[0] : 0, high = i < s.width && k + 1 < s.k ? at[s.k_stride] : 0;
      to[i] = low | high << 16;
    }
}

void pack(const PanelSource& source, int64_t pitch, void* panel) {
  auto* to = static_cast<uint32_t*>(panel);
  if (source.k_stride == 1)
    pack_transposed(source, pitch, to);
  else if (source.width_stride == 1)
    pack_rows(source, pitch, to);
  else
    pack_any(source, pitch, to);
}

inline __m512bh as_pairs(__m512i bits) { return reinterpret_cast<__m512bh>(bits); }

template <int kTileRows, int kTileVectors>
void tile_of(const TileArgs& args) {
  const auto* a = static_cast<const int32_t*>(args.a);
  const auto* b = static_cast<const int32_t*>(args.b);
  __m512 sum[kTileRows][kTileVectors];
#pragma GCC unroll 14
  for (int i = 0; i < kTileRows; ++i)
    for (int j = 0; j < kTileVectors; ++j) sum[i][j] = _mm512_setzero_ps();
  for (int64_t step = 0; step < args.steps; ++step, a += kTileRows, b += kTileVectors * kLanes) {
    __m512bh row[kTileVectors];
    for (int j = 0; j < kTileVectors; ++j) row[j] = as_pairs(_mm512_load_si512(b + j * kLanes));
#pragma GCC unroll 14
    for (int i = 0; i < kTileRows; ++i) {
      const __m512bh factor = as_pairs(_mm512_set1_epi32(a[i]));
      for (int j = 0; j < kTileVectors; ++j) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], factor, row[j]);
    }
  }
#pragma GCC unroll 14
  for (int i = 0; i < kTileRows; ++i)
    for (int j = 0; j < kTileVectors; ++j) {
      const __mmask16 kept = mask16(args.columns - j * kLanes);
      const int64_t at = i * args.c_stride + j * kLanes;
      if (args.store == TileStore::set_bf16) {
        auto* c = static_cast<bf16*>(args.c) + at;
        _mm256_mask_storeu_epi16(c, kept, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(sum[i][j])));
      } else {
        float* c = static_cast<float*>(args.c) + at;
        if (args.store == TileStore::add_f32)
          sum[i][j] = _mm512_add_ps(_mm512_maskz_loadu_ps(kept, c), sum[i][j]);
        _mm512_mask_storeu_ps(c, kept, sum[i][j]);
      }
    }
}

using TileFunction = void (*)(const TileArgs&);

template <size_t... kIndex>
constexpr std::array<TileFunction, sizeof...(kIndex)> all_tiles(std::index_sequence<kIndex...>) {
  return {tile_of<kIndex / kVectors + 1, kIndex % kVectors + 1>...};
}

constexpr auto kTiles = all_tiles(std::make_index_sequence<kRows * kVectors>());

void tile(int rows, int vectors, const TileArgs& args) { kTiles[(rows - 1) * kVectors + vectors - 1](args); }

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

constexpr GemmKernel kKernel = {"avx512_bf16",           2, kLanes, kRows, kVectors, pack, tile, spin,
                                4 * kLanes* kSpinVectors};

}  // namespace

const GemmKernel* bf16_kernel() { return &kKernel; }

}  // namespace nf::cpu

#else

namespace nf::cpu {

const GemmKernel* bf16_kernel() { return nullptr; }

}  // namespace nf::cpu

#endif
