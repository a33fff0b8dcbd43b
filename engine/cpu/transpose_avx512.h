// A transpose in registers. For files that are compiled for AVX-512 alone.
#pragma once

#include <immintrin.h>

namespace nf::cpu {

// In place: lane j of vector i becomes lane i of vector j.
[[gnu::always_inline]] inline void transpose_avx512(__m512i (&v)[16]) {
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

}  // namespace nf::cpu
