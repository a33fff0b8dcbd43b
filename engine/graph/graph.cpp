#include "nf/graph.h"

#include <algorithm>

#include "base/hash.h"
#include "graph/op_table.h"

namespace nf {
namespace {

uint64_t hash_of_shape(const Shape& shape) {
  uint64_t result = static_cast<uint64_t>(shape.rank());
  for (int64_t value : shape) result = hash_combine(result, static_cast<uint64_t>(value));
  return result;
}

struct AttributeHash {
  uint64_t operator()(int64_t value) const { return static_cast<uint64_t>(value); }
  uint64_t operator()(double value) const { return std::bit_cast<uint64_t>(value); }
  uint64_t operator()(const std::string& value) const { return hash(value); }
  uint64_t operator()(const Shape& value) const { return hash_of_shape(value); }
  uint64_t operator()(const TensorData& value) const {
    return hash_bytes(value->data(), value->size() * sizeof(double));
  }
  uint64_t operator()(const Body& value) const { return value->hash(); }
};

bool equal_attribute(const Attribute& a, const Attribute& b) {
  if (a.index() != b.index()) return false;
  if (const auto* data = std::get_if<TensorData>(&a)) {
    const TensorData& other = std::get<TensorData>(b);
    return *data == other || **data == *other;
  }
  if (const auto* value = std::get_if<double>(&a))  // bitwise: NaN constants are equal, 0 and -0 are not
    return std::bit_cast<uint64_t>(*value) == std::bit_cast<uint64_t>(std::get<double>(b));
  return a == b;
}

std::string describe(std::span<const Value> inputs) {
  std::vector<std::string> parts;
  for (const Value& input : inputs) parts.push_back(fmt::format("{}{}", name(input.dtype()), input.shape()));
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace

// ---- Value

const TensorType& Value::type() const {
  require(graph != nullptr, "graph: an empty Value has no type");
  return graph->type(id);
}

int64_t Value::size(int axis) const {
  const Shape& sizes = shape();
  return sizes[axis < 0 ? axis + sizes.rank() : axis];
}

// ---- Attributes

const Attribute* Attributes::find(std::string_view key) const {
  for (const auto& [name, value] : items_)
    if (key == name) return &value;
  return nullptr;
}

int64_t Attributes::integer(std::string_view key, int64_t otherwise) const {
  const Attribute* found = find(key);
  return found != nullptr ? std::get<int64_t>(*found) : otherwise;
}

double Attributes::real(std::string_view key, double otherwise) const {
  const Attribute* found = find(key);
  return found != nullptr ? std::get<double>(*found) : otherwise;
}

namespace {

template <typename T>
const T& existing(const Attribute* found, std::string_view key) {
  require(found != nullptr, "graph: attribute '{}' is missing", key);
  return std::get<T>(*found);
}

}  // namespace

const std::string& Attributes::text(std::string_view key) const {
  return existing<std::string>(find(key), key);
}
const Shape& Attributes::list(std::string_view key) const { return existing<Shape>(find(key), key); }
const TensorData& Attributes::data(std::string_view key) const {
  return existing<TensorData>(find(key), key);
}
const Body& Attributes::body(std::string_view key) const { return existing<Body>(find(key), key); }

void Attributes::set(const char* key, Attribute value) {
  for (auto& [name, old] : items_)
    if (std::string_view(name) == key) {
      old = std::move(value);
      return;
    }
  items_.emplace_back(key, std::move(value));
}

uint64_t Attributes::hash() const {
  uint64_t result = items_.size();
  for (const auto& [name, value] : items_) {
    result = hash_combine(result, nf::hash(std::string_view(name)));
    result = hash_combine(result, std::visit(AttributeHash{}, value));
  }
  return result;
}

bool Attributes::operator==(const Attributes& other) const {
  return std::equal(items_.begin(), items_.end(), other.items_.begin(), other.items_.end(),
                    [](const auto& a, const auto& b) {
                      return std::string_view(a.first) == b.first && equal_attribute(a.second, b.second);
                    });
}

// ---- Graph

Graph::Graph() { intern_scope(""); }

int32_t Graph::intern_scope(std::string_view path) {
  const auto [found, inserted] =
      scope_index_.try_emplace(std::string(path), static_cast<int32_t>(scope_names_.size()));
  if (inserted) scope_names_.emplace_back(path);
  return found->second;
}

Value Graph::add(Op op, std::span<const Value> inputs, Attributes attributes) {
  Node node{.op = op, .backward = backward_, .scope = scope_, .attributes = std::move(attributes)};
  std::vector<TensorType> types;
  for (const Value& input : inputs) {
    require(input.graph == this, "engine: {} in {}: an input belongs to another graph or is empty", name(op),
            scope_name(scope_));
    node.inputs.push_back(input.id);
    types.push_back(input.type());
  }
  try {
    const OpInfo& row = info(op);
    const auto count = static_cast<int>(inputs.size());
    require(count >= row.min_inputs && (row.max_inputs < 0 || count <= row.max_inputs), "{} inputs given",
            count);
    node.outputs = row.infer(types, node.attributes);
  } catch (const Error& error) {
    fail("engine: {} in {}: {}; inputs: {}", name(op), scope_name(scope_), error.what(), describe(inputs));
  }
  return value({find_or_append(std::move(node)), 0});
}

ValueId Graph::add_node(Node node) { return {find_or_append(std::move(node)), 0}; }

uint64_t Graph::hash_of(const Node& node) const {
  uint64_t result = hash_combine(static_cast<uint64_t>(node.op), static_cast<uint64_t>(node.generation));
  for (ValueId input : node.inputs)
    result = hash_combine(hash_combine(result, hashes_[static_cast<size_t>(input.node)]),
                          static_cast<uint64_t>(input.output));
  return hash_combine(result, node.attributes.hash());
}

int32_t Graph::find_or_append(Node&& node) {
  const uint64_t hash = hash_of(node);
  const auto [first, last] = index_.equal_range(hash);
  for (auto it = first; it != last; ++it) {
    const Node& other = this->node(it->second);
    if (other.op == node.op && other.generation == node.generation && other.inputs == node.inputs &&
        other.attributes == node.attributes)
      return it->second;
  }
  const int32_t index = size();
  index_.emplace(hash, index);
  hashes_.push_back(hash);
  if (kind(node.op) == OpKind::state) effects_.push_back(index);
  nodes_.push_back(std::move(node));
  return index;
}

uint64_t Graph::hash() const {
  uint64_t result = outputs_.size();
  for (const Output& output : outputs_) {
    result = hash_combine(result, nf::hash(output.name));
    result = hash_combine(result, hashes_[static_cast<size_t>(output.value.node)]);
    result = hash_combine(result, static_cast<uint64_t>(output.value.output));
  }
  for (int32_t effect : effects_) result = hash_combine(result, hashes_[static_cast<size_t>(effect)]);
  return result;
}

void verify(const Graph& graph) {
  for (int32_t index = 0; index < graph.size(); ++index) {
    const Node& node = graph.node(index);
    std::vector<TensorType> types;
    for (ValueId input : node.inputs) {
      require(input.node >= 0 && input.node < index, "verify: input %{} of %{} does not come before it",
              input.node, index);
      require(input.output >= 0 && static_cast<size_t>(input.output) < graph.node(input).outputs.size(),
              "verify: %{} reads output {} of %{}, which has {}", index, input.output, input.node,
              graph.node(input).outputs.size());
      types.push_back(graph.type(input));
    }
    require(info(node.op).infer(types, node.attributes) == node.outputs,
            "verify: %{} = {} in {} has wrong types", index, name(node.op), graph.scope_name(node));
  }
  for (const Graph::Output& output : graph.outputs())
    require(output.value.node >= 0 && output.value.node < graph.size(), "verify: output '{}' does not exist",
            output.name);
}

// ---- Scope

Scope::Scope(Graph& graph, std::string_view path) : graph_(graph), path_(path), previous_(graph.scope()) {
  graph_.set_scope(graph_.intern_scope(path_));
}

std::string Scope::full_name(std::string_view name) const {
  return path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
}

}  // namespace nf
