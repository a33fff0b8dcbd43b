#include "tests/graph/gradient_cases.h"

namespace nf::test {
namespace {

Tensor any(const Shape& shape, uint64_t seed = 1) { return random_tensor(shape, seed); }
Tensor positive(const Shape& shape, uint64_t seed = 1) { return random_uniform(shape, seed, 0.3, 3); }
// Away from 0, on both sides: where |x| or a quotient is smooth.
Tensor nonzero(const Shape& shape, uint64_t seed = 1) {
  Tensor x = random_uniform(shape, seed, 0.4, 2);
  for (size_t i = 1; i < x.data.size(); i += 2) x.data[i] = -x.data[i];
  return x;
}

Value rows_of(Graph& graph, std::vector<double> rows, const Shape& shape) {
  return tensor(graph, std::move(rows), shape, DType::i32);
}
Value rng(Graph& graph) { return rows_of(graph, {11, 22, 3, 1}, {4}); }

using V = const Values&;

}  // namespace

std::vector<GradientCase> primitive_cases() {
  return {
      // elementwise, one operand
      {"neg", {any({2, 3})}, [](Graph&, V x) { return neg(x[0]); }},
      {"exp", {any({2, 3})}, [](Graph&, V x) { return exp(x[0]); }, true},
      {"log", {positive({2, 3})}, [](Graph&, V x) { return log(x[0]); }, true},
      {"sqrt", {positive({2, 3})}, [](Graph&, V x) { return sqrt(x[0]); }, true},
      {"rsqrt", {positive({2, 3})}, [](Graph&, V x) { return rsqrt(x[0]); }, true},
      {"tanh", {any({2, 3})}, [](Graph&, V x) { return tanh(x[0]); }, true},
      {"sigmoid", {any({2, 3})}, [](Graph&, V x) { return sigmoid(x[0]); }, true},
      {"erf", {any({2, 3})}, [](Graph&, V x) { return erf(x[0]); }, true},
      {"abs", {nonzero({2, 3})}, [](Graph&, V x) { return abs(x[0]); }},
      {"sin", {any({2, 3})}, [](Graph&, V x) { return sin(x[0]); }, true},
      {"cos", {any({2, 3})}, [](Graph&, V x) { return cos(x[0]); }, true},
      {"cast", {any({2, 3})}, [](Graph&, V x) { return cast(cast(x[0], DType::bf16) * x[0], DType::f16); }},
      // elementwise, more operands, with every way to broadcast
      {"add", {any({2, 3}), any({2, 3}, 2)}, [](Graph&, V x) { return x[0] + x[1]; }},
      {"add to a row", {any({2, 3}), any({3}, 2)}, [](Graph&, V x) { return x[0] + x[1]; }},
      {"add to a scalar", {any({2, 3}), any({}, 2)}, [](Graph&, V x) { return x[1] + x[0]; }},
      {"sub, both broadcast", {any({2, 1, 3}), any({4, 1}, 2)}, [](Graph&, V x) { return x[0] - x[1]; }},
      {"mul", {any({2, 3}), any({2, 3}, 2)}, [](Graph&, V x) { return x[0] * x[1]; }, true},
      {"mul by a column", {any({2, 3}), any({2, 1}, 2)}, [](Graph&, V x) { return x[0] * x[1]; }, true},
      {"mul, both broadcast", {any({2, 1, 3}), any({4, 1}, 2)}, [](Graph&, V x) { return x[0] * x[1]; }},
      {"mul by itself", {any({2, 3})}, [](Graph&, V x) { return x[0] * x[0]; }, true},
      {"mul by a number", {any({2, 3})}, [](Graph&, V x) { return 3.0 * x[0] * -0.5 + 1.0 - x[0] / 7.0; }},
      {"div", {any({2, 3}), nonzero({2, 3}, 2)}, [](Graph&, V x) { return x[0] / x[1]; }, true},
      {"div by a row", {any({2, 3}), nonzero({3}, 2)}, [](Graph&, V x) { return x[0] / x[1]; }},
      {"div of a number", {nonzero({2, 3})}, [](Graph&, V x) { return 2.0 / x[0]; }},
      {"maximum", {any({2, 3}), any({3}, 2)}, [](Graph&, V x) { return maximum(x[0], x[1]); }},
      {"minimum", {any({2, 3}), any({3}, 2)}, [](Graph&, V x) { return minimum(x[0], x[1]); }},
      {"where",
       {nonzero({2, 3}), any({3}, 2), any({2, 1}, 3)},
       [](Graph&, V x) { return where(less(constant_like(x[0], 0), x[0]), x[1] * x[0], x[2]); }},
      // movement
      {"reshape",
       {any({2, 6})},
       [](Graph&, V x) {
         return square(reshape(x[0], {3, -1}));
       }},
      {"transpose",
       {any({2, 3, 4})},
       [](Graph&, V x) {
         return square(transpose(x[0], {2, 0, 1}));
       }},
      {"broadcast",
       {any({2, 1, 3})},
       [](Graph&, V x) {
         return square(broadcast_to(x[0], {2, 2, 4, 3}));
       }},
      {"slice", {any({3, 5})}, [](Graph&, V x) { return square(slice(slice(x[0], 1, 1, 3), 0, 0, 2)); }},
      {"slice to the end", {any({3, 5})}, [](Graph&, V x) { return square(slice(x[0], -1, 3, 2)); }},
      {"concat",
       {any({2, 3}), any({2, 1}, 2)},
       [](Graph&, V x) {
         return square(concat({x[0], x[1], x[0]}, 1));
       }},
      {"concat of rows",
       {any({2, 3}), any({1, 3}, 2)},
       [](Graph&, V x) {
         return square(concat({x[1], x[0]}, 0));
       }},
      {"roll", {any({2, 5})}, [](Graph&, V x) { return x[0] * roll(x[0], 2); }, true},
      {"roll backwards", {any({2, 5})}, [](Graph&, V x) { return x[0] * roll(x[0], -1); }},
      {"gather with repeated rows",
       {any({4, 3})},
       [](Graph& g, V x) {
         return square(gather(x[0], rows_of(g, {2, 0, 2, 1, 2, 3}, {2, 3})));
       },
       true},
      {"scatter_add with repeated rows",
       {any({4, 3})},
       [](Graph& g, V x) {
         return square(scatter_add(rows_of(g, {2, 0, 2, 4}, {4}), x[0], 5));
       },
       true},
      {"a chain of movements",
       {any({2, 3, 4})},
       [](Graph&, V x) {
         const Value moved = roll(transpose(slice(x[0], 1, 1, 2), {2, 0, 1}), 1);  // [4, 2, 2]
         const Value rows = reshape(moved, {4, 1, 4});
         return square(broadcast_to(rows, {4, 3, 4})) * concat({rows, exp(rows), roll(rows, 2)}, 1);
       }},
      // reductions
      {"reduce_sum of rows",
       {any({2, 3, 4})},
       [](Graph&, V x) { return square(reduce_sum(x[0], {-1})); },
       true},
      {"reduce_sum of columns",
       {any({2, 3, 4})},
       [](Graph&, V x) {
         return square(reduce_sum(x[0], {0, 1}));
       }},
      {"reduce_sum of the middle",
       {any({2, 3, 4})},
       [](Graph&, V x) { return square(reduce_sum(x[0], {1}, false)); }},
      {"reduce_sum of everything", {any({2, 3})}, [](Graph&, V x) { return square(sum(x[0])); }},
      {"reduce_max of rows", {any({2, 5})}, [](Graph&, V x) { return square(reduce_max(x[0], {1})); }},
      {"reduce_max of two axes",
       {any({2, 3, 4})},
       [](Graph&, V x) {
         return square(reduce_max(x[0], {0, 2}, false));
       }},
      {"mean",
       {any({2, 3, 4})},
       [](Graph&, V x) {
         return square(mean(x[0], {0, -1}));
       }},
      // matmul
      {"matmul", {any({3, 4}), any({4, 2}, 2)}, [](Graph&, V x) { return matmul(x[0], x[1]); }, true},
      {"matmul, a transposed",
       {any({4, 3}), any({4, 2}, 2)},
       [](Graph&, V x) { return matmul(x[0], x[1], {.transpose_a = true}); },
       true},
      {"matmul, b transposed",
       {any({3, 4}), any({2, 4}, 2)},
       [](Graph&, V x) { return matmul(x[0], x[1], {.transpose_b = true}); },
       true},
      {"matmul, both transposed",
       {any({4, 3}), any({2, 4}, 2)},
       [](Graph&, V x) { return matmul(x[0], x[1], {.transpose_a = true, .transpose_b = true}); },
       true},
      {"matmul, batched",
       {any({2, 3, 4}), any({2, 4, 2}, 2)},
       [](Graph&, V x) { return matmul(x[0], x[1]); },
       true},
      {"matmul, batched, a transposed",
       {any({2, 4, 3}), any({2, 4, 2}, 2)},
       [](Graph&, V x) { return matmul(x[0], x[1], {.transpose_a = true}); }},
      {"matmul, batched twice, b transposed",
       {any({2, 2, 3, 4}), any({2, 2, 2, 4}, 2)},
       [](Graph&, V x) { return matmul(x[0], x[1], {.transpose_b = true}); }},
      {"matmul, batched, both transposed",
       {any({2, 4, 3}), any({2, 2, 4}, 2)},
       [](Graph&, V x) { return matmul(x[0], x[1], {.transpose_a = true, .transpose_b = true}); }},
      {"matmul, one b",
       {any({2, 3, 4}), any({4, 2}, 2)},
       [](Graph&, V x) { return matmul(x[0], x[1]); },
       true},
      {"matmul, one b, a transposed",
       {any({2, 4, 3}), any({4, 2}, 2)},
       [](Graph&, V x) { return matmul(x[0], x[1], {.transpose_a = true}); }},
      {"matmul, one b, transposed",
       {any({2, 2, 3, 4}), any({2, 4}, 2)},
       [](Graph&, V x) { return matmul(x[0], x[1], {.transpose_b = true}); }},
      {"matmul, one b, both transposed",
       {any({2, 4, 3}), any({2, 4}, 2)},
       [](Graph&, V x) { return matmul(x[0], x[1], {.transpose_a = true, .transpose_b = true}); }},
      {"matmul by itself",
       {any({3, 3})},
       [](Graph&, V x) { return matmul(x[0], x[0], {.transpose_b = true}); },
       true},
      {"matmul of views",
       {any({4, 6})},
       [](Graph&, V x) {
         return matmul(slice(x[0], 1, 1, 3), transpose(roll(slice(x[0], 1, 3, 3), 1), {1, 0}));
       }},
      {"linear",
       {any({2, 3, 4}), any({5, 4}, 2), any({5}, 3)},
       [](Graph&, V x) { return linear(x[0], x[1], x[2]); }},
  };
}

std::vector<GradientCase> function_cases() {
  return {
      {"square", {any({2, 3})}, [](Graph&, V x) { return square(x[0]); }, true},
      {"relu", {nonzero({2, 3})}, [](Graph&, V x) { return relu(x[0]); }},
      {"relu squared", {nonzero({2, 3})}, [](Graph&, V x) { return square(relu(x[0])); }},
      {"silu", {any({2, 3})}, [](Graph&, V x) { return silu(x[0]); }, true},
      {"gelu", {any({2, 3})}, [](Graph&, V x) { return gelu(x[0]); }, true},
      {"gelu_tanh", {any({2, 3})}, [](Graph&, V x) { return gelu_tanh(x[0]); }, true},
      {"softmax", {any({2, 4})}, [](Graph&, V x) { return softmax(x[0] * 2.0); }, true},
      {"logsumexp", {any({2, 4})}, [](Graph&, V x) { return logsumexp(x[0]); }, true},
      {"rms_norm", {any({2, 4})}, [](Graph&, V x) { return rms_norm(x[0], 1e-2); }, true},
      {"rms_norm with a gain",
       {any({2, 3, 4}), any({4}, 2)},
       [](Graph&, V x) { return rms_norm(x[0], 1e-6, x[1]); }},
      {"l2_normalize", {any({2, 4})}, [](Graph&, V x) { return l2_normalize(x[0]); }, true},
      {"l2_normalize of columns", {any({3, 4})}, [](Graph&, V x) { return l2_normalize(x[0], 0); }},
      {"l2_normalize below eps", {any({2, 4})}, [](Graph&, V x) { return l2_normalize(x[0], -1, 100); }},
      {"lerp",
       {any({2, 4}), any({2, 4}, 2), any({4}, 3)},
       [](Graph&, V x) { return lerp(x[0], x[1], abs(x[2])); }},
      {"soft_cap", {any({2, 4})}, [](Graph&, V x) { return soft_cap(x[0] * 3.0, 2); }, true},
      {"hard_cap", {any({3, 4})}, [](Graph&, V x) { return square(hard_cap(x[0], 0.8)); }},
      {"rope",
       {any({2, 3, 2, 4}), any({3, 4}, 2), any({3, 4}, 3)},
       [](Graph&, V x) { return rope(x[0], x[1], x[2]); }},
      {"rope per sequence",
       {any({2, 3, 2, 4}), any({2, 3, 4}, 2), any({2, 3, 4}, 3)},
       [](Graph&, V x) { return square(rope(x[0], x[1], x[2])); }},
      {"dropout", {any({4, 5})}, [](Graph& g, V x) { return square(dropout(x[0], 0.4, rng(g), 7)); }},
      {"squeeze and unsqueeze",
       {any({2, 1, 3})},
       [](Graph&, V x) { return unsqueeze(squeeze(x[0], 1), -1) * unsqueeze(exp(x[0]), 0); }},
      {"a gated block",
       {any({2, 3, 4}), any({6, 4}, 2), any({6, 4}, 3), any({4, 6}, 4), positive({4}, 5)},
       [](Graph&, V x) {
         const Value n = rms_norm(x[0], 1e-5, x[4]);
         return x[0] + linear(silu(linear(n, x[1])) * linear(n, x[2]), x[3]);
       }},
  };
}

namespace {

// q, k and v with one key/value head for two query heads, more keys than queries, and v narrower than k.
std::vector<Tensor> qkv(int64_t batch = 2, int64_t t = 3, int64_t s = 5, int64_t heads = 4,
                        int64_t kv_heads = 2, int64_t d_k = 3, int64_t d_v = 2) {
  return {any({batch, t, heads, d_k}, 1), any({batch, s, kv_heads, d_k}, 2),
          any({batch, s, kv_heads, d_v}, 3)};
}

Value attend(V x, const AttentionOptions& options) { return attention(x[0], x[1], x[2], options); }

std::vector<Tensor> hidden_and_weight(int64_t n = 5, int64_t d = 3, int64_t v = 7) {
  return {any({n, d}, 1), any({v, d}, 2)};
}
// Five targets, one of them ignored.
Value targets(Graph& graph) { return rows_of(graph, {1, 6, 0, kIgnoreIndex, 3}, {5}); }

Value entropy(Graph& graph, V x, CrossEntropyOptions options) {
  if (x.size() > 2) options.scale = x[2];
  return linear_cross_entropy(x[0], x[1], targets(graph), options);
}

std::vector<GradientCase> attention_cases() {
  return {
      {"attention", qkv(), [](Graph&, V x) { return attend(x, {.scale = 0.7}); }},
      {"attention, not causal", qkv(),
       [](Graph&, V x) { return attend(x, {.scale = 0.7, .causal = false}); }},
      {"attention, one head each", qkv(1, 4, 4, 2, 2, 2, 2), [](Graph&, V x) { return attend(x, {}); }},
      {"attention, wide values", qkv(1, 3, 3, 2, 1, 2, 5), [](Graph&, V x) { return attend(x, {}); }},
      {"attention, window", qkv(1, 5, 5), [](Graph&, V x) { return attend(x, {.scale = 0.7, .window = 2}); }},
      {"attention, window, not causal", qkv(1, 5, 5),
       [](Graph&, V x) { return attend(x, {.causal = false, .window = 3}); }},
      {"attention, soft cap", qkv(),
       [](Graph&, V x) { return attend(x, {.scale = 0.9, .cap = 1.5, .cap_type = CapType::soft}); }},
      {"attention, hard cap", qkv(),
       [](Graph&, V x) { return attend(x, {.scale = 0.9, .cap = 1, .cap_type = CapType::hard}); }},
      {"attention, documents", qkv(2, 4, 4),
       [](Graph& g, V x) {
         const Value ids = rows_of(g, {0, 0, 1, 1, -1, 2, 2, 2}, {2, 4});
         return attend(x, {.scale = 0.7, .q_documents = ids, .k_documents = ids});
       }},
      {"attention, length", qkv(1, 2, 6),
       [](Graph& g, V x) { return attend(x, {.scale = 0.7, .length = constant(g, 4, DType::i32)}); }},
      {"attention, dropout", qkv(),
       [](Graph& g, V x) {
         return attend(x, {.scale = 0.7, .dropout = 0.3, .dropout_stream = 5, .rng = rng(g)});
       }},
      {"attention, everything", qkv(2, 4, 6),
       [](Graph& g, V x) {
         const Value q_ids = rows_of(g, {0, 1, 1, 1, 2, 2, 2, 3}, {2, 4});
         const Value k_ids = rows_of(g, {0, 0, 1, 1, 1, 9, 2, 2, 2, 2, 3, 9}, {2, 6});
         return attend(x, {.scale = 0.9,
                           .cap = 2,
                           .cap_type = CapType::soft,
                           .window = 3,
                           .dropout = 0.2,
                           .dropout_stream = 9,
                           .q_documents = q_ids,
                           .k_documents = k_ids,
                           .length = constant(g, 5, DType::i32),
                           .rng = rng(g)});
       }},
      {"attention of one tensor",
       {any({1, 3, 2, 6})},
       [](Graph&, V x) {
         const Value q = slice(x[0], 3, 0, 3), k = slice(x[0], 3, 3, 3);
         return attention(l2_normalize(q), l2_normalize(k), x[0], {.scale = 1.7});
       }},
  };
}

std::vector<GradientCase> cross_entropy_cases() {
  const auto with_scale = [] {
    std::vector<Tensor> arguments = hidden_and_weight();
    arguments.push_back(positive({7}, 3));
    return arguments;
  };
  return {
      {"linear_cross_entropy", hidden_and_weight(), [](Graph& g, V x) { return entropy(g, x, {}); }},
      {"linear_cross_entropy, logit_scale", hidden_and_weight(),
       [](Graph& g, V x) { return entropy(g, x, {.logit_scale = 0.6}); }},
      {"linear_cross_entropy, scale", with_scale(),
       [](Graph& g, V x) { return entropy(g, x, {.logit_scale = 1.2}); }},
      {"linear_cross_entropy, soft cap", hidden_and_weight(),
       [](Graph& g, V x) { return entropy(g, x, {.cap = 1.5, .cap_type = CapType::soft}); }},
      {"linear_cross_entropy, hard cap", hidden_and_weight(),
       [](Graph& g, V x) { return entropy(g, x, {.cap = 0.9, .cap_type = CapType::hard}); }},
      {"linear_cross_entropy, z_loss", hidden_and_weight(),
       [](Graph& g, V x) { return entropy(g, x, {.z_loss = 0.3}); }},
      {"linear_cross_entropy, padded vocabulary", hidden_and_weight(5, 3, 9),
       [](Graph& g, V x) { return entropy(g, x, {.vocab_size = 7}); }},
      {"linear_cross_entropy, everything",
       [] {
         std::vector<Tensor> arguments = hidden_and_weight(5, 3, 9);
         arguments.push_back(positive({9}, 3));
         return arguments;
       }(),
       [](Graph& g, V x) {
         return entropy(
             g, x, {.logit_scale = 1.3, .cap = 2, .cap_type = CapType::soft, .z_loss = 0.1, .vocab_size = 7});
       }},
  };
}

}  // namespace

std::vector<GradientCase> composite_cases() {
  std::vector<GradientCase> cases = attention_cases();
  for (GradientCase& c : cross_entropy_cases()) cases.push_back(std::move(c));
  cases.push_back({"embedding", {any({5, 3})}, [](Graph& g, V x) {
                     return square(embedding(x[0], rows_of(g, {4, 0, 4, 4, 2, 1}, {2, 3})));
                   }});
  cases.push_back({"tied embedding and head", {any({7, 3})}, [](Graph& g, V x) {
                     const Value hidden = embedding(x[0], rows_of(g, {1, 1, 6, 2, 0}, {5}));
                     return linear_cross_entropy(hidden, x[0], targets(g));
                   }});
  return cases;
}

}  // namespace nf::test
