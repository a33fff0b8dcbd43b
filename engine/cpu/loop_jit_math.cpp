// The elementwise operations, instruction for instruction those of cpu/loop_kernels_map.cpp and
// cpu/simd_math-inl.h, so that the bits are the same.
#if NF_HAVE_XBYAK

#include <bit>

#include "cpu/loop_jit_assembler.h"
#include "cpu/loop_kernels.h"

namespace nf::cpu {
namespace {

constexpr uint32_t kSign = 0x80000000U, kMagnitude = 0x7fffffffU;

// An interpreter's instruction on one vector: three operands, then the result, of kLanes each.
template <int kLanes>
void call_lanes(LoopFunction function, float* lanes) {
  LoopArgs args;
  for (int i = 0; i < 3; ++i) args.in[i] = lanes + kLanes * i;
  args.out = lanes + 3 * kLanes;
  args.rows = 1;
  args.cols = kLanes;
  function(args);
}

int operands_of(const JitOperation& op) { return op.in[2] >= 0 ? 3 : op.in[1] >= 0 ? 2 : 1; }

}  // namespace

void LoopAssembler::emit_map(const JitOperation& op) {
  switch (op.code) {
    case Code::sin_f:
    case Code::cos_f:
    case Code::round_f16:
    case Code::f_to_i:
    case Code::f_to_u8:
    case Code::div_i: {
      emit_call(op, define(op.out));
      break;
    }
    case Code::where: {
      const Vector condition = use(op.in[0]), a = use(op.in[1]), b = use(op.in[2]);
      const Mask mask = nonzero(condition);
      choose(define(op.out), mask, a, b);
      break;
    }
    case Code::iota: {
      const Vector y = define(op.out), ramp = temporary();
      broadcast_integer(y, eax);
      vpmovzxbd(ramp, ptr[rbp + static_cast<size_t>(ramp_at_)]);
      vpaddd(y, y, ramp);
      if (vector_ > 0) vpaddd(y, y, constant(static_cast<uint32_t>(vector_ * lanes_)));
      if (op.stride != 1) vpmulld(y, y, constant(static_cast<uint32_t>(op.stride)));
      vpaddd(y, y, source(op.in[0]));
      break;
    }
    default:
      if (operands_of(op) == 1)
        emit_unary(op.code, define(op.out), op.in[0]);
      else
        emit_binary(op.code, define(op.out), op.in[0], op.in[1]);
  }
  if (op.row) vmovss(frame_row(op.out), quarter(vector(places_[static_cast<size_t>(op.out)].vector)));
}

void LoopAssembler::emit_unary(Code code, const Vector& y, int32_t value) {
  switch (code) {
    case Code::neg_f: return bits_xor(y, use(value), constant(kSign));
    case Code::abs_f: return bits_and(y, use(value), constant(kMagnitude));
    case Code::exp_f: return emit_exp(y, use(value));
    case Code::log_f: return emit_log(y, use(value));
    case Code::tanh_f: return emit_tanh(y, use(value));
    case Code::sigmoid_f: return emit_sigmoid(y, use(value));
    case Code::erf_f: return emit_erf(y, use(value));
    case Code::sqrt_f: return vsqrtps(y, source(value));
    case Code::rsqrt_f: {
      const Vector one = constant_register(1.0F);
      vsqrtps(y, source(value));
      return vdivps(y, one, y);
    }
    case Code::round_bf16: {
      round_to_bf16(y, use(value));
      return bits_and(y, y, constant(0xffff0000U));
    }
    case Code::f_to_bool: return put_truth(y, compare(use(value), Relation::not_equal, constant(0.0F)));
    case Code::i_to_f: return vcvtdq2ps(y, source(value));
    case Code::i_to_u8: return bits_and(y, use(value), constant(255U));
    case Code::i_to_bool: return put_truth(y, nonzero(use(value)));
    case Code::neg_i: {
      clear(y);
      return vpsubd(y, y, source(value));
    }
    case Code::abs_i: return vpabsd(y, source(value));
    default: throw Xbyak::Error(Xbyak::ERR_INTERNAL);
  }
}

void LoopAssembler::emit_binary(Code code, const Vector& y, int32_t left, int32_t right) {
  // The memory operand comes second; sums and products may be turned round for it.
  const auto in_memory = [&](int32_t v) {
    return plan_.values[static_cast<size_t>(v)].row && places_[static_cast<size_t>(v)].vector < 0;
  };
  const bool commutes = code == Code::add_f || code == Code::mul_f || code == Code::add_i ||
                        code == Code::mul_i || code == Code::equal_f || code == Code::equal_i;
  if (commutes && in_memory(left) && !in_memory(right)) std::swap(left, right);
  const Vector a = use(left);
  const Source b = source(right);
  const auto is = [&](Relation relation) { put_truth(y, compare(a, relation, b)); };
  const auto is_integer = [&](Relation relation) { put_truth(y, compare_integers(a, relation, b)); };
  switch (code) {
    case Code::add_f: return vaddps(y, a, b);
    case Code::sub_f: return vsubps(y, a, b);
    case Code::mul_f: return vmulps(y, a, b);
    case Code::div_f: return vdivps(y, a, b);
    case Code::max_f: return emit_max(y, a, b);
    case Code::min_f: return emit_min(y, a, b);
    case Code::equal_f: return is(Relation::equal);
    case Code::less_f: return is(Relation::less);
    case Code::less_equal_f: return is(Relation::less_equal);
    case Code::add_i: return vpaddd(y, a, b);
    case Code::sub_i: return vpsubd(y, a, b);
    case Code::mul_i: return vpmulld(y, a, b);
    case Code::max_i: return vpmaxsd(y, a, b);
    case Code::min_i: return vpminsd(y, a, b);
    case Code::equal_i: return is_integer(Relation::equal);
    case Code::less_i: return is_integer(Relation::less);
    case Code::less_equal_i: return is_integer(Relation::less_equal);
    default: throw Xbyak::Error(Xbyak::ERR_INTERNAL);
  }
}

// A NaN in a stays; vmaxps gives b where b is one. y may be a.
void LoopAssembler::emit_max(const Vector& y, const Vector& a, const Xbyak::Operand& b) {
  const Mask nan = compare(a, Relation::unordered, Source(a));
  if (y.getIdx() == a.getIdx()) {
    const Vector kept = temporary();
    vmovaps(kept, a);
    vmaxps(y, a, b);
    put(y, nan, kept);
    release(kept);
  } else {
    vmaxps(y, a, b);
    put(y, nan, a);
  }
  release(nan);
}

void LoopAssembler::emit_min(const Vector& y, const Vector& a, const Xbyak::Operand& b) {
  const Mask nan = compare(a, Relation::unordered, Source(a));
  vminps(y, a, b);
  put(y, nan, a);
}

void LoopAssembler::emit_fold(Code reduction, const Vector& y, const Vector& a, const Xbyak::Operand& b) {
  switch (reduction) {
    case Code::reduce_max_f: return emit_max(y, a, b);
    case Code::reduce_sum_i: return vpaddd(y, a, b);
    case Code::reduce_max_i: return vpmaxsd(y, a, b);
    default: return vaddps(y, a, b);
  }
}

void LoopAssembler::put_truth(const Vector& y, const Mask& mask) {
  if (avx512_)
    vmovdqa32(y | mask.opmask | T_z, constant_register(std::bit_cast<float>(1U)));
  else
    bits_and(y, mask.lanes, constant(1U));
}

// ---- functions ----

// p = coefficients[0] x + coefficients[1], then p x + the next, …
void LoopAssembler::emit_polynomial(const Vector& p, const Vector& x,
                                    std::initializer_list<float> coefficients) {
  auto next = coefficients.begin();
  broadcast(p, *next++);
  for (; next != coefficients.end(); ++next) vfmadd213ps(p, x, constant(*next));
}

void LoopAssembler::emit_exp(const Vector& y, const Vector& x, Range range) {
  const Vector r = temporary(), n = temporary(), p = temporary();
  if (range != Range::above_minus_104) {
    const Vector low = constant_register(-104.0F);
    vmaxps(r, low, x);
    release(low);
  }
  if (range != Range::below_89) {
    const Vector high = constant_register(89.0F);
    vminps(r, high, range == Range::above_minus_104 ? x : r);
    release(high);
  }
  vmulps(n, r, constant(1.44269504F));
  round_to_whole(n, n);
  vfnmadd231ps(r, n, constant(0.693359375F));
  vfnmadd231ps(r, n, constant(-2.12194440e-4F));
  emit_polynomial(p, r,
                  {1.381460112e-03F, 8.368710987e-03F, 4.166838899e-02F, 1.666652113e-01F, 4.999999404e-01F});
  vmulps(y, r, r);
  vfmadd213ps(p, y, r);
  release(r);
  vaddps(p, p, constant(1.0F));
  scale(y, p, n);
  release(n);
  release(p);
}

void LoopAssembler::emit_log(const Vector& y, const Vector& x) {
  const Vector f = temporary(), e = temporary(), p = temporary(), square = temporary();
  const Mask tiny = compare(x, Relation::less, constant(0x1p-126F), 3);
  vmovaps(f, x);
  put_product(f, tiny, x, constant(0x1p23F));
  vpsubd(e, f, constant(0x3f3504f3U));
  vpsrad(e, e, 23);
  vpslld(p, e, 23);
  vpsubd(f, f, p);
  vsubps(f, f, constant(1.0F));
  vcvtdq2ps(e, e);
  put_difference(e, tiny, e, constant(23.0F));
  emit_polynomial(p, f,
                  {6.746454537e-02F, -1.167562306e-01F, 1.188823208e-01F, -1.240559742e-01F, 1.421954334e-01F,
                   -1.666799486e-01F, 2.000211924e-01F, -2.500000894e-01F, 3.333331347e-01F});
  vmulps(square, f, f);
  vmulps(p, p, square);
  vmulps(p, p, f);
  vfmadd231ps(p, e, constant(-2.12194440e-4F));
  vfnmadd231ps(p, square, constant(0.5F));
  vaddps(p, f, p);
  vfmadd231ps(p, e, constant(0.693359375F));
  const Mask zero = compare(x, Relation::equal, constant(0.0F));
  put(p, zero, constant_register(-__builtin_inff()));
  const Mask negative = compare(x, Relation::less, constant(0.0F));
  put(p, negative, constant_register(__builtin_nanf("")));
  const Mask finite = compare(x, Relation::less, constant(__builtin_inff()));
  vaddps(y, x, x);
  put(y, finite, p);
}

void LoopAssembler::emit_tanh(const Vector& y, const Vector& x) {
  const Vector a = temporary(), z = temporary(), small = temporary(), large = temporary();
  bits_and(a, x, constant(kMagnitude));
  vmulps(z, x, x);
  emit_polynomial(
      small, z,
      {-5.705059506e-03F, 2.063916065e-02F, -5.373974144e-02F, 1.333144307e-01F, -3.333328068e-01F});
  vmulps(small, small, z);
  vfmadd213ps(small, x, x);
  vaddps(z, a, a);
  emit_exp(large, z, Range::above_minus_104);
  vaddps(large, large, constant(1.0F));
  vdivps(large, constant_register(2.0F), large);
  vsubps(large, constant_register(1.0F), large);
  const Mask is_small = compare(a, Relation::less, constant(0.625F));
  put(large, is_small, small);
  vmovaps(y, large);
  copy_sign(y, x);
}

void LoopAssembler::emit_sigmoid(const Vector& y, const Vector& x) {
  const Vector e = temporary(), one = constant_register(1.0F);
  bits_or(e, x, constant(kSign));  // -|x|
  emit_exp(e, e, Range::below_89);
  const Mask negative = compare(x, Relation::less, constant(0.0F));
  vaddps(y, one, e);
  choose(e, negative, e, one);
  vdivps(y, e, y);
}

void LoopAssembler::emit_erf(const Vector& y, const Vector& x) {
  const Vector a = temporary(), z = temporary(), q = temporary(), g = temporary();
  bits_and(a, x, constant(kMagnitude));
  vmulps(z, x, x);
  emit_polynomial(q, z,
                  {8.317159518e-05F, -8.130121278e-04F, 5.199918523e-03F, -2.685894817e-02F, 1.128368750e-01F,
                   -3.761263192e-01F, 1.283791661e-01F});
  vminps(z, a, constant(4.0F));
  emit_polynomial(
      g, z,
      {-5.220903745e-07F, -1.430869179e-05F, 3.966925724e-04F, -4.053454846e-03F, 2.489522472e-02F,
       -1.080119759e-01F, -6.335434318e-01F, -1.129434109e+00F, 1.604063727e-04F});
  emit_exp(z, g);
  vsubps(g, constant_register(1.0F), z);
  copy_sign(g, x);
  vfmadd213ps(q, x, x);
  const Mask is_small = compare(a, Relation::less, constant(0.925F));
  put(g, is_small, q);
  release(is_small);
  const Mask nan = compare(x, Relation::unordered, Source(x));
  choose(y, nan, x, g);
}

// ---- rare ones ----

// The interpreter's own instruction, called: all registers that it may change are kept meanwhile.
void LoopAssembler::emit_call(const JitOperation& op, const Vector& y) {
  const int64_t lanes_at = calls_at_, general_at = calls_at_ + 4 * 64;
  const int64_t vectors_at = general_at + 64;
  for (int i = 0; i < operands_of(op); ++i) vmovaps(frame(lanes_at + i * vector_bytes_), use(op.in[i]));
  const auto is_live = [&](int r) { return owners_[r] != kFree && r != y.getIdx(); };
  for (int r = 0; r < vectors_; ++r)
    if (is_live(r)) vmovaps(frame(vectors_at + r * 64), vector(r));
  const Reg64 general[] = {rax, rdx, rsi, rdi, r8, r9, r10};
  for (int i = 0; i < 7; ++i) mov(frame(general_at + i * 8), general[i]);
  if (masked_ && avx512_) kmovw(dword[rsp + static_cast<size_t>(general_at + 56)], k1);
  mov(rdi, reinterpret_cast<uint64_t>(loop_table()[static_cast<size_t>(op.code)][0]));
  lea(rsi, frame(lanes_at));
  mov(rax, reinterpret_cast<uint64_t>(avx512_ ? &call_lanes<16> : &call_lanes<8>));
  vzeroupper();
  call(rax);
  for (int i = 0; i < 7; ++i) mov(general[i], frame(general_at + i * 8));
  if (masked_ && avx512_) kmovw(k1, dword[rsp + static_cast<size_t>(general_at + 56)]);
  for (int r = 0; r < vectors_; ++r)
    if (is_live(r)) vmovaps(vector(r), frame(vectors_at + r * 64));
  vmovaps(y, frame(lanes_at + 3 * vector_bytes_));
}

}  // namespace nf::cpu
#endif
