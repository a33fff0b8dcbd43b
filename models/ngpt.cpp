// nGPT (Loshchilov et al., arXiv 2410.01131): hidden states, queries, keys and the rows of the weights live
// on the unit sphere; each block moves the hidden state towards its own proposal by learned rates. No norms
// with gains, no biases.
#include <cmath>

#include "models/blocks.h"

namespace nf {

Value ngpt_scale(ModelBuilder& b, const Scope& s, std::string_view name, int64_t size, double init,
                 double stored_init) {
  return b.vector(s, name, {size}, Init::fill(stored_init)) * (init / stored_init);
}

namespace {

double base(const ModelConfig& c) { return 1 / std::sqrt(static_cast<double>(c.hidden_size)); }

// |alpha|: how far to move towards the proposal, per dimension.
Value eigen_rate(ModelBuilder& b, const Scope& s, std::string_view name) {
  return abs(ngpt_scale(b, s, name, b.config().hidden_size, 0.05, base(b.config())));
}

// q = s_qk q^, k = s_qk k^ per head; both factors are folded into q, so that grouped keys stay shared.
Value ngpt_attention(ModelBuilder& b, const Scope& s, int64_t layer, Value h) {
  const ModelConfig& c = b.config();
  const auto [q, k, v] = project_heads(b, s, h);
  const Value sqk = reshape(ngpt_scale(b, s, "sqk", c.num_attention_heads * c.head_dim, 1, base(c)),
                            {c.num_attention_heads, c.head_dim});
  const Value out = b.attend(layer, l2_normalize(q) * square(sqk), b.cached(layer, "k", l2_normalize(k)),
                             b.cached(layer, "v", v));
  return b.project_back(s / "o_proj", merge_heads(out), false);
}

Value ngpt_mlp(ModelBuilder& b, const Scope& s, Value h) {
  const ModelConfig& c = b.config();
  const double root = std::sqrt(static_cast<double>(c.hidden_size));
  const Value u = b.project(s / "up_proj", h, c.intermediate_size, false) *
                  (ngpt_scale(b, s, "su", c.intermediate_size, 1, 1) * root);
  const Value g = b.project(s / "gate_proj", h, c.intermediate_size, false) *
                  (ngpt_scale(b, s, "sv", c.intermediate_size, 1, 1) * root);
  return b.project_back(s / "down_proj", u * b.activation(g), false);
}

}  // namespace

Value ngpt_block(ModelBuilder& b, const Scope& s, int64_t layer, Value h) {
  const double p = b.config().residual_dropout;
  const auto move = [&](Value proposal, std::string_view rate) {
    return l2_normalize(lerp(l2_normalize(h), l2_normalize(b.drop(proposal, p)), eigen_rate(b, s, rate)));
  };
  h = move(ngpt_attention(b, s / "self_attn", layer, h), "attn_alpha");
  return move(ngpt_mlp(b, s / "mlp", h), "mlp_alpha");
}

}  // namespace nf
