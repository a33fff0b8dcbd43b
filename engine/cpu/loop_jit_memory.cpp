// Loads, stores and reductions of the code.
#if NF_HAVE_XBYAK

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
  vpmovdw(Xbyak::Ymm(narrow.getIdx()), narrow);
  vmovdqu16(to(), Xbyak::Ymm(narrow.getIdx()));
}

// ---- one element per row ----

void LoopAssembler::emit_row_load(const JitOperation& op) {
  mov(r11, frame(int64_t{op.pointer} * 8));
  if (op.kind == JitOperation::Kind::load) {
    switch (op.code) {
      case Code::load_bf16:
        movzx(r11d, word[r11]);
        shl(r11d, 16);
        break;
      case Code::load_u8: movzx(r11d, byte[r11]); break;
      default: mov(r11d, ptr[r11]);
    }
  }
  mov(frame_row(op.out), r11d);
}

void LoopAssembler::emit_row_store(const JitOperation& op) {
  const Zmm x = use(op.in[0]), narrow = temporary();
  if (op.code == Code::store_bf16)
    emit_bf16_bits(narrow, x);
  else
    vmovaps(narrow, x);
  vmovd(ecx, Xbyak::Xmm(narrow.getIdx()));
  mov(r11, frame(int64_t{op.pointer} * 8));
  switch (op.code) {
    case Code::store_bf16: return mov(ptr[r11], cx);
    case Code::store_u8: return mov(ptr[r11], cl);
    default: return mov(ptr[r11], ecx);
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
  size_t number = 0;
  while (reductions_[number] != &op) ++number;
  const Zmm x = reduced(op), sum = temporary();
  const int vector = vector_ % 4;
  load_accumulator(sum, number, vector);
  if (!masked_) {
    emit_fold(op.code, sum, sum, x);
  } else {
    const Zmm folded = temporary();
    emit_fold(op.code, folded, sum, x);
    vmovaps(sum | k1, folded);
  }
  store_accumulator(sum, number, vector);
}

void LoopAssembler::load_accumulator(const Zmm& to, size_t reduction, int vector) {
  const int number = static_cast<int>(reduction);
  if (number < accumulator_registers_)
    vmovaps(to, Zmm(kVectors - 1 - number * 4 - vector));
  else
    vmovaps(to, frame(accumulators_at_ + number * 256 + vector * 64));
}

void LoopAssembler::store_accumulator(const Zmm& from, size_t reduction, int vector) {
  const int number = static_cast<int>(reduction);
  if (number < accumulator_registers_)
    vmovaps(Zmm(kVectors - 1 - number * 4 - vector), from);
  else
    vmovaps(frame(accumulators_at_ + number * 256 + vector * 64), from);
}

// The 64 lanes as one, in lane 0 of lanes[0]: l with l + 32, l with l + 16, …
void LoopAssembler::emit_fold_lanes(Code reduction, const std::vector<Zmm>& lanes) {
  const Zmm v = lanes[0], other = lanes[1];
  pinned_ = 0xf;
  for (int r = 0; r < 4; ++r) owners_[r] = kReserved;
  emit_fold(reduction, v, v, lanes[2]);
  emit_fold(reduction, other, other, lanes[3]);
  emit_fold(reduction, v, v, other);
  const auto fold_with = [&](auto shuffle) {
    shuffle();
    emit_fold(reduction, v, v, other);
  };
  fold_with([&] { vshuff32x4(other, v, v, 0x4e); });
  fold_with([&] { vshuff32x4(other, v, v, 0xb1); });
  fold_with([&] { vpermilps(other, v, 0x4e); });
  fold_with([&] { vpermilps(other, v, 0xb1); });
  end_operation();
  for (int r = 0; r < 4; ++r) owners_[r] = kFree;
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
