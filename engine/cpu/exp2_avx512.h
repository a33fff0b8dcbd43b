// 2^y by the instructions that AVX-512 has for it. For files that are compiled for AVX-512 alone.
#pragma once

#include <immintrin.h>

namespace nf::cpu {

// To 8e-8: the minimax polynomial of 2^r for r in [0, 1), times 2^floor(y). 0 for -infinity.
[[gnu::always_inline]] inline __m512 exp2_avx512(__m512 y) {
  constexpr int kToFloor = 1;
  const __m512 r = _mm512_maskz_reduce_ps(0xffff, y, kToFloor);
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(1.877576695e-03F), r, _mm512_set1_ps(8.989339694e-03F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.582631752e-02F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.401536107e-01F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.931530833e-01F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.999999404e-01F));
  return _mm512_maskz_scalef_ps(0xffff, p, y);
}

}  // namespace nf::cpu
