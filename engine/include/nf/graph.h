// Tensor graphs: what models, gradients and optimizers are made of.
//
//   nf::Graph graph;
//   nf::Value x = nf::input(graph, "x", nf::DType::f32, {8, 64});
//   nf::Value w = nf::state(graph, "w", nf::DType::f32, {10, 64});
//   graph.output("y", nf::matmul(x, w, {.transpose_b = true}));
//
// A Graph owns its nodes in topological order: a node's inputs always come before it. Nodes are immutable and
// hash-consed: adding a node that equals an existing one returns the existing one. A Value is one output of a
// node; it is a small handle that stays valid as long as its graph does. Not thread-safe; distinct graphs are
// independent.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "nf/dtype.h"
#include "nf/shape.h"

namespace nf {

class Graph;

// Every op; what each one means stands in its row of the op table (engine/graph/op_table.h).
enum class Op : uint8_t {
  // leaves
  input,
  state,
  constant,
  tensor,
  iota,
  philox,
  // movement: no arithmetic
  reshape,
  transpose,
  broadcast,
  slice,
  concat,
  roll,
  gather,
  scatter_add,
  // elementwise
  neg,
  exp,
  log,
  sqrt,
  rsqrt,
  tanh,
  sigmoid,
  erf,
  abs,
  sin,
  cos,
  add,
  sub,
  mul,
  div,
  max,
  min,
  equal,
  less,
  less_equal,
  where,
  cast,
  // reductions: reduced axes keep size 1
  reduce_sum,
  reduce_max,
  // contraction
  matmul,
  // composites
  attention,
  attention_backward,
  linear_cross_entropy,
  linear_cross_entropy_backward,
  embedding,
  embedding_backward,
  // state
  assign,
  assign_slice,
  // what the fuse pass makes: a small graph over one iteration space (see "Fused loop" in engine/README.md)
  loop,
  count_,
};

struct TensorType {
  DType dtype = DType::f32;
  Shape shape;
  int64_t bytes() const { return shape.elements() * size_of(dtype); }
  bool operator==(const TensorType&) const = default;
};

// An output of a node inside one graph, by number.
struct ValueId {
  int32_t node = -1;
  int32_t output = 0;
  bool operator==(const ValueId&) const = default;
};

// A node's output with its graph: what builders take and return.
struct Value {
  Graph* graph = nullptr;
  ValueId id;

  explicit operator bool() const { return graph != nullptr; }
  const TensorType& type() const;
  const Shape& shape() const { return type().shape; }
  DType dtype() const { return type().dtype; }
  int64_t size(int axis) const;  // negative axes count from the end
  bool operator==(const Value&) const = default;
};
using Values = std::vector<Value>;

// The data of an Op::tensor leaf; shared, never copied. Held in double whatever the node's dtype.
using TensorData = std::shared_ptr<const std::vector<double>>;
// The body of an Op::loop.
using Body = std::shared_ptr<const Graph>;
using Attribute = std::variant<int64_t, double, std::string, Shape, TensorData, Body>;

// A node's named constants, few and in the order they were given. Keys are string literals.
class Attributes {
 public:
  Attributes() = default;
  Attributes(std::initializer_list<std::pair<const char*, Attribute>> items) : items_(items) {}

  bool has(std::string_view key) const { return find(key) != nullptr; }
  int64_t integer(std::string_view key, int64_t otherwise = 0) const;
  double real(std::string_view key, double otherwise = 0) const;
  const std::string& text(std::string_view key) const;
  const Shape& list(std::string_view key) const;
  const TensorData& data(std::string_view key) const;
  const Body& body(std::string_view key) const;
  void set(const char* key, Attribute value);

  std::span<const std::pair<const char*, Attribute>> items() const { return items_; }
  uint64_t hash() const;
  bool operator==(const Attributes& other) const;

