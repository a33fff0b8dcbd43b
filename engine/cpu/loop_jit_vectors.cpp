#if NF_HAVE_XBYAK

#include "cpu/loop_jit_vectors.h"

#include <bit>

namespace nf::cpu {
namespace {

constexpr uint32_t kSign = 0x80000000U, kMagnitude = 0x7fffffffU;
// vpternlogd: (a & c) | (b & ~c), a with the sign of b where c is kMagnitude
constexpr uint8_t kSelect = 0xe4;
constexpr uint8_t kNearest = 8;  // whole numbers, ties to even, no exceptions

}  // namespace

VectorCode::Source VectorCode::constant(float value) { return constant(std::bit_cast<uint32_t>(value)); }

// ---- masks

VectorCode::Mask VectorCode::compare(const Vector& a, Relation relation, const Source& b, int number) {
  const Xbyak::Opmask opmask(number);
  if (avx512_) {
    vcmpps(opmask, a, b, static_cast<uint8_t>(relation));
    return {opmask, a};
  }
  const Vector lanes = temporary();
  vcmpps(lanes, a, b, static_cast<uint8_t>(relation));
  return {opmask, lanes};
}

VectorCode::Mask VectorCode::compare_integers(const Vector& a, Relation relation, const Source& b) {
  if (avx512_) {
    vpcmpd(k2, a, b, static_cast<uint8_t>(relation));
    return {k2, a};
  }
  const Vector lanes = temporary();
  const auto in_register = [&] {
    vmovups(lanes, b);
    return lanes;
  };
  switch (relation) {
    case Relation::equal: vpcmpeqd(lanes, a, b); break;
    case Relation::less: vpcmpgtd(lanes, in_register(), a); break;
    default: {  // not greater
      vpcmpgtd(lanes, a, b);
      bits_xor(lanes, lanes, constant(~0U));
    }
  }
  return {k2, lanes};
}

VectorCode::Mask VectorCode::nonzero(const Vector& x) {
  if (avx512_) {
    vptestmd(k2, x, x);
    return {k2, x};
  }
  const Vector lanes = temporary();
  vpxor(lanes, lanes, lanes);
  vpcmpeqd(lanes, lanes, x);
  bits_xor(lanes, lanes, constant(~0U));
  return {k2, lanes};
}

void VectorCode::put(const Vector& y, const Mask& where, const Vector& x) {
  if (avx512_)
    vmovaps(y | where.opmask, x);
  else
    vblendvps(y, y, x, where.lanes);
}

void VectorCode::choose(const Vector& y, const Mask& where, const Vector& yes, const Vector& no) {
  if (avx512_)
    vblendmps(y | where.opmask, no, yes);
  else
    vblendvps(y, no, yes, where.lanes);
}

void VectorCode::put_product(const Vector& y, const Mask& where, const Vector& a, const Source& b) {
  if (avx512_) return vmulps(y | where.opmask, a, b);
  const Vector product = temporary();
  vmulps(product, a, b);
  put(y, where, product);
  release(product);
}

void VectorCode::put_difference(const Vector& y, const Mask& where, const Vector& a, const Source& b) {
  if (avx512_) return vsubps(y | where.opmask, a, b);
  const Vector difference = temporary();
  vsubps(difference, a, b);
  put(y, where, difference);
  release(difference);
}

// ---- bits

void VectorCode::bits_and(const Vector& y, const Vector& a, const Source& b) {
  avx512_ ? vpandd(y, a, b) : vpand(y, a, b);
}
void VectorCode::bits_or(const Vector& y, const Vector& a, const Source& b) {
  avx512_ ? vpord(y, a, b) : vpor(y, a, b);
}
void VectorCode::bits_xor(const Vector& y, const Vector& a, const Source& b) {
  avx512_ ? vpxord(y, a, b) : vpxor(y, a, b);
}

void VectorCode::copy_sign(const Vector& y, const Vector& x) {
  if (avx512_) return vpternlogd(y, x, constant(kMagnitude), kSelect);
  const Vector sign = temporary();
  vpand(sign, x, constant(kSign));
  vpand(y, y, constant(kMagnitude));
  vpor(y, y, sign);
  release(sign);
}

// ---- numbers

void VectorCode::round_to_whole(const Vector& y, const Vector& x) {
  avx512_ ? vrndscaleps(y, x, kNearest) : vroundps(y, x, kNearest);
}

// AVX2 multiplies by two powers, since results may be subnormal or infinite where 2^whole is not a float.
void VectorCode::scale(const Vector& y, const Vector& x, const Vector& whole) {
  if (avx512_) return vscalefps(y, x, whole);
  const Vector half = temporary();
  const auto power_of_two = [&](const Vector& exponent) {
    vpaddd(exponent, exponent, constant(127U));
    vpslld(exponent, exponent, 23);
  };
  vcvttps2dq(whole, whole);
  vpsrad(half, whole, 1);
  vpsubd(whole, whole, half);
  power_of_two(half);
  power_of_two(whole);
  vmulps(y, x, half);
  vmulps(y, y, whole);
  release(half);
}

void VectorCode::broadcast_integer(const Vector& y, const Xbyak::Reg32& x) {
  if (avx512_) return vpbroadcastd(y, x);
  vmovd(quarter(y), x);
  vpbroadcastd(y, quarter(y));
}

void VectorCode::round_to_bf16(const Vector& y, const Vector& x) {
  if (avx512_) {
    vptestmd(k2, x, constant(0x10000U));  // odd
    vcmpps(k3, x, x, static_cast<uint8_t>(Relation::unordered));
    vpaddd(y, x, constant(0x7fffU));
    vpaddd(y | k2, x, constant(0x8000U));
    vpord(y | k3, x, constant(0x400000U));
    return;
  }
  const Vector odd = temporary();
  vpsrld(odd, x, 16);
  vpand(odd, odd, constant(1U));
  vpaddd(odd, odd, constant(0x7fffU));
  vpaddd(y, x, odd);
  release(odd);
  const Mask nan = compare(x, Relation::unordered, Source(x));
  const Vector quiet = temporary();
  vpor(quiet, x, constant(0x400000U));
  put(y, nan, quiet);
  release(quiet);
  release(nan);
}

}  // namespace nf::cpu
#endif
