// Loads, stores and reductions of the code.
#if NF_HAVE_XBYAK

#include <algorithm>

#include "cpu/loop_jit_assembler.h"

namespace nf::cpu {

// Lanes beyond the row are zero and their memory is not touched.
void LoopAssembler::emit_load(const Zmm& to, Code load, const Address& from) {
  const Zmm masked = masked_ ? to | k1 | T_z : to;
  switch (load) {
    case Code::load_bf16: vpmovzxwd(masked, from); return vpslld(to, to, 16);
    case Code::load_u8: return vpmovzxbd(masked, from);
    default: return vmovups(masked, from);
  }
}

void LoopAssembler::emit_store(const JitOperation& op) {
  const Zmm x = use(op.in[0]);
  const auto to = [&] { return masked_ ? at(op.pointer, vector_) | k1 : at(op.pointer, vector_); };
  if (op.code == Code::copy) return vmovups(to(), x);
  const Zmm narrow = temporary();
  if (op.code == Code::store_u8) {
    vpmovdb(Xbyak::Xmm(narrow.getIdx()), x);
    return vmovdqu8(to(), Xbyak::Xmm(narrow.getIdx()));
  }
  emit_bf16_bits(narrow, x);
  vpermw(narrow, upper_halves(), narrow);
  vmovdqu16(to(), Xbyak::Ymm(narrow.getIdx()));
}

// ---- one element per row ----

void LoopAssembler::emit_row_load(const JitOperation& op) {
  const Xbyak::Reg64 from = pointer(op.pointer);
  if (op.kind == JitOperation::Kind::address) {
    mov(frame_row(op.out), Xbyak::Reg32(from.getIdx()));
    return;
  }
  switch (op.code) {
    case Code::load_bf16:
      movzx(ecx, word[from]);
      shl(ecx, 16);
      break;
    case Code::load_u8: movzx(ecx, byte[from]); break;
    default: mov(ecx, ptr[from]);
  }
  mov(frame_row(op.out), ecx);
}

void LoopAssembler::emit_row_store(const JitOperation& op) {
  const Zmm x = use(op.in[0]), narrow = temporary();
  if (op.code == Code::store_bf16)
    emit_bf16_bits(narrow, x);
  else
    vmovaps(narrow, x);
  vmovd(ecx, Xbyak::Xmm(narrow.getIdx()));
  if (op.code == Code::store_bf16) shr(ecx, 16);
  const Xbyak::Reg64 to = pointer(op.pointer);
  switch (op.code) {
    case Code::store_bf16: return mov(ptr[to], cx);
    case Code::store_u8: return mov(ptr[to], cl);
    default: return mov(ptr[to], ecx);
  }
}

// ---- reductions ----

LoopAssembler::Zmm LoopAssembler::reduced(const JitOperation& op) {
  if (op.code != Code::reduce_sum_product) return use(op.in[0]);
  const Zmm a = use(op.in[0]), product = temporary();
  vmulps(product, a, source(op.in[1]));
  return product;
}

// Lane l of 64 folds elements l, l + 64, …: vector v of four. Lanes beyond the row stay as they are.
void LoopAssembler::emit_reduce(const JitOperation& op) {
  const auto number =
      static_cast<size_t>(std::find(reductions_.begin(), reductions_.end(), &op) - reductions_.begin());
  const Zmm x = reduced(op), sum = accumulator(number, vector_);
  load_accumulator(sum, number, vector_);
  if (!masked_) {
    emit_fold(op.code, sum, sum, x);
  } else {
    const Zmm folded = temporary();
    emit_fold(op.code, folded, sum, x);
    vmovaps(sum | k1, folded);
  }
  store_accumulator(sum, number, vector_);
}

// Accumulators that have no register of their own stand in the frame.
LoopAssembler::Zmm LoopAssembler::accumulator(size_t reduction, int vector) {
  const int number = static_cast<int>(reduction);
  if (number >= accumulator_registers_) return temporary();
  return Zmm(kVectors - 1 - number * kPerReduction - vector);
}
void LoopAssembler::load_accumulator(const Zmm& to, size_t reduction, int vector) {
  const int number = static_cast<int>(reduction);
  if (number >= accumulator_registers_) vmovaps(to, frame(accumulators_at_ + number * 256 + vector * 64));
}
void LoopAssembler::store_accumulator(const Zmm& from, size_t reduction, int vector) {
  const int number = static_cast<int>(reduction);
  if (number >= accumulator_registers_) vmovaps(frame(accumulators_at_ + number * 256 + vector * 64), from);
}

// The 64 lanes as one: l with l + 32, l with l + 16, …; then `to` has it in all lanes. Changes the lanes.
void LoopAssembler::emit_fold_lanes(Code reduction, const Zmm (&lanes)[kPerReduction], const Zmm& to) {
  const Zmm other = lanes[1];
  emit_fold(reduction, to, lanes[0], lanes[2]);
  emit_fold(reduction, other, other, lanes[3]);
  emit_fold(reduction, to, to, other);
  vshuff32x4(other, to, to, 0x4e);
  emit_fold(reduction, to, to, other);
  vshuff32x4(other, to, to, 0xb1);
  emit_fold(reduction, to, to, other);
  vpermilps(other, to, 0x4e);
  emit_fold(reduction, to, to, other);
  vpermilps(other, to, 0xb1);
  emit_fold(reduction, to, to, other);
  vbroadcastss(to, Xbyak::Xmm(to.getIdx()));
}

// Rows follow each other, so that each sum is in their order.
void LoopAssembler::emit_column(const JitOperation& op) {
  const Zmm x = reduced(op), sum = temporary(), folded = temporary();
  emit_load(sum, Code::copy, at(op.pointer, vector_));
  emit_fold(op.code, folded, sum, x);
  vmovups(masked_ ? at(op.pointer, vector_) | k1 : at(op.pointer, vector_), folded);
}

}  // namespace nf::cpu
#endif
