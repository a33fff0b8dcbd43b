// nGPT (Loshchilov et al., arXiv 2410.01131): hidden states, queries, keys and the rows of the weights live
// on the unit sphere; each block moves the hidden state towards its own proposal by learned rates. No norms
// with gains, no biases, no weight decay.
#include <cmath>

#include "models/blocks.h"

namespace nf {
namespace {

double root(const ModelConfig& c) { return std::sqrt(static_cast<double>(c.hidden_size)); }
double base(const ModelConfig& c) { return 1 / root(c); }

// A learned scale acts as `init` at first and is stored as `stored_init`: the smaller it is stored, the
// faster the optimizer's steps move it.
struct ScaleStart {
  double init, stored_init;
};

Value learned_scale(ModelBuilder& b, const Scope& s, std::string_view name, int64_t size, ScaleStart start) {
  return b.vector(s, name, {size}, Init::fill(start.stored_init)) * (start.init / start.stored_init);
}

// |alpha|: how far to move towards the proposal, per dimension.
Value eigen_rate(ModelBuilder& b, const Scope& s, std::string_view name) {
  const ModelConfig& c = b.config();
  return abs(learned_scale(b, s, name, c.hidden_size, {.init = 0.05, .stored_init = base(c)}));
}

// q = s_qk q^, k = s_qk k^ per head; both factors are folded into q, so that grouped keys stay shared.
Value ngpt_attention(ModelBuilder& b, const Scope& s, int64_t layer, Value h) {
  const ModelConfig& c = b.config();
  const auto [q, k, v] = project_heads(b, s, h);
  const Value sqk = reshape(
      learned_scale(b, s, "sqk", c.num_attention_heads * c.head_dim, {.init = 1, .stored_init = base(c)}),
      {c.num_attention_heads, c.head_dim});
  const Value queries = l2_normalize(q) * square(sqk), keys = l2_normalize(k);
  b.compare_heads(layer, queries, keys);
  const Value out = b.attend(layer, queries, b.cached(layer, "k", keys), b.cached(layer, "v", v));
  return b.project_back(s / "o_proj", merge_heads(out), false);
}

// down(u * act(g)), u = s_u sqrt(D) (h W_up^T), g = s_v sqrt(D) (h W_gate^T)
Value ngpt_mlp(ModelBuilder& b, const Scope& s, Value h) {
  const ModelConfig& c = b.config();
  const auto scaled = [&](std::string_view projection, std::string_view scale) {
    const Value factor = learned_scale(b, s, scale, c.intermediate_size, {.init = 1, .stored_init = 1});
    return b.project(s / projection, h, c.intermediate_size, false) * (factor * root(c));
  };
  const Value u = scaled("up_proj", "su");
  const Value g = scaled("gate_proj", "sv");
  return b.project_back(s / "down_proj", u * b.activation(g), false);
}

// h = norm(h^ + |alpha| (norm(proposal) - h^)), of attention and then of the MLP.
Value ngpt_block(ModelBuilder& b, const Scope& s, int64_t layer, Value h) {
  const double p = b.config().residual_dropout;
  const auto move = [&](Value proposal, std::string_view rate) {
    return l2_normalize(lerp(l2_normalize(h), l2_normalize(b.drop(proposal, p)), eigen_rate(b, s, rate)));
  };
  h = move(ngpt_attention(b, s / "self_attn", layer, h), "attn_alpha");
  return move(ngpt_mlp(b, s / "mlp", h), "mlp_alpha");
}

Value logit_scales(ModelBuilder& b, const Scope& s) {
  const ModelConfig& c = b.config();
  return learned_scale(b, s, "sz", c.vocab_size, {.init = 1, .stored_init = base(c)});
}

}  // namespace

Variant ngpt_variant(const ModelConfig& c) {
  return {.block = ngpt_block,
          .weights = {.std = base(c), .decay = false, .unit_length = true},
          .final_norm = false,
          .logit_scales = logit_scales};
}

}  // namespace nf
