// The instructions of a fused loop, stage by stage.
#include "cpu/loop_compiler.h"

namespace nf::cpu {

LoopCompiler::List LoopCompiler::list_of(Extent extent, bool by_lead) const {
  if (!by_lead && !(program_.chunked && extent.cols)) return List::prologue;
  return program_.chunked && !extent.cols ? List::before : List::body;
}

std::vector<Instruction>& LoopCompiler::list(List which) {
  Stage& stage = program_.stages.back();
  switch (which) {
    case List::prologue: return program_.prologue;
    case List::before: return stage.before;
    case List::body: return stage.body;
    case List::after: return stage.after;
  }
  return stage.body;
}

void LoopCompiler::read(Instruction& instruction, int i, int32_t slot, Extent value, Extent domain) {
  instruction.in[i] = slot;
  const bool splat = (domain.cols && !value.cols) || (!domain.cols && domain.rows && !value.rows);
  if (splat) instruction.pattern = static_cast<uint8_t>(instruction.pattern | 1U << i);
  const Stream* stream = slot < kFirstConstant ? &program_.streams[static_cast<size_t>(slot)] : nullptr;
  if (domain.cols && value.rows)
    instruction.step[i] = stream != nullptr ? stream->row_bytes() : value.cols ? register_step(value) : 4;
}

void LoopCompiler::read(Instruction& instruction, int i, int32_t node, Extent domain) {
  const Info& value = info(node);
  read(instruction, i, value.slot, value.extent, domain);
}

bool LoopCompiler::in_place(const Stream& stream) const {
  if (stream.kind != Stream::Kind::input || stream.element != 4 || stream.shift != 0) return false;
  if ((stream.extent.cols || stream.extent.rows) && stream.lane_bytes() != 4) return false;
  return true;
}

void LoopCompiler::fetch(int32_t node) {
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

void LoopCompiler::load(int32_t node) {
  Info& value = info(node);
  const Stream stream = program_.streams[static_cast<size_t>(value.stream)];  // a copy: streams may be added
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

bool LoopCompiler::stored_elsewhere(int32_t node) {
  const Stream& stream = program_.streams[static_cast<size_t>(info(node).stream)];
  bool is_output = false, is_overwritten = false;
  for (size_t o = 0; o < output_streams_.size(); ++o) {
    is_output |= stored_node(body_.outputs()[o]) == node;
    is_overwritten |= program_.streams[static_cast<size_t>(output_streams_[o])].data == stream.data;
  }
  return is_output && is_overwritten && stream.data != nullptr;
}

int32_t LoopCompiler::spread(int32_t node, Extent domain, List where) {
  Instruction copy;
  copy.extent = domain;
  read(copy, 0, node, domain);
  copy.out = new_register(domain, where);
  copy.out_step = register_step(domain);
  list(where).push_back(copy);
  return copy.out;
}

void LoopCompiler::emit_elementwise(int32_t i) {
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

Instruction LoopCompiler::reduction(int32_t i, Code family, List where) {
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

void LoopCompiler::emit_row_reduction(int32_t i) {
  Info& value = info(i);
  if (program_.chunked) return emit_chunked_reduction(i);
  const List where = list_of({value.extent.rows, true}, value.by_lead);
  Instruction instruction = reduction(i, Code::reduce_sum_f, where);
  instruction.out = value.slot = new_register(value.extent, where);
  instruction.out_step = value.extent.rows ? 4 : 0;
  list(where).push_back(instruction);
}

void LoopCompiler::emit_chunked_reduction(int32_t i) {
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

void LoopCompiler::emit_column_reduction(int32_t i, int32_t output_stream) {
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

int32_t LoopCompiler::stored_node(const Graph::Output& output) {
  const int32_t node = holder(output.value);
  const DType dtype = body_.type(output.value).dtype;
  if (body_.node(node).op != Op::cast || info(node).slot >= 0) return node;
  const bool rounds = (dtype == DType::bf16 || dtype == DType::f16) &&
                      body_.type(body_.node(node).inputs[0]).dtype == DType::f32;
  return rounds ? holder(body_.node(node).inputs[0]) : node;
}

void LoopCompiler::emit_store(int32_t o) {
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

void LoopCompiler::emit() {
  drop_rounding();
  for (int stage = 0; stage <= last_stage_; ++stage) emit_stage(stage);
}

void LoopCompiler::drop_rounding() {
  for (const Graph::Output& output : body_.outputs()) {
    const int32_t node = holder(output.value);
    const int32_t from = stored_node(output);
    if (from == node) continue;
    Info& value = info(node);
    if (--value.uses == 0) value.needed = false;
    info(from).needed = true;
  }
}

void LoopCompiler::emit_stage(int stage) {
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

std::vector<bool> LoopCompiler::wanted_in(int stage) {
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

}  // namespace nf::cpu
