#include "cuda/loop_plan.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "graph/loop.h"
#include "graph/op_table.h"

namespace nf::cuda {
namespace {

constexpr int kWarp = 32, kMapThreads = 256, kRowThreads = 128, kColumnThreads = 256, kMostThreads = 1024;
// Elements of a row in the registers of one thread: of a warp, of a block, and of a block at most.
constexpr int64_t kWarpElements = 12, kBlockElements = 8, kMostElements = 16;
// Blocks of a column reduction, how many rows are worth one, and how many columns a block can have.
constexpr int64_t kColumnBlocks = 512, kRowsPerBlock = 16, kColumnTile = 256;
// Bytes that a thread of a map reads at once, if it can, where there are enough threads even so: of a
// processor full of them 64 KiB are under way, which memory takes to run at full speed.
constexpr int64_t kMapBytes = 32;
constexpr int64_t kMostPartials = int64_t{1} << 22;  // elements

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t align(int64_t bytes) { return ceil_div(bytes, 256) * 256; }

bool is_narrow_float(DType dtype) { return dtype == DType::bf16 || dtype == DType::f16; }

// Whether threads of a row must come together: it is reduced, or has outputs of its own.
bool needs_whole_rows(const Graph& body, const Shape& space) {
  for (int32_t i = 0; i < body.size(); ++i)
    if (kind(body.node(i).op) == OpKind::reduce && column_axes(body.node(i), space) == 0) return true;
  return std::any_of(body.outputs().begin(), body.outputs().end(), [&](const Graph::Output& output) {
    const Node& node = body.node(output.value);
    return column_axes(node, space) == 0 && node.outputs[0].shape.back() != space.back();
  });
}

int vector_that_fits(int64_t columns, int most) {
  int vector = most;
  while (columns % vector != 0) vector /= 2;
  return vector;
}

// How a row stands in registers, from its length alone. False where it cannot.
struct RowLayout {
  int vector = 1, lanes = 1, per_lane = 1;
  bool fits = true;
};
RowLayout row_layout(int64_t columns) {
  RowLayout layout;
  layout.vector = vector_that_fits(columns, 4);
  const int64_t vectors = columns / layout.vector;
  if (vectors <= kWarp) {
    layout.lanes = static_cast<int>(std::bit_ceil(static_cast<uint64_t>(vectors)));
  } else if (columns <= kWarp * kWarpElements) {
    layout.lanes = kWarp;
  } else {
    const int64_t lanes = ceil_div(ceil_div(columns, kBlockElements), kWarp) * kWarp;
    layout.lanes = static_cast<int>(std::min<int64_t>(lanes, kMostThreads));
  }
  const int64_t per_lane = ceil_div(vectors, layout.lanes);
  layout.fits = per_lane * layout.vector <= kMostElements;
  layout.per_lane = static_cast<int>(layout.fits ? per_lane : 1);
  return layout;
}

ColumnCut column_cut(const Graph& body, const Shape& space) {
  ColumnCut cut;
  int axes = space.rank();
  for (const Graph::Output& output : body.outputs())
    if (const int reduced = column_axes(body.node(output.value), space); reduced > 0)
      axes = std::min(axes, reduced);
  if (axes == space.rank()) return cut;
  for (int axis = 0; axis < space.rank(); ++axis) (axis < axes ? cut.units : cut.kept) *= space[axis];
  const int64_t beside =
      needs_whole_rows(body, space) ? cut.kept / space.back() : ceil_div(cut.kept, kColumnTile);
  int64_t blocks = std::min(kColumnBlocks / std::max<int64_t>(beside, 1), ceil_div(cut.units, kRowsPerBlock));
  blocks = std::min(blocks, kMostPartials / std::max<int64_t>(cut.kept, 1));
  cut.per_block = ceil_div(cut.units, std::max<int64_t>(blocks, 1));
  cut.blocks = ceil_div(cut.units, std::max<int64_t>(cut.per_block, 1));
  return cut;
}

class Planner {
 public:
  Planner(const Graph& body, const Shape& space, std::span<const TensorView> inputs,
          std::span<const TensorView> outputs, int64_t many_vectors)
      : body_(body), space_(space), inputs_(inputs), outputs_(outputs), many_vectors_(many_vectors) {
    plan_.body = &body;
    plan_.values.resize(static_cast<size_t>(body.size()));
  }

