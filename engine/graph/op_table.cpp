#include "graph/op_table.h"

#include <array>

#include "graph/op_rows.h"

namespace nf {
namespace {

std::array<OpInfo, static_cast<size_t>(Op::count_)> build_table() {
  std::array<OpInfo, static_cast<size_t>(Op::count_)> table{};
  for (const auto& rows : {leaf_rows(), movement_rows(), elementwise_rows(), reduce_rows(), matmul_rows(),
                           attention_rows(), cross_entropy_rows(), embedding_rows(), state_rows()})
    for (const OpInfo& row : rows) table[static_cast<size_t>(row.op)] = row;
  return table;
}

}  // namespace

const OpInfo& info(Op op) {
  static const auto table = build_table();
  return table[static_cast<size_t>(op)];
}

std::string_view name(Op op) { return info(op).name; }

double flops(const Graph& graph, const Node& node) {
  const OpInfo& row = info(node.op);
  if (row.flops != nullptr) return row.flops(graph, node);
  if (row.kind == OpKind::elementwise) return static_cast<double>(node.outputs[0].shape.elements());
  if (row.kind == OpKind::reduce) return static_cast<double>(graph.type(node.inputs[0]).shape.elements());
  return 0;
}

}  // namespace nf
