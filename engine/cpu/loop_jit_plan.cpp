#include "cpu/loop_jit_plan.h"

#include <algorithm>
#include <map>
#include <type_traits>

namespace nf::cpu {
namespace {

bool is_between(Code code, Code first, Code last) { return code >= first && code <= last; }
bool is_load(Code code) { return is_between(code, Code::load_bf16, Code::load_u8_strided); }
bool is_store(Code code) { return is_between(code, Code::store_bf16, Code::store_u8_strided); }
bool is_half(Code code) {
  return code == Code::load_f16 || code == Code::load_f16_strided || code == Code::store_f16 ||
         code == Code::store_f16_strided;
}

// The code of a load or store without its strides.
Code dense(Code code) {
  if (code == Code::load_32_strided || code == Code::store_32_strided) return Code::copy;
  if (is_between(code, Code::load_bf16_strided, Code::load_u8_strided))
    return static_cast<Code>(static_cast<int>(code) - static_cast<int>(Code::load_bf16_strided) +
                             static_cast<int>(Code::load_bf16));
  if (is_between(code, Code::store_bf16_strided, Code::store_u8_strided))
    return static_cast<Code>(static_cast<int>(code) - static_cast<int>(Code::store_bf16_strided) +
                             static_cast<int>(Code::store_bf16));
  return code;
}

int32_t bytes_of(Code dense_code) {
  switch (dense_code) {
    case Code::load_bf16:
    case Code::load_f16:
    case Code::store_bf16:
    case Code::store_f16: return 2;
    case Code::load_u8:
    case Code::store_u8: return 1;
    default: return 4;
  }
}

class Planner {
 public:
  Planner(LoopProgram& program, Stage& stage, const ScratchLimits& limits, JitPlan& plan)
      : program_(program), stage_(stage), limits_(limits), plan_(plan) {}

  bool make() {
    rows_are_columns_ = program_.cols == 1;
    plan_.chunked = program_.chunked;
    plan_.cols = rows_are_columns_ ? 0 : program_.cols;
    for (const Instruction& instruction : stage_.body)
      if (!add(instruction)) return false;
    find_phases();
    sink();
    place_stores();
    keep_across_phases();
    plan_.interpreted = !early_.empty() || !late_.empty();
    for (const JitOperation& op : plan_.operations)
      plan_.phases = std::max(plan_.phases, op.phase + (op.row ? 0 : 1));
    return commit();
  }

 private:
  JitValue& value(int32_t v) { return plan_.values[static_cast<size_t>(v)]; }
  const Stream* stream_of(int32_t slot) const {
    return slot < static_cast<int32_t>(program_.streams.size()) ? &program_.streams[static_cast<size_t>(slot)]
                                                                : nullptr;
  }
  bool is_vector(Extent extent) const { return rows_are_columns_ ? extent.rows : extent.cols; }

  // Whether an output of the loop lies in the memory of this slot.
  bool is_overwritten(int32_t slot) const {
    const Stream* stream = stream_of(slot);
    return stream != nullptr && stream->data != nullptr &&
           std::any_of(program_.streams.begin(), program_.streams.end(), [&](const Stream& other) {
             return other.kind == Stream::Kind::output && other.data == stream->data;
           });
  }

  // ---- values ----

  int32_t new_value(const JitValue& v) {
    plan_.values.push_back(v);
    return static_cast<int32_t>(plan_.values.size()) - 1;
  }

  int32_t new_pointer(int32_t slot, int32_t element, int64_t row_step) {
    if (rows_are_columns_) row_step = 0;
    for (size_t p = 0; p < plan_.pointers.size(); ++p) {
      const JitPointer& pointer = plan_.pointers[p];
      if (pointer.slot == slot && pointer.element == element && pointer.row_step == row_step)
        return static_cast<int32_t>(p);
    }
    plan_.pointers.push_back({slot, element, row_step});
    return static_cast<int32_t>(plan_.pointers.size()) - 1;
  }

  JitOperation& add_operation(JitOperation::Kind kind, Code code, bool row) {
    JitOperation op;
    op.kind = kind;
    op.code = code;
    op.row = row;
    plan_.operations.push_back(op);
    return plan_.operations.back();
  }

