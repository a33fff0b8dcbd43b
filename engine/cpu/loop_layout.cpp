// How much a fused loop needs, from shapes alone: blocks of rows for column reductions, scratch memory.
#include <algorithm>

#include "cpu/loop_program.h"
#include "graph/loop.h"

namespace nf::cpu {
namespace {

// Elements per block of a column reduction, and the limits of their number and memory.
constexpr int64_t kBlockElements = 16384, kMaxBlocks = 32, kMaxBlockLanes = int64_t{4} << 20;

}  // namespace

const Node* column_output(const Graph& body, const Shape& space, const Graph::Output& output) {
  const Node& node = body.node(output.value);
  return column_axes(node, space) > 0 ? &node : nullptr;
}

Blocks column_blocks(const Graph& body, const Shape& space) {
  Blocks blocks;
  int axes = space.rank();
  int64_t lanes = 0;
  for (const Graph::Output& output : body.outputs()) {
    const Node* column = column_output(body, space, output);
    if (column == nullptr) continue;
    axes = std::min(axes, column_axes(*column, space));
    lanes += (column->outputs[0].shape.elements() + 15) / 16 * 16;
  }
  if (lanes == 0) return blocks;
  for (int axis = 0; axis < axes; ++axis) blocks.units *= space[axis];
  blocks.lanes = lanes;
  blocks.count = std::clamp<int64_t>(space.elements() / kBlockElements, 1, kMaxBlocks);
  blocks.count = std::min(blocks.count, std::max<int64_t>(kMaxBlockLanes / lanes, 1));
  blocks.count = std::clamp<int64_t>(blocks.count, 1, std::max<int64_t>(blocks.units, 1));
  return blocks;
}

int64_t slot_bound(const Graph& body) {
  return 5 * int64_t{body.size()} + 4 * static_cast<int64_t>(body.outputs().size());
}

int64_t scratch_bound(const Graph& body, const Shape& space) {
  // At most two registers per node (its value, and a splat spread out) and one per output.
  const int64_t registers = 2 * int64_t{body.size()} + static_cast<int64_t>(body.outputs().size());
  const int64_t row = space.empty() ? 1 : space.back();
  const int64_t elements = std::max(kTileElements, row <= kLongestWholeRow ? row : 0);
  return registers * (elements * 4 + 64);
}

}  // namespace nf::cpu
