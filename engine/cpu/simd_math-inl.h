// Vector arithmetic in f32 over the whole range: exp, log, tanh, sigmoid and erf to a few ulp, with the
// limits, infinities and NaNs of libm; conversions of bf16; loads and stores of part of a vector. Included
// once per instruction set. The polynomials are minimax fits to the functions named beside them. AVX2 and
// AVX-512 give the same bits; the portable set, without fused multiply-add, may differ in the last ones.
#if defined(NF_CPU_SIMD_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NF_CPU_SIMD_MATH_INL_H_
#undef NF_CPU_SIMD_MATH_INL_H_
#else
#define NF_CPU_SIMD_MATH_INL_H_
#endif

#include <hwy/highway.h>

#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace nf::cpu::simd {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, 16>;
using Ints = hn::RebindToSigned<Floats>;
using Words = hn::RebindToUnsigned<Floats>;
using Vector = hn::Vec<Floats>;
using IntVector = hn::Vec<Ints>;
inline constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(Floats()));

HWY_INLINE Vector set(float value) { return hn::Set(Floats(), value); }
HWY_INLINE IntVector ints(Vector v) { return hn::BitCast(Ints(), v); }
HWY_INLINE Vector floats(IntVector v) { return hn::BitCast(Floats(), v); }

// The first n < kLanes lanes; reads and writes no memory beyond them.
HWY_INLINE Vector load_part(const float* from, int64_t n) {
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN float buffer[kLanes] = {};
  std::memcpy(buffer, from, static_cast<size_t>(n) * sizeof(float));
  return hn::Load(Floats(), buffer);
#else
  return hn::MaskedLoad(hn::FirstN(Floats(), static_cast<size_t>(n)), Floats(), from);
#endif
}
HWY_INLINE void store_part(Vector v, float* to, int64_t n) {
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN float buffer[kLanes];
  hn::Store(v, Floats(), buffer);
  std::memcpy(to, buffer, static_cast<size_t>(n) * sizeof(float));
#else
  hn::BlendedStore(v, hn::FirstN(Floats(), static_cast<size_t>(n)), Floats(), to);
#endif
}

// a function of plain floats, lane by lane
template <typename Function>
HWY_INLINE Vector each_lane(Vector v, Function function) {
  HWY_ALIGN float lanes[kLanes];
  hn::Store(v, Floats(), lanes);
  for (float& lane : lanes) lane = function(lane);
  return hn::Load(Floats(), lanes);
}

// A NaN operand is the result. Of +0 and -0 the second is.
HWY_INLINE Vector max(Vector a, Vector b) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  return hn::IfThenElse(hn::IsNaN(a), a, hn::Max(a, b));  // b when one is NaN or both are zeros
#else
  return hn::IfThenElse(hn::IsNaN(a), a, hn::IfThenElse(hn::Gt(a, b), a, b));
#endif
}
HWY_INLINE Vector min(Vector a, Vector b) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  return hn::IfThenElse(hn::IsNaN(a), a, hn::Min(a, b));
#else
  return hn::IfThenElse(hn::IsNaN(a), a, hn::IfThenElse(hn::Lt(a, b), a, b));
#endif
}

// ln 2 in two parts; the first has so few bits that its product with an exponent is exact.
inline constexpr float kLn2High = 0.693359375F, kLn2Low = -2.12194440e-4F;

// y 2^n for whole n in [-151, 128], rounded once: so results may be subnormal or infinite.
HWY_INLINE Vector scale(Vector y, Vector n) {
#if HWY_TARGET == HWY_AVX3
  return Vector{_mm512_scalef_ps(y.raw, n.raw)};
#else
  const auto power_of_two = [](IntVector e) HWY_ATTR {
    return floats(hn::ShiftLeft<23>(hn::Add(e, hn::Set(Ints(), 127))));
  };
  const IntVector exponent = hn::ConvertTo(Ints(), n), half = hn::ShiftRight<1>(exponent);
  return hn::Mul(hn::Mul(y, power_of_two(half)), power_of_two(hn::Sub(exponent, half)));
#endif
}

// e^x = 2^n e^r with |r| <= ln 2 / 2 and e^r = 1 + r + r^2 p(r). Beyond [-104, 89] nothing changes any more.
HWY_INLINE Vector exp(Vector x) {
  // In this order the instructions of x86 keep a NaN.
  const Vector clamped = hn::Min(set(89.0F), hn::Max(set(-104.0F), x));
  const Vector n = hn::Round(hn::Mul(clamped, set(1.44269504F)));
  const Vector r = hn::NegMulAdd(n, set(kLn2Low), hn::NegMulAdd(n, set(kLn2High), clamped));
  Vector p = hn::MulAdd(set(1.381460112e-03F), r, set(8.368710987e-03F));
  p = hn::MulAdd(p, r, set(4.166838899e-02F));
  p = hn::MulAdd(p, r, set(1.666652113e-01F));
  p = hn::MulAdd(p, r, set(4.999999404e-01F));
  p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), set(1.0F));
  const Vector y = scale(p, n);
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  return y;
#else
  return hn::IfThenElse(hn::IsNaN(x), x, y);
#endif
}

