// Compiles the body of a fused loop: what each node is and where its values live.
#include <algorithm>

#include "cpu/loop_compiler.h"

namespace nf::cpu {

LoopCompiler::LoopCompiler(const Graph& body, const Shape& space, std::span<const TensorView> inputs,
                           std::span<const TensorView> outputs)
    : body_(body),
      space_(space),
      inputs_(inputs),
      outputs_(outputs),
      info_(static_cast<size_t>(body.size())) {}

LoopProgram LoopCompiler::compile() {
  resolve_nodes();
  make_streams();
  lay_out();
  analyse();
  emit();
  choose_prefetches();
  finish_program(program_, registers_);
  return std::move(program_);
}

void LoopCompiler::resolve_nodes() {
  for (int32_t i = 0; i < body_.size(); ++i) {
    const Node& node = body_.node(i);
    for (const TensorType& type : node.outputs)
      require(type.dtype != DType::f64 && type.dtype != DType::i64,
              "loop: {} runs on the reference backend only", nf::name(type.dtype));
    const bool same =
        node.op == Op::broadcast || (node.op == Op::cast && elementwise_code(body_, node) == Code::copy);
    info(i).alias = same ? info(node.inputs[0].node).alias : i;
    if (kind(node.op) == OpKind::reduce) {
      info(i).column_reduction = column_axes(node, space_) > 0;
      info(i).row_reduction = !info(i).column_reduction;
    }
  }
  for (const Graph::Output& output : body_.outputs()) ++use(output.value).uses;
  for (int32_t i = body_.size() - 1; i >= 0; --i)
    if (info(i).needed && info(i).alias == i && body_.node(i).op != Op::roll &&
        body_.node(i).op != Op::philox)
      for (const ValueId input : body_.node(i).inputs) ++use(input).uses;
  for (int32_t i = 0; i < body_.size(); ++i) join_product(i);
}

LoopCompiler::Info& LoopCompiler::use(ValueId id) {
  Info& value = info(id);
  value.needed = true;
  return value;
}

void LoopCompiler::join_product(int32_t i) {
  const Node& node = body_.node(i);
  if (!info(i).needed || node.op != Op::reduce_sum || node.outputs[0].dtype != DType::f32) return;
  Info& operand = info(node.inputs[0]);
  if (operand_node(node).op != Op::mul || operand.uses != 1) return;
  info(i).product = true;
  operand.needed = false;
}

std::vector<int32_t> LoopCompiler::operands(int32_t i) {
  std::vector<int32_t> result;
  const Node& node = info(i).product ? operand_node(body_.node(i)) : body_.node(i);
  if (info(i).stream >= 0) return result;
  for (const ValueId input : node.inputs) result.push_back(holder(input));
  return result;
}

void LoopCompiler::lay_out() {
  bool keep_row = false;
  for (int32_t i = 0; i < body_.size(); ++i) keep_row |= info(i).needed && info(i).row_reduction;
  for (const Stream& stream : program_.streams) keep_row |= stream.shift != 0;
  reduces_rows_ = keep_row;
  keep_row |= !program_.columns.empty() && space_.back() == 1;
  std::vector<Strides*> strides;
  for (Stream& stream : program_.streams) strides.push_back(&stream.strides);
  const Shape sizes = collapse(space_, strides, keep_row);
  program_.cols = sizes.back();
  for (int axis = 0; axis + 1 < sizes.rank(); ++axis) program_.lead.push_back(sizes[axis]);
  program_.rows = program_.lead.elements();
  program_.chunked = program_.cols > (reduces_rows_ ? kLongestWholeRow : kTileElements / 2);
  program_.blocks = column_blocks(body_, space_);
  const int64_t inner = program_.lead.empty() ? 1 : program_.lead.back();
  for (Stream& stream : program_.streams) {
    stream.extent.cols = program_.cols > 1 && stream.strides.back() != 0;
    stream.extent.rows = inner > 1 && stream.row_bytes() != 0;
    for (int axis = 0; axis < program_.lead.rank(); ++axis)
      stream.by_lead |= program_.lead[axis] > 1 && stream.strides[axis] != 0;
    if (!stream.extent.cols) stream.shift = 0;
  }
}

void LoopCompiler::analyse() {
  for (int32_t i = 0; i < body_.size(); ++i) {
    Info& value = info(i);
    if (!value.needed || value.alias != i) continue;
    if (body_.node(i).op == Op::constant) {
      const Node& node = body_.node(i);
      value.constant = static_cast<int32_t>(program_.constants.size());
      program_.constants.push_back(lane_of(node.attributes.real("value"), node.outputs[0].dtype));
    } else if (value.stream >= 0) {
      value.extent = program_.streams[static_cast<size_t>(value.stream)].extent;
      value.by_lead = program_.streams[static_cast<size_t>(value.stream)].by_lead;
    } else {
      derive(i);
    }
  }
  for (const Graph::Output& output : body_.outputs()) {
    const Info& value = info(output.value);
    // A stored result of a row reduction comes after the stage that reduces.
    last_stage_ = std::max(last_stage_, value.level);
    if (!value.column_reduction && program_.chunked && !reduces_rows_) {
      const Shape& shape = body_.type(output.value).shape;
      program_.whole_rows |= shape.back() != space_.back();
    }
  }
  program_.whole_rows |= reduces_rows_;
}

void LoopCompiler::derive(int32_t i) {
  Info& value = info(i);
  for (const int32_t operand : operands(i)) {
    const Info& from = info(operand);
    value.extent.rows |= from.extent.rows;
    value.extent.cols |= from.extent.cols;
    value.by_lead |= from.by_lead;
    value.level = std::max(value.level, from.level);
  }
  if (!value.row_reduction) return;
  value.extent.cols = false;
  if (program_.chunked) {
    value.by_lead = true;
    ++value.level;
  }
}

int32_t LoopCompiler::new_register(Extent extent, List list, bool lanes) {
  const bool lives_on = list == List::prologue || (program_.chunked && list != List::body);
  registers_.push_back({extent, lanes, lives_on});
  return kFirstRegister + static_cast<int32_t>(registers_.size()) - 1;
}

void LoopCompiler::choose_prefetches() {
  int64_t bytes = 0;
  for (const TensorView& view : inputs_) bytes += view.bytes();
  for (const TensorView& view : outputs_) bytes += view.bytes();
  if (bytes < kCachedBytes) return;
  for (size_t s = 0; s < program_.streams.size(); ++s) {
    const Stream& stream = program_.streams[s];
    const bool in_memory = stream.kind == Stream::Kind::input || stream.kind == Stream::Kind::output;
    const bool dense = stream.extent.cols && stream.column_bytes() == stream.element && stream.shift == 0;
    const bool follows = program_.chunked || stream.row_bytes() == program_.cols * stream.element;
    const bool seen = std::any_of(program_.prefetched.begin(), program_.prefetched.end(), [&](int32_t other) {
      return program_.streams[static_cast<size_t>(other)].data == stream.data;
    });
    if (in_memory && dense && follows && !seen) program_.prefetched.push_back(static_cast<int32_t>(s));
  }
}

LoopProgram compile_loop(const Graph& body, const Shape& space, std::span<const TensorView> inputs,
                         std::span<const TensorView> outputs) {
  require(outputs.size() == body.outputs().size(), "loop: {} outputs, the body has {}", outputs.size(),
          body.outputs().size());
  return LoopCompiler(body, space, inputs, outputs).compile();
}

}  // namespace nf::cpu
