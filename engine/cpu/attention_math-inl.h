// Vector arithmetic of the attention kernels: exp2, tanh, Philox, conversions. Included once per instruction
// set.
#if defined(NF_CPU_ATTENTION_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NF_CPU_ATTENTION_MATH_INL_H_
#undef NF_CPU_ATTENTION_MATH_INL_H_
#else
#define NF_CPU_ATTENTION_MATH_INL_H_
#endif

#include <hwy/highway.h>

#include "cpu/attention_internal.h"
#if HWY_TARGET == HWY_SCALAR
#include "base/philox.h"
#endif

HWY_BEFORE_NAMESPACE();
namespace nf::cpu::attention {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, kGroup>;
using Ints = hn::RebindToSigned<Floats>;
using Words = hn::RebindToUnsigned<Floats>;
using Vector = hn::Vec<Floats>;
constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(Floats()));

constexpr float kLog2e = 1.44269504088896341F;
constexpr float kLn2 = 0.693147180559945309F;
constexpr float kInfinity = __builtin_inff();

HWY_INLINE Vector set(float value) { return hn::Set(Floats(), value); }

// 2^y for y below 127, to 2 ulp; 0 from -126.5 down, -infinity included. Adding 1.5 * 2^23 + 127 rounds y to
// an integer and leaves its biased exponent in the low bits; the polynomial is the minimax one for [-0.5,
// 0.5].
HWY_INLINE Vector exp2(Vector y) {
  const Vector magic = set(12582912.0F + 127.0F);
  y = hn::Max(y, set(-127.0F));
  const Vector rounded = hn::Add(y, magic);
  const Vector r = hn::Sub(y, hn::Sub(rounded, magic));
  Vector poly = hn::MulAdd(set(1.534581216e-04F), r, set(1.339993118e-03F));
  poly = hn::MulAdd(poly, r, set(9.618488956e-03F));
  poly = hn::MulAdd(poly, r, set(5.550328777e-02F));
  poly = hn::MulAdd(poly, r, set(2.402264689e-01F));
  poly = hn::MulAdd(poly, r, set(6.931472057e-01F));
  poly = hn::MulAdd(poly, r, set(1.0F));
  const auto power = hn::ShiftLeft<23>(hn::BitCast(Ints(), rounded));
  return hn::Mul(poly, hn::BitCast(Floats(), power));
}

// tanh(x) to a few ulp: a minimax polynomial in x^2 up to 0.625, (1 - e) / (1 + e) with e = exp(-2 |x|)
// above.
HWY_INLINE Vector tanh(Vector x) {
  const Vector a = hn::Abs(x), z = hn::Mul(x, x);
  Vector poly = hn::MulAdd(set(-5.704986985e-03F), z, set(2.063908725e-02F));
  poly = hn::MulAdd(poly, z, set(-5.373971509e-02F));
  poly = hn::MulAdd(poly, z, set(1.333144220e-01F));
  poly = hn::MulAdd(poly, z, set(-3.333328194e-01F));
  const Vector small = hn::MulAdd(hn::Mul(poly, z), x, x);
  const Vector e = exp2(hn::Mul(a, set(-2.0F * kLog2e)));
  const Vector large = hn::CopySign(hn::Div(hn::Sub(set(1.0F), e), hn::Add(set(1.0F), e)), x);
  return hn::IfThenElse(hn::Lt(a, set(0.625F)), small, large);
}

