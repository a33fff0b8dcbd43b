// The GPU's table of kernels: how each op of a lowered graph runs here.
#pragma once

#include <vector>

#include "base/tensor_view.h"
#include "cuda/library.h"
#include "graph/op_table.h"

namespace nf::cuda {

// A node with addresses on the device.
struct BoundNode {
  const Graph& graph;
  const Node& node;
  std::vector<TensorView> inputs, outputs;
  std::byte* workspace;
  KernelLibrary& library;  // of the executable
  // Positions have 64 bits, as those of large tensors: so that tests see it with small ones.
  bool wide_index = false;
};

struct Kernel {
  Op op;
  // Whether dtypes and attributes are within what the kernel knows; null: always.
  bool (*supports)(const Graph& graph, const Node& node) = nullptr;
  // Scratch bytes; null: none. Depends on types and attributes alone.
  int64_t (*workspace)(const Graph& graph, const Node& node) = nullptr;
  Launch (*bind)(const BoundNode& bound) = nullptr;
};

// The kernel of an op, or null.
const Kernel* find_kernel(Op op);

// The rows of that table, each beside its kin.
Launch bind_loop(const BoundNode& bound);
// The same where so many vectors are many; see kManyVectors.
Launch bind_loop(const BoundNode& bound, int64_t many_vectors);
int64_t loop_workspace(const Graph& graph, const Node& node);

Launch bind_matmul(const BoundNode& bound);
// The product without the GPU's library, for operands that it does not take.
Launch plain_product(KernelLibrary& library, const Product& product, const void* a, const void* b, void* c);
int64_t matmul_workspace(const Graph& graph, const Node& node);

bool supports_attention(const Graph& graph, const Node& node);
int64_t attention_workspace(const Graph& graph, const Node& node);
Launch bind_attention(const BoundNode& bound);
int64_t attention_backward_workspace(const Graph& graph, const Node& node);
Launch bind_attention_backward(const BoundNode& bound);

bool supports_cross_entropy(const Graph& graph, const Node& node);
int64_t cross_entropy_workspace(const Graph& graph, const Node& node);
Launch bind_cross_entropy(const BoundNode& bound);
Launch bind_cross_entropy_backward(const BoundNode& bound);
// The same with chunks of at most so many bytes of logits.
Launch bind_cross_entropy(const BoundNode& bound, int64_t logit_bytes);
Launch bind_cross_entropy_backward(const BoundNode& bound, int64_t logit_bytes);

Launch bind_gather(const BoundNode& bound);
bool supports_embedding_backward(const Graph& graph, const Node& node);
int64_t scatter_workspace(const Graph& graph, const Node& node);
Launch bind_scatter(const BoundNode& bound);

Launch bind_concat(const BoundNode& bound);
Launch bind_assign(const BoundNode& bound);
Launch bind_assign_slice(const BoundNode& bound);

}  // namespace nf::cuda
