// The elementwise instructions of fused loops.
#include "cpu/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/loop_kernels_map.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <cmath>

#include "cpu/loop_kernels.h"
#include "cpu/simd_math-inl.h"
#include "nf/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace nf::cpu {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using namespace simd::HWY_NAMESPACE;

// ---- the functions: operands and result are lanes, whatever their meaning ----

struct Copy {
  static HWY_INLINE Vector apply(Vector a) { return a; }
};
struct NegF {
  static HWY_INLINE Vector apply(Vector a) { return hn::Neg(a); }
};
struct AbsF {
  static HWY_INLINE Vector apply(Vector a) { return hn::Abs(a); }
};
struct Exp {
  static HWY_INLINE Vector apply(Vector a) { return exp(a); }
};
struct Log {
  static HWY_INLINE Vector apply(Vector a) { return log(a); }
};
struct Sqrt {
  static HWY_INLINE Vector apply(Vector a) { return hn::Sqrt(a); }
};
struct Rsqrt {
  static HWY_INLINE Vector apply(Vector a) { return hn::Div(set(1.0F), hn::Sqrt(a)); }
};
struct Tanh {
  static HWY_INLINE Vector apply(Vector a) { return tanh(a); }
};
struct Sigmoid {
  static HWY_INLINE Vector apply(Vector a) { return sigmoid(a); }
};
struct Erf {
  static HWY_INLINE Vector apply(Vector a) { return erf(a); }
};
struct Sin {
  static HWY_INLINE Vector apply(Vector a) {
    return each_lane(a, [](float x) { return std::sin(x); });
  }
};
struct Cos {
  static HWY_INLINE Vector apply(Vector a) {
    return each_lane(a, [](float x) { return std::cos(x); });
  }
};
struct RoundBf16 {
  static HWY_INLINE Vector apply(Vector a) { return round_to_bf16(a); }
};
struct RoundF16 {
  static HWY_INLINE Vector apply(Vector a) {
    return each_lane(a, [](float x) { return to_float(to_f16(x)); });
  }
};

// Truth values are the integers 0 and 1.
template <typename Mask>
HWY_INLINE Vector truth(Mask mask) {
  return floats(hn::IfThenElseZero(hn::RebindMask(Ints(), mask), hn::Set(Ints(), 1)));
}
HWY_INLINE hn::Mask<Floats> is_true(Vector v) {
  return hn::RebindMask(Floats(), hn::Ne(ints(v), hn::Zero(Ints())));
}

struct FToI {
  static HWY_INLINE Vector apply(Vector a) { return floats(hn::ConvertTo(Ints(), a)); }
};
struct IToF {
  static HWY_INLINE Vector apply(Vector a) { return hn::ConvertTo(Floats(), ints(a)); }
};
struct IToU8 {
  static HWY_INLINE Vector apply(Vector a) { return floats(hn::And(ints(a), hn::Set(Ints(), 255))); }
};
struct FToU8 {
  static HWY_INLINE Vector apply(Vector a) { return IToU8::apply(FToI::apply(a)); }
};
struct FToBool {
  static HWY_INLINE Vector apply(Vector a) { return truth(hn::Not(hn::Eq(a, set(0.0F)))); }
};
struct IToBool {
  static HWY_INLINE Vector apply(Vector a) { return truth(is_true(a)); }
};
struct NegI {
  static HWY_INLINE Vector apply(Vector a) { return floats(hn::Neg(ints(a))); }
};
struct AbsI {
  static HWY_INLINE Vector apply(Vector a) { return floats(hn::Abs(ints(a))); }
};

struct AddF {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return hn::Add(a, b); }
};
struct SubF {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return hn::Sub(a, b); }
};
struct MulF {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return hn::Mul(a, b); }
};
struct DivF {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return hn::Div(a, b); }
};
struct MaxF {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return max(a, b); }
};
struct MinF {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return min(a, b); }
};
struct EqualF {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return truth(hn::Eq(a, b)); }
};
struct LessF {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return truth(hn::Lt(a, b)); }
};
struct LessEqualF {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return truth(hn::Le(a, b)); }
};