  int32_t result(JitOperation& op, bool row) { return op.out = new_value({.row = row, .made = true}); }

  int32_t constant(uint32_t bits) {
    for (size_t v = 0; v < plan_.values.size(); ++v)
      if (plan_.values[v].constant && plan_.values[v].bits == bits) return static_cast<int32_t>(v);
    return new_value({.row = true, .constant = true, .bits = bits});
  }

  // Memory along the columns, loaded where it is used.
  int32_t memory(int32_t slot, Code load, int64_t row_step) {
    const int32_t pointer = new_pointer(slot, bytes_of(load), row_step);
    for (size_t v = 0; v < plan_.values.size(); ++v)
      if (!plan_.values[v].row && plan_.values[v].pointer == pointer && plan_.values[v].load == load)
        return static_cast<int32_t>(v);
    return new_value({.pointer = pointer, .load = load, .fixed = !is_overwritten(slot)});
  }

  // One element per row, loaded when the row begins.
  int32_t row_memory(int32_t slot, Code load, int64_t row_step,
                     JitOperation::Kind kind = JitOperation::Kind::load) {
    const int32_t pointer = new_pointer(slot, bytes_of(load), row_step);
    for (const JitOperation& op : plan_.operations)
      if (op.row && op.kind == kind && op.pointer == pointer && op.code == load) return op.out;
    JitOperation& op = add_operation(kind, load, true);
    op.pointer = pointer;
    return result(op, true);
  }

  int64_t rows_of(const Stream& stream) const { return stream.extent.rows ? stream.row_bytes() : 0; }

  int32_t operand(const Instruction& instruction, int i) {
    const int32_t slot = instruction.in[i];
    if (const auto known = known_.find(slot); known != known_.end()) return known->second;
    const auto streams = static_cast<int32_t>(program_.streams.size());
    const auto constants = static_cast<int32_t>(program_.constants.size());
    if (slot >= streams && slot < streams + constants)
      return constant(program_.constants[static_cast<size_t>(slot - streams)]);
    const bool splat = (instruction.pattern >> i & 1) != 0;
    const Stream* stream = stream_of(slot);
    const bool vector = is_vector(instruction.extent);
    if (vector && !splat) return memory(slot, Code::copy, stream ? rows_of(*stream) : instruction.step[i]);
    const int64_t row_step = stream ? rows_of(*stream) : vector ? instruction.step[i] : splat ? 0 : 4;
    return row_memory(slot, Code::copy, row_step);
  }

  // ---- instructions ----

  bool add(const Instruction& instruction) {
    const Code code = instruction.code;
    if (is_load(code)) return add_load(instruction) && store_result(instruction);
    if (is_store(code)) return add_store(instruction);
    if (code == Code::copy) return add_copy(instruction);
    if (code == Code::iota) return add_iota(instruction) && store_result(instruction);
    if (code == Code::philox) return interpret_early(instruction) && store_result(instruction);
    if (code < Code::load_bf16) return add_map(instruction) && store_result(instruction);
    if (rows_are_columns_) return false;
    if (is_between(code, Code::reduce_sum_f, Code::reduce_sum_product) ||
        is_between(code, Code::part_sum_f, Code::part_sum_product))
      return add_reduction(instruction);
    if (is_between(code, Code::column_sum_f, Code::column_sum_product)) return add_column(instruction);
    return false;
  }

  bool add_load(const Instruction& instruction) {
    const Code code = dense(instruction.code);
    const bool strided = code != instruction.code;
    const int32_t slot = instruction.in[0];
    if (instruction.shift != 0 || is_half(code)) return interpret_early(instruction);
    if (!is_vector(instruction.extent)) {
      const Stream* stream = stream_of(slot);
      if (stream == nullptr) return false;
      known_[instruction.out] = row_memory(slot, code, rows_of(*stream));
      return true;
    }
    if (strided) return interpret_early(instruction);
    load_vector(instruction, code);
    return true;
  }

  // What stands in a register of the interpreter needs no place in memory, what it writes to an output does.
  bool store_result(const Instruction& instruction) {
    if (stream_of(instruction.out) != nullptr)
      store(known_[instruction.out], instruction.out, Code::copy, is_vector(instruction.extent));
    return true;
  }

