#include "cpu/kernels.h"

#include <algorithm>
#include <array>

#include "cpu/attention.h"
#include "cpu/cross_entropy.h"
#include "cpu/gemm.h"
#include "cpu/loop.h"
#include "cpu/rows.h"
#include "graph/product.h"
#include "runtime/range_errors.h"

namespace nf::cpu {
namespace {

bool is_f32_or_bf16(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16; }

const TensorType& input_type(const Graph& graph, const Node& node, size_t i) {
  return graph.type(node.inputs[i]);
}

const int32_t* optional_ids(const BoundNode& bound, int input) {
  return input < 0 ? nullptr : bound.inputs[static_cast<size_t>(input)].as<const int32_t>();
}

// ---- loops

size_t loop_workspace(const Graph&, const Node& node, int threads) {
  return LoopKernel::workspace(*node.attributes.body("body"), node.attributes.list("space"), threads);
}

Launch bind_loop(const BoundNode& bound) {
  auto kernel =
      std::make_shared<LoopKernel>(*bound.node.attributes.body("body"), bound.node.attributes.list("space"),
                                   bound.inputs, bound.outputs, bound.codes);
  return [kernel, workspace = bound.workspace, threads = bound.threads] { kernel->run(workspace, threads); };
}

// ---- matmul

GemmArgs gemm_args(const Node& node, const TensorView& a, const TensorView& b, const TensorView& c) {
  const Product p = product_of(node, a, b, c);
  return {.batch = p.batch,
          .m = p.m,
          .n = p.n,
          .k = p.k,
          .a = {a.data, p.a.dtype, p.a.row_stride, p.a.col_stride},
          .a_batch_stride = p.a.batch_stride,
          .b = {b.data, p.b.dtype, p.b.row_stride, p.b.col_stride},
          .b_batch_stride = p.b.batch_stride,
          .c = c.data,
          .c_dtype = p.c.dtype,
          .c_row_stride = p.c.row_stride,
          .c_batch_stride = p.c.batch_stride,
          .accumulate = p.accumulate};
}

// Bound operands may be any view of the memory that the plan gives to others.
size_t matmul_workspace(const Graph& graph, const Node& node, int threads) {
  return gemm_workspace_of_any_strides(
      gemm_args(node, dense_view(input_type(graph, node, 0)), dense_view(input_type(graph, node, 1)),
                dense_view(node.outputs[0])),
      threads);
}

Launch bind_matmul(const BoundNode& bound) {
  GemmArgs args = gemm_args(bound.node, bound.inputs[0], bound.inputs[1], bound.outputs[0]);
  require(!args.accumulate || bound.inputs[2].data == args.c,
          "cpu: matmul in {} accumulates into another tensor's memory", bound.graph.scope_name(bound.node));
  Buffer packed_b;
  if (const size_t bytes = packed_b_bytes(args); bytes > 0 && bound.frozen[1]) {
    packed_b = bound.slabs->allocate(static_cast<int64_t>(bytes));
    pack_b(args, packed_b.get(), bound.threads);
    args.packed_b = packed_b.get();
  }
  return [args, packed_b, workspace = bound.workspace, threads = bound.threads] {
    gemm(args, workspace, threads);
  };
}

// ---- attention

bool supports_attention(const Graph& graph, const Node& node) {
  const Shape &q = input_type(graph, node, 0).shape, &v = input_type(graph, node, 2).shape;
  return is_f32_or_bf16(input_type(graph, node, 0).dtype) && q[3] <= 256 && v[3] <= 256;
}

AttentionConfig attention_config(const Graph& graph, const Node& node) {
  const AttentionOptions options = attention_node(node).options;
  const Shape &q = input_type(graph, node, 0).shape, &k = input_type(graph, node, 1).shape,
              &v = input_type(graph, node, 2).shape;
  return {.batch = q[0],
          .queries = q[1],
          .keys = k[1],
          .heads = q[2],
          .kv_heads = k[2],
          .key_width = q[3],
          .value_width = v[3],
          .scale = static_cast<float>(options.scale),
          .cap = static_cast<float>(options.cap),
          .cap_type = options.cap_type,
          .causal = options.causal,
          .window = options.window,
          .dropout = static_cast<float>(options.dropout),
          .dropout_stream = options.dropout_stream};
}

AttentionInputs attention_inputs(const BoundNode& bound) {
  const AttentionNode parsed = attention_node(bound.node);
  return {.q = bound.inputs[0],
          .k = bound.inputs[1],
          .v = bound.inputs[2],
          .q_documents = optional_ids(bound, parsed.q_documents),
          .k_documents = optional_ids(bound, parsed.k_documents),
          .length = optional_ids(bound, parsed.length),
          .rng = reinterpret_cast<const uint32_t*>(optional_ids(bound, parsed.rng))};
}

size_t forward_workspace(const Graph& graph, const Node& node, int threads) {
  return attention_forward_workspace(attention_config(graph, node), input_type(graph, node, 0).dtype,
                                     threads);
}

Launch bind_attention(const BoundNode& bound) {
  return [config = attention_config(bound.graph, bound.node), inputs = attention_inputs(bound),
          out = bound.outputs[0], logsumexp = bound.outputs[1].as<float>(), workspace = bound.workspace,
          threads = bound.threads] { attention_forward(config, inputs, out, logsumexp, workspace, threads); };
}

size_t backward_workspace(const Graph& graph, const Node& node, int threads) {
  return attention_backward_workspace(attention_config(graph, node), input_type(graph, node, 0).dtype,
                                      threads);
}

Launch bind_attention_backward(const BoundNode& bound) {
  const AttentionNode parsed = attention_node(bound.node);
  return [config = attention_config(bound.graph, bound.node), inputs = attention_inputs(bound),
          out = bound.inputs[static_cast<size_t>(parsed.out)],
          logsumexp = bound.inputs[static_cast<size_t>(parsed.logsumexp)].as<const float>(),
          grad_out = bound.inputs[static_cast<size_t>(parsed.grad_out)],
          grads = std::array{bound.outputs[0], bound.outputs[1], bound.outputs[2]},
          workspace = bound.workspace, threads = bound.threads] {
    attention_backward(config, inputs, out, logsumexp, grad_out, grads[0], grads[1], grads[2], workspace,
                       threads);
  };
}

// ---- loss

bool supports_cross_entropy(const Graph& graph, const Node& node) {
  const CrossEntropyNode parsed = cross_entropy_node(node);
  return is_f32_or_bf16(input_type(graph, node, 0).dtype) &&
         (parsed.scale < 0 || input_type(graph, node, static_cast<size_t>(parsed.scale)).dtype == DType::f32);
}

CrossEntropyConfig cross_entropy_config(const Graph& graph, const Node& node) {
  const TensorType& hidden = input_type(graph, node, 0);
  return {.tokens = hidden.shape[0],
          .width = hidden.shape[1],
          .vocab = input_type(graph, node, 1).shape[0],
          .dtype = hidden.dtype,
          .scaled = cross_entropy_node(node).scale >= 0,
          .options = cross_entropy_node(node).options};
}

CrossEntropyInputs cross_entropy_inputs(const BoundNode& bound) {
  const int scale = cross_entropy_node(bound.node).scale;
  return {.hidden = bound.inputs[0].data,
          .weight = bound.inputs[1].data,
          .targets = bound.inputs[2].as<const int32_t>(),
          .scale = scale < 0 ? nullptr : bound.inputs[static_cast<size_t>(scale)].as<const float>()};
}

size_t loss_workspace(const Graph& graph, const Node& node, int threads) {
  return cross_entropy_workspace(cross_entropy_config(graph, node),
                                 node.op == Op::linear_cross_entropy_backward, threads);
}

Launch bind_cross_entropy(const BoundNode& bound) {
  return [config = cross_entropy_config(bound.graph, bound.node), inputs = cross_entropy_inputs(bound),
          loss = bound.outputs[0].as<float>(), logsumexp = bound.outputs[1].as<float>(),
          workspace = bound.workspace, threads = bound.threads] {
    cross_entropy_forward(config, inputs, loss, logsumexp, workspace, threads);
  };
}

Launch bind_cross_entropy_backward(const BoundNode& bound) {
  const CrossEntropyGradients gradients{
      .loss = bound.outputs[0].as<float>(),
      .hidden = bound.outputs[1].data,
      .weight = bound.outputs[2].as<float>(),
      .scale = bound.outputs.size() > 3 ? bound.outputs[3].as<float>() : nullptr,
      .accumulate = bound.node.attributes.integer("accumulate") != 0};
  const auto grad_loss = static_cast<size_t>(cross_entropy_node(bound.node).grad_loss);
  return [config = cross_entropy_config(bound.graph, bound.node), inputs = cross_entropy_inputs(bound),
          grad = bound.inputs[grad_loss].as<const float>(), gradients, workspace = bound.workspace,
          threads = bound.threads] {
    cross_entropy_backward(config, inputs, grad, gradients, workspace, threads);
  };
}

// ---- rows

Launch bind_gather(const BoundNode& bound) {
  const TensorView table = bound.inputs[0];
  const int64_t rows = table.shape[0], width = table.shape.elements() / std::max<int64_t>(rows, 1);
  const std::string scope = bound.graph.scope_name(bound.node);
  return [=, ids = bound.inputs[1].as<const int32_t>(), count = bound.inputs[1].shape.elements(),
          out = bound.outputs[0].data, threads = bound.threads] {
    const int64_t bad = gather_rows(count, rows, width, size_of(table.dtype), table.data, ids, out, threads);
    if (bad >= 0) fail("{}", bad_id(scope, bad, ids[bad], rows));
  };
}

size_t scatter_workspace(const Graph& graph, const Node& node, int) {
  return scatter_rows_workspace(input_type(graph, node, 0).shape.elements(), node.outputs[0].shape[0]);
}

bool supports_embedding_backward(const Graph& graph, const Node& node) {
  return is_f32_or_bf16(input_type(graph, node, 1).dtype);
}

Launch bind_scatter(const BoundNode& bound) {
  const TensorView updates = bound.inputs[1], out = bound.outputs[0];
  require(out.dtype == DType::f32, "engine: {} in {}: sums are {}, only f32 is supported",
          name(bound.node.op), bound.graph.scope_name(bound.node), name(out.dtype));
  const int64_t count = bound.inputs[0].shape.elements();
  return [=, ids = bound.inputs[0].as<const int32_t>(), rows = out.shape[0],
          width = out.shape.elements() / std::max<int64_t>(out.shape[0], 1),
          accumulate = bound.inputs.size() == 3, workspace = bound.workspace, threads = bound.threads] {
    scatter_rows(count, rows, width, ids, updates, out.as<float>(), accumulate, workspace, threads);
  };
}

Launch bind_concat(const BoundNode& bound) {
  std::vector<std::pair<TensorView, TensorView>> copies;  // parts that are not made in place
  TensorView target = bound.outputs[0];
  const auto axis = static_cast<int>(bound.node.attributes.integer("axis"));
  for (const TensorView& part : bound.inputs) {
    target.shape = part.shape;
    if (part.data != target.data || part.strides != target.strides) copies.emplace_back(part, target);
    target.data = target.as<std::byte>() + part.shape[axis] * target.strides[axis] * size_of(part.dtype);
  }
  return [copies, threads = bound.threads] {
    for (const auto& [from, to] : copies) copy_tensor(from, to, threads);
  };
}

Launch bind_assign(const BoundNode& bound) {
  return [from = bound.inputs[1], to = bound.outputs[0], threads = bound.threads] {
    copy_tensor(from, to, threads);
  };
}

Launch bind_assign_slice(const BoundNode& bound) {
  TensorView window = bound.outputs[0];
  const int64_t capacity = window.shape[1];
  window.shape = bound.inputs[1].shape;
  const std::string scope = bound.graph.scope_name(bound.node);
  return [=, from = bound.inputs[1], offset = bound.inputs[2].as<const int32_t>(), threads = bound.threads] {
    if (*offset < 0 || *offset + window.shape[1] > capacity)
      fail("{}", bad_offset(scope, *offset, window.shape[1], capacity));
    TensorView to = window;
    to.data = to.as<std::byte>() + *offset * to.strides[1] * size_of(to.dtype);
    copy_tensor(from, to, threads);
  };
}

}  // namespace

const Kernel* find_kernel(Op op) {
  static const std::vector<Kernel> table = {
      {.op = Op::loop, .workspace = loop_workspace, .bind = bind_loop},
      {.op = Op::matmul, .workspace = matmul_workspace, .bind = bind_matmul},
      {.op = Op::attention,
       .supports = supports_attention,
       .workspace = forward_workspace,
       .bind = bind_attention},
      {.op = Op::attention_backward,
       .supports = supports_attention,
       .workspace = backward_workspace,
       .bind = bind_attention_backward},
      {.op = Op::linear_cross_entropy,
       .supports = supports_cross_entropy,
       .workspace = loss_workspace,
       .bind = bind_cross_entropy},
      {.op = Op::linear_cross_entropy_backward,
       .supports = supports_cross_entropy,
       .workspace = loss_workspace,
       .bind = bind_cross_entropy_backward},
      {.op = Op::embedding, .bind = bind_gather},
      {.op = Op::embedding_backward,
       .supports = supports_embedding_backward,
       .workspace = scatter_workspace,
       .bind = bind_scatter},
      {.op = Op::gather, .bind = bind_gather},
      {.op = Op::scatter_add, .workspace = scatter_workspace, .bind = bind_scatter},
      {.op = Op::concat, .bind = bind_concat},
      {.op = Op::assign, .bind = bind_assign},
      {.op = Op::assign_slice, .bind = bind_assign_slice},
  };
  const auto found =
      std::find_if(table.begin(), table.end(), [op](const Kernel& kernel) { return kernel.op == op; });
  return found == table.end() ? nullptr : &*found;
}

}  // namespace nf::cpu
