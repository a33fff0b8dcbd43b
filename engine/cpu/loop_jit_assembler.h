// Turns a plan (cpu/loop_jit_plan.h) into machine code for AVX-512 or AVX2: TileFunction in cpu/loop_jit.h.
//
// Vector registers hold the values of one vector of columns; values per row and constants are broadcast from
// memory by the instructions that use them, and stand in the registers that the columns leave free. A vector
// at a time goes through all operations of its phase: the processor's own reordering overlaps several.
//
// General registers: rax counts columns, rbp points to the constants, r11 and rcx are free for a moment, the
// others point to the memory that a phase walks. The frame on the stack holds all pointers, the values per
// row, and vectors for which registers do not suffice.
#pragma once

#include <map>
#include <span>
#include <vector>

#include "cpu/loop_jit_plan.h"
#include "cpu/loop_jit_vectors.h"

namespace nf::cpu {

// Thrown by LoopAssembler where a loop has more values at once than vectors and places to spill them.
struct NoVectorLeft {};

class LoopAssembler : private VectorCode {
 public:
  // `most_accumulators`: vectors that may hold what reductions have summed up. Throws Xbyak::Error when the
  // code does not fit into the memory, or its values not into the vectors that are left.
  LoopAssembler(const JitPlan& plan, bool avx512, int most_accumulators, std::span<uint8_t> memory);
  size_t size() const { return getSize(); }

 private:
  using Reg64 = Xbyak::Reg64;

  static constexpr int kMostVectors = 32, kFree = -1, kTemporary = -2, kReserved = -3;
  // Tables before the constants. AVX-512: 0 to 15, as bytes; the places of the upper halves of lanes, as
  // words. AVX2: 0 to 7 and more, as bytes; as many lanes of ones as of zeros, of which a part is a mask.
  const int32_t ramp_at_ = avx512_ ? -16 : -32, upper_at_ = -80, ones_at_ = -96;
  const int per_reduction_ = static_cast<int>(kReduceLanes) / lanes_;  // vectors

  // ---- the skeleton (loop_jit_assembler.cpp) ----
  void emit_function();
  void emit_row(int32_t phase);
  void emit_columns(int32_t phase);
  void emit_loops(int unroll);
  void emit_piece(int vectors, int rest);
  void emit_block(int vector, bool masked);
  void free_block();
  void emit_tables();
  void begin_reductions();
  void end_reductions();
  void begin_operations(int32_t phase, bool row);
  void survey();
  void hoist();
  void broadcast_key(const Vector& to, uint64_t key);
  void keep_pointers();
  void load_pointers();
  Reg64 pointer(int32_t number);  // in a register
  Address at(int32_t number, int vector);
  Address frame(int64_t offset) { return ptr[rsp + static_cast<size_t>(offset)]; }
  Address frame_row(int32_t value);

  // ---- vector registers ----
  Vector take(int owner);
  void evict(int32_t value);
  Vector use(int32_t value);     // the value in a register
  Source source(int32_t value);  // the same, or in memory
  Vector define(int32_t value);
  Vector temporary() override { return take(kTemporary); }
  void release(const Vector& temporary) override;
  using VectorCode::release;
  Source constant(uint32_t bits) override;
  using VectorCode::constant;
  Vector constant_register(float value);
  Vector upper_halves();  // the table
  void end_operation();
  size_t next_use(int32_t value, size_t from) const;  // the first position from `from` on that reads it
  void broadcast(const Vector& to, float value);
  int32_t constant_offset(uint32_t bits);
  int hoisted(uint64_t key, int weight);

