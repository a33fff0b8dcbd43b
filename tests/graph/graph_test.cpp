// Graphs: equal nodes are one, mistakes are named, and what is printed.
#include <doctest/doctest.h>

#include <cmath>

#include "graph/op_table.h"
#include "nf/ops.h"

using namespace nf;

namespace {

struct Leaves {
  Graph graph;
  Value x = input(graph, "x", DType::f32, {8, 256});
  Value y = input(graph, "y", DType::f32, {8, 256});
};

// Adds a node whose inputs do not fit inference, as a broken pass would.
void add_wrong_type(Graph& graph, Value x) {
  graph.add_node({.op = Op::exp, .inputs = {x.id}, .outputs = {{DType::f32, {1}}}});
}

}  // namespace

TEST_CASE("graph: equal nodes are one node") {
  Leaves l;
  CHECK(l.x + l.y == l.x + l.y);
  CHECK_FALSE(l.x + l.y == l.y + l.x);
  CHECK(constant(l.graph, 2) == constant(l.graph, 2));
  CHECK_FALSE(constant(l.graph, 2) == constant(l.graph, 2, DType::bf16));
  CHECK_FALSE(constant(l.graph, 0.0) == constant(l.graph, -0.0));
  CHECK(constant(l.graph, std::nan("")) == constant(l.graph, std::nan("")));
  CHECK(tensor(l.graph, {1, 2}, {2}) == tensor(l.graph, {1, 2}, {2}));
  CHECK_FALSE(tensor(l.graph, {1, 2}, {2}) == tensor(l.graph, {1, 3}, {2}));
  CHECK(slice(l.x, 1, 0, 4) == slice(l.x, -1, 0, 4));
  CHECK_FALSE(slice(l.x, 1, 0, 4) == slice(l.x, 1, 1, 4));
  CHECK(input(l.graph, "x", DType::f32, {8, 256}) == l.x);
}

TEST_CASE("graph: recomputed copies stay apart, scopes do not separate") {
  Leaves l;
  const Value e = exp(l.x);
  Node copy = l.graph.node(e.id);
  copy.generation = 1;
  CHECK_FALSE(l.graph.add_node(copy) == e.id);
  const Scope scope(l.graph, "elsewhere");
  CHECK(exp(l.x) == e);
}

TEST_CASE("graph: inputs come before their readers") {
  Leaves l;
  softmax(l.x * l.y + 1.0);
  for (int32_t i = 0; i < l.graph.size(); ++i)
    for (ValueId id : l.graph.node(i).inputs) CHECK(id.node < i);
  CHECK_NOTHROW(verify(l.graph));
}

TEST_CASE("graph: scopes nest and end with their object") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {4});
  const Scope layer(graph, "layers.3");
  CHECK(layer.full_name("weight") == "layers.3.weight");
  const Value inner = [&] {
    const Scope attention = layer / "self_attn";
    CHECK(attention.path() == "layers.3.self_attn");
    return exp(x);
  }();
  const Value outer = tanh(x);
  CHECK(graph.scope_name(graph.node(inner.id)) == "layers.3.self_attn");
  CHECK(graph.scope_name(graph.node(outer.id)) == "layers.3");
  CHECK(graph.scope_name(graph.node(x.id)).empty());
}

TEST_CASE("graph: a mistake names the op, the scope and the shapes") {
  Graph graph;
  const Scope scope(graph, "layers.3.mlp.down_proj");
  const Value x = input(graph, "x", DType::f32, {8, 256, 1024}),
              w = input(graph, "w", DType::f32, {256, 768});
  std::string message;
  try {
    matmul(x, w, {.transpose_b = true});
  } catch (const Error& error) {
    message = error.what();
  }
  for (const char* part : {"matmul", "layers.3.mlp.down_proj", "[8, 256, 1024]", "[256, 768]"}) {
    CAPTURE(part);
    CHECK(message.find(part) != std::string::npos);
  }
  CHECK(message.find('\n') == std::string::npos);
}