  LoopPlan run() {
    resolve_nodes();
    make_tensors();
    lay_out();
    choose_vector();
    choose_threads();
    find_levels();
    place_in_phases();
    check_sizes();
    return std::move(plan_);
  }

 private:
  LoopValue& value(int32_t node) { return plan_.values[static_cast<size_t>(node)]; }
  int32_t holder(ValueId id) const { return plan_.holder(id); }

  // ---- nodes

  // Whether a node's value is its operand's.
  bool same_as_operand(const Node& node) const {
    if (node.op == Op::broadcast) return true;
    if (node.op == Op::roll) return node.outputs[0].shape.back() == 1 || shift_of(node) == 0;
    if (node.op != Op::cast) return false;
    const DType from = body_.type(node.inputs[0]).dtype, to = node.outputs[0].dtype;
    return from == to || (to == DType::f32 && is_narrow_float(from)) ||
           (to == DType::i32 && from == DType::u8);
  }

  static int64_t shift_of(const Node& roll) {
    const int64_t size = roll.outputs[0].shape.back();
    return (roll.attributes.integer("shift") % size + size) % size;
  }

  void resolve_nodes() {
    for (int32_t i = 0; i < body_.size(); ++i) {
      const Node& node = body_.node(i);
      for (const TensorType& type : node.outputs)
        require(type.dtype != DType::f64 && type.dtype != DType::i64,
                "cuda: a loop of {}: that runs on the reference backend only", nf::name(type.dtype));
      value(i).alias = same_as_operand(node) ? holder(node.inputs[0]) : i;
      if (kind(node.op) == OpKind::elementwise || kind(node.op) == OpKind::reduce)
        for (ValueId input : node.inputs) value(i).operands.push_back(holder(input));
      if (kind(node.op) != OpKind::reduce) continue;
      value(i).column_reduction = column_axes(node, space_) > 0;
      value(i).row_reduction = !value(i).column_reduction;
    }
    for (int32_t o = 0; o < static_cast<int32_t>(body_.outputs().size()); ++o)
      value(plan_.stored(o)).needed = true;
    for (int32_t i = body_.size() - 1; i >= 0; --i)
      if (value(i).needed)
        for (int32_t operand : value(i).operands) {
          value(operand).needed = true;
          value(operand).readers.push_back(i);
        }
  }

  // ---- tensors

  Strides over_space(const Shape& shape, const Strides& strides) const {
    Strides result = strides;
    for (int axis = 0; axis < result.rank(); ++axis)
      if (shape[axis] == 1) result[axis] = 0;
    return result;
  }

  void make_tensors() {
    for (int32_t i = 0; i < body_.size(); ++i) {
      const Node& node = body_.node(i);
      const Shape& shape = node.outputs[0].shape;
      if (!value(i).needed) continue;
      LoopTensor tensor;
      tensor.dtype = node.outputs[0].dtype;
      if (node.op == Op::input || node.op == Op::roll) {
        const Node& leaf = node.op == Op::roll ? body_.node(holder(node.inputs[0])) : node;
        tensor.number = static_cast<int32_t>(leaf.attributes.integer("index"));
        const TensorView& view = inputs_[static_cast<size_t>(tensor.number)];
        require(view.dtype == tensor.dtype && view.shape == shape,
                "cuda: input {} of a loop is {} {}, not {} {}", tensor.number, nf::name(view.dtype),
                view.shape, nf::name(tensor.dtype), shape);
        tensor.strides = over_space(shape, view.strides);
        if (node.op == Op::roll) tensor.shift = shift_of(node);
      } else if (node.op == Op::iota) {
        tensor.kind = LoopTensor::Kind::iota;
        tensor.strides = Shape::filled(space_.rank(), 0);
        tensor.strides[static_cast<int>(node.attributes.integer("axis"))] = 1;
        tensor.strides = over_space(shape, tensor.strides);
      } else if (node.op == Op::philox) {
        tensor.kind = LoopTensor::Kind::philox;
        tensor.strides = over_space(shape, dense_strides(shape));
      } else {
        continue;
      }
      value(i).tensor = add(tensor);
    }
    for (int32_t o = 0; o < static_cast<int32_t>(outputs_.size()); ++o) make_output(o);
  }

