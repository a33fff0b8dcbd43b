// Machine code for fused loops. The interpreter (cpu/loop_program.h) makes one pass over a tile for each
// instruction; code that is made for a body keeps its values in registers, loads each input once, and stores
// each output once. It gives the interpreter's bits: the same order of every sum, the same polynomials, the
// same roundings. (Where two different NaNs meet, which one survives may differ.)
//
// It is made with Xbyak for AVX-512 and AVX2. Without either, or where the system forbids executable memory,
// or with NF_JIT=0, the interpreter runs; it also does the few things in a body that machine code cannot
// (cpu/loop.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>

namespace nf::cpu {

struct LoopProgram;

// What a program may use at most: memory was planned before there was a program.
struct ScratchLimits {
  int64_t bytes = 0;  // LoopProgram::scratch
  int64_t slots = 0;
};

// Runs a stage's body on `rows` x `cols` elements; slots as in the interpreter.
using TileFunction = void (*)(void* const* slots, int64_t rows, int64_t cols);

// Memory that holds code: written once, then executable and no longer writable.
class MachineCode {
 public:
  // Null where the system does not allow it.
  static std::shared_ptr<const MachineCode> load(std::span<const uint8_t> code);
  ~MachineCode();
  MachineCode(const MachineCode&) = delete;
  MachineCode& operator=(const MachineCode&) = delete;

  void run(void* const* slots, int64_t rows, int64_t cols) const { function_(slots, rows, cols); }

 private:
  MachineCode(void* memory, size_t bytes);
  void* memory_;
  size_t bytes_;
  TileFunction function_;
};

// Makes the code of an executable's loops; equal bodies with equal layouts share it. For one thread.
class LoopCodes {
 public:
  // Whether this build and this processor make code at all.
  static bool available();

  // Gives the stages of a program their code, where that can be had.
  void compile(LoopProgram& program, const ScratchLimits& limits);

  // Codes made so far.
  size_t count() const;

 private:
  std::map<std::string, std::shared_ptr<const MachineCode>> codes_;  // by the plan they were made from
};

}  // namespace nf::cpu