TEST_CASE("graph: wrong arguments throw and leave the graph as it was") {
  Leaves l;
  const Value whole = input(l.graph, "n", DType::i32, {8});
  Graph other;
  const Value stranger = input(other, "x", DType::f32, {8, 256});
  const int32_t size = l.graph.size();
  CHECK_THROWS_AS(l.x + stranger, Error);
  CHECK_THROWS_AS(exp(Value{}), Error);
  CHECK_THROWS_AS(reshape(l.x, {7, 3}), Error);
  CHECK_THROWS_AS(transpose(l.x, {0, 0}), Error);
  CHECK_THROWS_AS(slice(l.x, 1, 250, 7), Error);
  CHECK_THROWS_AS(slice(l.x, 2, 0, 1), Error);
  CHECK_THROWS_AS(concat({l.x, whole}, 0), Error);
  CHECK_THROWS_AS(reduce_sum(l.x, {2}), Error);
  CHECK_THROWS_AS(assign(l.x, l.y), Error);
  CHECK(l.graph.size() == size);
}

TEST_CASE("graph: verify finds broken nodes") {
  SUBCASE("a type that inference does not give") {
    Leaves l;
    add_wrong_type(l.graph, l.x);
    CHECK_THROWS_WITH_AS(verify(l.graph), "verify: %2 = exp in  has wrong types", Error);
  }
  SUBCASE("an output of a node that has fewer") {
    Leaves l;
    l.graph.add_node({.op = Op::exp, .inputs = {{0, 1}}, .outputs = {l.x.type()}});
    CHECK_THROWS_WITH_AS(verify(l.graph), "verify: %2 reads output 1 of %0, which has 1", Error);
  }
  SUBCASE("a graph output that does not exist") {
    Leaves l;
    l.graph.output("far", {&l.graph, {77, 0}});
    CHECK_THROWS_WITH_AS(verify(l.graph), "verify: output 'far' does not exist", Error);
  }
}

TEST_CASE("graph: effects keep their order, outputs theirs") {
  Graph graph;
  const Value a = state(graph, "a", DType::f32, {2}), b = state(graph, "b", DType::f32, {2});
  assign(b, a + 1.0);
  assign(a, a * 2.0);
  REQUIRE(graph.effects().size() == 2);
  CHECK(graph.node(graph.effects()[0]).inputs[0] == b.id);
  CHECK(graph.node(graph.effects()[1]).inputs[0] == a.id);
}

TEST_CASE("graph: the hash sees what is computed and nothing else") {
  const auto hash = [](std::string_view scope, double factor, const char* name) {
    Graph graph;
    const Scope at(graph, scope);
    graph.output(name, input(graph, "x", DType::f32, {4}) * factor);
    return graph.hash();
  };
  CHECK(hash("a", 2, "y") == hash("b", 2, "y"));
  CHECK(hash("a", 2, "y") != hash("a", 3, "y"));
  CHECK(hash("a", 2, "y") != hash("a", 2, "z"));
}

TEST_CASE("graph: as text") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {8, 256});
  {
    const Scope scope(graph, "layers.0.mlp");
    graph.output("y", slice(exp(x), 1, 0, 4));
  }
  CHECK(to_text(graph) ==
        "%0 = input(name=\"x\") : f32[8, 256]\n"
        "%1 = exp(%0) : f32[8, 256]  # layers.0.mlp\n"
        "%2 = slice(%1, starts=[0, 0], sizes=[8, 4]) : f32[8, 4]  # layers.0.mlp\n"
        "output y = %2\n");
}

TEST_CASE("graph: for Graphviz") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {4});
  graph.set_backward(true);
  graph.output("y", exp(x));
  const std::string dot = to_dot(graph);
  CHECK(dot.find("digraph nanoformer {") == 0);
  CHECK(dot.find("n0 -> n1;") != std::string::npos);
  CHECK(dot.find("%1 exp\\nf32[4]") != std::string::npos);
  CHECK(dot.find("fillcolor") != std::string::npos);
  CHECK(dot.substr(dot.size() - 2) == "}\n");
}

TEST_CASE("graph: every op has a row and a name of its own") {
  std::vector<std::string_view> names;
  for (int op = 0; op < static_cast<int>(Op::count_); ++op) {
    const OpInfo& row = info(static_cast<Op>(op));
    CHECK(row.op == static_cast<Op>(op));
    CHECK((row.infer != nullptr));
    CHECK((row.kind == OpKind::composite) == static_cast<bool>(row.decompose));
    for (std::string_view other : names) CHECK(other != row.name);
    names.push_back(row.name);
  }
}