  // Memory that is overwritten is read here and now, other memory where its values are used.
  void load_vector(const Instruction& instruction, Code code) {
    const int32_t slot = instruction.in[0];
    const int64_t row_step = rows_of(*stream_of(slot));
    if (!is_overwritten(slot)) {
      known_[instruction.out] = memory(slot, code, row_step);
      return;
    }
    const int32_t pointer = new_pointer(slot, bytes_of(code), row_step);
    JitOperation& op = add_operation(JitOperation::Kind::load, code, false);
    op.pointer = pointer;
    known_[instruction.out] = result(op, false);
  }

  bool add_copy(const Instruction& instruction) {
    const Stream* to = stream_of(instruction.out);
    if (to != nullptr) return add_store(instruction);
    const Stream* from = stream_of(instruction.in[0]);
    if (instruction.shift != 0) return interpret_early(instruction);
    const bool splat = (instruction.pattern & 1) != 0;
    if (from != nullptr && is_vector(instruction.extent) && !splat &&
        known_.find(instruction.in[0]) == known_.end())
      load_vector(instruction, Code::copy);
    else
      known_[instruction.out] = operand(instruction, 0);
    return true;
  }

  bool add_store(const Instruction& instruction) {
    const Code code = dense(instruction.code);
    const bool strided = code != instruction.code, vector = is_vector(instruction.extent);
    const Stream* stream = stream_of(instruction.out);
    if (stream == nullptr) return false;
    if (is_half(code) || (strided && vector)) return interpret_late(instruction);
    const int32_t in = operand(instruction, 0);
    store(in, instruction.out, code, vector);
    return true;
  }

  void store(int32_t in, int32_t slot, Code code, bool vector) {
    const int32_t pointer = new_pointer(slot, bytes_of(code), rows_of(*stream_of(slot)));
    JitOperation& op = add_operation(JitOperation::Kind::store, code, !vector);
    op.in[0] = in;
    op.pointer = pointer;
  }

  bool add_map(const Instruction& instruction) {
    int32_t in[3] = {-1, -1, -1};
    for (int i = 0; i < 3 && instruction.in[i] >= 0; ++i) in[i] = operand(instruction, i);
    const bool vector = is_vector(instruction.extent);
    JitOperation& op = add_operation(JitOperation::Kind::map, instruction.code, !vector);
    std::copy_n(in, 3, op.in);
    known_[instruction.out] = result(op, !vector);
    return true;
  }

  bool add_iota(const Instruction& instruction) {
    const Stream* stream = stream_of(instruction.in[0]);
    if (stream == nullptr) return false;
    const int32_t first =
        row_memory(instruction.in[0], Code::iota, rows_of(*stream), JitOperation::Kind::address);
    known_[instruction.out] = first;
    if (!is_vector(instruction.extent)) return true;
    JitOperation& op = add_operation(JitOperation::Kind::map, Code::iota, false);
    op.in[0] = first;
    op.stride = instruction.stride;
    known_[instruction.out] = result(op, false);
    return true;
  }

  bool add_reduction(const Instruction& instruction) {
    const bool part = instruction.code >= Code::begin_sum_f;
    int32_t in[3] = {-1, -1, -1};
    for (int i = 0; i < 2 && instruction.in[i] >= 0; ++i) in[i] = operand(instruction, i);
    const int32_t lanes = part ? new_pointer(instruction.out, 4, 0) : -1;
    // Each family of reductions has them in the same order.
    const Code first = part ? Code::part_sum_f : Code::reduce_sum_f;
    JitOperation& op =
        add_operation(JitOperation::Kind::reduce,
                      static_cast<Code>(static_cast<int>(instruction.code) - static_cast<int>(first) +
                                        static_cast<int>(Code::reduce_sum_f)),
                      false);
    std::copy_n(in, 3, op.in);
    op.pointer = lanes;
    if (!part) known_[instruction.out] = result(op, true);
    return true;
  }

