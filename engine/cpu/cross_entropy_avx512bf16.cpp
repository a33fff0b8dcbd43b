// exponentials() for processors that round to bf16 themselves. This file is compiled for AVX512_BF16; callers
// ask cpu_features() first.
#include "cpu/cross_entropy_rows.h"

#if defined(__AVX512BF16__)

#include "cpu/exp2_avx512.h"

namespace nf::cpu {
namespace {

constexpr int64_t kLanes = 16;
constexpr float kLog2e = 1.44269504088896341F;

ExponentialSum exponentials_of(const LogitBlock& block, float reference, uint16_t* out, int64_t width) {
  const __m512 lowest = _mm512_set1_ps(-__builtin_inff()), factor = _mm512_set1_ps(block.logit_scale),
               zero_at = _mm512_set1_ps(reference), log2e = _mm512_set1_ps(kLog2e);
  __m512 sum = _mm512_setzero_ps(), largest = lowest;
  for (int64_t at = 0; at < width; at += kLanes) {
    const int64_t left = block.columns - at;
    const auto real = static_cast<__mmask16>(left >= kLanes ? 0xffff : left <= 0 ? 0 : (1 << left) - 1);
    __m512 logit = _mm512_mul_ps(_mm512_maskz_loadu_ps(real, block.projected + at), factor);
    if (block.scale != nullptr) logit = _mm512_mul_ps(logit, _mm512_maskz_loadu_ps(real, block.scale + at));
    if (real != 0xffff) logit = _mm512_mask_mov_ps(lowest, real, logit);
    const __m512 e = exp2_avx512(_mm512_mul_ps(_mm512_sub_ps(logit, zero_at), log2e));
    sum = _mm512_add_ps(sum, e);
    largest = _mm512_max_ps(logit, largest);
    if (out == nullptr) continue;
    const auto rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(e));
    const int64_t room = width - at;
    if (room >= kLanes)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + at), rounded);
    else
      _mm256_mask_storeu_epi16(out + at, static_cast<__mmask16>((1 << room) - 1), rounded);
  }
  return {_mm512_reduce_add_ps(sum), _mm512_reduce_max_ps(largest)};
}

}  // namespace

Bf16Exponentials bf16_exponentials() { return exponentials_of; }

}  // namespace nf::cpu

#else
namespace nf::cpu {
Bf16Exponentials bf16_exponentials() { return nullptr; }
}  // namespace nf::cpu
#endif
