// simplify: a table of local rules, applied to each node as it is copied until none fits.
//
// A node's inputs are simplified before the node, and what a rule builds is simplified in turn, so that one
// walk reaches a fixed point. Rules never change the bits of a result except where they fold constants (in
// double).
#include <algorithm>
#include <cmath>
#include <optional>

#include "passes/passes.h"
#include "passes/rewriter.h"

namespace nf {
namespace {

// A node of the new graph, looked at by the rules.
struct Match {
  Graph& graph;
  ValueId id;

  const Node& node() const { return graph.node(id); }
  Value in(size_t i) const { return graph.value(node().inputs[i]); }
  const Node& in_node(size_t i) const { return graph.node(node().inputs[i]); }
  bool in_is(size_t i, Op op) const { return in_node(i).op == op; }
  std::optional<double> constant(size_t i) const {
    if (!in_is(i, Op::constant)) return std::nullopt;
    return in_node(i).attributes.real("value");
  }
  bool is_constant(size_t i, double value) const { return constant(i) == value; }
};

struct Rule {
  const char* pattern;  // as it reads, for dumps and readers
  Op op;
  Value (*replace)(const Match&);  // an empty Value where the pattern does not fit
};

Value rebuilt(Graph& graph, const Node& like, const Values& inputs, Attributes attributes) {
  Node node{.op = like.op, .backward = like.backward, .generation = like.generation, .scope = like.scope};
  std::vector<TensorType> types;
  for (const Value& input : inputs) {
    node.inputs.push_back(input.id);
    types.push_back(input.type());
  }
  node.outputs = info(like.op).infer(types, attributes);
  node.attributes = std::move(attributes);
  return graph.value(graph.add_node(std::move(node)));
}

Value constant_of(const Match& m, double value) {
  const TensorType type = m.node().outputs[0];
  return m.graph.add(Op::constant, {},
                     {{"value", value}, {"dtype", static_cast<int64_t>(type.dtype)}, {"shape", type.shape}});
}

// ---- constant folding

std::optional<double> fold(Op op, std::span<const double> x) {
  switch (op) {
    case Op::neg: return -x[0];
    case Op::exp: return std::exp(x[0]);
    case Op::log: return std::log(x[0]);
    case Op::sqrt: return std::sqrt(x[0]);
    case Op::rsqrt: return 1 / std::sqrt(x[0]);
    case Op::abs: return std::fabs(x[0]);
    case Op::add: return x[0] + x[1];
    case Op::sub: return x[0] - x[1];
    case Op::mul: return x[0] * x[1];
    case Op::div: return x[0] / x[1];
    case Op::equal: return x[0] == x[1] ? 1.0 : 0.0;
    case Op::less: return x[0] < x[1] ? 1.0 : 0.0;
    case Op::less_equal: return x[0] <= x[1] ? 1.0 : 0.0;
    case Op::where: return x[0] != 0 ? x[1] : x[2];
    default: return std::nullopt;
  }
}

Value fold_constants(const Match& m) {
  const Node& node = m.node();
  if (kind(node.op) != OpKind::elementwise || node.op == Op::cast) return {};
  std::array<double, 3> operands{};
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    const auto value = m.constant(i);
    if (!value) return {};
    operands[i] = *value;
  }
  const bool wraps = !is_float(node.outputs[0].dtype) && (node.op == Op::div || node.op == Op::mul);
  const auto folded = wraps ? std::nullopt : fold(node.op, operands);
  return folded ? constant_of(m, *folded) : Value{};
}

// (x c1) c2 -> x (c1 c2): only where the product is exact in f32 (powers of two), so that bits stay.
Value merge_factors(const Match& m) {
  const auto outer = m.constant(1);
  if (!outer || !m.in_is(0, Op::mul)) return {};
  const Match inner{m.graph, m.node().inputs[0]};
  const auto factor = inner.constant(1);
  int exponent = 0;
  if (!factor ||
      (std::fabs(std::frexp(*outer, &exponent)) != 0.5 && std::fabs(std::frexp(*factor, &exponent)) != 0.5))
    return {};
  return inner.in(0) * constant_of(m, *outer * *factor);
}

// ---- casts

// Whether every value of `from` is exactly a value of `to`.
bool widens(DType from, DType to) {
  if (from == to) return true;
  if (to == DType::f64) return from != DType::i64;
  if (to == DType::f32)
    return from == DType::bf16 || from == DType::f16 || from == DType::u8 || from == DType::boolean;
  if (to == DType::i64) return from == DType::i32 || from == DType::u8 || from == DType::boolean;
  if (to == DType::i32) return from == DType::u8 || from == DType::boolean;
  return false;
}

Value cast_of_cast(const Match& m) {
  if (!m.in_is(0, Op::cast)) return {};
  const Match inner{m.graph, m.node().inputs[0]};
  const DType middle = inner.node().outputs[0].dtype;
  return widens(inner.in(0).dtype(), middle) ? cast(inner.in(0), m.node().outputs[0].dtype) : Value{};
}

Value cast_of_constant(const Match& m) {
  const auto value = m.constant(0);
  if (!value) return {};
  switch (m.node().outputs[0].dtype) {
    case DType::boolean: return constant_of(m, *value != 0 ? 1.0 : 0.0);
    case DType::i32:
    case DType::i64:
    case DType::u8: return constant_of(m, std::trunc(*value));
    default: return constant_of(m, *value);
  }
}

// Movement goes after casts that make narrow, so that such a cast joins the loop that made its operand. A
// cast that widens stays with its reader, so that what is kept in memory is the narrow value; but a concat's
// parts are cast, as a concat is memory anyway and its parts can be made in it.
Value cast_of_movement(const Match& m) {
  const Node source = m.in_node(0);
  const bool is_view = source.op == Op::reshape || source.op == Op::transpose;
  if (!is_view && source.op != Op::concat) return {};
  if (is_view && widens(m.in(0).dtype(), m.node().outputs[0].dtype)) return {};
  Values inputs;
  for (ValueId id : source.inputs) inputs.push_back(cast(m.graph.value(id), m.node().outputs[0].dtype));
  return rebuilt(m.graph, source, inputs, source.attributes);
}

// ---- movement

Value movement_of_constant(const Match& m) {
  const auto value = m.constant(0);
  return value ? constant_of(m, *value) : Value{};
}

Value identity_movement(const Match& m) {
  const Node& node = m.node();
  if (node.outputs[0].shape != m.in(0).shape()) return {};
  if (node.op == Op::transpose)
    for (int axis = 0; axis < node.outputs[0].shape.rank(); ++axis)
      if (node.attributes.list("permutation")[axis] != axis) return {};
  return node.op == Op::roll && node.attributes.integer("shift") != 0 ? Value{} : m.in(0);
}

Value reshape_of_reshape(const Match& m) {
  return m.in_is(0, Op::reshape) ? reshape(m.graph.value(m.in_node(0).inputs[0]), m.node().outputs[0].shape)
                                 : Value{};
}

Value transpose_of_transpose(const Match& m) {
  if (!m.in_is(0, Op::transpose)) return {};
  const Shape inner = m.in_node(0).attributes.list("permutation"),
              outer = m.node().attributes.list("permutation");
  Shape both = outer;
  for (int axis = 0; axis < outer.rank(); ++axis) both[axis] = inner[static_cast<int>(outer[axis])];
  return transpose(m.graph.value(m.in_node(0).inputs[0]), both);
}

Value broadcast_of_broadcast(const Match& m) {
  return m.in_is(0, Op::broadcast)
             ? broadcast_to(m.graph.value(m.in_node(0).inputs[0]), m.node().outputs[0].shape)
             : Value{};
}

Value slice_of_slice(const Match& m) {
  if (!m.in_is(0, Op::slice)) return {};
  Shape starts = m.node().attributes.list("starts");
  const Shape inner = m.in_node(0).attributes.list("starts");
  for (int axis = 0; axis < starts.rank(); ++axis) starts[axis] += inner[axis];
  return rebuilt(m.graph, m.node(), {m.graph.value(m.in_node(0).inputs[0])},
                 {{"starts", starts}, {"sizes", m.node().outputs[0].shape}});
}

// A slice that lies inside one part of a concat is a slice of that part.
Value slice_of_concat(const Match& m) {
  if (!m.in_is(0, Op::concat)) return {};
  const Node source = m.in_node(0);
  const auto axis = static_cast<int>(source.attributes.integer("axis"));
  Shape starts = m.node().attributes.list("starts");
  const Shape sizes = m.node().outputs[0].shape;
  for (ValueId id : source.inputs) {
    const int64_t size = m.graph.type(id).shape[axis];
    if (starts[axis] < size) {
      if (starts[axis] + sizes[axis] > size) return {};
      return rebuilt(m.graph, m.node(), {m.graph.value(id)}, {{"starts", starts}, {"sizes", sizes}});
    }
    starts[axis] -= size;
  }
  return {};
}

Value roll_of_roll(const Match& m) {
  if (!m.in_is(0, Op::roll)) return {};
  return roll(m.graph.value(m.in_node(0).inputs[0]),
              m.in_node(0).attributes.integer("shift") + m.node().attributes.integer("shift"));
}

// Loops can roll what they read but not what they compute, so a roll moves down to the operands.
Value roll_of_elementwise(const Match& m) {
  const Node source = m.in_node(0);
  const int64_t shift = m.node().attributes.integer("shift");
  if (source.op == Op::broadcast) {
    const Value base = m.graph.value(source.inputs[0]);
    const bool along_row = base.shape().back() == source.outputs[0].shape.back();
    return along_row ? broadcast_to(roll(base, shift), source.outputs[0].shape) : m.in(0);
  }
  if (kind(source.op) != OpKind::elementwise) return {};
  Values inputs;
  for (ValueId id : source.inputs) inputs.push_back(roll(m.graph.value(id), shift));
  return rebuilt(m.graph, source, inputs, source.attributes);
}

// ---- sums of padded gradients

// The start of each part along the concat's axis, and the end.
std::vector<int64_t> boundaries(const Graph& graph, const Node& concat_node, int axis) {
  std::vector<int64_t> result{0};
  for (ValueId id : concat_node.inputs) result.push_back(result.back() + graph.type(id).shape[axis]);
  return result;
}

// The piece [start, end) of a concat, if it lies in one part that is that piece or a constant.
Value piece(Graph& graph, const Node& concat_node, int axis, int64_t start, int64_t end) {
  int64_t offset = 0;
  for (ValueId id : concat_node.inputs) {
    const int64_t size = graph.type(id).shape[axis];
    if (start >= offset && end <= offset + size) {
      const bool whole = start == offset && end == offset + size;
      const bool is_constant = graph.node(id).op == Op::constant;
      return whole || is_constant ? slice(graph.value(id), axis, start - offset, end - start) : Value{};
    }
    offset += size;
  }
  return {};
}

// concat(a, 0) + concat(0, b) -> concat(a, b): what the gradients of slices of one value add up to.
Value sum_of_concats(const Match& m) {
  if (!m.in_is(0, Op::concat) || !m.in_is(1, Op::concat)) return {};
  const Node a = m.in_node(0), b = m.in_node(1);
  if (a.attributes.integer("axis") != b.attributes.integer("axis")) return {};
  const auto axis = static_cast<int>(a.attributes.integer("axis"));
  std::vector<int64_t> cuts = boundaries(m.graph, a, axis);
  const std::vector<int64_t> more = boundaries(m.graph, b, axis);
  cuts.insert(cuts.end(), more.begin(), more.end());
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  Values parts;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    const Value left = piece(m.graph, a, axis, cuts[i], cuts[i + 1]);
    const Value right = piece(m.graph, b, axis, cuts[i], cuts[i + 1]);
    if (!left || !right) return {};
    parts.push_back(left + right);
  }
  return concat(parts, axis);
}

