// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values come from one compressed
// vector per token, and one rotary key is shared by all heads. Generation keeps only those two, and attends
// in the compressed space.
#include "models/blocks.h"

namespace nf {
namespace {

struct Latent {
  Value q_nope, q_rope;  // [B, T, H, nope], [B, T, H, rope] rotated
  Value compressed;      // [B, T, kv_lora_rank], normalised
  Value k_rope;          // [B, T, 1, rope] rotated
};

Latent project_latent(ModelBuilder& b, const Scope& s, Value x) {
  const ModelConfig& c = b.config();
  const int64_t heads = c.num_attention_heads, nope = c.qk_nope_head_dim, rotary = c.qk_rope_head_dim;
  Value q;
  if (c.q_lora_rank) {
    const Value low =
        b.norm(s / "q_a_layernorm", b.project(s / "q_a_proj", x, *c.q_lora_rank, c.attention_bias));
    q = b.project(s / "q_b_proj", low, heads * (nope + rotary), false);
  } else {
    q = b.project(s / "q_proj", x, heads * (nope + rotary), false);
  }
  q = reshape(q, {x.size(0), x.size(1), heads, nope + rotary});
  const Value joint = b.project(s / "kv_a_proj_with_mqa", x, c.kv_lora_rank + rotary, c.attention_bias);
  const Rope& r = b.rope(rotary);
  const Value k_rope = reshape(slice(joint, 2, c.kv_lora_rank, rotary), {x.size(0), x.size(1), 1, rotary});
  return {slice(q, 3, 0, nope), rope(slice(q, 3, nope, rotary), r.cos, r.sin),
          b.norm(s / "kv_a_layernorm", slice(joint, 2, 0, c.kv_lora_rank)), rope(k_rope, r.cos, r.sin)};
}

// The up-projection of keys and values, [H (nope + v), kv_lora_rank], as [H, nope + v, kv_lora_rank].
Value up_projection(ModelBuilder& b, const Scope& s) {
  const ModelConfig& c = b.config();
  const int64_t heads = c.num_attention_heads, width = c.qk_nope_head_dim + c.v_head_dim;
  return reshape(b.matrix(s / "kv_b_proj", heads * width, c.kv_lora_rank), {heads, width, c.kv_lora_rank});
}

// Training and evaluation: keys and values written out.
Value attend_expanded(ModelBuilder& b, const Scope& s, int64_t layer, const Latent& latent) {
  const ModelConfig& c = b.config();
  const int64_t heads = c.num_attention_heads, nope = c.qk_nope_head_dim;
  const Value compressed = latent.compressed;
  const Value kv = reshape(b.project(s / "kv_b_proj", compressed, heads * (nope + c.v_head_dim), false),
                           {compressed.size(0), compressed.size(1), heads, nope + c.v_head_dim});
  const Value k_rope = b.compute(latent.k_rope);
  const Value shared = broadcast_to(k_rope, {k_rope.size(0), k_rope.size(1), heads, k_rope.size(3)});
  const Value q = concat({latent.q_nope, b.compute(latent.q_rope)}, 3);
  const Value k = concat({slice(kv, 3, 0, nope), shared}, 3);
  b.compare_heads(layer, q, k);
  return b.attend(layer, q, k, slice(kv, 3, nope, c.v_head_dim));
}

// Generation: W_uk is absorbed into the query and W_uv into the output, so that all heads attend to the cache
// itself: q_nope W_uk . c_kv = q_nope . (W_uk c_kv).
Value attend_compressed(ModelBuilder& b, const Scope& s, int64_t layer, const Latent& latent) {
  const ModelConfig& c = b.config();
  const int64_t nope = c.qk_nope_head_dim, rank = c.kv_lora_rank;
  const Value up = up_projection(b, s);  // [H, nope + v, rank]
  const Value token = concat({unsqueeze(b.compute(latent.compressed), 2), b.compute(latent.k_rope)}, 3);
  const Value cache = b.cached(layer, "latent", token);  // [B, S, 1, rank + rope]
  const Shape q = latent.q_nope.shape();                 // [B, T, H, nope]
  const auto per_head = [&](Value x) {
    return reshape(transpose(x, {2, 0, 1, 3}), {q[2], q[0] * q[1], x.size(3)});
  };
  const auto per_token = [&](Value x) {
    return transpose(reshape(x, {q[2], q[0], q[1], x.size(2)}), {1, 2, 0, 3});
  };
  const Value absorbed =
      per_token(matmul(per_head(b.compute(latent.q_nope)), slice(up, 1, 0, nope)));  // [B, T, H, rank]
  const Value out =
      b.attend(layer, concat({absorbed, b.compute(latent.q_rope)}, 3), cache, slice(cache, 3, 0, rank));
  return per_token(matmul(per_head(out), slice(up, 1, nope, c.v_head_dim), {.transpose_b = true}));
}

Value mla_attention(ModelBuilder& b, const Scope& s, int64_t layer, Value x) {
  const Latent latent = project_latent(b, s, x);
  const Value out = b.options().cache_length > 0 ? attend_compressed(b, s, layer, latent)
                                                 : attend_expanded(b, s, layer, latent);
  return b.project_back(s / "o_proj", merge_heads(out), b.config().output_bias());
}

}  // namespace

Value mla_block(ModelBuilder& b, const Scope& s, int64_t layer, Value h) {
  return residual_block(b, s, layer, h, mla_attention);
}

}  // namespace nf
