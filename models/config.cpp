#include "models/config.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "models/config_names.h"
#include "nf/error.h"

namespace nf {
namespace {

// Above any model; below, products of sizes and sums over layers stay far from the ends of int64.
constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxLayers = int64_t{1} << 14;
constexpr int64_t kMaxVocab = int64_t{1} << 30;
constexpr int64_t kMaxLength = int64_t{1} << 30;

void check_range(std::string_view source, std::string_view key, int64_t value, int64_t low, int64_t high) {
  require(low <= value && value <= high, "{}: '{}' is {}, it must lie in {} to {}", source, key, value, low,
          high);
}

void check_number(std::string_view source, std::string_view key, double value, bool holds,
                  std::string_view rule) {
  require(holds && std::isfinite(value), "{}: '{}' is {}, it must be {}", source, key, value, rule);
}

// Derived defaults, and what each variant fixes.
void fill_defaults(ModelConfig& c, std::string_view source) {
  const bool own_heads = c.attention_type == AttentionType::mha || c.attention_type == AttentionType::mla;
  if (c.num_key_value_heads == 0) c.num_key_value_heads = own_heads ? c.num_attention_heads : 2;
  if (c.head_dim == 0) {
    require(
        c.hidden_size % c.num_attention_heads == 0,
        "{}: 'hidden_size' ({}) must be a multiple of 'num_attention_heads' ({}) unless 'head_dim' is given",
        source, c.hidden_size, c.num_attention_heads);
    c.head_dim = c.hidden_size / c.num_attention_heads;
  }
  if (c.attention_type == AttentionType::mla) {
    if (c.kv_lora_rank == 0) c.kv_lora_rank = std::max<int64_t>(1, c.hidden_size / 4);
    if (c.qk_rope_head_dim == 0) c.qk_rope_head_dim = c.head_dim / 2;
    if (c.qk_nope_head_dim == 0) c.qk_nope_head_dim = c.head_dim;
    if (c.v_head_dim == 0) c.v_head_dim = c.head_dim;
  }
  if (c.attention_type == AttentionType::ngpt)
    c.input_layernorm = c.post_attention_layernorm = c.pre_ffnn_layernorm = c.post_ffnn_layernorm = false;
  if (c.rope_scaling && c.rope_scaling->original_max_position_embeddings == 0)
    c.rope_scaling->original_max_position_embeddings = c.max_position_embeddings;
}

void check_sizes(const ModelConfig& c, std::string_view source) {
  check_range(source, "vocab_size", c.vocab_size, 0, kMaxVocab);
  check_range(source, "hidden_size", c.hidden_size, 1, kMaxWidth);
  check_range(source, "intermediate_size", c.intermediate_size, 1, kMaxWidth);
  check_range(source, "num_hidden_layers", c.num_hidden_layers, 1, kMaxLayers);
  check_range(source, "num_attention_heads", c.num_attention_heads, 1, kMaxWidth);
  check_range(source, "num_key_value_heads", c.num_key_value_heads, 0, kMaxWidth);  // 0: derived
  check_range(source, "head_dim", c.head_dim, 0, kMaxWidth);
  check_range(source, "max_position_embeddings", c.max_position_embeddings, 1, kMaxLength);
  if (c.sliding_window) check_range(source, "sliding_window", *c.sliding_window, 1, kMaxLength);
  if (c.sliding_window_pattern)
    check_range(source, "sliding_window_pattern", *c.sliding_window_pattern, 1, kMaxLayers);
  if (c.q_lora_rank) check_range(source, "q_lora_rank", *c.q_lora_rank, 1, kMaxWidth);
  check_range(source, "kv_lora_rank", c.kv_lora_rank, 0, kMaxWidth);
  check_range(source, "qk_rope_head_dim", c.qk_rope_head_dim, 0, kMaxWidth);
  check_range(source, "qk_nope_head_dim", c.qk_nope_head_dim, 0, kMaxWidth);
  check_range(source, "v_head_dim", c.v_head_dim, 0, kMaxWidth);
}

void check_heads(const ModelConfig& c, std::string_view source) {
  const int64_t H = c.num_attention_heads, K = c.num_key_value_heads;
  require(H % K == 0, "{}: 'num_attention_heads' ({}) must be a multiple of 'num_key_value_heads' ({})",
          source, H, K);
  require(
      c.attention_type != AttentionType::mha || H == K,
      "{}: mha has one key/value head per query head, 'num_key_value_heads' must be {}, not {} (or use gqa)",
      source, H, K);
  require(c.attention_type != AttentionType::diff || H % 2 == 0,
          "{}: diff pairs its heads, 'num_attention_heads' ({}) must be even", source, H);
  require(!c.head_sim_loss || H >= 2, "{}: 'head_sim_loss' compares heads, it needs at least 2", source);
  if (c.attention_type == AttentionType::mla) {
    require(c.qk_rope_head_dim > 0 && c.qk_rope_head_dim % 2 == 0,
            "{}: 'qk_rope_head_dim' ({}) must be even and positive: rotary embedding turns pairs", source,
            c.qk_rope_head_dim);
    check_range(source, "head widths of all heads together", H * (c.qk_nope_head_dim + c.qk_rope_head_dim), 1,
                kMaxWidth);
    check_range(source, "value widths of all heads together", H * c.v_head_dim, 1, kMaxWidth);
  } else {
    require(c.head_dim % 2 == 0, "{}: 'head_dim' ({}) must be even: rotary embedding turns pairs", source,
            c.head_dim);
    check_range(source, "head widths of all heads together", H * c.head_dim, 2, kMaxWidth);
    require(!c.q_lora_rank && c.kv_lora_rank == 0 && c.qk_rope_head_dim == 0 && c.qk_nope_head_dim == 0 &&
                c.v_head_dim == 0,
            "{}: 'q_lora_rank', 'kv_lora_rank', 'qk_rope_head_dim', 'qk_nope_head_dim' and 'v_head_dim' "
            "belong to mla, "
            "not to {}",
            source, name(c.attention_type));
  }
}

void check_numbers(const ModelConfig& c, std::string_view source) {
  check_number(source, "rope_theta", c.rope_theta, c.rope_theta > 0, "positive");
  check_number(source, "rms_norm_eps", c.rms_norm_eps, c.rms_norm_eps > 0 && c.rms_norm_eps < 1,
               "between 0 and 1");
  check_number(source, "initializer_range", c.initializer_range, c.initializer_range > 0, "positive");
  for (const auto& [key, value] : {std::pair{"attention_dropout", c.attention_dropout},
                                   std::pair{"residual_dropout", c.residual_dropout},
                                   std::pair{"embedding_dropout", c.embedding_dropout}})
    check_number(source, key, value, value >= 0 && value < 1, "at least 0 and below 1");
  check_number(source, "attention_scale", c.attention_scale, c.attention_scale >= 0,
               "positive, or 0 for automatic");
  if (c.attention_cap)
    check_number(source, "attention_cap", *c.attention_cap, *c.attention_cap > 0, "positive");
  if (c.logit_cap) check_number(source, "logit_cap", *c.logit_cap, *c.logit_cap > 0, "positive");
  check_number(source, "logit_scale", c.logit_scale, c.logit_scale != 0, "a number other than 0");
  check_number(source, "embedding_multiplier", c.embedding_multiplier, c.embedding_multiplier != 0,
               "a number other than 0");
  check_number(source, "residual_multiplier", c.residual_multiplier, c.residual_multiplier != 0,
               "a number other than 0");
  check_number(source, "lambda_std_dev", c.lambda_std_dev, c.lambda_std_dev >= 0, "at least 0");
  check_number(source, "head_sim_loss_weight", c.head_sim_loss_weight, true, "a finite number");
  check_number(source, "z_loss", c.z_loss, c.z_loss >= 0, "at least 0");
}

void check_rope_scaling(const ModelConfig& c, std::string_view source) {
  if (!c.rope_scaling) return;
  const RopeScaling& s = *c.rope_scaling;
  check_number(source, "rope_scaling.factor", s.factor, s.factor >= 1, "at least 1");
  check_range(source, "rope_scaling.original_max_position_embeddings", s.original_max_position_embeddings, 1,
              kMaxLength);
  require(
      s.low_freq_factor > 0 && s.low_freq_factor < s.high_freq_factor && std::isfinite(s.high_freq_factor),
      "{}: 'rope_scaling' needs 0 < low_freq_factor ({}) < high_freq_factor ({})", source, s.low_freq_factor,
      s.high_freq_factor);
  require(s.beta_slow > 0 && s.beta_slow < s.beta_fast && std::isfinite(s.beta_fast),
          "{}: 'rope_scaling' needs 0 < beta_slow ({}) < beta_fast ({})", source, s.beta_slow, s.beta_fast);
  for (const auto& factor : {s.attention_factor, s.mscale, s.mscale_all_dim})
    require(!factor || (*factor >= 0 && std::isfinite(*factor)),
            "{}: 'rope_scaling' factors must be at least 0, not {}", source, factor.value_or(0));
}

void check_combinations(const ModelConfig& c, std::string_view source) {
  require(c.attention_cap_type != CapType::none && c.logit_cap_type != CapType::none,
          "{}: 'attention_cap_type' and 'logit_cap_type' must be soft or hard; leave the cap out for none",
          source);
  require(!c.sliding_window_pattern || c.sliding_window,
          "{}: 'sliding_window_pattern' says which layers are full; it needs 'sliding_window'", source);
  require(!c.qk_norm || (c.attention_type != AttentionType::mla && c.attention_type != AttentionType::ngpt),
          "{}: 'qk_norm' belongs to mha, gqa and diff, not to {}", source, name(c.attention_type));
  if (c.attention_type != AttentionType::ngpt) return;
  require(!c.output_bias() && !c.attention_bias && !c.mlp_bias,
          "{}: ngpt has no biases; remove 'attention_bias' and 'mlp_bias'", source);
  require(
      c.embedding_multiplier == 1 && c.residual_multiplier == 1,
      "{}: ngpt normalises what 'embedding_multiplier' and 'residual_multiplier' would scale; remove them",
      source);
}

// Matrix parameters and all parameters of one layer.
struct BlockCount {
  int64_t matrices = 0, vectors = 0;
};

BlockCount count_block(const ModelConfig& c) {
  const int64_t D = c.hidden_size, F = c.intermediate_size;
  const int64_t H = c.num_attention_heads, K = c.num_key_value_heads, d = c.head_dim;
  BlockCount count{.matrices = 3 * D * F, .vectors = c.mlp_bias ? 2 * F + D : 0};
  if (c.attention_type == AttentionType::mla) {
    const int64_t q_width = H * (c.qk_nope_head_dim + c.qk_rope_head_dim);
    const int64_t kv_a = c.kv_lora_rank + c.qk_rope_head_dim;
    count.matrices += c.q_lora_rank ? *c.q_lora_rank * (D + q_width) : D * q_width;
    count.matrices +=
        D * kv_a + c.kv_lora_rank * H * (c.qk_nope_head_dim + c.v_head_dim) + H * c.v_head_dim * D;
    count.vectors += c.q_lora_rank.value_or(0) + c.kv_lora_rank;  // gains of the compressed norms
    if (c.attention_bias) count.vectors += c.q_lora_rank.value_or(0) + kv_a;
  } else {
    count.matrices += D * d * (2 * H + 2 * K);
    if (c.attention_bias) count.vectors += d * (H + 2 * K);
    if (c.qk_norm) count.vectors += 2 * d;
  }
  if (c.output_bias()) count.vectors += D;
  if (c.attention_type == AttentionType::diff) count.vectors += 4 * d;
  if (c.attention_type == AttentionType::ngpt) count.vectors += H * d + 2 * F + 2 * D;
  for (const bool norm :
       {c.input_layernorm, c.post_attention_layernorm, c.pre_ffnn_layernorm, c.post_ffnn_layernorm})
    if (norm) count.vectors += D;
  return count;
}

// Mean number of positions that a token of a sequence of T sees, itself included.
double mean_visible(double T, std::optional<int64_t> window) {
  const auto w = window ? static_cast<double>(*window) : T;
  if (w >= T) return (T + 1) / 2;
  return (w * (w + 1) / 2 + (T - w) * w) / T;
}

}  // namespace

std::string_view name(AttentionType value) { return enum_name(value); }
std::string_view name(Activation value) { return enum_name(value); }
std::string_view name(CapType value) { return enum_name(value); }
std::string_view name(HeadSimLossType value) { return enum_name(value); }
std::string_view name(RopeScalingType value) { return enum_name(value); }

int64_t ModelConfig::key_width() const {
  return attention_type == AttentionType::mla ? qk_nope_head_dim + qk_rope_head_dim : head_dim;
}

int64_t ModelConfig::value_width() const {
  if (attention_type == AttentionType::mla) return v_head_dim;
  return attention_type == AttentionType::diff ? 2 * head_dim : head_dim;
}

double ModelConfig::score_scale() const {
  if (attention_scale != 0) return attention_scale;
  const double root = std::sqrt(static_cast<double>(key_width()));
  return attention_type == AttentionType::ngpt ? root : 1 / root;
}

std::optional<int64_t> ModelConfig::window_of_layer(int64_t layer) const {
  if (sliding_window_pattern && (layer + 1) % *sliding_window_pattern == 0) return std::nullopt;
  return sliding_window;
}

ModelConfig resolve(ModelConfig config, std::string_view source) {
  check_sizes(config, source);  // before anything divides or multiplies
  fill_defaults(config, source);
  check_heads(config, source);
  if (config.attention_type == AttentionType::mla) config.num_key_value_heads = config.num_attention_heads;
  check_numbers(config, source);
  check_rope_scaling(config, source);
  check_combinations(config, source);
  resolve_lora(config, source);
  return config;
}

ParameterCount count_parameters(const ModelConfig& config) {
  require(config.vocab_size > 0,
          "config: 'vocab_size' is not known yet; set it from the tokenizer before counting");
  const BlockCount block = count_block(config);
  ParameterCount count;
  count.embedding = config.vocab_size * config.hidden_size;
  count.head = config.tie_word_embeddings ? 0 : count.embedding;
  count.block = block.matrices + block.vectors;
  count.last = config.attention_type == AttentionType::ngpt ? config.vocab_size : config.hidden_size;
  if (config.lora)
    for (const Projection& p : projections(config))
      if (config.lora->adapts(p.name))
        count.adapters += config.num_hidden_layers * config.lora->rank * (p.in + p.out);
  count.total =
      count.embedding + count.head + config.num_hidden_layers * count.block + count.last + count.adapters;
  return count;
}

double forward_flops_per_token(const ModelConfig& config, int64_t tokens) {
  require(config.vocab_size > 0,
          "config: 'vocab_size' is not known yet; set it from the tokenizer before counting");
  require(tokens > 0, "config: a sequence of {} tokens has no cost per token", tokens);
  const auto layers = static_cast<double>(config.num_hidden_layers);
  const auto head = static_cast<double>(config.vocab_size) * static_cast<double>(config.hidden_size);
  double flops = 2 * (layers * static_cast<double>(count_block(config).matrices) + head);
  const auto widths =
      static_cast<double>(config.num_attention_heads * (config.key_width() + config.value_width()));
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    flops += 2 * mean_visible(static_cast<double>(tokens), config.window_of_layer(layer)) * widths;
  return flops;
}

double training_flops_per_token(const ModelConfig& config, int64_t tokens) {
  return (config.lora ? 2 : 3) * forward_flops_per_token(config, tokens);
}

int64_t kv_cache_values(const ModelConfig& config) {
  if (config.attention_type == AttentionType::mla) return config.kv_lora_rank + config.qk_rope_head_dim;
  return 2 * config.num_key_value_heads * config.head_dim;
}

}  // namespace nf
