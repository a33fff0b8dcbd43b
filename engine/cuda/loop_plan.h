// How the GPU walks a fused loop (its contract: engine/graph/loop.h): decided here, written down as a kernel
// by cuda/loop_source.h.
//
// A thread works on vectors of neighbouring columns. Row reductions cut a body into phases: a value belongs
// to the phase after the last reduction that it needs, or to a later one. There are four forms:
//   map      nothing is reduced. Every thread has one vector, or several where it reads little of each.
//   rows     A row stands in the registers of its threads, up to 32 of a warp or a whole block. Every leaf is
//            read once, at the begin, whatever the number of phases.
//   wide     Rows that do not fit there. A block walks each row once per phase and reads the leaves anew.
//   columns  Columns are reduced, rows are not. A block has a tile of columns and some of the rows.
// Column reductions have two stages: each block combines its rows, the same ones whatever the GPU is, and
// leaves a partial result; a second kernel combines these in their order. So no run differs from another by a
// bit.
//
// The order of a row reduction follows from the length of the row alone: a value that is computed again in
// another loop has the same bits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/tensor_view.h"
#include "nf/graph.h"

namespace nf::cuda {

// Whatever is addressed by the position in the space: a tensor, or a counter, whose "address" is its value.
struct LoopTensor {
  enum class Kind : uint8_t { input, iota, philox, output, column };
  Kind kind = Kind::input;
  int32_t number = 0;  // of the input or output
  DType dtype = DType::f32;
  Strides strides;         // of the space's axes; collapsed: of LoopPlan::lead, then of the columns
  int64_t shift = 0;       // column j holds element (j - shift) mod columns
  bool vectors = false;    // its vectors can be moved as such
  bool every_row = false;  // the same in each row

  bool along_columns() const { return strides.back() != 0; }
};

// A node of the body.
struct LoopValue {
  int32_t alias = -1;  // the node that holds its value: itself, unless it only repeats or renames another's
  bool needed = false;
  std::vector<int32_t> operands;  // nodes that it is computed from
  std::vector<int32_t> readers;   // needed nodes that are computed from it
  int32_t tensor = -1;            // where it is read, or what counts
  bool columns = false;           // differs from column to column; otherwise it is computed once for the row
  int level = 0;                  // the phase in which it can be had at first
  int phase = 0;                  // in which it is computed; of reductions: that ends with it
  bool row_reduction = false, column_reduction = false;
  bool kept = false;  // needed in later phases, too
};

enum class LoopForm : uint8_t { map, rows, wide, columns };

// The rows that the blocks of a column reduction combine, from shapes alone.
struct ColumnCut {
  int64_t units = 1;      // size of the leading axes that all of them reduce
  int64_t kept = 1;       // elements of the other axes
  int64_t blocks = 1;     // of units
  int64_t per_block = 1;  // units, except in the last block
};

struct ColumnReduction {
  int32_t node = -1;
  int32_t output = -1;
  int64_t partials = 1;   // rows of its partial results: 1 where no second stage is needed
  int64_t elements = 1;   // of the result
  int64_t workspace = 0;  // byte offset of its partial results
};

struct LoopPlan {
  const Graph* body = nullptr;
  LoopForm form = LoopForm::map;
  Shape lead;        // the collapsed axes before the columns
  int64_t rows = 1;  // their product: units x kept_rows
  int64_t columns = 1;
  int64_t units = 1, kept_rows = 1;
  int vector = 1;       // columns per vector
  int64_t vectors = 1;  // per row, the last one may be shorter in a map of one row
  int lanes = 1;        // threads along a row, or a tile of columns
  int groups = 1;       // of lanes in a block
  int per_lane = 1;     // vectors
  int phases = 1;
  bool wide_index = false;   // positions need 64 bits
  bool row_barrier = false;  // values per row are read from memory that is written, too
  ColumnCut cut;
  std::vector<LoopTensor> tensors;
  std::vector<LoopValue> values;        // by node
  std::vector<int32_t> output_tensors;  // by output
  std::vector<ColumnReduction> column_reductions;

  const LoopValue& value(int32_t node) const { return values[static_cast<size_t>(node)]; }
  const LoopTensor& tensor(int32_t index) const { return tensors[static_cast<size_t>(index)]; }
  int32_t holder(ValueId id) const { return value(id.node).alias; }
  // The node that an output stores: one before its rounding, which storing does anyway.
  int32_t stored(int32_t output) const;
  const std::vector<int32_t>& operands(int32_t node) const { return value(node).operands; }
  // Whether threads go from row to row.
  bool walks_rows() const { return !column_reductions.empty(); }
  int threads() const { return lanes * groups; }
};

// How a dtype stands in registers.
enum class Lane : uint8_t { floats, integers, booleans };
Lane lane_of(DType dtype);

// From so many vectors on (of 4 elements, where floats are moved: 2^20 elements) a map has enough threads
// even if each takes several.
constexpr int64_t kManyVectors = 1 << 18;

LoopPlan plan_loop(const Graph& body, const Shape& space, std::span<const TensorView> inputs,
                   std::span<const TensorView> outputs, int64_t many_vectors = kManyVectors);

// Bytes of partial results.
int64_t partial_bytes(const Graph& body, const Shape& space);

}  // namespace nf::cuda