struct AddI {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return floats(hn::Add(ints(a), ints(b))); }
};
struct SubI {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return floats(hn::Sub(ints(a), ints(b))); }
};
struct MulI {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return floats(hn::Mul(ints(a), ints(b))); }
};
struct MaxI {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return floats(hn::Max(ints(a), ints(b))); }
};
struct MinI {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return floats(hn::Min(ints(a), ints(b))); }
};
struct EqualI {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return truth(hn::Eq(ints(a), ints(b))); }
};
struct LessI {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return truth(hn::Lt(ints(a), ints(b))); }
};
struct LessEqualI {
  static HWY_INLINE Vector apply(Vector a, Vector b) { return truth(hn::Not(hn::Lt(ints(b), ints(a)))); }
};
// Truncates toward zero; 0 where the divisor is 0, and the lowest number by -1 wraps.
struct DivI {
  static HWY_INLINE Vector apply(Vector a, Vector b) {
    HWY_ALIGN int32_t x[kLanes], y[kLanes];
    hn::Store(ints(a), Ints(), x);
    hn::Store(ints(b), Ints(), y);
    for (int64_t i = 0; i < kLanes; ++i)
      x[i] = y[i] == 0 ? 0 : static_cast<int32_t>(int64_t{x[i]} / int64_t{y[i]});
    return floats(hn::Load(Ints(), x));
  }
};

struct Where {
  static HWY_INLINE Vector apply(Vector condition, Vector a, Vector b) {
    return hn::IfThenElse(is_true(condition), a, b);
  }
};

// ---- the loop around them ----

// Operand i at column c: the splat, or lanes from memory (part of a vector at the row's end).
template <bool kSplat, bool kPart>
HWY_INLINE Vector fetch(const float* from, Vector splat, int64_t c, int64_t left) {
  if constexpr (kSplat) return splat;
  if constexpr (kPart) return load_part(from + c, left);
  return hn::LoadU(Floats(), from + c);
}

template <class F, int kArity, unsigned kSplats, bool kPart>
HWY_INLINE Vector compute(const float* const* in, const Vector* splats, int64_t c, int64_t left) {
  const Vector a = fetch<(kSplats & 1U) != 0, kPart>(in[0], splats[0], c, left);
  if constexpr (kArity == 1) {
    return F::apply(a);
  } else {
    const Vector b = fetch<(kSplats & 2U) != 0, kPart>(in[1], splats[1], c, left);
    if constexpr (kArity == 2) {
      return F::apply(a, b);
    } else {
      return F::apply(a, b, fetch<(kSplats & 4U) != 0, kPart>(in[2], splats[2], c, left));
    }
  }
}

template <class F, int kArity, unsigned kSplats>
void map(const LoopArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* in[3] = {};
    Vector splats[3] = {hn::Zero(Floats()), hn::Zero(Floats()), hn::Zero(Floats())};
    for (int i = 0; i < kArity; ++i) {
      in[i] = reinterpret_cast<const float*>(static_cast<const char*>(args.in[i]) + row * args.step[i]);
      if (kSplats >> i & 1U) splats[i] = set(*in[i]);
    }
    auto* out = reinterpret_cast<float*>(static_cast<char*>(args.out) + row * args.out_step);
    int64_t c = 0;
    for (; c + 2 * kLanes <= args.cols; c += 2 * kLanes) {
      const Vector first = compute<F, kArity, kSplats, false>(in, splats, c, 0);
      const Vector second = compute<F, kArity, kSplats, false>(in, splats, c + kLanes, 0);
      hn::StoreU(first, Floats(), out + c);
      hn::StoreU(second, Floats(), out + c + kLanes);
    }
    for (; c + kLanes <= args.cols; c += kLanes)
      hn::StoreU(compute<F, kArity, kSplats, false>(in, splats, c, 0), Floats(), out + c);
    if (c < args.cols)
      store_part(compute<F, kArity, kSplats, true>(in, splats, c, args.cols - c), out + c, args.cols - c);
  }
}

