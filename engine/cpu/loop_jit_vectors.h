// Vector instructions for machine code (cpu/loop_jit_assembler.h) where AVX-512 and AVX2 have different ones,
// under one name each. What both have alike is used as it is: Xbyak takes the width from the registers.
//
// AVX-512 has 32 vectors of 16 lanes, masks in registers of their own, and broadcasts a lane from memory as
// it computes. AVX2 has 16 vectors of 8 lanes; masks are vectors, and operands in memory are whole vectors.
// Both give the same bits, those of cpu/simd_math-inl.h.
#pragma once

#include <xbyak/xbyak.h>

#include <cstdint>
#include <span>

namespace nf::cpu {

class VectorCode : protected Xbyak::CodeGenerator {
 protected:
  using Vector = Xbyak::Xmm;  // in truth a Zmm or a Ymm
  using Address = Xbyak::Address;

  // Throws Xbyak::Error when the code does not fit into the memory, here and in all that follows.
  VectorCode(bool avx512, std::span<uint8_t> memory)
      : CodeGenerator(memory.size(), memory.data()),
        avx512_(avx512),
        vectors_(avx512 ? 32 : 16),
        lanes_(avx512 ? 16 : 8),
        vector_bytes_(4 * lanes_) {}

  const bool avx512_;
  const int vectors_, lanes_, vector_bytes_;

  // What an instruction reads: a register, or memory.
  class Source {
   public:
    explicit Source(const Vector& vector)
        : register_(vector), memory_(0, false, Xbyak::RegExp()), in_memory_(false) {}
    explicit Source(const Address& memory) : register_(0), memory_(memory), in_memory_(true) {}
    operator const Xbyak::Operand&() const {
      if (in_memory_) return memory_;
      return register_;
    }

   private:
    Vector register_;
    Address memory_;
    bool in_memory_;
  };

  Vector vector(int number) const {
    return avx512_ ? Vector(Xbyak::Zmm(number)) : Vector(Xbyak::Ymm(number));
  }
  static Xbyak::Ymm half(const Vector& zmm) { return Xbyak::Ymm(zmm.getIdx()); }
  static Xbyak::Xmm quarter(const Vector& v) { return Xbyak::Xmm(v.getIdx()); }  // four lanes

  // A register until the present operation ends; and what no longer needs one. Only AVX2 has so few that it
  // cannot wait for the end.
  virtual Vector temporary() = 0;
  virtual void release(const Vector& temporary) = 0;
  // 32 bits in all lanes.
  virtual Source constant(uint32_t bits) = 0;
  Source constant(float value);

  // A choice of lanes: of AVX-512 a mask register, which lasts until the next comparison of its number
  // (`lanes` means nothing then); of AVX2 a temporary.
  struct Mask {
    Xbyak::Opmask opmask;
    Vector lanes;
  };
  enum class Relation : uint8_t { equal = 0, less = 1, less_equal = 2, unordered = 3, not_equal = 4 };
  Mask compare(const Vector& a, Relation relation, const Source& b, int number = 2);
  Mask compare_integers(const Vector& a, Relation relation, const Source& b);  // equal, less or less_equal
  Mask nonzero(const Vector& x);
  void release(const Mask& mask) { release(mask.lanes); }

  void put(const Vector& y, const Mask& where, const Vector& x);  // the other lanes stay
  void choose(const Vector& y, const Mask& where, const Vector& yes, const Vector& no);
  void put_product(const Vector& y, const Mask& where, const Vector& a, const Source& b);
  void put_difference(const Vector& y, const Mask& where, const Vector& a, const Source& b);

  void bits_and(const Vector& y, const Vector& a, const Source& b);
  void bits_or(const Vector& y, const Vector& a, const Source& b);
  void bits_xor(const Vector& y, const Vector& a, const Source& b);
  void clear(const Vector& y) { bits_xor(y, y, Source(y)); }
  void copy_sign(const Vector& y, const Vector& x);  // from x

  void round_to_whole(const Vector& y, const Vector& x);              // ties to even
  void scale(const Vector& y, const Vector& x, const Vector& whole);  // x 2^whole, which is used up
  void broadcast_integer(const Vector& y, const Xbyak::Reg32& x);
  // bf16 in the upper half of each lane, to nearest even, a NaN a quiet one; the lower half is anything. y is
  // not x.
  void round_to_bf16(const Vector& y, const Vector& x);
};

}  // namespace nf::cpu
