// What machine code for the body of a stage has to do (cpu/loop_jit.h), before any instruction of a processor
// is chosen.
//
// The interpreter runs one instruction after the other over a whole tile; machine code runs all of them on
// one vector, then goes to the next. A row reduction is a barrier: what depends on it can only run once the
// row has been walked. So a row is walked in phases, each one pass over its columns:
//
//   for each row of the tile
//     for each phase
//       the operations per row of this phase: on values that are the same in all columns
//       for each vector of columns: the operations of this phase
//     the operations per row of the last phase
//
// A value that a later phase needs is loaded again where it comes from memory, and otherwise kept in scratch
// memory for one row.
//
// In programs with one column the rows of the tile take the place of the columns, and there is one "row".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cpu/loop_program.h"

namespace nf::cpu {

// Memory that is walked along the columns, or has one element per row.
struct JitPointer {
  int32_t slot = -1;
  int32_t element = 4;   // bytes from column to column
  int64_t row_step = 0;  // bytes from row to row
};

struct JitValue {
  bool row = false;       // the same in all columns
  bool constant = false;  // with these bits:
  uint32_t bits = 0;
  // Where it can be loaded from, and how (copy, load_bf16, load_u8); -1: it is made by an operation and kept
  // in registers.
  int32_t pointer = -1;
  Code load = Code::copy;
  bool made = false;   // by an operation; else a constant or memory
  bool fixed = false;  // its memory does not change while the stage runs
  int32_t phase = 0;   // the first in which it can be had
};

struct JitOperation {
  enum class Kind : uint8_t {
    map,      // out = code(in…)
    load,     // out = memory, in the place where the order of loads and stores asks for it
    address,  // out = the address itself: a counter
    store,    // memory = in[0]; code is copy, store_bf16 or store_u8
    reduce,   // out = row reduction `code` of in[0], or of in[0] in[1]; with a pointer: the lanes of a part
    column,   // memory = memory + in…, code is a column reduction
  };
  Kind kind = Kind::map;
  Code code = Code::copy;
  bool row = false;   // once per row
  int32_t phase = 0;  // a reduction that ends with phase p makes a value of phase p + 1
  int32_t in[3] = {-1, -1, -1};
  int32_t out = -1;
  int32_t pointer = -1;
  int64_t stride = 0;  // of a counter
};

struct JitPlan {
  std::vector<JitPointer> pointers;
  std::vector<JitValue> values;
  std::vector<JitOperation> operations;  // in the order in which a phase runs them
  int32_t phases = 1;
  int64_t cols = 0;          // of a row, 0: known only when it runs (one column, many rows)
  bool chunked = false;      // runs on pieces of a row, all but the last a multiple of 64 long
  bool interpreted = false;  // the interpreter has a part in it, see Stage

  // The bytes that equal plans have in common.
  std::string key() const;
};

// Makes the plan of a stage's body. What machine code cannot do goes to stage.early and stage.late, and the
// registers that connect both are added to the program. False, and nothing changed, where the body needs what
// a plan cannot express, or the program would need more memory than the limits say.
bool make_jit_plan(LoopProgram& program, Stage& stage, const ScratchLimits& limits, JitPlan& plan);

}  // namespace nf::cpu
