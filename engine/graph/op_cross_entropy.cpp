// linear_cross_entropy: the output projection and the loss in one, so that the logits of all tokens never
// exist at once.
#include "graph/op_rows.h"

namespace nf {
namespace {

std::vector<TensorType> infer_forward(Types inputs, const Attributes& attributes) {
  const Shape& hidden = inputs[0].shape;
  const Shape& weight = inputs[1].shape;
  require(hidden.rank() == 2 && weight.rank() == 2 && hidden[1] == weight[1],
          "hidden {} and weight {} do not fit", hidden, weight);
  require(inputs[0].dtype == inputs[1].dtype && is_float(inputs[0].dtype), "hidden is {}, weight {}",
          name(inputs[0].dtype), name(inputs[1].dtype));
  require(inputs[2] == TensorType{DType::i32, {hidden[0]}}, "targets are not i32 [{}]", hidden[0]);
  if (attributes.integer("has_scale") != 0)
    require(inputs[3].shape == Shape{weight[0]}, "scale is {}, not [{}]", inputs[3].shape, weight[0]);
  const int64_t vocab_size = attributes.integer("vocab_size");
  require(vocab_size >= 0 && vocab_size <= weight[0], "vocab_size {} of {} rows", vocab_size, weight[0]);
  const DType dtype = inputs[0].dtype == DType::f64 ? DType::f64 : DType::f32;
  return {{dtype, {hidden[0]}}, {dtype, {hidden[0]}}};
}

std::vector<TensorType> infer_backward(Types inputs, const Attributes& attributes) {
  std::vector<TensorType> forward = infer_forward(inputs, attributes);
  const DType dtype = forward[0].dtype;
  std::vector<TensorType> result{forward[0], inputs[0], {dtype, inputs[1].shape}};
  if (attributes.integer("has_scale") != 0) result.push_back({dtype, inputs[3].shape});
  return result;
}

double forward_flops(const Graph& graph, const Node& node) {
  const Shape& hidden = graph.type(node.inputs[0]).shape;
  return 2.0 * static_cast<double>(hidden.elements()) *
         static_cast<double>(graph.type(node.inputs[1]).shape[0]);
}

double backward_flops(const Graph& graph, const Node& node) { return 3 * forward_flops(graph, node); }

struct Logits {
  Value projected;  // hidden . weight, f32
  Value factor;     // what multiplies it
  Value uncapped, capped;
  Value masked;   // padding columns at a large negative value
  Value columns;  // i32 [N, V]
  Value is_real;  // boolean [N, V]: no padding
};

Logits build_logits(const CrossEntropyNode& parsed, std::span<const Value> inputs) {
  const CrossEntropyOptions& options = parsed.options;
  const DType dtype = inputs[0].dtype() == DType::f64 ? DType::f64 : DType::f32;
  Logits logits;
  logits.projected = matmul(inputs[0], inputs[1], {.transpose_b = true, .dtype = dtype});
  const Shape shape = logits.projected.shape();
  Graph& graph = *inputs[0].graph;
  logits.factor = parsed.scale >= 0 ? inputs[static_cast<size_t>(parsed.scale)] * options.logit_scale
                                    : constant(graph, options.logit_scale, dtype);
  logits.uncapped = logits.projected * logits.factor;
  logits.capped = apply_cap(options.cap_type, options.cap, logits.uncapped);
  logits.columns = iota(graph, shape, 1);
  const int64_t real = options.vocab_size == 0 ? shape[1] : options.vocab_size;
  logits.is_real = less(logits.columns, constant(graph, static_cast<double>(real), DType::i32));
  logits.masked = real == shape[1]
                      ? logits.capped
                      : where(logits.is_real, logits.capped, constant_like(logits.capped, -1e30));
  return logits;
}

struct Loss {
  Value logsumexp;  // [N, 1]
  Value per_token;  // [N, 1], 0 where ignored
  Value is_valid;   // boolean [N, 1]
  Value is_target;  // boolean [N, V]
};

Loss build_loss(const CrossEntropyNode& parsed, const Logits& logits, Value targets) {
  Loss loss;
  const Value rows = unsqueeze(targets, 1);
  loss.logsumexp = logsumexp(logits.masked);
  loss.is_target = equal(logits.columns, rows);
  loss.is_valid =
      where(equal(rows, constant(*targets.graph, kIgnoreIndex, DType::i32)),
            constant(*targets.graph, 0, DType::boolean), constant(*targets.graph, 1, DType::boolean));
  const Value picked = reduce_sum(where(loss.is_target, logits.masked, constant_like(logits.masked, 0)), {1});
  Value value = loss.logsumexp - picked;
  if (parsed.options.z_loss != 0) value = value + square(loss.logsumexp) * parsed.options.z_loss;
  loss.per_token = where(loss.is_valid, value, constant_like(value, 0));
  return loss;
}

Values decompose_forward(Graph&, const Node& node, std::span<const Value> inputs) {
  const CrossEntropyNode parsed = cross_entropy_node(node);
  const Loss loss = build_loss(parsed, build_logits(parsed, inputs), inputs[2]);
  return {squeeze(loss.per_token, 1), squeeze(loss.logsumexp, 1)};
}

Values decompose_backward(Graph&, const Node& node, std::span<const Value> inputs) {
  const CrossEntropyNode parsed = cross_entropy_node(node);
  const CrossEntropyOptions& options = parsed.options;
  const Logits logits = build_logits(parsed, inputs);
  const Loss loss = build_loss(parsed, logits, inputs[2]);
  const Value upstream = unsqueeze(inputs[static_cast<size_t>(parsed.grad_loss)], 1);
  const Value valid = where(loss.is_valid, upstream, constant_like(upstream, 0));
  const Value probability = exp(logits.masked - loss.logsumexp);
  const Value z_factor = loss.logsumexp * (2 * options.z_loss) + 1.0;
  Value grad = valid * (probability * z_factor - cast(loss.is_target, probability.dtype()));
  grad = where(logits.is_real, grad, constant_like(grad, 0));
  grad = cap_gradient(options.cap_type, options.cap, logits.uncapped, logits.capped, grad);
  const Value grad_projected = cast(grad * logits.factor, inputs[0].dtype());
  Values results{squeeze(loss.per_token, 1), matmul(grad_projected, inputs[1]),
                 matmul(grad_projected, inputs[0], {.transpose_a = true, .dtype = node.outputs[2].dtype})};
  if (parsed.scale >= 0)
    results.push_back(reduce_sum(grad * logits.projected * options.logit_scale, {0}, false));
  if (node.attributes.integer("accumulate") != 0) results[2] = results[2] + inputs.back();
  return results;
}

Values cross_entropy_gradient(Graph& graph, int32_t node, std::span<const Value> grads) {
  const NodeValues values{graph, node};
  require(grads[0] && (grads.size() < 2 || !grads[1]),
          "engine: linear_cross_entropy: its logsumexp has no gradient");
  Values inputs;
  for (size_t i = 0; i < values.inputs(); ++i) inputs.push_back(values.in(i));
  inputs.push_back(grads[0]);
  const Value first = graph.add(Op::linear_cross_entropy_backward, inputs, values.attributes());
  const auto output = [&](int32_t i) { return graph.value({first.id.node, i}); };
  // The weight's gradient stays f32, as matmul's does for a weight.
  Values result{output(1), output(2), {}};
  if (values.attributes().integer("has_scale") != 0) result.push_back(output(3));
  return result;
}

}  // namespace

CrossEntropyNode cross_entropy_node(const Node& node) {
  const Attributes& attributes = node.attributes;
  CrossEntropyNode parsed;
  parsed.options = {.logit_scale = attributes.real("logit_scale"),
                    .cap = attributes.real("cap"),
                    .cap_type = static_cast<CapType>(attributes.integer("cap_type")),
                    .z_loss = attributes.real("z_loss"),
                    .vocab_size = attributes.integer("vocab_size"),
                    .scale = {}};
  int next = 3;
  if (attributes.integer("has_scale") != 0) parsed.scale = next++;
  if (node.op == Op::linear_cross_entropy_backward) parsed.grad_loss = next;
  return parsed;
}

std::vector<OpInfo> cross_entropy_rows() {
  return {
      {.op = Op::linear_cross_entropy,
       .name = "linear_cross_entropy",
       .kind = OpKind::composite,
       .min_inputs = 3,
       .max_inputs = 4,
       .infer = infer_forward,
       .gradient = cross_entropy_gradient,
       .decompose = decompose_forward,
       .flops = forward_flops},
      {.op = Op::linear_cross_entropy_backward,
       .name = "linear_cross_entropy_backward",
       .kind = OpKind::composite,
       .min_inputs = 4,
       .max_inputs = 6,
       .infer = infer_backward,
       .decompose = decompose_backward,
       .flops = backward_flops},
  };
}

Value linear_cross_entropy(Value hidden, Value weight, Value targets, const CrossEntropyOptions& options) {
  Values inputs{hidden, weight, targets};
  if (options.scale) inputs.push_back(options.scale);
  return hidden.graph->add(Op::linear_cross_entropy, inputs,
                           {{"logit_scale", options.logit_scale},
                            {"cap", options.cap},
                            {"cap_type", static_cast<int64_t>(options.cap_type)},
                            {"z_loss", options.z_loss},
                            {"vocab_size", options.vocab_size},
                            {"has_scale", int64_t{bool(options.scale)}}});
}

}  // namespace nf
