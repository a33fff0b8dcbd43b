// Graphs as text and for Graphviz.
#include <iterator>

#include "graph/op_table.h"

namespace nf {
namespace {

struct AttributeText {
  std::string operator()(int64_t value) const { return fmt::format("{}", value); }
  std::string operator()(double value) const { return fmt::format("{}", value); }
  std::string operator()(const std::string& value) const { return fmt::format("\"{}\"", value); }
  std::string operator()(const Shape& value) const { return fmt::format("{}", value); }
  std::string operator()(const TensorData& value) const { return fmt::format("{} values", value->size()); }
  std::string operator()(const Body& value) const { return fmt::format("{} nodes", value->size()); }
};

std::string reference(const Graph& graph, ValueId id) {
  return graph.node(id).outputs.size() > 1 ? fmt::format("%{}.{}", id.node, id.output)
                                           : fmt::format("%{}", id.node);
}

std::string node_text(const Graph& graph, int32_t index) {
  const Node& node = graph.node(index);
  std::vector<std::string> arguments, types;
  for (ValueId id : node.inputs) arguments.push_back(reference(graph, id));
  for (const auto& [key, value] : node.attributes.items())
    if (std::string_view(key) != "dtype" &&
        !(kind(node.op) == OpKind::leaf && std::string_view(key) == "shape"))
      arguments.push_back(fmt::format("{}={}", key, std::visit(AttributeText{}, value)));
  for (const TensorType& type : node.outputs)
    types.push_back(fmt::format("{}{}", name(type.dtype), type.shape));
  std::string line = fmt::format("%{} = {}({}) : {}", index, name(node.op), fmt::join(arguments, ", "),
                                 fmt::join(types, ", "));
  const std::string& scope = graph.scope_name(node);
  if (!scope.empty() || node.backward || node.generation != 0)
    line += fmt::format("  # {}{}{}", scope, node.backward ? " backward" : "",
                        node.generation != 0 ? fmt::format(" again {}", node.generation) : "");
  return line;
}

void append_text(std::string& text, const Graph& graph, std::string_view indent) {
  for (int32_t i = 0; i < graph.size(); ++i) {
    fmt::format_to(std::back_inserter(text), "{}{}\n", indent, node_text(graph, i));
    if (graph.node(i).op == Op::loop)
      append_text(text, *graph.node(i).attributes.body("body"), fmt::format("{}    | ", indent));
  }
  for (const Graph::Output& output : graph.outputs())
    fmt::format_to(std::back_inserter(text), "{}output {} = {}\n", indent, output.name,
                   reference(graph, output.value));
}

}  // namespace

std::string to_text(const Graph& graph) {
  std::string text;
  append_text(text, graph, "");
  return text;
}

std::string to_dot(const Graph& graph) {
  std::string text = "digraph nanoformer {\n  node [shape=box, fontname=monospace, fontsize=9];\n";
  for (int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    std::string label = fmt::format("%{} {}\\n{}{}\\n{}", i, name(node.op), name(node.outputs[0].dtype),
                                    node.outputs[0].shape, graph.scope_name(node));
    fmt::format_to(std::back_inserter(text), "  n{} [label=\"{}\"{}];\n", i, label,
                   node.backward ? ", style=filled, fillcolor=\"#eef2ff\"" : "");
    for (ValueId id : node.inputs) fmt::format_to(std::back_inserter(text), "  n{} -> n{};\n", id.node, i);
  }
  return text + "}\n";
}

}  // namespace nf
