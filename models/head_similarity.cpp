// Head similarity losses: how alike the attention heads of a layer are. Never an H x H x T x T tensor.
#include "models/blocks.h"

namespace nf {
namespace {

// -sum p ln p over the last axis; masked positions (p = 0) give neither value nor gradient.
Value entropy(Value p) {
  const Value positive = less(constant_like(p, 0), p);
  return reduce_sum(p * log(where(positive, p, constant_like(p, 1))), {-1}) * -1.0;
}

// Mean over pairs of (S_i - S_j)^2 = (H sum S_i^2 - (sum S_i)^2) / pairs, over visible positions.
Value mean_squared_difference(Value scores, Value visible) {
  const auto heads = static_cast<double>(scores.size(1));
  const double pairs = heads * (heads - 1) / 2;
  const Value spread = (reduce_sum(square(scores), {1}) * heads - square(reduce_sum(scores, {1}))) *
                       (1 / pairs);  // [B, 1, T, S]
  const Value seen = slice(visible, 1, 0, 1);
  const Value count = sum(cast(seen, DType::f32));
  return sum(where(seen, spread, constant_like(spread, 0))) / maximum(count, constant_like(count, 1));
}

// A row at a time against all later heads: H - 1 products of size B x H' x T x S.
Value mean_divergence(Value scores, Value visible) {
  const Value masked = where(visible, scores, constant_like(scores, -1e30));
  const Value weight = where(visible, exp(masked - reduce_max(masked, {-1})), constant_like(masked, 0));
  const Value total = reduce_sum(weight, {-1});
  const Value p = weight / where(less(constant_like(total, 0), total), total, constant_like(total, 1));
  const Value of_head = entropy(p);  // [B, H, T, 1]
  const int64_t heads = scores.size(1);
  Value divergence;
  for (int64_t i = 0; i + 1 < heads; ++i) {
    const int64_t rest = heads - 1 - i;
    const Value mixed = entropy((slice(p, 1, i, 1) + slice(p, 1, i + 1, rest)) * 0.5);
    const Value part = sum(mixed - (slice(of_head, 1, i, 1) + slice(of_head, 1, i + 1, rest)) * 0.5);
    divergence = divergence ? divergence + part : part;
  }
  const double rows = static_cast<double>(scores.size(0) * scores.size(2));
  const double pairs = static_cast<double>(heads * (heads - 1)) / 2;
  return divergence * (-1 / (rows * pairs));
}

}  // namespace

Value head_similarity(HeadSimLossType type, Value scores, Value visible) {
  require(scores.size(1) > 1, "head_sim_loss: needs at least two heads");
  return type == HeadSimLossType::mse ? mean_squared_difference(scores, visible)
                                      : mean_divergence(scores, visible);
}

}  // namespace nf