Value left_if(const Match& m, bool condition) { return condition ? m.in(0) : Value{}; }

const std::vector<Rule>& rules() {
  static const std::vector<Rule> table = {
      {"x + 0 -> x", Op::add, [](const Match& m) { return left_if(m, m.is_constant(1, 0)); }},
      {"0 + x -> x", Op::add, [](const Match& m) { return m.is_constant(0, 0) ? m.in(1) : Value{}; }},
      {"x - 0 -> x", Op::sub, [](const Match& m) { return left_if(m, m.is_constant(1, 0)); }},
      {"x * 1 -> x", Op::mul, [](const Match& m) { return left_if(m, m.is_constant(1, 1)); }},
      {"c * x -> x * c", Op::mul,
       [](const Match& m) { return m.constant(0) && !m.constant(1) ? m.in(1) * m.in(0) : Value{}; }},
      {"x / 1 -> x", Op::div, [](const Match& m) { return left_if(m, m.is_constant(1, 1)); }},
      {"(x c1) c2 -> x (c1 c2)", Op::mul, merge_factors},
      {"-(-x) -> x", Op::neg,
       [](const Match& m) { return m.in_is(0, Op::neg) ? m.graph.value(m.in_node(0).inputs[0]) : Value{}; }},
      {"cast(x, its dtype) -> x", Op::cast,
       [](const Match& m) { return left_if(m, m.in(0).dtype() == m.node().outputs[0].dtype); }},
      {"cast(cast(x, wider), t) -> cast(x, t)", Op::cast, cast_of_cast},
      {"cast(constant) -> constant", Op::cast, cast_of_constant},
      {"narrow(move(x)) -> move(narrow(x))", Op::cast, cast_of_movement},
      {"reshape(x, its shape) -> x", Op::reshape, identity_movement},
      {"reshape(constant) -> constant", Op::reshape, movement_of_constant},
      {"reshape(reshape(x)) -> reshape(x)", Op::reshape, reshape_of_reshape},
      {"transpose(x, identity) -> x", Op::transpose, identity_movement},
      {"transpose(constant) -> constant", Op::transpose, movement_of_constant},
      {"transpose(transpose(x, p), q) -> transpose(x, p q)", Op::transpose, transpose_of_transpose},
      {"broadcast(x, its shape) -> x", Op::broadcast, identity_movement},
      {"broadcast(constant) -> constant", Op::broadcast, movement_of_constant},
      {"broadcast(broadcast(x)) -> broadcast(x)", Op::broadcast, broadcast_of_broadcast},
      {"slice(x, all) -> x", Op::slice, identity_movement},
      {"slice(constant) -> constant", Op::slice, movement_of_constant},
      {"slice(slice(x)) -> slice(x)", Op::slice, slice_of_slice},
      {"slice(concat(a, b)) -> slice(a)", Op::slice, slice_of_concat},
      {"roll(constant) -> constant", Op::roll, movement_of_constant},
      {"roll(x, 0) -> x", Op::roll, identity_movement},
      {"roll(roll(x)) -> roll(x)", Op::roll, roll_of_roll},
      {"roll(f(x, y)) -> f(roll(x), roll(y))", Op::roll, roll_of_elementwise},
      {"concat(a, 0) + concat(0, b) -> concat(a, b)", Op::add, sum_of_concats},
  };
  return table;
}