// dst[4 i … 4 i + 3] = the words of Philox block `block` + i, for i < count; writes up to 4 * kLanes words
// more.
HWY_INLINE void random_words(const Problem& p, uint64_t block, int64_t count, uint32_t* HWY_RESTRICT dst) {
  const uint64_t stream = p.config.dropout_stream;
#if HWY_TARGET == HWY_SCALAR
  for (int64_t i = 0; i < 4 * count; ++i)
    dst[i] = philox_word(4 * block + static_cast<uint64_t>(i), stream, {p.key_low, p.key_high});
#else
  const Words d;
  const hn::Repartition<uint64_t, Words> wide;
  for (int64_t i = 0; i < count; i += kLanes, block += static_cast<uint64_t>(kLanes), dst += 4 * kLanes) {
    const auto base = hn::Set(d, static_cast<uint32_t>(block));
    auto c0 = hn::Add(base, hn::Iota(d, 0U));
    const auto wrapped = hn::VecFromMask(d, hn::Lt(c0, base));  // -1 where the low word wrapped around
    auto c1 = hn::Sub(hn::Set(d, static_cast<uint32_t>(block >> 32)), wrapped);
    auto c2 = hn::Set(d, static_cast<uint32_t>(stream)), c3 = hn::Set(d, static_cast<uint32_t>(stream >> 32));
    const auto m0 = hn::Set(d, 0xD2511F53U), m1 = hn::Set(d, 0xCD9E8D57U);
    uint32_t k0 = p.key_low, k1 = p.key_high;
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9U, k1 += 0xBB67AE85U) {
      const auto a_even = hn::MulEven(c0, m0), b_even = hn::MulEven(c2, m1);
      const auto a_odd = hn::MulEven(hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, c0))), m0);
      const auto b_odd = hn::MulEven(hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, c2))), m1);
      const auto a_low = hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(a_odd)), hn::BitCast(d, a_even));
      const auto b_low = hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(b_odd)), hn::BitCast(d, b_even));
      const auto a_high = hn::OddEven(hn::BitCast(d, a_odd), hn::BitCast(d, hn::ShiftRight<32>(a_even)));
      const auto b_high = hn::OddEven(hn::BitCast(d, b_odd), hn::BitCast(d, hn::ShiftRight<32>(b_even)));
      c0 = hn::Xor(hn::Xor(b_high, c1), hn::Set(d, k0));
      c2 = hn::Xor(hn::Xor(a_high, c3), hn::Set(d, k1));
      c1 = b_low;
      c3 = a_low;
    }
    hn::StoreInterleaved4(c0, c1, c2, c3, d, dst);
  }
#endif
}

// The words of the weights of one row from column `first` (index of the first weight: `index`), `count` of
// them.
HWY_INLINE const uint32_t* row_words(const Problem& p, uint64_t index, int64_t count, uint32_t* buffer) {
  const auto skip = static_cast<int64_t>(index % 4);
  random_words(p, index / 4, div_up(count + skip, 4), buffer);
  return buffer + skip;
}

// True where the weight survives dropout.
HWY_INLINE hn::Mask<Floats> kept(const Problem& p, const uint32_t* words) {
  const auto bits = hn::ShiftRight<8>(hn::LoadU(Words(), words));
  const Vector uniform = hn::Mul(hn::ConvertTo(Floats(), hn::BitCast(Ints(), bits)), set(0x1p-24F));
  return hn::Ge(uniform, set(p.config.dropout));
}

// 16-bit lanes of f32 rounded to bf16, nearest even; NaN stays NaN.
HWY_INLINE hn::Vec<hn::Rebind<uint16_t, Floats>> round_to_bf16(Vector value) {
  const Words d;
  const auto bits = hn::BitCast(d, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1U));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(d, 0x7fffU)));
  const auto nan = hn::Or(bits, hn::Set(d, 0x400000U));
  const auto is_nan = hn::RebindMask(d, hn::IsNaN(value));
  const auto upper = hn::ShiftRight<16>(hn::IfThenElse(is_nan, nan, rounded));
  return hn::DemoteTo(hn::Rebind<uint16_t, Floats>(), hn::BitCast(Ints(), upper));
}

// dst[0, padded) = src widened to f32, then zeros.
HWY_INLINE void read_row(const char* HWY_RESTRICT src, bool bf16, int64_t width, float* HWY_RESTRICT dst,
                         int64_t padded) {
  int64_t c = 0;
  if (bf16) {
    const auto* from = reinterpret_cast<const uint16_t*>(src);
    for (; c + kLanes <= width; c += kLanes) {
      const auto bits = hn::PromoteTo(Words(), hn::LoadU(hn::Rebind<uint16_t, Floats>(), from + c));
      hn::StoreU(hn::BitCast(Floats(), hn::ShiftLeft<16>(bits)), Floats(), dst + c);
    }
    for (; c < width; ++c) dst[c] = to_float(nf::bf16{from[c]});
  } else {
    const auto* from = reinterpret_cast<const float*>(src);
    for (; c + kLanes <= width; c += kLanes) hn::StoreU(hn::LoadU(Floats(), from + c), Floats(), dst + c);
    for (; c < width; ++c) dst[c] = from[c];
  }
  for (; c < padded; ++c) dst[c] = 0.0F;
}

HWY_INLINE void fill(float* dst, int64_t count, float value) {  // count: a multiple of kGroup
  for (int64_t i = 0; i < count; i += kLanes) hn::Store(set(value), Floats(), dst + i);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nf::cpu::attention
HWY_AFTER_NAMESPACE();

#endif
