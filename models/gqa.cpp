// Multi-head attention (Vaswani et al., arXiv 1706.03762) and grouped-query attention (Ainslie et al., arXiv
// 2305.13245): query head h reads key/value head h / (H / K); K = H is multi-head attention.
#include "models/blocks.h"

namespace nf {
namespace {

Value gqa_attention(ModelBuilder& b, const Scope& s, int64_t layer, Value x) {
  const auto [q, k, v] = project_heads(b, s, x);
  b.compare_heads(layer, q, k);
  const Value out = b.attend(layer, q, b.cached(layer, "k", k), b.cached(layer, "v", v));
  return b.project_back(s / "o_proj", merge_heads(out), b.config().output_bias());
}

}  // namespace

Value gqa_block(ModelBuilder& b, const Scope& s, int64_t layer, Value h) {
  return residual_block(b, s, layer, h, gqa_attention);
}

}  // namespace nf