 private:
  const Attribute* find(std::string_view key) const;
  std::vector<std::pair<const char*, Attribute>> items_;
};

struct Node {
  Op op = Op::input;
  bool backward = false;   // made by gradients()
  int32_t generation = 0;  // of a recomputed copy, from 1: equal nodes of different generations stay apart
  int32_t scope = 0;       // see Graph::scope_name
  std::vector<ValueId> inputs = {};
  std::vector<TensorType> outputs = {};
  Attributes attributes = {};
};

class Graph {
 public:
  Graph();
  Graph(Graph&&) = delete;  // Values point here
  Graph& operator=(Graph&&) = delete;

  // Adds a node (or finds its equal) after inferring its output types; throws Error naming op, scope and
  // shapes when the inputs do not fit. The builders of nf/ops.h are the friendly way.
  Value add(Op op, std::span<const Value> inputs, Attributes attributes = {});
  // The same with everything given: for passes that copy nodes from another graph. No inference.
  ValueId add_node(Node node);

  const Node& node(int32_t index) const { return nodes_[static_cast<size_t>(index)]; }
  const Node& node(ValueId id) const { return node(id.node); }
  const TensorType& type(ValueId id) const { return node(id).outputs[static_cast<size_t>(id.output)]; }
  int32_t size() const { return static_cast<int32_t>(nodes_.size()); }
  Value value(ValueId id) { return {this, id}; }

  // What a run returns, by name, in the order of these calls.
  struct Output {
    std::string name;
    ValueId value;
  };
  void output(std::string name, Value value) { outputs_.push_back({std::move(name), value.id}); }
  const std::vector<Output>& outputs() const { return outputs_; }
  // Nodes that must run for their effect on the State (assign, assign_slice), in the order they were added.
  const std::vector<int32_t>& effects() const { return effects_; }

  // The scope of nodes added from now on, such as "layers.3.self_attn": see Scope.
  int32_t scope() const { return scope_; }
  void set_scope(int32_t scope) { scope_ = scope; }
  int32_t intern_scope(std::string_view path);
  const std::string& scope_name(int32_t scope) const { return scope_names_[static_cast<size_t>(scope)]; }
  const std::string& scope_name(const Node& node) const { return scope_name(node.scope); }

  // While set, new nodes are marked as part of the backward pass.
  bool backward() const { return backward_; }
  void set_backward(bool backward) { backward_ = backward; }

  // A hash of everything that decides what the graph computes (not scopes).
  uint64_t hash() const;

 private:
  int32_t find_or_append(Node&& node);
  uint64_t hash_of(const Node& node) const;

  std::vector<Node> nodes_;
  std::unordered_multimap<uint64_t, int32_t> index_;  // hash -> node
  std::vector<uint64_t> hashes_;                      // of each node, its inputs included
  std::vector<Output> outputs_;
  std::vector<int32_t> effects_;
  std::vector<std::string> scope_names_;
  std::unordered_map<std::string, int32_t> scope_index_;
  int32_t scope_ = 0;
  bool backward_ = false;
};

// A place in the model's tree of names. While a Scope lives it is its graph's current scope, so that errors,
// dumps and profiles name the nodes added meanwhile. `scope / "self_attn"` is a child, usually a temporary
// argument.
class Scope {
 public:
  explicit Scope(Graph& graph, std::string_view path = {});
  ~Scope() { graph_.set_scope(previous_); }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  Scope operator/(std::string_view name) const { return Scope(graph_, full_name(name)); }
  Graph& graph() const { return graph_; }
  const std::string& path() const { return path_; }
  std::string full_name(std::string_view name) const;  // "path.name"

 private:
  Graph& graph_;
  std::string path_;
  int32_t previous_;
};

// The op's name as in dumps and messages.
std::string_view name(Op op);

// One line per node: "%12 = add(%3, %7) : f32[8, 256]  # layers.0.mlp".
std::string to_text(const Graph& graph);
// For Graphviz.
std::string to_dot(const Graph& graph);

// Throws Error unless the graph is well formed: inputs come first, types are what inference says, outputs
// exist. Compilation runs it between passes when NF_DUMP or NF_VERIFY is set; tests always do.
void verify(const Graph& graph);

}  // namespace nf
