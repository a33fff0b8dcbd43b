// The op table: everything the engine knows of an op stands in its row.
//
// Rows live beside their kin: op_leaf.cpp, op_movement.cpp, op_elementwise.cpp, op_reduce.cpp, op_matmul.cpp,
// op_attention.cpp, op_cross_entropy.cpp, op_embedding.cpp, op_state.cpp. A kernel attaches to an op from its
// backend's own table.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "nf/graph.h"
#include "nf/ops.h"

namespace nf {

enum class OpKind : uint8_t { leaf, movement, elementwise, reduce, contraction, composite, state, loop };

struct OpInfo {
  Op op;
  std::string_view name;
  OpKind kind;
  int min_inputs = 0;
  int max_inputs = 0;  // -1: any number

  // Output types from the inputs' and the attributes; throws Error (the caller adds op, scope and shapes).
  std::vector<TensorType> (*infer)(std::span<const TensorType> inputs,
                                   const Attributes& attributes) = nullptr;

  // Gradients with respect to each input, given those with respect to each output (some may be empty Values:
  // zero); an empty Value in the result means no gradient. Null: not differentiable (integers, state,
  // leaves).
  Values (*gradient)(Graph& graph, int32_t node, std::span<const Value> grad_outputs) = nullptr;

  // A composite's meaning in primitives: one Value per output.
  Values (*decompose)(Graph& graph, const Node& node, std::span<const Value> inputs) = nullptr;

  // Multiply-adds count as two. Null: one per output element for elementwise and reduce, none for movement.
  double (*flops)(const Graph& graph, const Node& node) = nullptr;
};

const OpInfo& info(Op op);
inline OpKind kind(Op op) { return info(op).kind; }
double flops(const Graph& graph, const Node& node);

// An attention's attributes and optional inputs, read back from the node. Inputs: q k v [q_documents
// k_documents] [length] [rng], and for the backward op after those: out, logsumexp, grad_out.
struct AttentionNode {
  AttentionOptions options;                                       // its Values are empty
  int q_documents = -1, k_documents = -1, length = -1, rng = -1;  // input numbers, -1 where absent
  int out = -1, logsumexp = -1, grad_out = -1;                    // backward only
};
AttentionNode attention_node(const Node& node);

// A linear_cross_entropy's. Inputs: hidden weight targets [scale], and for the backward op after those:
// grad_loss [N]. Outputs forward: loss [N], logsumexp [N]; backward: loss [N], grad_hidden, grad_weight
// (f32), [grad_scale (f32)].
struct CrossEntropyNode {
  CrossEntropyOptions options;  // its Values are empty
  int scale = -1, grad_loss = -1;
};
CrossEntropyNode cross_entropy_node(const Node& node);

}  // namespace nf
