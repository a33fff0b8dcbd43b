#include "cuda/loop_source.h"

#include <algorithm>
#include <bit>
#include <map>

#include "cuda/loop_writer.h"
#include "cuda/sources.h"

namespace nf::cuda {

std::string_view lane_type(DType dtype) {
  switch (lane_of(dtype)) {
    case Lane::integers: return "int32_t";
    case Lane::booleans: return "bool";
    default: return "float";
  }
}

std::string_view combiner(const Node& reduction) { return reduction.op == Op::reduce_max ? "Max" : "Sum"; }

std::string identity(const Node& reduction) {
  const DType dtype = reduction.outputs[0].dtype;
  if (reduction.op != Op::reduce_max) return literal(0, dtype);
  return lane_of(dtype) == Lane::floats ? "-infinity()" : literal(INT32_MIN, dtype);
}

LoopWriter::LoopWriter(const LoopPlan& plan, std::span<const TensorView> inputs,
                       std::span<const TensorView> outputs)
    : plan_(plan),
      body_(*plan.body),
      inputs_(inputs),
      outputs_(outputs),
      in_memory_(plan.form == LoopForm::wide),
      places_(plan.tensors.size()) {}

LoopSource LoopWriter::run() {
  static constexpr const char* kNames[] = {"map", "rows", "wide", "columns"};
  name_pointers();
  switch (plan_.form) {
    case LoopForm::map: write_map(); break;
    case LoopForm::columns: write_columns(); break;
    default: write_rows(); break;
  }
  result_.shape.threads = static_cast<uint32_t>(plan_.threads());
  result_.kernel = loop_kernel(kNames[static_cast<size_t>(plan_.form)], result_.pointers.size(),
                               result_.shape.threads, text_.text());
  return std::move(result_);
}

std::string_view LoopWriter::lane_type_of(int32_t i) const { return lane_type(dtype(i)); }

// ---- pointers

void LoopWriter::name_pointers() {
  text_.line("using Index = {};", plan_.wide_index ? "int64_t" : "int32_t");
  text_.line("using Count = {};", plan_.wide_index ? "uint64_t" : "uint32_t");
  std::set<int32_t> named;
  for (int32_t i = 0; i < body_.size(); ++i) {
    if (!plan_.value(i).needed) continue;
    const bool reads = node(i).op == Op::roll || node(i).op == Op::philox;
    const int32_t leaf = reads ? plan_.holder(node(i).inputs[0]) : i;
    if (node(leaf).op != Op::input) continue;
    const auto number = static_cast<int32_t>(node(leaf).attributes.integer("index"));
    if (named.insert(number).second)
      point(To::input, number, fmt::format("const {}* in{}", type_name(dtype(leaf)), number));
  }
  for (int32_t o = 0; o < output_count(); ++o)
    if (output_tensor(o).kind == LoopTensor::Kind::output)
      point(To::output, o, fmt::format("{}* out{}", type_name(output_tensor(o).dtype), o));
  for (size_t c = 0; c < plan_.column_reductions.size(); ++c) {
    const ColumnReduction& column = plan_.column_reductions[c];
    if (column.partials > 1)
      point(To::partial, static_cast<int32_t>(c),
            fmt::format("{}* partial{}", lane_type_of(column.node), column.output));
    else
      point(To::output, column.output, fmt::format("{}* out{}", lane_type_of(column.node), column.output));
  }
}

void LoopWriter::point(To to, int32_t number, const std::string& declaration) {
  const std::string type = declaration.substr(0, declaration.rfind(' '));
  text_.line("{} = static_cast<{}>(p.at[{}]);", declaration, type, result_.pointers.size());
  result_.pointers.push_back({to, number});
}

// ---- forms

void LoopWriter::write_map() {
  const int64_t threads = plan_.threads(), all = plan_.rows * plan_.vectors;
  result_.shape.grid_x = blocks(all, threads * plan_.per_lane);
  if (has_many()) {
    begin_row();
    return write_phases();
  }
  text_.line("const Count vector = Count(blockIdx.x) * {} + threadIdx.x;", threads);
  if (all % threads != 0) text_.line("if (vector >= {}) return;", all);
  if (plan_.rows > 1) text_.line("const Count row = vector / {};", plan_.vectors);
  text_.line("const Index column = Index({}) * {};",
             plan_.rows > 1 ? fmt::format("vector % {}", plan_.vectors) : "vector", plan_.vector);
  find_short_vector();
  begin_row();
  write_phases();
  end_row(plan_.vectors > 1 ? "column == 0" : "");
}

void LoopWriter::find_short_vector() {
  if (has_short_vector())
    text_.line("const int valid = {0} - column < {1} ? int({0} - column) : {1};", plan_.columns,
               plan_.vector);
}

// Rows in registers, or wide ones.
void LoopWriter::write_rows() {
  name_members();
  declare_shared();
  if (plan_.walks_rows())
    walk_units(1);
  else
    find_row();
  begin_row();
  write_phases();
  end_row(plan_.lanes > 1 ? "member == 0" : "");
  if (!plan_.walks_rows()) return;
  text_.close();
  if (!in_memory_) finish_block();
}

void LoopWriter::write_columns() {
  const int64_t tiles = blocks(plan_.vectors, plan_.lanes);
  name_members();
  declare_shared();
  text_.line("const Count vector = Count({}) * {} + member;",
             tiles == 1 ? "0" : fmt::format("blockIdx.x % {}", tiles), plan_.lanes);
  text_.line("const Index column = Index(vector) * {};", plan_.vector);
  if (!fills_vectors()) text_.line("const bool active = vector < {};", plan_.vectors);
  walk_units(tiles);
  begin_row();
  write_phases();
  end_row("");  // one lane where rows have outputs of their own
  text_.close();
  finish_block();
}

void LoopWriter::name_members() {
  if (plan_.groups > 1)
    text_.line("const int member = threadIdx.x % {0}, group = threadIdx.x / {0};", plan_.lanes);
  else
    text_.line("const int member = threadIdx.x;");
}

// Each group has one row. Groups without a row stand at the last one, whose place may be written by then:
// they neither read nor write.
void LoopWriter::find_row() {
  const std::string own =
      plan_.groups == 1 ? "blockIdx.x" : fmt::format("Count(blockIdx.x) * {} + group", plan_.groups);
  if (plan_.rows % plan_.groups == 0) {
    text_.line("const Count row = {};", own);
  } else {
    text_.line("const bool valid = {} < {};", own, plan_.rows);
    text_.line("const Count row = valid ? {} : {};", own, plan_.rows - 1);
    row_guard_ = guard_ = "valid";
  }
  result_.shape.grid_x = blocks(plan_.rows, plan_.groups);
}

// Opens the loop over the rows of a block; groups take turns.
void LoopWriter::walk_units(int64_t tiles) {
  const auto number = [&](int64_t inner, int64_t size, bool outermost) {
    std::string text = "blockIdx.x";
    if (size == 1 && !outermost) return std::string("0");
    if (inner > 1) text += fmt::format(" / {}", inner);
    if (!outermost) text += fmt::format(" % {}", size);
    return text;
  };
  const bool one_row = plan_.kept_rows == 1;
  if (!one_row) text_.line("const Count kept_row = {};", number(tiles, plan_.kept_rows, false));
  text_.line("const Count block = {};", number(tiles * plan_.kept_rows, plan_.cut.blocks, true));
  text_.line("const Count begin = block * {};", plan_.cut.per_block);
  text_.line("const Count end = begin + {0} < {1} ? begin + {0} : {1};", plan_.cut.per_block, plan_.units);
  if (!in_memory_)
    for (int32_t i = 0; i < body_.size(); ++i)
      if (plan_.value(i).needed && plan_.value(i).column_reduction) begin_column(i);
  load_leaves(true);
  text_.open("for (Count first = begin; first < end; first += {})", plan_.groups);
  const std::string unit = plan_.groups == 1 ? "first" : "first + group";
  const auto row = [&](const std::string& of) {
    return one_row ? of : fmt::format("({}) * {} + kept_row", of, plan_.kept_rows);
  };
  if (plan_.units % plan_.groups == 0 && plan_.cut.per_block % plan_.groups == 0) {
    text_.line("const Count row = {};", row(unit));
  } else {
    text_.line("const bool valid = {} < end;", unit);
    text_.line("const Count row = {};", row(fmt::format("(valid ? {} : end - 1)", unit)));
    row_guard_ = guard_ = "valid";
  }
  if (plan_.form == LoopForm::columns && !fills_vectors())
    guard_ = guard_.empty() ? "active" : "valid && active";
  if (shares_parts()) text_.line("const int turn = first & 1;");
  result_.shape.grid_x = blocks(plan_.cut.blocks * plan_.kept_rows * tiles, 1);
}

// ---- a row

void LoopWriter::begin_row() {
  place_tensors();
  load_leaves(false);
  write_row_values(0);
}

void LoopWriter::place_tensors() {
  std::map<std::string, std::string> named;
  for (size_t t = 0; t < plan_.tensors.size(); ++t) {
    const LoopTensor& tensor = plan_.tensors[t];
    if (tensor.kind == LoopTensor::Kind::column) continue;
    Strides strides;
    for (int axis = 0; axis < plan_.lead.rank(); ++axis) strides.push_back(tensor.strides[axis]);
    const std::string offset = offset_of("row", plan_.lead, strides);
    if (offset == "0") continue;
    const auto [at, is_new] = named.try_emplace(offset, fmt::format("at{}", named.size()));
    places_[t] = at->second;
    if (is_new) text_.line("const Index {} = {};", at->second, offset);
  }
}

// The sum of the base, the place of the row, and that of the column.
std::string LoopWriter::address(std::string base, int32_t tensor, const std::string& column) const {
  const auto add = [&](const std::string& term) { base += (base.empty() ? "" : " + ") + term; };
  const int64_t stride = plan_.tensor(tensor).strides.back();
  if (const std::string& at = places_[static_cast<size_t>(tensor)]; !at.empty()) add(at);
  if (stride != 0 && !column.empty()) add(stride == 1 ? column : fmt::format("{} * {}", column, stride));
  return base.empty() ? "0" : base;
}

// Outputs with one element per row.
void LoopWriter::end_row(const std::string& who) {
  std::vector<std::string> conditions;
  for (const std::string& condition : {who, guard_})
    if (!condition.empty()) conditions.push_back(condition);
  bool barrier = plan_.row_barrier;
  for (int32_t o = 0; o < output_count(); ++o) {
    const LoopTensor& tensor = output_tensor(o);
    if (tensor.kind != LoopTensor::Kind::output || tensor.along_columns()) continue;
    if (barrier) text_.line("{}", plan_.lanes > 32 ? "__syncthreads();" : "__syncwarp();");
    barrier = false;
    text_.line("{}unlane({}, out{}[{}]);",
               conditions.empty() ? "" : fmt::format("if ({}) ", fmt::join(conditions, " && ")),
               operand(plan_.stored(o)), o, address("", tensor_of_output(o), ""));
  }
}

// ---- vectors of a thread

// Whether every thread has all its vectors.
bool LoopWriter::fills_vectors() const {
  return plan_.vectors % (int64_t{plan_.lanes} * plan_.per_lane) == 0;
}

// Opens what runs for each vector of a thread, with its `column`.
void LoopWriter::open_vectors() {
  switch (plan_.form) {
    case LoopForm::map: return open_vectors_of_map();
    case LoopForm::columns:
      if (!fills_vectors()) text_.open("if (active)");
      return;
    case LoopForm::wide:
      text_.open("for (Count vector = member; vector < {}; vector += {})", plan_.vectors, plan_.lanes);
      text_.line("const Index column = Index(vector) * {};", plan_.vector);
      return;
    case LoopForm::rows: break;
  }
  if (has_many()) text_.unroll();
  if (has_many())
    text_.open("for (int k = 0; k < {}; ++k)", plan_.per_lane);
  else
    text_.open("");
  const std::string vector = has_many() ? fmt::format("(k * {} + member)", plan_.lanes) : "member";
  text_.line("const Index column = {} * {};", vector, plan_.vector);
  if (fills_vectors()) return;
  const int64_t whole = plan_.vectors / plan_.lanes;
  text_.open("if ({}column < {})", whole > 0 ? fmt::format("k < {} || ", whole) : "", plan_.columns);
}

// The vectors of neighbouring threads are neighbours.
void LoopWriter::open_vectors_of_map() {
  if (!has_many()) return;
  text_.unroll();
  text_.open("for (int k = 0; k < {}; ++k)", plan_.per_lane);
  text_.line("const Count vector = (Count(blockIdx.x) * {} + k) * {} + threadIdx.x;", plan_.per_lane,
             plan_.lanes);
  text_.line("const Index column = Index(vector) * {};", plan_.vector);
  if (!fills_vectors()) text_.open("if (vector < {})", plan_.vectors);
  find_short_vector();
}

void LoopWriter::close_vectors() {
  if (plan_.form == LoopForm::map && !has_many()) return;
  if (plan_.form != LoopForm::columns) text_.close();
  if (plan_.form != LoopForm::wide && !fills_vectors()) text_.close();
}

// ---- row reductions

// Whether warps must tell each other their parts.
bool LoopWriter::shares_parts() const {
  return plan_.lanes > 32 && (plan_.form == LoopForm::rows || plan_.form == LoopForm::wide);
}

void LoopWriter::declare_shared() {
  if (shares_parts())
    for (int32_t i = 0; i < body_.size(); ++i)
      if (plan_.value(i).needed && plan_.value(i).row_reduction)
        text_.line("__shared__ {} part{}{}[{}];", lane_type_of(i), i, plan_.walks_rows() ? "[2]" : "",
                   plan_.lanes / 32);
  if (plan_.groups == 1) return;
  for (const std::string_view type : {"float", "int32_t"})
    if (std::any_of(plan_.column_reductions.begin(), plan_.column_reductions.end(),
                    [&](const ColumnReduction& column) { return lane_type_of(column.node) == type; }))
      text_.line("__shared__ {0} {0}_tile[{1}][{2}];", type, plan_.groups, tile_columns());
}

// The parts alternate between two places from row to row: one barrier suffices.
void LoopWriter::end_reductions(int phase) {
  std::vector<int32_t> ended;
  for (int32_t i = 0; i < body_.size(); ++i)
    if (plan_.value(i).needed && plan_.value(i).row_reduction && plan_.value(i).phase == phase)
      ended.push_back(i);
  if (ended.empty()) return;
  const char* turn = plan_.walks_rows() ? "[turn]" : "";
  for (int32_t i : ended) {
    if (!shares_parts()) {
      text_.line("const {} v{} = warp_reduce<{}, {}>(r{});", lane_type_of(i), i, combiner(node(i)),
                 plan_.lanes, i);
      continue;
    }
    text_.line("r{0} = warp_reduce<{1}>(r{0});", i, combiner(node(i)));
    text_.line("if (member % 32 == 0) part{0}{1}[member / 32] = r{0};", i, turn);
  }
  if (!shares_parts()) return;
  text_.line("__syncthreads();");
  for (int32_t i : ended)
    text_.line("const {} v{} = combine_warps<{}, {}>(part{}{});", lane_type_of(i), i, combiner(node(i)),
               plan_.lanes / 32, i, turn);
}

// ---- the sources

LoopSource loop_source(const LoopPlan& plan, std::span<const TensorView> inputs,
                       std::span<const TensorView> outputs) {
  return LoopWriter(plan, inputs, outputs).run();
}

LoopSource column_source(const LoopPlan& plan, size_t reduction, const TensorView& output) {
  const ColumnReduction& column = plan.column_reductions[reduction];
  const Node& node = plan.body->node(column.node);
  const std::string_view type = lane_type(node.outputs[0].dtype);
  const auto parts = static_cast<uint32_t>(std::min<uint64_t>(
      32, std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(column.partials / 4, 1)))));
  LoopSource result;
  result.pointers = {{LoopSource::Pointer::To::partial, static_cast<int32_t>(reduction)},
                     {LoopSource::Pointer::To::output, column.output}};
  result.shape = {.grid_x = blocks(column.elements, 32), .threads = 32 * parts};
  Text text;
  text.line("using Index = {};", plan.wide_index ? "int64_t" : "int32_t");
  text.line("const {0}* partial = static_cast<const {0}*>(p.at[0]);", type);
  text.line("{0}* out = static_cast<{0}*>(p.at[1]);", type);
  text.line("finish_columns<{}, {}>(partial, Index({}), Index({}), [&](Index element, {} value) {{",
            combiner(node), parts, column.partials, column.elements, type);
  text.line("  out[{}] = value;", offset_of("element", output.shape, output.strides));
  text.line("}});");
  result.kernel = loop_kernel("finish", result.pointers.size(), result.shape.threads, text.text());
  return result;
}

}  // namespace nf::cuda
