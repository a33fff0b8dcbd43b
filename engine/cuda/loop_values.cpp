// The values of a loop's body: leaves are loaded, elements computed phase by phase, outputs stored.
#include <set>

#include "cuda/loop_writer.h"
#include "cuda/sources.h"

namespace nf::cuda {

bool LoopWriter::is_computed(int32_t i) const {
  const LoopValue& v = plan_.value(i);
  return v.needed && v.columns && v.tensor < 0 && !v.column_reduction && !v.row_reduction;
}

// Whether it is loaded as vectors; counters are computed where they are used.
bool LoopWriter::is_leaf(int32_t i) const {
  const LoopValue& v = plan_.value(i);
  return v.needed && v.tensor >= 0 && v.columns && node(i).op != Op::iota;
}

// ---- leaves

// Those that are the same in every row are loaded before the rows are walked.
bool LoopWriter::is_loaded_once(int32_t i) const {
  return plan_.walks_rows() && plan_.tensor(plan_.value(i).tensor).every_row;
}

void LoopWriter::load_leaves(bool once) {
  if (in_memory_) return;
  std::vector<int32_t> leaves;
  for (int32_t i = 0; i < body_.size(); ++i)
    if (is_leaf(i) && is_loaded_once(i) == once) leaves.push_back(i);
  if (leaves.empty()) return;
  for (int32_t i : leaves) {
    const std::string_view type = node(i).op == Op::philox ? "float" : type_name(dtype(i));
    text_.line("Vector<{}, {}> x{}{};", type, plan_.vector, i, dimension());
  }
  open_vectors();
  const std::string guard = row_guard_.empty() ? "" : fmt::format("if ({}) ", row_guard_);
  for (int32_t i : leaves) text_.line("{}x{}{} = {};", guard, i, subscript(), loaded(i));
  close_vectors();
}

std::string LoopWriter::loaded(int32_t i) const {
  const int32_t t = plan_.value(i).tensor;
  const LoopTensor& tensor = plan_.tensor(t);
  if (tensor.kind == LoopTensor::Kind::philox) return philox(i, plan_.vector, "column");
  const std::string base = fmt::format("in{}", tensor.number);
  const int64_t stride = tensor.strides.back();
  std::string column = "column";
  if (tensor.shift != 0)
    column = fmt::format("(column < {0} ? column + {1} : column - {0})", tensor.shift,
                         plan_.columns - tensor.shift);
  if (tensor.shift != 0 && !tensor.vectors)
    return fmt::format("gather_around<{}>({}, {}, Index({}), Index({}))", plan_.vector, address(base, t, ""),
                       column, plan_.columns, stride);
  const std::string from = address(base, t, column);
  const std::string whole = tensor.vectors
                                ? fmt::format("load_vector<{}>({})", plan_.vector, from)
                                : fmt::format("gather_vector<{}>({}, Index({}))", plan_.vector, from, stride);
  if (!has_short_vector()) return whole;
  return fmt::format("valid == {0} ? {1} : gather_first<{0}>({2}, Index({3}), valid)", plan_.vector, whole,
                     from, stride);
}

std::string LoopWriter::philox(int32_t i, int count, const std::string& column) const {
  const Node& rng = node(plan_.holder(node(i).inputs[0]));
  const auto number = static_cast<int32_t>(rng.attributes.integer("index"));
  return fmt::format("philox_vector<{}>(uint64_t({}), {}ull, philox_key(in{}, {}))", count,
                     address("", plan_.value(i).tensor, column),
                     static_cast<uint64_t>(node(i).attributes.integer("stream")), number,
                     inputs_[static_cast<size_t>(number)].strides.back());
}

// ---- expressions

std::string LoopWriter::operand(int32_t i) const {
  if (node(i).op == Op::constant) return literal(node(i).attributes.real("value"), dtype(i));
  return fmt::format("v{}", i);
}

// An op's function has its name; casts are named after what they make.
std::string LoopWriter::expression(int32_t i) const {
  std::string function(nf::name(node(i).op));
  if (node(i).op == Op::cast) function += fmt::format("_{}", nf::name(dtype(i)));
  std::vector<std::string> operands;
  for (int32_t o : plan_.operands(i)) operands.push_back(operand(o));
  return fmt::format("op::{}({})", function, fmt::join(operands, ", "));
}

// The values that are the same in all columns and can be had after `level` reductions.
void LoopWriter::write_row_values(int level) {
  for (int32_t i = 0; i < body_.size(); ++i) {
    const LoopValue& v = plan_.value(i);
    const bool reduced = v.row_reduction || v.column_reduction || node(i).op == Op::constant;
    if (!v.needed || v.columns || v.level != level || reduced) continue;
    text_.line("const {} v{} = {};", lane_type_of(i), i, v.tensor < 0 ? expression(i) : row_leaf(i));
  }
}

std::string LoopWriter::row_leaf(int32_t i) const {
  const int32_t t = plan_.value(i).tensor;
  const LoopTensor& tensor = plan_.tensor(t);
  if (tensor.kind == LoopTensor::Kind::iota) return fmt::format("int32_t({})", address("", t, ""));
  if (tensor.kind == LoopTensor::Kind::philox) return philox(i, 1, "") + ".items[0]";
  const std::string value = fmt::format("lane(in{}[{}])", tensor.number, address("", t, ""));
  return row_guard_.empty() ? value : fmt::format("{} ? {} : {}(0)", row_guard_, value, lane_type_of(i));
}

// ---- phases

void LoopWriter::write_phases() {
  for (int phase = 0; phase < plan_.phases; ++phase) {
    const Work work = work_of(phase);
    if (!work.empty()) write_phase(work);
    end_reductions(phase);
    write_row_values(phase + 1);
  }
}

LoopWriter::Work LoopWriter::work_of(int phase) const {
  // Wide rows have their results in the last phase: every leaf has been read for the last time then.
  const auto belongs = [&](int own) { return in_memory_ ? phase == plan_.phases - 1 : own == phase; };
  Work work;
  std::set<int32_t> wanted;
  for (int32_t o = 0; o < output_count(); ++o) {
    if (output_tensor(o).kind != LoopTensor::Kind::output || !output_tensor(o).along_columns()) continue;
    if (!belongs(plan_.value(plan_.stored(o)).phase)) continue;
    work.outputs.push_back(o);
    wanted.insert(plan_.stored(o));
  }
  for (int32_t i = 0; i < body_.size(); ++i) {
    const LoopValue& v = plan_.value(i);
    if (!v.needed) continue;
    if (v.row_reduction && v.phase == phase) work.row_reductions.push_back(i);
    if (v.column_reduction && belongs(v.phase)) work.column_reductions.push_back(i);
    if (!in_memory_ && is_computed(i) && v.phase == phase) wanted.insert(i);
  }
  for (const auto* reductions : {&work.row_reductions, &work.column_reductions})
    for (int32_t i : *reductions) wanted.insert(plan_.operands(i)[0]);
  if (in_memory_)
    for (int32_t i = body_.size() - 1; i >= 0; --i)
      if (wanted.contains(i) && is_computed(i))
        for (int32_t o : plan_.operands(i)) wanted.insert(o);
  for (int32_t i : wanted)
    if (is_computed(i) && (in_memory_ || plan_.value(i).phase == phase)) work.values.push_back(i);
  return work;
}

void LoopWriter::write_phase(const Work& work) {
  for (int32_t i : work.row_reductions) text_.line("{} r{} = {};", lane_type_of(i), i, identity(node(i)));
  for (int32_t i : work.values)
    if (plan_.value(i).kept) text_.line("{} k{}{}[{}];", lane_type_of(i), i, dimension(), plan_.vector);
  open_vectors();
  if (in_memory_) load_for(work);
  for (int32_t o : work.outputs)
    text_.line("{} y{}[{}];", lane_type(output_tensor(o).dtype), o, plan_.vector);
  if (in_memory_)
    for (int32_t i : work.column_reductions) text_.line("{} c{}[{}];", lane_type_of(i), i, plan_.vector);
  text_.unroll();
  text_.open("for (int j = 0; j < {}; ++j)", plan_.vector);
  write_elements(work);
  text_.close();
  for (int32_t o : work.outputs) store(o);
  if (in_memory_)
    for (int32_t i : work.column_reductions) accumulate_in_memory(i);
  close_vectors();
}

void LoopWriter::load_for(const Work& work) {
  std::set<int32_t> read;
  for (int32_t i : work.values)
    for (int32_t o : plan_.operands(i)) read.insert(o);
  for (const auto* reductions : {&work.row_reductions, &work.column_reductions})
    for (int32_t i : *reductions) read.insert(plan_.operands(i)[0]);
  for (int32_t o : work.outputs) read.insert(plan_.stored(o));
  for (int32_t i : read)
    if (is_leaf(i)) text_.line("const auto x{} = {};", i, loaded(i));
}

void LoopWriter::write_elements(const Work& work) {
  defined_.clear();
  for (int32_t i : work.values) {
    for (int32_t o : plan_.operands(i)) define(o);
    text_.line("const {} v{} = {};", lane_type_of(i), i, expression(i));
    defined_.insert(i);
    if (plan_.value(i).kept) text_.line("k{0}{1}[j] = v{0};", i, subscript());
  }
  for (int32_t i : work.row_reductions) {
    const int32_t from = plan_.operands(i)[0];
    define(from);
    text_.line("r{0} = {1}::combine(r{0}, {2});", i, combiner(node(i)), operand(from));
  }
  for (int32_t i : work.column_reductions) {
    const int32_t from = plan_.operands(i)[0];
    define(from);
    if (in_memory_)
      text_.line("c{}[j] = {};", i, operand(from));
    else
      text_.line("{0}c{1}{2}[j] = {3}::combine(c{1}{2}[j], {4});", guard(), i, subscript(), combiner(node(i)),
                 operand(from));
  }
  for (int32_t o : work.outputs) {
    define(plan_.stored(o));
    text_.line("y{}[j] = {};", o, operand(plan_.stored(o)));
  }
}

// Brings a leaf, or a value of an earlier phase, into the loop over elements.
void LoopWriter::define(int32_t i) {
  const LoopValue& v = plan_.value(i);
  if (!v.columns || !defined_.insert(i).second) return;
  std::string value;
  if (v.tensor < 0)
    value = fmt::format("k{}{}[j]", i, subscript());
  else if (node(i).op == Op::iota)
    value = fmt::format("int32_t({})", address("", v.tensor, "(column + j)"));
  else
    value = fmt::format("lane(x{}{}.items[j])", i, subscript());
  text_.line("const {} v{} = {};", lane_type_of(i), i, value);
}

void LoopWriter::store(int32_t o) {
  const LoopTensor& tensor = output_tensor(o);
  const std::string to = address(fmt::format("out{}", o), tensor_of_output(o), "column");
  const int64_t stride = tensor.strides.back();
  const std::string whole = tensor.vectors ? fmt::format("store_lanes({}, y{});", to, o)
                                           : fmt::format("scatter_lanes({}, Index({}), y{});", to, stride, o);
  if (!has_short_vector()) {
    text_.line("{}{}", guard(), whole);
    return;
  }
  text_.line("if (valid == {}) {}", plan_.vector, whole);
  text_.line("else scatter_first({}, Index({}), y{}, valid);", to, stride, o);
}

}  // namespace nf::cuda
