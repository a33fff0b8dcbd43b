// Loads, stores and reductions of the code.
#if NF_HAVE_XBYAK

#include <algorithm>

#include "cpu/loop_jit_assembler.h"

namespace nf::cpu {

// ---- part of a vector ----

// Makes the mask of `rest` lanes; 0: of as many as rcx says.
void LoopAssembler::begin_mask(int rest) {
  rest_ = rest;
  if (avx512_) {
    if (rest > 0) {
      mov(ecx, (1U << rest) - 1);
      return kmovw(k1, ecx);
    }
    mov(r11d, 1);
    shl(r11d, cl);
    dec(r11d);
    return kmovw(k1, r11d);
  }
  free_block();
  const Vector mask = temporary();
  if (rest > 0) {
    vmovups(mask, ptr[rbp + static_cast<size_t>(ones_at_ + 4 * (lanes_ - rest))]);
  } else {
    mov(frame(count_at_), rcx);
    neg(rcx);
    vmovups(mask, ptr[rbp + rcx * 4 + static_cast<size_t>(ones_at_ + 4 * lanes_)]);
  }
  vmovaps(frame(mask_at_), mask);
  end_operation();
}

LoopAssembler::Mask LoopAssembler::row_mask() {
  if (avx512_) return {k1, vector(0)};
  const Vector lanes = temporary();
  vmovaps(lanes, frame(mask_at_));
  return {k1, lanes};
}

// Calls move(lane) for each lane of the mask.
template <typename Move>
void LoopAssembler::each_lane(Move move) {
  Xbyak::Label end;
  for (int lane = 0; lane < (rest_ > 0 ? rest_ : lanes_ - 1); ++lane) {
    if (rest_ == 0) {
      cmp(qword[rsp + static_cast<size_t>(count_at_)], lane);
      jbe(end, T_NEAR);
    }
    move(lane);
  }
  L(end);
}

// AVX2 has no masks for elements of one or two bytes.
LoopAssembler::Vector LoopAssembler::load_lanes(Code load, const Address& from) {
  const Xbyak::Xmm lanes = quarter(temporary());
  vpxor(lanes, lanes, lanes);
  each_lane([&](int lane) {
    const auto at = [&](int bytes) { return ptr[from.getRegExp() + static_cast<size_t>(lane * bytes)]; };
    if (load == Code::load_bf16)
      vpinsrw(lanes, lanes, at(2), static_cast<uint8_t>(lane));
    else
      vpinsrb(lanes, lanes, at(1), static_cast<uint8_t>(lane));
  });
  return lanes;
}

void LoopAssembler::store_lanes(Code store, const Address& to, const Xbyak::Xmm& lanes) {
  each_lane([&](int lane) {
    const auto at = [&](int bytes) { return ptr[to.getRegExp() + static_cast<size_t>(lane * bytes)]; };
    if (store == Code::store_bf16)
      vpextrw(at(2), lanes, static_cast<uint8_t>(lane));
    else
      vpextrb(at(1), lanes, static_cast<uint8_t>(lane));
  });
}

// ---- vectors ----

// Lanes beyond the row are zero and their memory is not touched.
void LoopAssembler::emit_load(const Vector& to, Code load, const Address& from) {
  const bool by_lanes = masked_ && !avx512_;
  if (load == Code::copy && by_lanes) {
    const Mask mask = row_mask();
    vmaskmovps(to, mask.lanes, from);
    return release(mask);
  }
  const Vector masked = masked_ && avx512_ ? to | k1 | T_z : to;
  if (load == Code::copy) return vmovups(masked, from);
  const Vector lanes = by_lanes ? load_lanes(load, from) : to;
  const Source source = by_lanes ? Source(lanes) : Source(from);
  if (load == Code::load_u8) {
    vpmovzxbd(masked, source);
  } else {
    vpmovzxwd(masked, source);
    vpslld(to, to, 16);
  }
  if (by_lanes) release(lanes);
}

void LoopAssembler::emit_store(const JitOperation& op) {
  const Vector x = use(op.in[0]);
  if (op.code == Code::copy) return store_floats(x, at(op.pointer, vector_));
  const Vector narrow = temporary();
  const bool is_bf16 = op.code == Code::store_bf16;
  if (avx512_) {
    const auto to = [&] { return masked_ ? at(op.pointer, vector_) | k1 : at(op.pointer, vector_); };
    if (!is_bf16) {
      vpmovdb(quarter(narrow), x);
      return vmovdqu8(to(), quarter(narrow));
    }
    round_to_bf16(narrow, x);
    vpermw(narrow, upper_halves(), narrow);
    return vmovdqu16(to(), half(narrow));
  }
  if (is_bf16) {
    round_to_bf16(narrow, x);
    vpsrld(narrow, narrow, 16);
  } else {
    bits_and(narrow, x, constant(255U));
  }
  vpackusdw(narrow, narrow, narrow);  // of each half of the vector, twice
  vpermq(Xbyak::Ymm(narrow.getIdx()), Xbyak::Ymm(narrow.getIdx()), 0b1000);
  if (!is_bf16) vpackuswb(quarter(narrow), quarter(narrow), quarter(narrow));
  const Address to = at(op.pointer, vector_);
  if (masked_)
    store_lanes(op.code, to, quarter(narrow));
  else if (is_bf16)
    vmovups(to, quarter(narrow));
  else
    vmovq(to, quarter(narrow));
}

void LoopAssembler::store_floats(const Vector& x, const Address& to) {
  if (!masked_) return vmovups(to, x);
  const Mask mask = row_mask();
  if (avx512_)
    vmovups(to | mask.opmask, x);
  else
    vmaskmovps(to, mask.lanes, x);
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
  const Vector x = use(op.in[0]), narrow = temporary();
  if (op.code == Code::store_bf16)
    round_to_bf16(narrow, x);
  else
    vmovaps(narrow, x);
  vmovd(ecx, quarter(narrow));
  if (op.code == Code::store_bf16) shr(ecx, 16);
  const Xbyak::Reg64 to = pointer(op.pointer);
  switch (op.code) {
    case Code::store_bf16: return mov(ptr[to], cx);
    case Code::store_u8: return mov(ptr[to], cl);
    default: return mov(ptr[to], ecx);
  }
}

// ---- reductions ----

LoopAssembler::Vector LoopAssembler::reduced(const JitOperation& op) {
  if (op.code != Code::reduce_sum_product) return use(op.in[0]);
  const Vector a = use(op.in[0]), product = temporary();
  vmulps(product, a, source(op.in[1]));
  return product;
}

// Lane l of 64 folds elements l, l + 64, …: vector v of per_reduction_. Lanes beyond the row stay as they
// are.
void LoopAssembler::emit_reduce(const JitOperation& op) {
  const auto number =
      static_cast<size_t>(std::find(reductions_.begin(), reductions_.end(), &op) - reductions_.begin());
  const Vector x = reduced(op), sum = accumulator(number, vector_);
  load_accumulator(sum, number, vector_);
  if (!masked_) {
    emit_fold(op.code, sum, sum, x);
  } else {
    const Vector folded = temporary();
    emit_fold(op.code, folded, sum, x);
    put(sum, row_mask(), folded);
  }
  store_accumulator(sum, number, vector_);
}

// Accumulators that have no register of their own stand in the frame.
LoopAssembler::Vector LoopAssembler::accumulator(size_t reduction, int vector) {
  const int number = static_cast<int>(reduction);
  if (number >= accumulator_registers_) return temporary();
  return this->vector(vectors_ - 1 - number * per_reduction_ - vector);
}
void LoopAssembler::load_accumulator(const Vector& to, size_t reduction, int vector) {
  const int number = static_cast<int>(reduction);
  if (number >= accumulator_registers_)
    vmovaps(to, frame(accumulators_at_ + number * 256 + vector * vector_bytes_));
}
void LoopAssembler::store_accumulator(const Vector& from, size_t reduction, int vector) {
  const int number = static_cast<int>(reduction);
  if (number >= accumulator_registers_)
    vmovaps(frame(accumulators_at_ + number * 256 + vector * vector_bytes_), from);
}

// The 64 lanes as one: l with l + 32, l with l + 16, …; then `to` has it in all lanes. Changes the lanes.
void LoopAssembler::emit_fold_lanes(Code reduction, std::span<const Vector> lanes, const Vector& to) {
  const Vector other = lanes[1];
  for (size_t half = lanes.size() / 2; half > 1; half /= 2)
    for (size_t v = 0; v < half; ++v) {
      const Vector& sum = v == 0 && half == 2 ? to : lanes[v];
      emit_fold(reduction, sum, lanes[v], lanes[v + half]);
    }
  emit_fold(reduction, to, to, other);
  const auto fold_halves = [&] { emit_fold(reduction, to, to, other); };
  if (avx512_) {
    const Xbyak::Zmm whole(to.getIdx()), turned(other.getIdx());
    vshuff32x4(turned, whole, whole, 0x4e);
    fold_halves();
    vshuff32x4(turned, whole, whole, 0xb1);
  } else {
    vperm2f128(Xbyak::Ymm(other.getIdx()), Xbyak::Ymm(to.getIdx()), Xbyak::Ymm(to.getIdx()), 1);
  }
  fold_halves();
  vpermilps(other, to, 0x4e);
  fold_halves();
  vpermilps(other, to, 0xb1);
  fold_halves();
  vbroadcastss(to, quarter(to));
}

// Rows follow each other, so that each sum is in their order.
void LoopAssembler::emit_column(const JitOperation& op) {
  const Vector x = reduced(op), sum = temporary(), folded = temporary();
  emit_load(sum, Code::copy, at(op.pointer, vector_));
  emit_fold(op.code, folded, sum, x);
  store_floats(folded, at(op.pointer, vector_));
}

}  // namespace nf::cpu
#endif
