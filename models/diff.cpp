// Differential Transformer (Ye et al., arXiv 2410.05258), in the layout of Hugging Face's DiffLlama: heads i
// and i + H/2 are the two attention maps of differential head i, over one value of width 2 d.
#include <algorithm>
#include <cmath>

#include "models/blocks.h"

namespace nf {
namespace {

Value learned_lambda(ModelBuilder& b, const Scope& s, double lambda_init) {
  const ModelConfig& c = b.config();
  const auto exp_dot = [&](std::string_view q, std::string_view k) {
    const Init init = Init::normal(c.lambda_std_dev);
    const Value key = b.vector(s, k, {c.head_dim}, init), query = b.vector(s, q, {c.head_dim}, init);
    return exp(sum(query * key));
  };
  // One after the other: the order of the parameters is not left to the compiler.
  const Value second = exp_dot("lambda_q2", "lambda_k2"), first = exp_dot("lambda_q1", "lambda_k1");
  return first - second + lambda_init;
}

// One key/value head per query head.
Value repeat_heads(Value x, int64_t group) {
  const Shape s = x.shape();
  return reshape(broadcast_to(unsqueeze(x, 3), {s[0], s[1], s[2], group, s[3]}),
                 {s[0], s[1], s[2] * group, s[3]});
}

Value diff_attention(ModelBuilder& b, const Scope& s, int64_t layer, Value x) {
  const ModelConfig& c = b.config();
  auto [q, k, v] = project_heads(b, s, x);
  k = b.cached(layer, "k", k);
  v = b.cached(layer, "v", v);
  // Head i < H/2 and head i + H/2 read key heads half of K apart, in groups of equal size if K is even. A
  // single key head serves both; an odd number of several is brought to one per query head first.
  if (c.num_key_value_heads % 2 != 0 && c.num_key_value_heads > 1) {
    k = repeat_heads(k, c.num_attention_heads / c.num_key_value_heads);
    v = repeat_heads(v, c.num_attention_heads / c.num_key_value_heads);
  }
  b.compare_heads(layer, q, k);
  const int64_t half = c.num_attention_heads / 2, half_kv = std::max<int64_t>(1, k.size(2) / 2),
                second = k.size(2) - half_kv;
  const Value values = concat({slice(v, 2, 0, half_kv), slice(v, 2, second, half_kv)}, 3);
  const Value positive = b.attend(layer, slice(q, 2, 0, half), slice(k, 2, 0, half_kv), values);
  const Value negative = b.attend(layer, slice(q, 2, half, half), slice(k, 2, second, half_kv), values);

  const double lambda_init = 0.8 - 0.6 * std::exp(-0.3 * static_cast<double>(layer));
  const Value out =
      rms_norm(positive - learned_lambda(b, s, lambda_init) * negative, c.rms_norm_eps) * (1 - lambda_init);
  return b.project_back(s / "o_proj", merge_heads(out), c.output_bias());
}

}  // namespace

Value diff_block(ModelBuilder& b, const Scope& s, int64_t layer, Value h) {
  return residual_block(b, s, layer, h, diff_attention);
}

}  // namespace nf
