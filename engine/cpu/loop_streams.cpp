// The streams of a fused loop: which tensors it reads and writes, and in what steps.
#include "cpu/loop_compiler.h"

namespace nf::cpu {

Strides LoopCompiler::over_space(const Shape& shape, const Strides& strides) const {
  Strides result = strides;
  for (int axis = 0; axis < result.rank(); ++axis)
    if (shape[axis] == 1) result[axis] = 0;
  return result;
}

void LoopCompiler::make_streams() {
  for (int32_t i = 0; i < body_.size(); ++i)
    if (info(i).needed && info(i).alias == i) make_stream(i);
  for (size_t o = 0; o < outputs_.size(); ++o) make_output(static_cast<int32_t>(o));
}

void LoopCompiler::make_stream(int32_t i) {
  const Node& node = body_.node(i);
  const Shape& shape = node.outputs[0].shape;
  Stream stream;
  stream.dtype = node.outputs[0].dtype;
  if (node.op == Op::input || node.op == Op::roll) {
    const Node& leaf = node.op == Op::roll ? body_.node(holder(node.inputs[0])) : node;
    require(leaf.op == Op::input, "loop: a roll of something that is no leaf");
    stream.index = static_cast<int32_t>(leaf.attributes.integer("index"));
    const TensorView& view = inputs_[static_cast<size_t>(stream.index)];
    require(view.dtype == stream.dtype && view.shape == shape, "loop: input {} is {} {}, the body says {} {}",
            stream.index, nf::name(view.dtype), view.shape, nf::name(stream.dtype), shape);
    if (shape.rank() != space_.rank()) return;  // the rng of a philox, see rng_stream
    stream.data = static_cast<std::byte*>(view.data);
    stream.element = size_of(view.dtype);
    stream.strides = over_space(view.shape, view.strides);
    if (node.op == Op::roll && shape.back() > 1) {
      const int64_t size = shape.back(), shift = node.attributes.integer("shift") % size;
      stream.shift = shift < 0 ? shift + size : shift;
    }
  } else if (node.op == Op::iota) {
    stream.kind = Stream::Kind::iota;
    stream.element = 1;
    stream.strides = Shape::filled(space_.rank(), 0);
    stream.strides[static_cast<int>(node.attributes.integer("axis"))] = 1;
    stream.strides = over_space(shape, stream.strides);
  } else if (node.op == Op::philox) {
    stream.kind = Stream::Kind::philox;
    stream.element = 1;
    stream.strides = over_space(shape, dense_strides(shape));
  } else {
    return;
  }
  info(i).stream = static_cast<int32_t>(program_.streams.size());
  program_.streams.push_back(stream);
}

void LoopCompiler::make_output(int32_t o) {
  const Graph::Output& output = body_.outputs()[static_cast<size_t>(o)];
  const TensorType& type = body_.type(output.value);
  const TensorView& view = outputs_[static_cast<size_t>(o)];
  require(view.dtype == type.dtype && view.shape == type.shape,
          "loop: output {} is {} {}, the body says {} {}", o, nf::name(view.dtype), view.shape,
          nf::name(type.dtype), type.shape);
  Stream stream;
  stream.dtype = type.dtype;
  if (const Node* node = column_output(body_, space_, output)) {
    stream.kind = Stream::Kind::column;
    stream.index = static_cast<int32_t>(program_.columns.size());
    stream.strides = dense_strides(type.shape);
    for (int axis = 0; axis < column_axes(*node, space_); ++axis) stream.strides[axis] = 0;
    make_column(*node, view);
  } else {
    stream.kind = Stream::Kind::output;
    stream.index = o;
    stream.data = static_cast<std::byte*>(view.data);
    stream.element = size_of(view.dtype);
    stream.strides = over_space(view.shape, view.strides);
  }
  output_streams_.push_back(static_cast<int32_t>(program_.streams.size()));
  program_.streams.push_back(stream);
}

void LoopCompiler::make_column(const Node& node, const TensorView& view) {
  ColumnReduction column;
  column.code = reduction_code(Code::column_sum_f, node, false);
  const bool is_max = node.op == Op::reduce_max;
  const bool integers = integer_lanes(node.outputs[0].dtype);
  if (is_max) column.identity = integers ? 0x80000000U : 0xff800000U;
  column.kept = view.shape.elements();
  if (!program_.columns.empty())
    column.offset = program_.columns.back().offset + (program_.columns.back().kept + 15) / 16 * 16;
  column.output = view;
  program_.columns.push_back(column);
}

int32_t LoopCompiler::rng_stream(const Node& philox) {
  const TensorView& view =
      inputs_[static_cast<size_t>(body_.node(holder(philox.inputs[0])).attributes.integer("index"))];
  for (const auto& [stream, strides] : rng_streams_)
    if (program_.streams[static_cast<size_t>(stream)].data == view.data) return stream;
  Stream stream;
  stream.dtype = DType::i32;
  stream.data = static_cast<std::byte*>(view.data);
  stream.strides = Shape::filled(program_.lead.rank() + 1, 0);
  const auto slot = static_cast<int32_t>(program_.streams.size());
  program_.streams.push_back(stream);
  rng_streams_.push_back({slot, view.strides[0] * 4});
  return slot;
}

}  // namespace nf::cpu