  void make_output(int32_t o) {
    const ValueId id = body_.outputs()[static_cast<size_t>(o)].value;
    const TensorType& type = body_.type(id);
    const TensorView& view = outputs_[static_cast<size_t>(o)];
    require(view.dtype == type.dtype && view.shape == type.shape,
            "cuda: output {} of a loop is {} {}, not {} {}", o, nf::name(view.dtype), view.shape,
            nf::name(type.dtype), type.shape);
    LoopTensor tensor{.kind = LoopTensor::Kind::output, .number = o, .dtype = type.dtype, .strides = {}};
    tensor.strides = over_space(view.shape, view.strides);
    if (const int axes = column_axes(body_.node(id), space_); axes > 0) {
      tensor.kind = LoopTensor::Kind::column;
      tensor.strides = over_space(type.shape, dense_strides(type.shape));
      for (int axis = 0; axis < axes; ++axis) tensor.strides[axis] = 0;
      plan_.column_reductions.push_back({.node = holder(id), .output = o});
    }
    plan_.output_tensors.push_back(add(tensor));
  }

  int32_t add(const LoopTensor& tensor) {
    plan_.tensors.push_back(tensor);
    return static_cast<int32_t>(plan_.tensors.size()) - 1;
  }

  // ---- the space

  void lay_out() {
    const bool whole_rows = needs_whole_rows(body_, space_);
    bool keep_row = whole_rows || (plan_.walks_rows() && space_.back() == 1);
    std::vector<Strides*> strides;
    for (LoopTensor& tensor : plan_.tensors) {
      keep_row |= tensor.shift != 0;
      strides.push_back(&tensor.strides);
    }
    const Shape sizes = collapse(space_, strides, keep_row);
    plan_.columns = sizes.back();
    for (int axis = 0; axis + 1 < sizes.rank(); ++axis) plan_.lead.push_back(sizes[axis]);
    plan_.rows = plan_.lead.elements();
    for (LoopTensor& tensor : plan_.tensors) {
      if (plan_.columns == 1) tensor.strides[tensor.strides.rank() - 1] = 0;
      tensor.every_row = std::all_of(tensor.strides.begin(), tensor.strides.end() - 1,
                                     [](int64_t stride) { return stride == 0; });
    }
    if (whole_rows)
      plan_.form = row_layout(plan_.columns).fits ? LoopForm::rows : LoopForm::wide;
    else
      plan_.form = plan_.walks_rows() ? LoopForm::columns : LoopForm::map;
    if (plan_.walks_rows()) cut_rows();
    plan_.kept_rows = plan_.rows / plan_.units;
  }

  void cut_rows() {
    plan_.cut = column_cut(body_, space_);
    plan_.units = plan_.cut.units;
    int64_t offset = 0;
    for (ColumnReduction& column : plan_.column_reductions) {
      column.elements = body_.node(column.node).outputs[0].shape.elements();
      column.partials = plan_.cut.blocks * (plan_.cut.kept / column.elements);
      column.workspace = offset;
      if (column.partials > 1) offset += align(plan_.cut.blocks * plan_.cut.kept * 4);
    }
  }

  // ---- vectors and threads

  bool moves_columns(const LoopTensor& tensor) const {
    return tensor.along_columns() && tensor.kind != LoopTensor::Kind::iota &&
           tensor.kind != LoopTensor::Kind::philox && tensor.kind != LoopTensor::Kind::column;
  }

  // Whether rows share its elements: they come from the caches, most of the time.
  bool repeats(const LoopTensor& tensor) const {
    return std::any_of(tensor.strides.begin(), tensor.strides.end() - 1,
                       [](int64_t stride) { return stride == 0; });
  }