  // ---- operations (loop_jit_math.cpp) ----
  void emit_map(const JitOperation& op);
  void emit_unary(Code code, const Vector& y, int32_t x);
  void emit_binary(Code code, const Vector& y, int32_t a, int32_t b);
  void emit_max(const Vector& y, const Vector& a, const Xbyak::Operand& b);
  void emit_min(const Vector& y, const Vector& a, const Xbyak::Operand& b);
  void emit_fold(Code reduction, const Vector& y, const Vector& a, const Xbyak::Operand& b);
  void put_truth(const Vector& y, const Mask& mask);  // the integers 1 and 0
  void emit_polynomial(const Vector& p, const Vector& x, std::initializer_list<float> coefficients);
  enum class Range : uint8_t { all, below_89, above_minus_104 };  // what is known of an exponent
  void emit_exp(const Vector& y, const Vector& x, Range range = Range::all);
  void emit_log(const Vector& y, const Vector& x);
  void emit_tanh(const Vector& y, const Vector& x);
  void emit_sigmoid(const Vector& y, const Vector& x);
  void emit_erf(const Vector& y, const Vector& x);
  void emit_call(const JitOperation& op, const Vector& y);

  // ---- memory (loop_jit_memory.cpp) ----
  void emit_load(const Vector& to, Code load, const Address& from);
  void emit_store(const JitOperation& op);
  void store_floats(const Vector& x, const Address& to);
  void emit_row_load(const JitOperation& op);
  void emit_row_store(const JitOperation& op);
  void emit_reduce(const JitOperation& op);
  void emit_column(const JitOperation& op);
  Vector load_lanes(Code load, const Address& from);  // those that the mask says, one by one
  void store_lanes(Code store, const Address& to, const Xbyak::Xmm& lanes);
  template <typename Move>
  void each_lane(Move move);
  void begin_mask(int rest);
  Mask row_mask();                         // lanes that the row has
  Vector reduced(const JitOperation& op);  // what a reduction folds
  void emit_fold_lanes(Code reduction, std::span<const Vector> lanes, const Vector& to);
  Vector accumulator(size_t reduction, int vector);  // its register, or one to hold it
  void load_accumulator(const Vector& to, size_t reduction, int vector);
  void store_accumulator(const Vector& from, size_t reduction, int vector);

  const JitPlan& plan_;

  // the frame
  int64_t rows_at_ = 0, cols_at_ = 0, stack_at_ = 0, row_values_at_ = 0, accumulators_at_ = 0, calls_at_ = 0,
          spills_at_ = 0, mask_at_ = 0, count_at_ = 0, frame_bytes_ = 0;
  std::vector<int32_t> row_places_;  // of each value per row

  // constants, behind the code
  std::vector<uint32_t> pool_;

  // What a block of a phase needs: registers, and what it broadcasts how often.
  struct Needs {
    int registers = 0;
    std::map<uint64_t, int> broadcasts;
  };
  std::vector<Needs> needs_;           // of each phase
  std::map<uint64_t, int> constants_;  // that stand in registers all the time
  int most_accumulators_;              // registers, of any phase
  std::map<int32_t, Reg64> pointers_;
  bool all_pointers_kept_ = false;  // in registers, from row to row

  // the phase
  std::vector<const JitOperation*> operations_;
  std::vector<const JitOperation*> reductions_;
  std::vector<std::vector<size_t>> uses_;  // positions in operations_ that read a value
  int accumulator_registers_ = 0;          // reductions whose lanes stand in registers, from the last down
  std::map<uint64_t, int> hoisted_;
  std::map<uint64_t, int> wanted_;                // how often a block broadcasts what
  std::vector<std::pair<int32_t, int>> carried_;  // values per row and registers in which they already stand
  int32_t phase_ = 0;

  // the block
  struct Place {
    int vector = -1, spill = -1;
  };
  std::vector<Place> places_;
  int owners_[kMostVectors] = {};
  uint32_t pinned_ = 0;
  int peak_ = 0, spills_ = 0;
  size_t position_ = 0;
  int vector_ = 0;
  bool masked_ = false;
  int rest_ = 0;  // of a masked block's lanes; 0: known only when it runs
};

}  // namespace nf::cpu