  bool add_column(const Instruction& instruction) {
    int32_t in[3] = {-1, -1, -1};
    for (int i = 0; i < 2 && instruction.in[i] >= 0; ++i) in[i] = operand(instruction, i);
    const int32_t pointer = new_pointer(instruction.out, 4, instruction.out_step);
    JitOperation& op = add_operation(
        JitOperation::Kind::column,
        static_cast<Code>(static_cast<int>(instruction.code) - static_cast<int>(Code::column_sum_f) +
                          static_cast<int>(Code::reduce_sum_f)),
        false);
    std::copy_n(in, 3, op.in);
    op.pointer = pointer;
    return true;
  }

  // ---- what stays with the interpreter ----

  int32_t new_register(int64_t lanes) {
    const auto slot = static_cast<int32_t>(program_.slots() + static_cast<int>(registers_.size()));
    registers_.push_back(program_.scratch + scratch_);
    scratch_ += (lanes * 4 + 63) / 64 * 64;
    return slot;
  }

  int64_t lanes_of(Extent extent) const {
    return (extent.rows ? program_.tile_rows : 1) * (extent.cols ? program_.tile_cols : 1);
  }

  // A load into a tile of its own, before the code.
  bool interpret_early(const Instruction& instruction) {
    Instruction early = instruction;
    early.out = new_register(lanes_of(instruction.extent));
    early.out_step = instruction.extent.rows && instruction.extent.cols ? program_.cols * 4 : 0;
    early_.push_back(early);
    known_[instruction.out] = is_vector(instruction.extent)
                                  ? memory(early.out, Code::copy, early.out_step)
                                  : row_memory(early.out, Code::copy, instruction.extent.rows ? 4 : 0);
    return true;
  }

  // A store from a tile of its own, after the code.
  bool interpret_late(const Instruction& instruction) {
    const int32_t in = operand(instruction, 0);
    Instruction late = instruction;
    late.in[0] = new_register(lanes_of(instruction.extent));
    late.step[0] = instruction.extent.rows && instruction.extent.cols ? program_.cols * 4 : 0;
    late_.push_back(late);
    const bool vector = is_vector(instruction.extent);
    const int64_t row_step = vector ? late.step[0] : instruction.extent.rows ? 4 : 0;
    const int32_t pointer = new_pointer(late.in[0], 4, row_step);
    JitOperation& op = add_operation(JitOperation::Kind::store, Code::copy, !vector);
    op.in[0] = in;
    op.pointer = pointer;
    return true;
  }

  // ---- phases ----

  void find_phases() {
    for (JitOperation& op : plan_.operations) {
      for (const int32_t in : op.in)
        if (in >= 0) op.phase = std::max(op.phase, value(in).phase);
      if (op.out >= 0) value(op.out).phase = op.phase + (op.kind == JitOperation::Kind::reduce ? 1 : 0);
    }
  }

  // Moves what only later phases need to the first that does, so that fewer values cross phases.
  void sink() {
    constexpr int32_t kUnused = INT32_MAX;
    std::vector<int32_t> first_use(plan_.values.size(), kUnused), last_use(plan_.values.size(), 0);
    for (size_t i = plan_.operations.size(); i-- > 0;) {
      JitOperation& op = plan_.operations[i];
      if (op.kind == JitOperation::Kind::map && !op.row) {
        const int32_t target = first_use[static_cast<size_t>(op.out)];
        const bool sinks = target != kUnused && target > op.phase &&
                           std::all_of(std::begin(op.in), std::end(op.in), [&](int32_t in) {
                             return in < 0 || value(in).row || (!value(in).made && value(in).fixed) ||
                                    last_use[static_cast<size_t>(in)] >= target;
                           });
        if (sinks) value(op.out).phase = op.phase = target;
      }
      for (const int32_t in : op.in) {
        if (in < 0) continue;
        first_use[static_cast<size_t>(in)] = std::min(first_use[static_cast<size_t>(in)], op.phase);
        last_use[static_cast<size_t>(in)] = std::max(last_use[static_cast<size_t>(in)], op.phase);
      }
    }
  }