class Simplifier {
 public:
  explicit Simplifier(const Graph& graph) : rewriter_(graph) {}

  GraphPtr run() {
    const Graph& from = rewriter_.from();
    const std::vector<bool> live = live_nodes(from);
    for (int32_t i = 0; i < from.size(); ++i) {
      if (!live[static_cast<size_t>(i)]) continue;
      rewriter_.stand_at(from.node(i));
      Values outputs = rewriter_.copy(from.node(i));
      if (outputs.size() == 1 && kind(from.node(i).op) != OpKind::state) outputs[0] = fixed_point(outputs[0]);
      rewriter_.map(i, std::move(outputs));
    }
    return rewriter_.finish();
  }

 private:
  // The value that a new node simplifies to. Nodes that a rule has built are looked at too: inputs first.
  Value fixed_point(Value value) {
    Graph& graph = rewriter_.to();
    if (graph.node(value.id).outputs.size() != 1) return value;
    if (const auto found = done_.find(value.id.node); found != done_.end()) return graph.value(found->second);
    const int32_t original = value.id.node;
    done_.emplace(original,
                  value.id);  // its inputs come before it, so this only guards against looking twice
    Values inputs;
    bool changed = false;
    for (ValueId id : std::vector<ValueId>(graph.node(value.id).inputs)) {
      inputs.push_back(fixed_point(graph.value(id)));
      changed = changed || inputs.back().id != id;
    }
    if (changed)
      value = rebuilt(graph, Node(graph.node(value.id)), inputs, Attributes(graph.node(value.id).attributes));
    if (Value better = rewritten(value)) value = fixed_point(better);
    done_[original] = value.id;
    return value;
  }

  Value rewritten(Value value) {
    const Match match{rewriter_.to(), value.id};
    if (Value folded = fold_constants(match)) return folded;
    const Op op = match.node().op;
    for (const Rule& rule : by_op_[static_cast<size_t>(op)])
      if (Value better = rule.replace(match); better && better.id != value.id) return better;
    return {};
  }

  static std::array<std::vector<Rule>, static_cast<size_t>(Op::count_)> index_rules() {
    std::array<std::vector<Rule>, static_cast<size_t>(Op::count_)> index;
    for (const Rule& rule : rules()) index[static_cast<size_t>(rule.op)].push_back(rule);
    return index;
  }

  Rewriter rewriter_;
  std::unordered_map<int32_t, ValueId> done_;
  std::array<std::vector<Rule>, static_cast<size_t>(Op::count_)> by_op_ = index_rules();
};

}  // namespace

GraphPtr simplify(const Graph& graph) {
  Simplifier simplifier(graph);
  return simplifier.run();
}

}  // namespace nf