  void choose_vector() {
    const bool in_rows = plan_.form == LoopForm::rows || plan_.form == LoopForm::wide;
    // Sixteen bytes of the narrowest; eight where wide tensors have as many elements as narrow ones.
    int most = in_rows ? 4 : 8;
    for (const LoopTensor& tensor : plan_.tensors)
      if (moves_columns(tensor) && size_of(tensor.dtype) > 2 && !repeats(tensor)) most = 4;
    bool one_row = plan_.form == LoopForm::map && plan_.rows == 1;
    for (const LoopTensor& tensor : plan_.tensors) one_row &= tensor.shift == 0;
    plan_.vector = one_row ? most : vector_that_fits(plan_.columns, most);
    plan_.vectors = ceil_div(plan_.columns, plan_.vector);
    for (LoopTensor& tensor : plan_.tensors)
      tensor.vectors = moves_columns(tensor) && can_move_vectors(tensor);
  }

  bool can_move_vectors(const LoopTensor& tensor) const {
    const int64_t width = plan_.vector;
    const auto& views = tensor.kind == LoopTensor::Kind::input ? inputs_ : outputs_;
    const void* data = views[static_cast<size_t>(tensor.number)].data;
    if (tensor.strides.back() != 1 || tensor.shift % width != 0) return false;
    if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(width * size_of(tensor.dtype)) != 0)
      return false;
    return std::all_of(tensor.strides.begin(), tensor.strides.end() - 1,
                       [&](int64_t stride) { return stride % width == 0; });
  }

  int vectors_of_map() const {
    if (plan_.rows > 1 || plan_.vectors < many_vectors_) return 1;
    int64_t bytes = 0;
    for (const LoopTensor& tensor : plan_.tensors)
      if (tensor.kind == LoopTensor::Kind::input && moves_columns(tensor))
        bytes += plan_.vector * size_of(tensor.dtype);
    return bytes == 0 || bytes > kMapBytes ? 1 : static_cast<int>(std::min<int64_t>(kMapBytes / bytes, 4));
  }