  // A store must not come before what reads the same memory.
  void place_stores() {
    std::map<const std::byte*, int32_t> read;
    const auto data = [&](int32_t pointer) -> const std::byte* {
      const Stream* stream = stream_of(plan_.pointers[static_cast<size_t>(pointer)].slot);
      return stream == nullptr ? nullptr : stream->data;
    };
    for (JitOperation& op : plan_.operations) {
      if (op.kind == JitOperation::Kind::store)
        if (const std::byte* to = data(op.pointer); to != nullptr && read.contains(to))
          op.phase = std::max(op.phase, read[to]);
      for (const int32_t in : op.in)
        if (in >= 0 && value(in).pointer >= 0)
          if (const std::byte* from = data(value(in).pointer)) read[from] = std::max(read[from], op.phase);
    }
  }

  // Gives the values that cross phases memory for one row: the output that they are stored to, or scratch.
  void keep_across_phases() {
    std::vector<int32_t> last_use(plan_.values.size(), 0);
    for (const JitOperation& op : plan_.operations)
      for (const int32_t in : op.in)
        if (in >= 0)
          last_use[static_cast<size_t>(in)] = std::max(last_use[static_cast<size_t>(in)], op.phase);
    for (size_t v = 0; v < plan_.values.size(); ++v) {
      JitValue& kept = plan_.values[v];
      if (!kept.made || kept.row || last_use[v] <= kept.phase) continue;
      for (const JitOperation& op : plan_.operations)
        if (op.kind == JitOperation::Kind::store && op.code == Code::copy && op.phase == kept.phase &&
            op.in[0] == static_cast<int32_t>(v))
          kept.pointer = op.pointer;
      if (kept.pointer >= 0) continue;
      kept.pointer = new_pointer(new_register(program_.cols), 4, 0);
      kept_.push_back({static_cast<int32_t>(v), kept.pointer});
    }
    // Kept as soon as they are made.
    for (const auto& [v, pointer] : kept_) {
      const auto maker = std::find_if(plan_.operations.begin(), plan_.operations.end(),
                                      [out = v](const JitOperation& op) { return op.out == out; });
      JitOperation store;
      store.kind = JitOperation::Kind::store;
      store.phase = maker->phase;
      store.in[0] = v;
      store.pointer = pointer;
      plan_.operations.insert(maker + 1, store);
    }
  }

  bool commit() {
    if (program_.scratch + scratch_ > limits_.bytes ||
        program_.slots() + static_cast<int64_t>(registers_.size()) > limits_.slots)
      return false;
    stage_.early = std::move(early_);
    stage_.late = std::move(late_);
    program_.registers.insert(program_.registers.end(), registers_.begin(), registers_.end());
    program_.scratch += scratch_;
    return true;
  }

  LoopProgram& program_;
  Stage& stage_;
  const ScratchLimits& limits_;
  JitPlan& plan_;
  bool rows_are_columns_ = false;
  std::map<int32_t, int32_t> known_;  // slot -> the value in it
  std::vector<std::pair<int32_t, int32_t>> kept_;
  std::vector<Instruction> early_, late_;
  std::vector<int64_t> registers_;
  int64_t scratch_ = 0;
};

template <typename T>
void append(std::string& key, const T& value) {
  static_assert(std::is_integral_v<T> || std::is_enum_v<T>);
  key.append(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace

std::string JitPlan::key() const {
  std::string key;
  append(key, phases);
  append(key, cols);
  append(key, chunked);
  append(key, pointers.size());
  for (const JitPointer& pointer : pointers) {
    append(key, pointer.slot);
    append(key, pointer.element);
    append(key, pointer.row_step);
  }
  for (const JitValue& value : values) {
    append(key, value.row);
    append(key, value.constant);
    append(key, value.bits);
    append(key, value.pointer);
    append(key, value.load);
    append(key, value.made);
    append(key, value.fixed);
  }
  append(key, operations.size());
  for (const JitOperation& op : operations) {
    append(key, op.kind);
    append(key, op.code);
    append(key, op.row);
    append(key, op.phase);
    for (const int32_t in : op.in) append(key, in);
    append(key, op.out);
    append(key, op.pointer);
    append(key, op.stride);
  }
  return key;
}

bool make_jit_plan(LoopProgram& program, Stage& stage, const ScratchLimits& limits, JitPlan& plan) {
  return Planner(program, stage, limits, plan).make();
}

}  // namespace nf::cpu