// log x = e ln 2 + log(1 + f) with 1 + f in [sqrt(1/2), sqrt(2)) and log(1 + f) = f - f^2 / 2 + f^3 p(f).
HWY_INLINE Vector log(Vector x) {
  const auto tiny = hn::Lt(x, set(0x1p-126F));
  const IntVector bits = ints(hn::IfThenElse(tiny, hn::Mul(x, set(0x1p23F)), x));
  const IntVector exponent = hn::ShiftRight<23>(hn::Sub(bits, hn::Set(Ints(), 0x3f3504f3)));
  const Vector f = hn::Sub(floats(hn::Sub(bits, hn::ShiftLeft<23>(exponent))), set(1.0F));
  Vector e = hn::ConvertTo(Floats(), exponent);
  e = hn::IfThenElse(tiny, hn::Sub(e, set(23.0F)), e);
  Vector p = hn::MulAdd(set(6.746454537e-02F), f, set(-1.167562306e-01F));
  p = hn::MulAdd(p, f, set(1.188823208e-01F));
  p = hn::MulAdd(p, f, set(-1.240559742e-01F));
  p = hn::MulAdd(p, f, set(1.421954334e-01F));
  p = hn::MulAdd(p, f, set(-1.666799486e-01F));
  p = hn::MulAdd(p, f, set(2.000211924e-01F));
  p = hn::MulAdd(p, f, set(-2.500000894e-01F));
  p = hn::MulAdd(p, f, set(3.333331347e-01F));
  const Vector square = hn::Mul(f, f);
  Vector y = hn::MulAdd(e, set(kLn2Low), hn::Mul(hn::Mul(p, square), f));
  y = hn::Add(f, hn::NegMulAdd(square, set(0.5F), y));
  y = hn::MulAdd(e, set(kLn2High), y);
  y = hn::IfThenElse(hn::Eq(x, set(0.0F)), set(-__builtin_inff()), y);
  y = hn::IfThenElse(hn::Lt(x, set(0.0F)), set(__builtin_nanf("")), y);
  return hn::IfThenElse(hn::Lt(x, set(__builtin_inff())), y, hn::Add(x, x));  // infinity and NaN
}

// x + x^3 p(x^2) for |x| < 0.625, else 1 - 2 / (e^2x + 1).
HWY_INLINE Vector tanh(Vector x) {
  const Vector a = hn::Abs(x), z = hn::Mul(x, x);
  Vector p = hn::MulAdd(set(-5.705059506e-03F), z, set(2.063916065e-02F));
  p = hn::MulAdd(p, z, set(-5.373974144e-02F));
  p = hn::MulAdd(p, z, set(1.333144307e-01F));
  p = hn::MulAdd(p, z, set(-3.333328068e-01F));
  const Vector small = hn::MulAdd(hn::Mul(p, z), x, x);
  const Vector e = exp(hn::Add(a, a));
  const Vector large = hn::Sub(set(1.0F), hn::Div(set(2.0F), hn::Add(e, set(1.0F))));
  return hn::CopySign(hn::IfThenElse(hn::Lt(a, set(0.625F)), small, large), x);
}

// 1 / (1 + e^-x), written with e^-|x| so that nothing overflows.
HWY_INLINE Vector sigmoid(Vector x) {
  const Vector e = exp(hn::Neg(hn::Abs(x)));
  return hn::Div(hn::IfThenElse(hn::Lt(x, set(0.0F)), e, set(1.0F)), hn::Add(set(1.0F), e));
}

// x + x q(x^2) for |x| < 0.925, else 1 - e^g(|x|) where g = log erfc; erfc(4) no longer shows beside 1.
HWY_INLINE Vector erf(Vector x) {
  const Vector a = hn::Abs(x), z = hn::Mul(x, x);
  Vector q = hn::MulAdd(set(8.317159518e-05F), z, set(-8.130121278e-04F));
  q = hn::MulAdd(q, z, set(5.199918523e-03F));
  q = hn::MulAdd(q, z, set(-2.685894817e-02F));
  q = hn::MulAdd(q, z, set(1.128368750e-01F));
  q = hn::MulAdd(q, z, set(-3.761263192e-01F));
  q = hn::MulAdd(q, z, set(1.283791661e-01F));
  const Vector t = hn::Min(a, set(4.0F));
  Vector g = hn::MulAdd(set(-5.220903745e-07F), t, set(-1.430869179e-05F));
  g = hn::MulAdd(g, t, set(3.966925724e-04F));
  g = hn::MulAdd(g, t, set(-4.053454846e-03F));
  g = hn::MulAdd(g, t, set(2.489522472e-02F));
  g = hn::MulAdd(g, t, set(-1.080119759e-01F));
  g = hn::MulAdd(g, t, set(-6.335434318e-01F));
  g = hn::MulAdd(g, t, set(-1.129434109e+00F));
  g = hn::MulAdd(g, t, set(1.604063727e-04F));
  const Vector large = hn::CopySign(hn::Sub(set(1.0F), exp(g)), x);
  const Vector y = hn::IfThenElse(hn::Lt(a, set(0.925F)), hn::MulAdd(x, q, x), large);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// The bits of v as bf16 in the low half of each lane, rounded to nearest even; a NaN stays a quiet one.
HWY_INLINE hn::Vec<Words> bf16_bits(Vector v) {
  const Words d;
  const auto bits = hn::BitCast(d, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1U));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(d, 0x7fffU)));
  const auto nan = hn::Or(bits, hn::Set(d, 0x400000U));
  return hn::ShiftRight<16>(hn::IfThenElse(hn::RebindMask(d, hn::IsNaN(v)), nan, rounded));
}
HWY_INLINE Vector round_to_bf16(Vector v) { return hn::BitCast(Floats(), hn::ShiftLeft<16>(bf16_bits(v))); }

}  // namespace HWY_NAMESPACE
}  // namespace nf::cpu::simd
HWY_AFTER_NAMESPACE();
#endif
