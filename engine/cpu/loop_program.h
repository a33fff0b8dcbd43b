// A fused loop compiled for the CPU: what the compiler (loop_layout.cpp, loop_compile.cpp) hands to the
// runner (loop.cpp).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/tensor_view.h"
#include "cpu/loop_jit.h"
#include "cpu/loop_kernels.h"
#include "nf/graph.h"

namespace nf::cpu {

// Which axes of the tile a value or an instruction spans. A value that does not vary along the columns has
// one lane per row; one that does not vary along the rows is the same for every row of the tile.
struct Extent {
  bool rows = false, cols = false;
  bool operator==(const Extent&) const = default;
};

// Something that is addressed by the position in the iteration space: a tensor; a counter, whose "address" is
// its value; or the accumulators of a column reduction.
struct Stream {
  enum class Kind : uint8_t { input, iota, philox, output, column };
  Kind kind = Kind::input;
  int32_t index = 0;          // number of the input, output or column reduction
  std::byte* data = nullptr;  // null for counters and accumulators
  DType dtype = DType::f32;
  int64_t element = 4;  // bytes of one; 1 for counters
  int64_t shift = 0;    // column j holds element (j - shift) mod cols
  Strides strides;      // of the space's axes, then (collapsed) of the program's; in elements
  Extent extent;
  bool by_lead = false;  // varies along any leading axis

  int64_t column_bytes() const { return strides.back() * element; }
  int64_t row_bytes() const { return strides.rank() < 2 ? 0 : strides[strides.rank() - 2] * element; }
  // Bytes between its lanes when it is loaded or stored as a vector.
  int64_t lane_bytes() const { return extent.cols ? column_bytes() : extent.rows ? row_bytes() : element; }
};

// Operands and results are slots: streams first, then constants, then registers.
struct Instruction {
  Code code = Code::copy;
  uint8_t pattern = 0;  // bit i: operand i is a splat
  Extent extent;
  bool flat = false;  // rows follow each other without gaps: run as one
  int32_t in[3] = {-1, -1, -1};
  int32_t out = -1;
  int64_t step[3] = {};  // see LoopArgs
  int64_t out_step = 0;
  int64_t stride = 0;
  uint64_t stream = 0;
  int64_t shift = 0;  // of a rolled load, with the bytes between its elements:
  int64_t shift_bytes = 0;
  LoopFunction run = nullptr;
};

// One pass over a tile. In chunked programs `before` and `after` run once per row, `body` once per chunk.
struct Stage {
  std::vector<Instruction> before, body, after;
  // Where there is code for the body, it runs in its place, between what it leaves to the interpreter.
  std::shared_ptr<const MachineCode> code;
  std::vector<Instruction> early, late;
};

// A column reduction: partial results per block of rows, combined at the end.
struct ColumnReduction {
  Code code = Code::column_sum_f;  // without product
  uint32_t identity = 0;
  int64_t kept = 0;    // elements of the result
  int64_t offset = 0;  // of its accumulators inside a block, in lanes
  TensorView output;
};

// How the rows are cut for column reductions; follows from the body and the shape of the space alone.
struct Blocks {
  int64_t count = 0;  // 0: no column reductions
  int64_t units = 1;  // size of the leading axes that all of them reduce, cut evenly
  int64_t lanes = 0;  // accumulators of one block
};

struct LoopProgram {
  Shape lead;               // collapsed leading axes
  int64_t rows = 1;         // their product
  int64_t cols = 1;         // length of a row
  bool chunked = false;     // a tile is a piece of one row, else whole rows
  bool whole_rows = false;  // a row must stay with one task
  int64_t tile_rows = 1, tile_cols = 1;
  std::vector<Stream> streams;
  std::vector<uint32_t> constants;
  std::vector<int64_t> registers;     // byte offset of each in the scratch memory
  int64_t scratch = 0;                // bytes of it
  std::vector<int32_t> prefetched;    // streams whose next tile is fetched while this one is computed
  std::vector<Instruction> prologue;  // once per task: what does not depend on the row
  std::vector<Stage> stages;
  std::vector<ColumnReduction> columns;
  Blocks blocks;

  int slots() const { return static_cast<int>(streams.size() + constants.size() + registers.size()); }
};

// The largest tile, and the longest row that stands in a tile as a whole when its reductions need all of it.
inline constexpr int64_t kTileElements = 2048;
inline constexpr int64_t kLongestWholeRow = 4096;

// Elements of a task.
inline constexpr int64_t kTaskElements = 32768;

// Loops over more memory than this fetch their next tile ahead.
inline constexpr int64_t kCachedBytes = int64_t{1} << 20;

LoopProgram compile_loop(const Graph& body, const Shape& space, std::span<const TensorView> inputs,
                         std::span<const TensorView> outputs);

// ---- parts of the compiler ----

// The column reduction that an output is, or null.
const Node* column_output(const Graph& body, const Shape& space, const Graph::Output& output);
Blocks column_blocks(const Graph& body, const Shape& space);

// While a program is made, slots below kFirstConstant are streams, those below kFirstRegister constants.
inline constexpr int32_t kFirstConstant = 1 << 20, kFirstRegister = 1 << 21;
inline bool is_register(int32_t slot) { return slot >= kFirstRegister; }
inline bool is_constant(int32_t slot) { return slot >= kFirstConstant && slot < kFirstRegister; }

struct VirtualRegister {
  Extent extent;
  bool lanes = false;   // the state of a row reduction in pieces
  bool shared = false;  // lives beyond the list of instructions that writes it
};

// Lets instructions write outputs where they can, gives registers their places, sets the tile's size, and
// finds the instructions' functions.
void finish_program(LoopProgram& program, const std::vector<VirtualRegister>& registers);

// The instructions (loop_codes.cpp). Booleans, u8 and i32 are integers as lanes.
inline bool integer_lanes(DType dtype) {
  return dtype == DType::i32 || dtype == DType::u8 || dtype == DType::boolean;
}
uint32_t lane_of(double value, DType dtype);
// A copy for a cast that leaves the lanes as they are.
Code elementwise_code(const Graph& body, const Node& node);
Code reduction_code(Code family, const Node& node, bool product);
Code load_code(DType dtype, bool strided);
Code store_code(DType dtype, bool strided);

// The upper bound for LoopProgram::scratch and slots(), from the body and the space alone.
int64_t scratch_bound(const Graph& body, const Shape& space);
int64_t slot_bound(const Graph& body);

}  // namespace nf::cpu