  void choose_threads() {
    switch (plan_.form) {
      case LoopForm::map:
        plan_.lanes = kMapThreads;
        plan_.per_lane = vectors_of_map();
        break;
      case LoopForm::rows: {
        const RowLayout layout = row_layout(plan_.columns);
        plan_.lanes = layout.lanes;
        plan_.per_lane = layout.per_lane;
        plan_.groups = std::max(1, plan_.lanes > kWarp ? 1 : kRowThreads / plan_.lanes);
        break;
      }
      case LoopForm::wide: plan_.lanes = kMostThreads / 2; break;
      case LoopForm::columns: {
        // Few rows leave nothing to share among groups.
        const int64_t lanes = plan_.units < kRowsPerBlock ? kColumnThreads : kWarp;
        plan_.lanes = static_cast<int>(std::min<int64_t>(
            lanes, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(plan_.vectors)))));
        plan_.groups = plan_.units < kRowsPerBlock ? 1 : kColumnThreads / plan_.lanes;
        break;
      }
    }
  }

  // ---- phases

  void find_levels() {
    for (int32_t i = 0; i < body_.size(); ++i) {
      LoopValue& v = value(i);
      if (!v.needed) continue;
      if (v.tensor >= 0) v.columns = plan_.tensor(v.tensor).along_columns();
      for (int32_t operand : plan_.operands(i)) {
        v.columns |= value(operand).columns;
        v.level = std::max(v.level, value(operand).level);
      }
      v.phase = v.level;
      if (v.row_reduction) {
        v.columns = false;
        ++v.level;
      }
      plan_.phases = std::max(plan_.phases, v.level + 1);
    }
  }

  // Whether each of its elements is computed, and lives in registers.
  bool is_computed(int32_t node) {
    const LoopValue& v = value(node);
    return v.needed && v.columns && v.tensor < 0 && !v.column_reduction;
  }

  // The last phase that reads a value, and the first.
  std::pair<int, int> readers_of(int32_t node, int32_t except = -1) {
    int first = std::numeric_limits<int>::max(), last = -1;
    for (int32_t reader : value(node).readers) {
      if (reader == except) continue;
      first = std::min(first, value(reader).phase);
      last = std::max(last, value(reader).phase);
    }
    return {first, last};
  }

  // Values are computed as soon as they can be, except where waiting until they are read holds fewer
  // registers.
  void place_in_phases() {
    if (plan_.form == LoopForm::wide) return;
    std::vector<bool> stored(plan_.values.size(), false);
    for (size_t o = 0; o < outputs_.size(); ++o)
      stored[static_cast<size_t>(plan_.stored(static_cast<int32_t>(o)))] = true;
    for (int32_t i = body_.size() - 1; i >= 0; --i) {
      if (!is_computed(i) || value(i).row_reduction || stored[static_cast<size_t>(i)]) continue;
      const int first = readers_of(i).first;
      if (first <= value(i).phase || first == std::numeric_limits<int>::max()) continue;
      int more = 0;
      for (int32_t operand : plan_.operands(i)) {
        const LoopValue& v = value(operand);
        if (v.columns && readers_of(operand, i).second < first)
          more += v.tensor >= 0 ? static_cast<int>(size_of(plan_.tensor(v.tensor).dtype)) : 4;
      }
      if (more <= 4) value(i).phase = first;
    }
    for (int32_t i = 0; i < body_.size(); ++i)
      if (is_computed(i)) value(i).kept = readers_of(i).second > value(i).phase;
  }

  // ---- numbers

  void check_sizes() {
    int64_t most = plan_.rows * plan_.vectors * plan_.vector;
    for (const LoopTensor& tensor : plan_.tensors) {
      int64_t reach = std::abs(tensor.strides.back()) * plan_.columns;
      for (int axis = 0; axis < plan_.lead.rank(); ++axis)
        reach += std::abs(tensor.strides[axis]) * (plan_.lead[axis] - 1);
      most = std::max(most, reach);
    }
    most = std::max(most, plan_.cut.blocks * plan_.cut.kept);
    plan_.wide_index = most >= (int64_t{1} << 31) - kMostThreads * 16;
    for (const LoopTensor& out : plan_.tensors) {
      if (out.kind != LoopTensor::Kind::output || out.along_columns() || plan_.columns == 1) continue;
      for (const TensorView& in : inputs_)
        plan_.row_barrier |= in.data == outputs_[static_cast<size_t>(out.number)].data;
    }
  }

  const Graph& body_;
  const Shape& space_;
  std::span<const TensorView> inputs_, outputs_;
  const int64_t many_vectors_;
  LoopPlan plan_;
};

}  // namespace

Lane lane_of(DType dtype) {
  switch (dtype) {
    case DType::i32:
    case DType::u8: return Lane::integers;
    case DType::boolean: return Lane::booleans;
    default: return Lane::floats;
  }
}

int32_t LoopPlan::stored(int32_t output) const {
  const ValueId id = body->outputs()[static_cast<size_t>(output)].value;
  const int32_t node = holder(id);
  const bool rounds = body->node(node).op == Op::cast && is_narrow_float(body->node(node).outputs[0].dtype) &&
                      body->node(node).outputs[0].dtype == body->type(id).dtype;
  if (!rounds || lane_of(body->type(body->node(node).inputs[0]).dtype) != Lane::floats) return node;
  return holder(body->node(node).inputs[0]);
}

LoopPlan plan_loop(const Graph& body, const Shape& space, std::span<const TensorView> inputs,
                   std::span<const TensorView> outputs, int64_t many_vectors) {
  return Planner(body, space, inputs, outputs, many_vectors).run();
}

int64_t partial_bytes(const Graph& body, const Shape& space) {
  const ColumnCut cut = column_cut(body, space);
  int64_t bytes = 0;
  for (const Graph::Output& output : body.outputs()) {
    const Node& node = body.node(output.value);
    if (column_axes(node, space) == 0) continue;
    if (cut.blocks * (cut.kept / node.outputs[0].shape.elements()) > 1)
      bytes += align(cut.blocks * cut.kept * 4);
  }
  return bytes;
}

}  // namespace nf::cuda
