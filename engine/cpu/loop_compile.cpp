// Compiles the body of a fused loop: nodes to values and streams, values to instructions, instructions to
// registers.
#include <algorithm>

#include "cpu/loop_program.h"
#include "graph/loop.h"
#include "graph/op_table.h"

namespace nf::cpu {
namespace {

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
    choose_prefetches();
    finish_program(program_, registers_);
    return std::move(program_);
  }

 private:
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
    registers_.push_back({extent, lanes, lives_on});
    return kFirstRegister + static_cast<int32_t>(registers_.size()) - 1;
  }

  // Tensors in which tiles follow each other without gaps.
  void choose_prefetches() {
    int64_t bytes = 0;
    for (const TensorView& view : inputs_) bytes += view.bytes();
    for (const TensorView& view : outputs_) bytes += view.bytes();
    if (bytes < kCachedBytes) return;
    for (size_t s = 0; s < program_.streams.size(); ++s) {
      const Stream& stream = program_.streams[s];
      const bool in_memory = stream.kind == Stream::Kind::input || stream.kind == Stream::Kind::output;
      const bool dense = stream.extent.cols && stream.column_bytes() == stream.element && stream.shift == 0;
      const bool follows = program_.chunked || stream.row_bytes() == program_.cols * stream.element;
      const bool seen = std::any_of(
          program_.prefetched.begin(), program_.prefetched.end(),
          [&](int32_t other) { return program_.streams[static_cast<size_t>(other)].data == stream.data; });
      if (in_memory && dense && follows && !seen) program_.prefetched.push_back(static_cast<int32_t>(s));
    }
  }

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
    if (stream.kind != Stream::Kind::input || stream.element != 4 || stream.shift != 0) return false;
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
      is_output |= stored_node(body_.outputs()[o]) == node;
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

  const Graph& body_;
  const Shape& space_;
  std::span<const TensorView> inputs_, outputs_;
  LoopProgram program_;
  std::vector<Info> info_;
  std::vector<int32_t> output_streams_;
  std::vector<std::pair<int32_t, int64_t>> rng_streams_;  // stream, bytes between its elements
  std::vector<VirtualRegister> registers_;
  bool reduces_rows_ = false;
  int last_stage_ = 0;
};

}  // namespace

LoopProgram compile_loop(const Graph& body, const Shape& space, std::span<const TensorView> inputs,
                         std::span<const TensorView> outputs) {
  require(outputs.size() == body.outputs().size(), "loop: {} outputs, the body has {}", outputs.size(),
          body.outputs().size());
  return Compiler(body, space, inputs, outputs).compile();
}

}  // namespace nf::cpu
