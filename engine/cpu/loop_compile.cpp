// Compiles the body of a fused loop: nodes to values and streams, values to instructions, instructions to
// registers.
#include <algorithm>
#include <bit>
#include <limits>
#include <map>

#include "cpu/loop_program.h"
#include "graph/loop.h"
#include "graph/op_table.h"

namespace nf::cpu {
namespace {

bool integer_lanes(DType dtype) {
  return dtype == DType::i32 || dtype == DType::u8 || dtype == DType::boolean;
}

bool word(DType dtype) { return dtype == DType::f32 || dtype == DType::i32; }

uint32_t lane_of(double value, DType dtype) {
  switch (dtype) {
    case DType::i32:
    case DType::u8: return static_cast<uint32_t>(static_cast<int64_t>(value));
    case DType::boolean: return value != 0 ? 1 : 0;
    case DType::bf16: return std::bit_cast<uint32_t>(to_float(to_bf16(static_cast<float>(value))));
    case DType::f16: return std::bit_cast<uint32_t>(to_float(to_f16(static_cast<float>(value))));
    default: return std::bit_cast<uint32_t>(static_cast<float>(value));
  }
}

struct CodeRow {
  Op op;
  Code floats, integers;
};
constexpr Code kNone = Code::count_;
constexpr CodeRow kElementwise[] = {
    {Op::neg, Code::neg_f, Code::neg_i},    {Op::exp, Code::exp_f, kNone},
    {Op::log, Code::log_f, kNone},          {Op::sqrt, Code::sqrt_f, kNone},
    {Op::rsqrt, Code::rsqrt_f, kNone},      {Op::tanh, Code::tanh_f, kNone},
    {Op::sigmoid, Code::sigmoid_f, kNone},  {Op::erf, Code::erf_f, kNone},
    {Op::abs, Code::abs_f, Code::abs_i},    {Op::sin, Code::sin_f, kNone},
    {Op::cos, Code::cos_f, kNone},          {Op::add, Code::add_f, Code::add_i},
    {Op::sub, Code::sub_f, Code::sub_i},    {Op::mul, Code::mul_f, Code::mul_i},
    {Op::div, Code::div_f, Code::div_i},    {Op::max, Code::max_f, Code::max_i},
    {Op::min, Code::min_f, Code::min_i},    {Op::equal, Code::equal_f, Code::equal_i},
    {Op::less, Code::less_f, Code::less_i}, {Op::less_equal, Code::less_equal_f, Code::less_equal_i},
    {Op::where, Code::where, Code::where},
};

// The instruction of a cast between lanes; copy where the lanes stay as they are.
Code cast_code(DType from, DType to) {
  if (!integer_lanes(from)) {
    switch (to) {
      case DType::bf16: return from == DType::bf16 ? Code::copy : Code::round_bf16;
      case DType::f16: return from == DType::f16 ? Code::copy : Code::round_f16;
      case DType::i32: return Code::f_to_i;
      case DType::u8: return Code::f_to_u8;
      case DType::boolean: return Code::f_to_bool;
      default: return Code::copy;
    }
  }
  switch (to) {
    case DType::u8: return from == DType::i32 ? Code::i_to_u8 : Code::copy;
    case DType::boolean: return from == DType::boolean ? Code::copy : Code::i_to_bool;
    case DType::i32: return Code::copy;
    default: return Code::i_to_f;
  }
}

Code elementwise_code(const Graph& body, const Node& node) {
  if (node.op == Op::cast) return cast_code(body.type(node.inputs[0]).dtype, node.outputs[0].dtype);
  for (const CodeRow& row : kElementwise)
    if (row.op == node.op) {
      const Code code =
          integer_lanes(body.type(node.inputs[0]).dtype) && node.op != Op::where ? row.integers : row.floats;
      require(code != kNone, "loop: {} of integers", nf::name(node.op));
      return code;
    }
  fail("loop: {} cannot stand in a body", nf::name(node.op));
}

// The five kinds of reductions stand in the same order in each family of codes.
Code reduction_code(Code family, const Node& node, bool product) {
  const bool integers = integer_lanes(node.outputs[0].dtype);
  const int kind = product ? 4 : (integers ? 2 : 0) + (node.op == Op::reduce_max ? 1 : 0);
  return static_cast<Code>(static_cast<int>(family) + kind);
}

Code load_code(DType dtype, bool strided) {
  const int offset =
      strided ? static_cast<int>(Code::load_bf16_strided) - static_cast<int>(Code::load_bf16) : 0;
  const auto at = [&](Code code) { return static_cast<Code>(static_cast<int>(code) + offset); };
  switch (dtype) {
    case DType::bf16: return at(Code::load_bf16);
    case DType::f16: return at(Code::load_f16);
    case DType::u8:
    case DType::boolean: return at(Code::load_u8);
    default: return strided ? Code::load_32_strided : Code::copy;
  }
}

// What the compiler knows of a node.
struct Info {
  int32_t alias =
      -1;  // the node that holds its lanes (itself unless broadcast or a cast that changes nothing)
  bool needed = false;
  int32_t stream = -1;
  Extent extent;
  bool by_lead = false;
  int level = 0;  // chunked: the first stage in which it can be had
  int uses = 0;
  bool row_reduction = false, column_reduction = false;
  bool product = false;  // a reduction that multiplies the operands of its operand
  int32_t constant = -1;
  int32_t slot = -1;  // where its lanes are now
};

enum class List : uint8_t { prologue, before, body, after };

class Compiler {
 public:
  Compiler(const Graph& body, const Shape& space, std::span<const TensorView> inputs,
           std::span<const TensorView> outputs)
      : body_(body),
        space_(space),
        inputs_(inputs),
        outputs_(outputs),
        info_(static_cast<size_t>(body.size())) {}

