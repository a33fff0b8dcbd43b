// Attention: its rows, its meaning in primitives, and the builder.
#include <algorithm>
#include <limits>

#include "graph/op_rows.h"

namespace nf {
namespace {

constexpr double kHidden = -1e30;  // stands for -inf where arithmetic follows

std::vector<TensorType> infer_forward(Types inputs, const Attributes&) {
  const Shape &q = inputs[0].shape, &k = inputs[1].shape, &v = inputs[2].shape;
  require(q.rank() == 4 && k.rank() == 4 && v.rank() == 4,
          "q, k and v need the axes [batch, tokens, heads, width]");
  require(q[0] == k[0] && k[0] == v[0], "batches differ");
  require(k[1] == v[1], "k has {} tokens, v {}", k[1], v[1]);
  require(k[2] == v[2] && k[2] > 0 && q[2] % k[2] == 0,
          "{} query heads are no multiple of {} key and {} value heads", q[2], k[2], v[2]);
  require(q[3] == k[3], "q has width {}, k {}", q[3], k[3]);
  require(inputs[0].dtype == inputs[1].dtype && inputs[1].dtype == inputs[2].dtype,
          "q, k and v differ in dtype");
  const DType statistics = inputs[0].dtype == DType::f64 ? DType::f64 : DType::f32;
  return {{inputs[0].dtype, {q[0], q[1], q[2], v[3]}}, {statistics, {q[0], q[2], q[1]}}};
}

std::vector<TensorType> infer_backward(Types inputs, const Attributes&) {
  return {inputs[0], inputs[1], inputs[2]};
}

// Pairs of query and key that a mask leaves visible; documents are not known here and do not count.
double visible_pairs(const Shape& q, const Shape& k, const AttentionOptions& options) {
  double pairs = 0;
  for (int64_t i = 0; i < q[1]; ++i) {
    const int64_t position = i + k[1] - q[1];
    const bool bounded = options.causal || options.window > 0;
    const int64_t last = bounded ? std::min(position, k[1] - 1) : k[1] - 1;
    const int64_t first = options.window > 0 ? std::max<int64_t>(0, position - options.window + 1) : 0;
    pairs += static_cast<double>(std::max<int64_t>(0, last - first + 1));
  }
  return pairs * static_cast<double>(q[0] * q[2]);
}

double forward_flops(const Graph& graph, const Node& node) {
  const Shape &q = graph.type(node.inputs[0]).shape, &k = graph.type(node.inputs[1]).shape;
  const Shape& v = graph.type(node.inputs[2]).shape;
  return 2 * visible_pairs(q, k, attention_node(node).options) * static_cast<double>(q[3] + v[3]);
}

// Two products more than the forward pass, besides the scores again: 3 of key width and 2 of value width.
double backward_flops(const Graph& graph, const Node& node) {
  const Shape &q = graph.type(node.inputs[0]).shape, &k = graph.type(node.inputs[1]).shape;
  const Shape& v = graph.type(node.inputs[2]).shape;
  return 2 * visible_pairs(q, k, attention_node(node).options) * static_cast<double>(3 * q[3] + 2 * v[3]);
}

// ---- the meaning: [B, H, T, S] tensors written out

struct Pieces {
  Value q, k, v;           // [B, H, T, d_k], [B, H, S, d_k], [B, H, S, d_v], heads of a group repeated
  Value uncapped, scores;  // scaled; capped
  Value visible;           // boolean
};

Value repeat_heads(Value x, int64_t heads) {  // [B, S, K, d] -> [B, H, S, d]
  const int64_t group = heads / x.shape()[2];
  const Value t = transpose(x, 1, 2);
  const Shape s = t.shape();
  return reshape(broadcast_to(unsqueeze(t, 2), {s[0], s[1], group, s[2], s[3]}), {s[0], heads, s[2], s[3]});
}

Value sum_heads(Value x, int64_t kv_heads) {  // [B, H, S, d] -> [B, S, K, d], the transpose of repeat_heads
  const Shape s = x.shape();
  const Value grouped = reduce_sum(reshape(x, {s[0], kv_heads, s[1] / kv_heads, s[2], s[3]}), {2}, false);
  return transpose(grouped, 1, 2);
}

Value visibility(const AttentionNode& parsed, std::span<const Value> inputs, const Shape& shape) {
  Graph& graph = *inputs[0].graph;
  const AttentionOptions& options = parsed.options;
  const auto number = [&](int64_t value) { return constant(graph, static_cast<double>(value), DType::i32); };
  const Value key = iota(graph, shape, 3);
  const Value length = parsed.length >= 0 ? inputs[static_cast<size_t>(parsed.length)] : number(shape[3]);
  const Value position = iota(graph, shape, 2) + (length - number(shape[2]));
  Value visible = less(key, length);
  if (options.causal || options.window > 0) visible = both(visible, less_equal(key, position));
  if (options.window > 0) visible = both(visible, less(position - number(options.window), key));
  if (parsed.q_documents >= 0) {
    const Value q_ids = unsqueeze(unsqueeze(inputs[static_cast<size_t>(parsed.q_documents)], 1), 3);
    const Value k_ids = unsqueeze(unsqueeze(inputs[static_cast<size_t>(parsed.k_documents)], 1), 2);
    visible = both(visible, both(equal(q_ids, k_ids), less_equal(number(0), q_ids)));
  }
  return visible;
}

Pieces build_pieces(const AttentionNode& parsed, std::span<const Value> inputs) {
  const AttentionOptions& options = parsed.options;
  const int64_t heads = inputs[0].shape()[2];
  const DType dtype = inputs[0].dtype() == DType::f64 ? DType::f64 : DType::f32;
  Pieces p{.q = transpose(inputs[0], 1, 2),
           .k = repeat_heads(inputs[1], heads),
           .v = repeat_heads(inputs[2], heads),
           .uncapped = {},
           .scores = {},
           .visible = {}};
  p.uncapped = matmul(p.q, p.k, {.transpose_b = true, .dtype = dtype}) * options.scale;
  p.scores = apply_cap(options.cap_type, options.cap, p.uncapped);
  p.visible = visibility(parsed, inputs, p.scores.shape());
  return p;
}

// 1 / (1 - p) where a weight survives, 0 where it is dropped; empty without dropout.
Value dropout_factor(const AttentionNode& parsed, std::span<const Value> inputs, const Shape& shape) {
  const double p = parsed.options.dropout;
  if (p == 0) return {};
  const Value uniform = philox(inputs[static_cast<size_t>(parsed.rng)], shape, parsed.options.dropout_stream);
  return where(less(uniform, constant_like(uniform, p)), constant_like(uniform, 0),
               constant_like(uniform, 1 / (1 - p)));
}

Values decompose_forward(Graph&, const Node& node, std::span<const Value> inputs) {
  const AttentionNode parsed = attention_node(node);
  const Pieces p = build_pieces(parsed, inputs);
  const Value masked = where(p.visible, p.scores, constant_like(p.scores, kHidden));
  const Value largest = reduce_max(masked, {3});
  const Value weight = where(p.visible, exp(masked - largest), constant_like(masked, 0));
  const Value total = reduce_sum(weight, {3});
  const Value any = less(constant_like(total, 0), total);
  Value probability = weight / where(any, total, constant_like(total, 1));
  if (const Value factor = dropout_factor(parsed, inputs, probability.shape()))
    probability = probability * factor;
  const Value out = matmul(cast(probability, p.v.dtype()), p.v);
  const Value minus_infinity = constant_like(total, -std::numeric_limits<double>::infinity());
  const Value logsumexp =
      where(any, largest + log(where(any, total, constant_like(total, 1))), minus_infinity);
  return {transpose(out, 1, 2), squeeze(logsumexp, 3)};
}

Values decompose_backward(Graph&, const Node& node, std::span<const Value> inputs) {
  const AttentionNode parsed = attention_node(node);
  const AttentionOptions& options = parsed.options;
  const Pieces p = build_pieces(parsed, inputs);
  const DType dtype = p.scores.dtype(), narrow = inputs[0].dtype();
  const Value lse = unsqueeze(inputs[static_cast<size_t>(parsed.logsumexp)], 3);
  const Value finite_lse = where(less(constant_like(lse, kHidden), lse), lse, constant_like(lse, 0));
  const Value masked = where(p.visible, p.scores - finite_lse, constant_like(p.scores, kHidden));
  const Value probability = exp(masked);
  const Value factor = dropout_factor(parsed, inputs, probability.shape());
  const Value dropped = factor ? probability * factor : probability;

  const Value grad_out =
      transpose(cast(inputs[static_cast<size_t>(parsed.grad_out)], narrow), 1, 2);  // [B, H, T, d_v]
  const Value out = transpose(inputs[static_cast<size_t>(parsed.out)], 1, 2);
  const Value grad_v = matmul(cast(dropped, narrow), grad_out, {.transpose_a = true, .dtype = dtype});
  Value grad_p = matmul(grad_out, p.v, {.transpose_b = true, .dtype = dtype});
  if (factor) grad_p = grad_p * factor;
  const Value delta = reduce_sum(grad_out * out, {3});
  Value grad_s = probability * (grad_p - delta);
  grad_s = cap_gradient(options.cap_type, options.cap, p.uncapped, p.scores, grad_s);
  grad_s = cast(grad_s * options.scale, narrow);
  const Value grad_q = matmul(grad_s, p.k, {.dtype = dtype});
  const Value grad_k = matmul(grad_s, p.q, {.transpose_a = true, .dtype = dtype});
  const int64_t kv_heads = inputs[1].shape()[2];
  return {cast(transpose(grad_q, 1, 2), narrow), cast(sum_heads(grad_k, kv_heads), narrow),
          cast(sum_heads(grad_v, kv_heads), narrow)};
}

Values attention_gradient(Graph& graph, int32_t node, std::span<const Value> grads) {
  const NodeValues values{graph, node};
  require(grads[0] && (grads.size() < 2 || !grads[1]), "engine: attention: its logsumexp has no gradient");
  Values inputs;
  for (size_t i = 0; i < values.inputs(); ++i) inputs.push_back(values.in(i));
  inputs.insert(inputs.end(), {values.out(0), values.out(1), cast(grads[0], values.in(0).dtype())});
  const Value first = graph.add(Op::attention_backward, inputs, values.attributes());
  return {graph.value({first.id.node, 0}), graph.value({first.id.node, 1}), graph.value({first.id.node, 2})};
}

}  // namespace

AttentionNode attention_node(const Node& node) {
  const Attributes& a = node.attributes;
  AttentionNode parsed;
  parsed.options.scale = a.real("scale");
  parsed.options.cap = a.real("cap");
  parsed.options.cap_type = static_cast<CapType>(a.integer("cap_type"));
  parsed.options.causal = a.integer("causal") != 0;
  parsed.options.window = a.integer("window");
  parsed.options.dropout = a.real("dropout");
  parsed.options.dropout_stream = static_cast<uint64_t>(a.integer("dropout_stream"));
  int next = 3;
  if (a.integer("has_documents") != 0) {
    parsed.q_documents = next++;
    parsed.k_documents = next++;
  }
  if (a.integer("has_length") != 0) parsed.length = next++;
  if (a.integer("has_rng") != 0) parsed.rng = next++;
  if (node.op == Op::attention_backward) {
    parsed.out = next++;
    parsed.logsumexp = next++;
    parsed.grad_out = next++;
  }
  return parsed;
}

std::vector<OpInfo> attention_rows() {
  return {
      {.op = Op::attention,
       .name = "attention",
       .kind = OpKind::composite,
       .min_inputs = 3,
       .max_inputs = 7,
       .infer = infer_forward,
       .gradient = attention_gradient,
       .decompose = decompose_forward,
       .flops = forward_flops},
      {.op = Op::attention_backward,
       .name = "attention_backward",
       .kind = OpKind::composite,
       .min_inputs = 6,
       .max_inputs = 10,
       .infer = infer_backward,
       .decompose = decompose_backward,
       .flops = backward_flops},
  };
}

Value attention(Value q, Value k, Value v, const AttentionOptions& options) {
  require(options.dropout >= 0 && options.dropout < 1, "engine: attention: dropout {} is not in [0, 1)",
          options.dropout);
  require(options.dropout == 0 || options.rng, "engine: attention: dropout needs rng");
  require(bool(options.q_documents) == bool(options.k_documents),
          "engine: attention: documents of q or k are missing");
  Values inputs{q, k, v};
  if (options.q_documents) inputs.insert(inputs.end(), {options.q_documents, options.k_documents});
  if (options.length) inputs.push_back(options.length);
  if (options.dropout > 0) inputs.push_back(options.rng);
  return q.graph->add(Op::attention, inputs,
                      {{"scale", options.scale},
                       {"cap", options.cap},
                       {"cap_type", static_cast<int64_t>(options.cap_type)},
                       {"causal", int64_t{options.causal}},
                       {"window", options.window},
                       {"dropout", options.dropout},
                       {"dropout_stream", static_cast<int64_t>(options.dropout_stream)},
                       {"has_documents", int64_t{bool(options.q_documents)}},
                       {"has_length", int64_t{bool(options.length)}},
                       {"has_rng", int64_t{options.dropout > 0}}});
}

}  // namespace nf