template <class F>
std::array<LoopFunction, 8> unary() {
  return {map<F, 1, 0>};
}
template <class F>
std::array<LoopFunction, 8> binary() {
  return {map<F, 2, 0>, map<F, 2, 1>, map<F, 2, 2>};
}
template <class F>
std::array<LoopFunction, 8> ternary() {
  return {map<F, 3, 0>, map<F, 3, 1>, map<F, 3, 2>, map<F, 3, 3>, map<F, 3, 4>, map<F, 3, 5>, map<F, 3, 6>};
}

}  // namespace

void fill_maps(LoopTable& table) {
  const auto row = [&](Code code) -> auto& { return table[static_cast<size_t>(code)]; };
  row(Code::copy) = {map<Copy, 1, 0>, map<Copy, 1, 1>};
  row(Code::neg_f) = unary<NegF>();
  row(Code::exp_f) = unary<Exp>();
  row(Code::log_f) = unary<Log>();
  row(Code::sqrt_f) = unary<Sqrt>();
  row(Code::rsqrt_f) = unary<Rsqrt>();
  row(Code::tanh_f) = unary<Tanh>();
  row(Code::sigmoid_f) = unary<Sigmoid>();
  row(Code::erf_f) = unary<Erf>();
  row(Code::abs_f) = unary<AbsF>();
  row(Code::sin_f) = unary<Sin>();
  row(Code::cos_f) = unary<Cos>();
  row(Code::round_bf16) = unary<RoundBf16>();
  row(Code::round_f16) = unary<RoundF16>();
  row(Code::f_to_i) = unary<FToI>();
  row(Code::f_to_u8) = unary<FToU8>();
  row(Code::f_to_bool) = unary<FToBool>();
  row(Code::i_to_f) = unary<IToF>();
  row(Code::i_to_u8) = unary<IToU8>();
  row(Code::i_to_bool) = unary<IToBool>();
  row(Code::neg_i) = unary<NegI>();
  row(Code::abs_i) = unary<AbsI>();
  row(Code::add_f) = binary<AddF>();
  row(Code::sub_f) = binary<SubF>();
  row(Code::mul_f) = binary<MulF>();
  row(Code::div_f) = binary<DivF>();
  row(Code::max_f) = binary<MaxF>();
  row(Code::min_f) = binary<MinF>();
  row(Code::equal_f) = binary<EqualF>();
  row(Code::less_f) = binary<LessF>();
  row(Code::less_equal_f) = binary<LessEqualF>();
  row(Code::add_i) = binary<AddI>();
  row(Code::sub_i) = binary<SubI>();
  row(Code::mul_i) = binary<MulI>();
  row(Code::div_i) = binary<DivI>();
  row(Code::max_i) = binary<MaxI>();
  row(Code::min_i) = binary<MinI>();
  row(Code::equal_i) = binary<EqualI>();
  row(Code::less_i) = binary<LessI>();
  row(Code::less_equal_i) = binary<LessEqualI>();
  row(Code::where) = ternary<Where>();
}

}  // namespace HWY_NAMESPACE
}  // namespace nf::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nf::cpu {

void fill_map_kernels(LoopTable& table, LoopIsa isa) {
#if (HWY_TARGETS & HWY_AVX3) && HWY_STATIC_TARGET != HWY_AVX3
  if (isa == LoopIsa::avx512) return N_AVX3::fill_maps(table);
#endif
#if (HWY_TARGETS & HWY_AVX2) && HWY_STATIC_TARGET != HWY_AVX2
  if (isa == LoopIsa::avx2) return N_AVX2::fill_maps(table);
#endif
  HWY_STATIC_DISPATCH(fill_maps)(table);
}

}  // namespace nf::cpu
#endif