  LoopProgram compile() {
    resolve_nodes();
    make_streams();
    lay_out();
    analyse();
    emit();
    store_directly();
    allocate();
    finish_instructions();
    return std::move(program_);
  }

 private:
  struct Register {
    Extent extent;
    bool lanes = false;     // the state of a chunked row reduction
    bool prologue = false;  // lives as long as the task
    bool shared = false;    // lives beyond the list that defines it
  };

  Info& info(int32_t node) { return info_[static_cast<size_t>(node)]; }
  Info& info(ValueId id) { return info(info(id.node).alias); }
  int32_t holder(ValueId id) { return info(id.node).alias; }
  const Node& operand_node(const Node& node) { return body_.node(holder(node.inputs[0])); }

  // ---- nodes ----

  void resolve_nodes() {
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

  Info& use(ValueId id) {
    Info& value = info(id);
    value.needed = true;
    return value;
  }

  // A sum of products needs no register for the products.
  void join_product(int32_t i) {
    const Node& node = body_.node(i);
    if (!info(i).needed || node.op != Op::reduce_sum || node.outputs[0].dtype != DType::f32) return;
    Info& operand = info(node.inputs[0]);
    if (operand_node(node).op != Op::mul || operand.uses != 1) return;
    info(i).product = true;
    operand.needed = false;
  }

  // The values that a node's instruction reads.
  std::vector<int32_t> operands(int32_t i) {
    std::vector<int32_t> result;
    const Node& node = info(i).product ? operand_node(body_.node(i)) : body_.node(i);
    if (info(i).stream >= 0) return result;
    for (const ValueId input : node.inputs) result.push_back(holder(input));
    return result;
  }

  // ---- streams ----

  // Strides over the space's axes of a tensor whose sizes are the space's or 1.
  Strides over_space(const Shape& shape, const Strides& strides) const {
    Strides result = strides;
    for (int axis = 0; axis < result.rank(); ++axis)
      if (shape[axis] == 1) result[axis] = 0;
    return result;
  }

  void make_streams() {
    for (int32_t i = 0; i < body_.size(); ++i)
      if (info(i).needed && info(i).alias == i) make_stream(i);
    for (size_t o = 0; o < outputs_.size(); ++o) make_output(static_cast<int32_t>(o));
  }

  void make_stream(int32_t i) {
    const Node& node = body_.node(i);
    const Shape& shape = node.outputs[0].shape;
    Stream stream;
    stream.dtype = node.outputs[0].dtype;
    if (node.op == Op::input || node.op == Op::roll) {
      const Node& leaf = node.op == Op::roll ? body_.node(holder(node.inputs[0])) : node;
      require(leaf.op == Op::input, "loop: a roll of something that is no leaf");
      stream.index = static_cast<int32_t>(leaf.attributes.integer("index"));
      const TensorView& view = inputs_[static_cast<size_t>(stream.index)];
      require(view.dtype == stream.dtype && view.shape == shape,
              "loop: input {} is {} {}, the body says {} {}", stream.index, nf::name(view.dtype),
              to_string(view.shape), nf::name(stream.dtype), to_string(shape));
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

  void make_output(int32_t o) {
    const Graph::Output& output = body_.outputs()[static_cast<size_t>(o)];
    const TensorType& type = body_.type(output.value);
    const TensorView& view = outputs_[static_cast<size_t>(o)];
    require(view.dtype == type.dtype && view.shape == type.shape,
            "loop: output {} is {} {}, the body says {} {}", o, nf::name(view.dtype), to_string(view.shape),
            nf::name(type.dtype), to_string(type.shape));
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

  void make_column(const Node& node, const TensorView& view) {
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

  // The rng of a philox: read where it is, at any stride.
  int32_t rng_stream(const Node& philox) {
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

  // ---- the tile ----

  void lay_out() {
    bool keep_row = false;
    for (int32_t i = 0; i < body_.size(); ++i) keep_row |= info(i).needed && info(i).row_reduction;
    for (const Stream& stream : program_.streams) keep_row |= stream.shift != 0;
    reduces_rows_ = keep_row;
    keep_row |= !program_.columns.empty() && space_.back() == 1;
    const Shape sizes = collapse(space_, program_.streams, keep_row);
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

  // ---- values ----

  void analyse() {
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

  void derive(int32_t i) {
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

  int32_t new_register(Extent extent, List list, bool lanes = false) {
    const bool lives_on = list == List::prologue || (program_.chunked && list != List::body);
    registers_.push_back({extent, lanes, list == List::prologue, lives_on});
    return kFirstRegister + static_cast<int32_t>(registers_.size()) - 1;
  }
  Register& register_at(int32_t slot) { return registers_[static_cast<size_t>(slot - kFirstRegister)]; }
  static bool is_register(int32_t slot) { return slot >= kFirstRegister; }
  static bool is_constant(int32_t slot) { return slot >= kFirstConstant && slot < kFirstRegister; }

  // ---- instructions ----

  List list_of(Extent extent, bool by_lead) const {
    if (!by_lead && !(program_.chunked && extent.cols)) return List::prologue;
    return program_.chunked && !extent.cols ? List::before : List::body;
  }

  std::vector<Instruction>& list(List which) {
    Stage& stage = program_.stages.back();
    switch (which) {
      case List::prologue: return program_.prologue;
      case List::before: return stage.before;
      case List::body: return stage.body;
      case List::after: return stage.after;
    }
    return stage.body;
  }

  // Bytes from row to row of a value of this extent in registers.
  int64_t register_step(Extent extent) const { return extent.rows && extent.cols ? program_.cols * 4 : 0; }

  // Makes operand i of an instruction over `domain` read `slot`, which holds a value of extent `value`.
  void read(Instruction& instruction, int i, int32_t slot, Extent value, Extent domain) {
    instruction.in[i] = slot;
    const bool splat = (domain.cols && !value.cols) || (!domain.cols && domain.rows && !value.rows);
    if (splat) instruction.pattern = static_cast<uint8_t>(instruction.pattern | 1U << i);
    const Stream* stream = slot < kFirstConstant ? &program_.streams[static_cast<size_t>(slot)] : nullptr;
    if (domain.cols && value.rows)
      instruction.step[i] = stream != nullptr ? stream->row_bytes() : value.cols ? register_step(value) : 4;
  }

  void read(Instruction& instruction, int i, int32_t node, Extent domain) {
    const Info& value = info(node);
    read(instruction, i, value.slot, value.extent, domain);
  }

  // Lanes that instructions can read: in place where memory holds them so.
  bool in_place(const Stream& stream) const {
    if (stream.kind != Stream::Kind::input || !word(stream.dtype) || stream.shift != 0) return false;
    if ((stream.extent.cols || stream.extent.rows) && stream.lane_bytes() != 4) return false;
    return true;
  }

  // Puts a node's lanes where instructions can read them.
  void fetch(int32_t node) {
    Info& value = info(node);
    if (value.slot >= 0) return;
    if (value.constant >= 0) {
      value.slot = kFirstConstant + value.constant;
    } else if (value.stream >= 0) {
      load(node);
    } else {
      fail("loop: node {} is read before it is computed", node);
    }
  }

  void load(int32_t node) {
    Info& value = info(node);
    const Stream stream =
        program_.streams[static_cast<size_t>(value.stream)];  // a copy: streams may be added
    if (in_place(stream) && !stored_elsewhere(node)) {
      value.slot = value.stream;
      return;
    }
    const List where = list_of(stream.extent, stream.by_lead);
    Instruction load;
    load.extent = stream.extent;
    load.in[0] = value.stream;
    if (stream.extent.cols && stream.extent.rows) load.step[0] = stream.row_bytes();
    load.stride = stream.lane_bytes();
    if (stream.kind == Stream::Kind::iota) {
      load.code = Code::iota;
    } else if (stream.kind == Stream::Kind::philox) {
      load.code = Code::philox;
      load.stream = static_cast<uint64_t>(body_.node(node).attributes.integer("stream"));
      load.in[1] = rng_stream(body_.node(node));
      for (const auto& [slot, bytes] : rng_streams_)
        if (slot == load.in[1]) load.stride = bytes;
    } else {
      load.code = load_code(stream.dtype, stream.lane_bytes() != stream.element);
      load.shift = stream.shift;
      load.shift_bytes = stream.column_bytes();
    }
    value.slot = new_register(stream.extent, where);
    load.out = value.slot;
    load.out_step = register_step(stream.extent);
    list(where).push_back(load);
  }

  // Whether a leaf is an output that shares its memory with another output: stores could then overwrite it
  // before they read it.
  bool stored_elsewhere(int32_t node) {
    const Stream& stream = program_.streams[static_cast<size_t>(info(node).stream)];
    bool is_output = false, is_overwritten = false;
    for (size_t o = 0; o < output_streams_.size(); ++o) {
      is_output |= holder(body_.outputs()[o].value) == node;
      is_overwritten |= program_.streams[static_cast<size_t>(output_streams_[o])].data == stream.data;
    }
    return is_output && is_overwritten && stream.data != nullptr;
  }

  // A register over `domain` with a copy of the value in every place.
  int32_t spread(int32_t node, Extent domain, List where) {
    Instruction copy;
    copy.extent = domain;
    read(copy, 0, node, domain);
    copy.out = new_register(domain, where);
    copy.out_step = register_step(domain);
    list(where).push_back(copy);
    return copy.out;
  }

  void emit_elementwise(int32_t i) {
    Info& value = info(i);
    Instruction instruction;
    instruction.code = elementwise_code(body_, body_.node(i));
    instruction.extent = value.extent;
    int n = 0;
    for (const int32_t operand : operands(i)) {
      fetch(operand);
      read(instruction, n++, operand, value.extent);
    }
    const List where = list_of(value.extent, value.by_lead);
    instruction.out = value.slot = new_register(value.extent, where);
    instruction.out_step = register_step(value.extent);
    list(where).push_back(instruction);
  }

  // The operands of a reduction, spread out over the columns where they are splats.
  Instruction reduction(int32_t i, Code family, List where) {
    Instruction instruction;
    instruction.code = reduction_code(family, body_.node(i), info(i).product);
    const std::vector<int32_t> from = operands(i);
    Extent domain{false, true};
    for (const int32_t operand : from) domain.rows |= info(operand).extent.rows;
    instruction.extent = domain;
    int n = 0;
    for (const int32_t operand : from) {
      fetch(operand);
      if (info(operand).extent.cols) {
        read(instruction, n++, operand, domain);
      } else {
        const Extent full{info(operand).extent.rows, true};
        const int32_t slot = spread(operand, full, where);
        read(instruction, n++, slot, full, domain);
      }
    }
    return instruction;
  }

  void emit_row_reduction(int32_t i) {
    Info& value = info(i);
    if (program_.chunked) return emit_chunked_reduction(i);
    const List where = list_of({value.extent.rows, true}, value.by_lead);
    Instruction instruction = reduction(i, Code::reduce_sum_f, where);
    instruction.out = value.slot = new_register(value.extent, where);
    instruction.out_step = value.extent.rows ? 4 : 0;
    list(where).push_back(instruction);
  }

  void emit_chunked_reduction(int32_t i) {
    Info& value = info(i);
    Instruction part = reduction(i, Code::part_sum_f, List::body);
    Instruction begin, end;
    begin.code = reduction_code(Code::begin_sum_f, body_.node(i), value.product);
    end.code = reduction_code(Code::end_sum_f, body_.node(i), value.product);
    part.out = begin.out = end.in[0] = new_register({}, List::before, true);
    end.out = value.slot = new_register(value.extent, List::after);
    program_.stages.back().before.push_back(begin);
    program_.stages.back().body.push_back(part);
    program_.stages.back().after.push_back(end);
  }

  void emit_column_reduction(int32_t i, int32_t output_stream) {
    const Stream& stream = program_.streams[static_cast<size_t>(output_stream)];
    Instruction instruction;
    const bool product = info(i).product;
    if (product) {
      instruction = reduction(i, Code::column_sum_f, List::body);
    } else {
      const int32_t operand = operands(i)[0];
      fetch(operand);
      read(instruction, 0, operand, {true, true});
    }
    instruction.code = reduction_code(Code::column_sum_f, body_.node(i), product);
    instruction.extent = {true, true};
    instruction.out = output_stream;
    instruction.out_step = stream.row_bytes();
    program_.stages.back().body.push_back(instruction);
  }

  // Stores round to bf16 and f16 themselves: a cast to them that only stores read is left out.
  int32_t stored_node(const Graph::Output& output) {
    const int32_t node = holder(output.value);
    const DType dtype = body_.type(output.value).dtype;
    if (body_.node(node).op != Op::cast || info(node).slot >= 0) return node;
    const bool rounds = (dtype == DType::bf16 || dtype == DType::f16) &&
                        body_.type(body_.node(node).inputs[0]).dtype == DType::f32;
    return rounds ? holder(body_.node(node).inputs[0]) : node;
  }

  void emit_store(int32_t o) {
    const int32_t slot = output_streams_[static_cast<size_t>(o)];
    const Stream stream = program_.streams[static_cast<size_t>(slot)];
    const int32_t node = stored_node(body_.outputs()[static_cast<size_t>(o)]);
    const List where = program_.chunked && !stream.extent.cols ? List::after : List::body;
    const bool strided = (stream.extent.rows || stream.extent.cols) && stream.lane_bytes() != stream.element;
    fetch(node);
    Instruction store;
    store.code = store_code(stream.dtype, strided);
    store.extent = stream.extent;
    read(store, 0, node, stream.extent);
    if (store.pattern != 0 && store.code != Code::copy) {
      store.pattern = 0;
      read(store, 0, spread(node, stream.extent, where), stream.extent, stream.extent);
    }
    store.out = slot;
    store.out_step = stream.extent.rows && stream.extent.cols ? stream.row_bytes() : 0;
    store.stride = stream.lane_bytes();
    list(where).push_back(store);
  }

  void emit() {
    drop_rounding();
    for (int stage = 0; stage <= last_stage_; ++stage) emit_stage(stage);
  }

  // Forgets casts that stores make up for.
  void drop_rounding() {
    for (const Graph::Output& output : body_.outputs()) {
      const int32_t node = holder(output.value);
      const int32_t from = stored_node(output);
      if (from == node) continue;
      Info& value = info(node);
      if (--value.uses == 0) value.needed = false;
      info(from).needed = true;
    }
  }

  void emit_stage(int stage) {
    program_.stages.emplace_back();
    const bool last = stage == last_stage_;
    const std::vector<bool> wanted = wanted_in(stage);
    if (program_.chunked)
      for (Info& value : info_)
        if (value.extent.cols) value.slot = -1;
    for (int32_t i = 0; i < body_.size(); ++i) {
      const Info& value = info(i);
      if (!wanted[static_cast<size_t>(i)] || value.stream >= 0 || value.constant >= 0 || value.slot >= 0)
        continue;
      if (value.column_reduction) {
        for (size_t o = 0; o < output_streams_.size(); ++o)
          if (holder(body_.outputs()[o].value) == i) emit_column_reduction(i, output_streams_[o]);
      } else if (value.row_reduction) {
        emit_row_reduction(i);
      } else {
        emit_elementwise(i);
      }
    }
    if (!last) return;
    for (size_t o = 0; o < output_streams_.size(); ++o)
      if (!info(body_.outputs()[o].value).column_reduction) emit_store(static_cast<int32_t>(o));
  }

  // The nodes that a stage computes. Values per row are computed once, as soon as they can be; full values in
  // each stage that reduces or stores something made of them.
  std::vector<bool> wanted_in(int stage) {
    std::vector<bool> wanted(info_.size(), false);
    for (int32_t i = 0; i < body_.size(); ++i) {
      const Info& value = info(i);
      if (!value.needed || value.alias != i) continue;
      if (!program_.chunked) wanted[static_cast<size_t>(i)] = true;
      const int ready = value.row_reduction ? value.level - 1 : value.level;
      if (ready == stage && (!value.extent.cols || value.column_reduction))
        wanted[static_cast<size_t>(i)] = true;
    }
    if (!program_.chunked) return wanted;
    if (stage == last_stage_)
      for (const Graph::Output& output : body_.outputs()) {
        const int32_t node = stored_node(output);
        if (info(node).extent.cols && !info(node).column_reduction) wanted[static_cast<size_t>(node)] = true;
      }
    for (int32_t i = body_.size() - 1; i >= 0; --i) {
      if (!wanted[static_cast<size_t>(i)]) continue;
      for (const int32_t operand : operands(i))
        if (info(operand).extent.cols) wanted[static_cast<size_t>(operand)] = true;
    }
    return wanted;
  }

  // ---- stores in place ----

  // Lets the instruction that makes a stored value write it to the output, unless something still reads the
  // memory that the output shares.
  void store_directly() {
    std::vector<Instruction>& code = program_.stages.back().body;
    for (size_t s = 0; s < code.size();) {
      if (can_store_directly(code, s)) {
        redirect(code, s);
        code.erase(code.begin() + static_cast<std::ptrdiff_t>(s));
      } else {
        ++s;
      }
    }
  }

  static size_t definition(const std::vector<Instruction>& code, int32_t slot) {
    for (size_t i = 0; i < code.size(); ++i)
      if (code[i].out == slot) return i;
    return code.size();
  }

  bool can_store_directly(const std::vector<Instruction>& code, size_t s) {
    const Instruction& store = code[s];
    if (store.code != Code::copy || store.pattern != 0 || !is_register(store.in[0]) || is_register(store.out))
      return false;
    const size_t made = definition(code, store.in[0]);
    if (made >= s || !(code[made].extent == store.extent) || code[made].shift != 0) return false;
    if (code[made].code >= Code::reduce_sum_f) return false;
    const std::byte* data = program_.streams[static_cast<size_t>(store.out)].data;
    for (size_t i = made + 1; i < code.size(); ++i)
      for (const int32_t slot : code[i].in)
        if (slot >= 0 && slot < kFirstConstant) {
          const Stream& stream = program_.streams[static_cast<size_t>(slot)];
          if (stream.kind == Stream::Kind::input && stream.data == data) return false;
        }
    return true;
  }

  void redirect(std::vector<Instruction>& code, size_t s) {
    const Instruction store = code[s];
    Instruction& maker = code[definition(code, store.in[0])];
    maker.out = store.out;
    maker.out_step = store.out_step;
    for (Instruction& instruction : code)
      for (int i = 0; i < 3; ++i) {
        if (instruction.in[i] != store.in[0]) continue;
        instruction.in[i] = store.out;
        if (instruction.step[i] != 0 && (instruction.pattern >> i & 1) == 0)
          instruction.step[i] = store.out_step;
      }
  }

  // ---- registers ----

  struct Pool {
    Extent extent;
    bool lanes;
    std::vector<int32_t> free;
  };

  void allocate() {
    place_of_.assign(registers_.size(), -1);
    for (Stage& stage : program_.stages)
      for (std::vector<Instruction>* code : {&stage.before, &stage.body, &stage.after}) allocate(*code);
    allocate(program_.prologue);
    for (size_t r = 0; r < registers_.size(); ++r) place(static_cast<int32_t>(r));
    size_registers();
  }

  // Gives the registers that live only inside this list their places.
  void allocate(std::vector<Instruction>& code) {
    std::map<int32_t, size_t> last_use;
    for (size_t i = 0; i < code.size(); ++i)
      for (const int32_t slot : code[i].in) last_use[slot] = i;
    for (size_t i = 0; i < code.size(); ++i) {
      for (const int32_t slot : code[i].in)
        if (is_register(slot) && last_use[slot] == i) release(slot);
      if (is_register(code[i].out)) place(code[i].out - kFirstRegister);
    }
  }

  Pool& pool_of(const Register& r) {
    for (Pool& pool : pools_)
      if (pool.extent == r.extent && pool.lanes == r.lanes) return pool;
    return pools_.emplace_back(Pool{r.extent, r.lanes, {}});
  }

  void place(int32_t r) {
    if (place_of_[static_cast<size_t>(r)] >= 0) return;
    const Register& wanted = registers_[static_cast<size_t>(r)];
    Pool& pool = pool_of(wanted);
    if (!wanted.shared && !pool.free.empty()) {
      place_of_[static_cast<size_t>(r)] = pool.free.back();
      pool.free.pop_back();
      return;
    }
    place_of_[static_cast<size_t>(r)] = static_cast<int32_t>(places_.size());
    places_.push_back(wanted);
  }

  // Once per register, though an instruction may read it twice.
  void release(int32_t slot) {
    const Register& r = register_at(slot);
    const int32_t place = place_of_[static_cast<size_t>(slot - kFirstRegister)];
    std::vector<int32_t>& free = pool_of(r).free;
    if (r.shared || place < 0 || std::find(free.begin(), free.end(), place) != free.end()) return;
    free.push_back(place);
  }

  // Tiles of a size that keeps the registers in the first-level cache.
  void size_registers() {
    constexpr int64_t kCacheLanes = 6144, kSmallest = 256;
    int64_t large = 0;
    for (const Register& r : places_)
      large += !r.lanes && (program_.cols == 1 ? r.extent.rows : r.extent.cols);
    int64_t elements = kTileElements;
    while (elements > kSmallest && elements * large > kCacheLanes) elements /= 2;
    const int64_t inner = program_.lead.empty() ? 1 : program_.lead.back();
    program_.tile_rows =
        program_.chunked ? 1 : std::clamp<int64_t>(elements / program_.cols, 1, std::max<int64_t>(inner, 1));
    program_.tile_cols = program_.chunked ? elements : program_.cols;
    int64_t offset = 0;
    for (const Register& r : places_) {
      program_.registers.push_back(offset);
      const int64_t lanes =
          r.lanes ? kReduceLanes
                  : (r.extent.rows ? program_.tile_rows : 1) * (r.extent.cols ? program_.tile_cols : 1);
      offset += (lanes * 4 + 63) / 64 * 64;
    }
    program_.scratch = offset;
  }

  // ---- the end ----

  void finish_instructions() {
    for (Stage& stage : program_.stages)
      for (std::vector<Instruction>* code : {&stage.before, &stage.body, &stage.after})
        for (Instruction& instruction : *code) finish(instruction);
    for (Instruction& instruction : program_.prologue) finish(instruction);
  }

  int32_t final_slot(int32_t slot) const {
    const auto streams = static_cast<int32_t>(program_.streams.size());
    const auto constants = static_cast<int32_t>(program_.constants.size());
    if (is_register(slot)) return streams + constants + place_of_[static_cast<size_t>(slot - kFirstRegister)];
    if (is_constant(slot)) return streams + slot - kFirstConstant;
    return slot;
  }

  void finish(Instruction& instruction) {
    instruction.flat = is_flat(instruction);
    for (int32_t& slot : instruction.in) slot = final_slot(slot);
    instruction.out = final_slot(instruction.out);
    const auto& row = loop_table()[static_cast<size_t>(instruction.code)];
    instruction.run = row[instruction.pattern];
    require(instruction.run != nullptr, "loop: no {} for operand pattern {}", name(instruction.code),
            instruction.pattern);
  }

  // Elementwise over whole rows that follow each other in every operand.
  bool is_flat(const Instruction& instruction) const {
    const Code code = instruction.code;
    if (program_.chunked || !instruction.extent.rows || !instruction.extent.cols || instruction.shift != 0 ||
        code >= Code::reduce_sum_f)
      return false;
    const bool loads = code >= Code::load_bf16 && code <= Code::load_u8_strided;
    const bool stores = code >= Code::store_bf16 && code <= Code::store_u8_strided;
    const int64_t in_bytes = code == Code::philox ? 1 : loads || code == Code::iota ? instruction.stride : 4;
    const int64_t out_bytes = stores ? instruction.stride : 4;
    if (instruction.out_step != program_.cols * out_bytes) return false;
    const int operands = code == Code::philox ? 1 : 3;
    for (int i = 0; i < operands; ++i) {
      if (instruction.in[i] < 0) continue;
      const bool splat = (instruction.pattern >> i & 1) != 0;
      if (instruction.step[i] != (splat ? 0 : program_.cols * in_bytes)) return false;
    }
    return true;
  }

  static constexpr int32_t kFirstConstant = 1 << 20, kFirstRegister = 1 << 21;

  const Graph& body_;
  const Shape& space_;
  std::span<const TensorView> inputs_, outputs_;
  LoopProgram program_;
  std::vector<Info> info_;
  std::vector<int32_t> output_streams_;
  std::vector<std::pair<int32_t, int64_t>> rng_streams_;  // stream, bytes between its elements
  std::vector<Register> registers_, places_;
  std::vector<int32_t> place_of_;
  std::vector<Pool> pools_;
  bool reduces_rows_ = false;
  int last_stage_ = 0;
};

}  // namespace

Code store_code(DType dtype, bool strided) {
  switch (load_code(dtype, strided)) {
    case Code::load_bf16: return Code::store_bf16;
    case Code::load_f16: return Code::store_f16;
    case Code::load_u8: return Code::store_u8;
    case Code::load_bf16_strided: return Code::store_bf16_strided;
    case Code::load_f16_strided: return Code::store_f16_strided;
    case Code::load_u8_strided: return Code::store_u8_strided;
    case Code::load_32_strided: return Code::store_32_strided;
    default: return Code::copy;
  }
}

LoopProgram compile_loop(const Graph& body, const Shape& space, std::span<const TensorView> inputs,
                         std::span<const TensorView> outputs) {
  require(outputs.size() == body.outputs().size(), "loop: {} outputs, the body has {}", outputs.size(),
          body.outputs().size());
  return Compiler(body, space, inputs, outputs).compile();
}

}  // namespace nf::cpu
