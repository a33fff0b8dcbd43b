#include "models/blocks.h"

#include <cmath>

namespace nf {

ModelBuilder::ModelBuilder(Graph& graph, const ModelConfig& config, const ModelOptions& options,
                           const WeightRules& weights, ModelGraph& model)
    : graph_(graph), config_(config), options_(options), weights_(weights), model_(model) {
  const Shape tokens{options.batch, options.length};
  if (options.documents) documents_ = input(graph, "documents", DType::i32, tokens);
  if (options.cache_length > 0) length_ = input(graph, "length", DType::i32, {});
  const bool drops = config.attention_dropout > 0 || config.residual_dropout > 0 ||
                     config.embedding_dropout > 0 || (config.lora && config.lora->dropout > 0);
  if (options.training && drops) rng_ = input(graph, "rng", DType::i32, {4});
}

// ---- parameters

ModelBuilder::Entry& ModelBuilder::parameter(Parameter parameter) {
  parameter.trained = parameter.adapter || !config_.lora;
  const auto [found, fresh] = entries_.try_emplace(parameter.name, Entry{{}, {}, model_.parameters.size()});
  if (fresh) {
    model_.parameters.push_back(std::move(parameter));
    model_.wide.emplace_back();
    model_.narrow.emplace_back();
  }
  return found->second;
}

ModelBuilder::Entry& ModelBuilder::embedding(const Scope& root) {
  return parameter({.name = root.full_name("model.embed_tokens.weight"),
                    .shape = {config_.vocab_size, config_.hidden_size},
                    .init_std = weights_.std,
                    .normalize_axis = unit_axis(kIn)});
}

ModelBuilder::Entry& ModelBuilder::layer_matrix(const Scope& scope, int64_t out, int64_t in, double std,
                                                HiddenAxis hidden) {
  return parameter({.name = scope.full_name("weight"),
                    .shape = {out, in},
                    .init_std = std,
                    .decay = weights_.decay,
                    .layer_matrix = true,
                    .normalize_axis = unit_axis(hidden)});
}

Value ModelBuilder::wide(Entry& entry) {
  Parameter& p = model_.parameters[entry.index];
  p.used_wide = true;
  if (!entry.wide) model_.wide[entry.index] = entry.wide = state(graph_, p.name, DType::f32, p.shape);
  return entry.wide;
}

Value ModelBuilder::narrow(Entry& entry) {
  if (options_.compute == DType::f32) return wide(entry);
  Parameter& p = model_.parameters[entry.index];
  p.used_narrow = true;
  if (!entry.narrow)
    model_.narrow[entry.index] = entry.narrow = state(graph_, narrow_name(p.name), options_.compute, p.shape);
  return entry.narrow;
}

Value ModelBuilder::vector(const Scope& scope, std::string_view name, const Shape& shape, Init init) {
  return wide(parameter(
      {.name = scope.full_name(name), .shape = shape, .init_std = init.std, .init_value = init.value}));
}

Value ModelBuilder::matrix(const Scope& scope, int64_t out, int64_t in) {
  return narrow(layer_matrix(scope, out, in, weights_.std, kIn));
}

Value ModelBuilder::embedding_table(const Scope& root) { return wide(embedding(root)); }

Value ModelBuilder::head_matrix(const Scope& root) {
  if (config_.tie_word_embeddings) return narrow(embedding(root));
  return narrow(parameter({.name = root.full_name("lm_head.weight"),
                           .shape = {config_.vocab_size, config_.hidden_size},
                           .init_std = weights_.std,
                           .decay = weights_.decay,
                           .normalize_axis = unit_axis(kIn)}));
}

// y + (alpha / r) B A dropout(x), rounded once; A starts with the variance of PEFT's uniform distribution.
Value ModelBuilder::adapted(const Scope& scope, Value x, Value y) {
  const std::string_view projection = std::string_view(scope.path()).substr(scope.path().rfind('.') + 1);
  if (!config_.lora || !config_.lora->adapts(projection)) return y;
  const int64_t rank = config_.lora->rank, in = x.size(-1), out = y.size(-1);
  const auto low_rank = [&](std::string_view name, const Shape& shape, double std) {
    return narrow(parameter({.name = scope.full_name(name),
                             .shape = shape,
                             .init_std = std,
                             .decay = weights_.decay,
                             .layer_matrix = true,
                             .adapter = true}));
  };
  const Value a = low_rank("lora_A.weight", {rank, in}, 1 / std::sqrt(3.0 * static_cast<double>(in)));
  const Value b = low_rank("lora_B.weight", {out, rank}, 0);
  const Value change = linear(linear(drop(x, config_.lora->dropout), a), b);
  return compute(y + change * config_.lora->scale());
}

Value ModelBuilder::project(const Scope& scope, Value x, int64_t out, bool bias) {
  const Value weight = matrix(scope, out, x.size(-1));
  return adapted(scope, x, linear(x, weight, bias ? vector(scope, "bias", {out}, Init::fill(0)) : Value{}));
}

Value ModelBuilder::project_back(const Scope& scope, Value x, bool bias) {
  const double std = weights_.std / std::sqrt(2.0 * static_cast<double>(config_.num_hidden_layers));
  const Value weight = narrow(layer_matrix(scope, config_.hidden_size, x.size(-1), std, kOut));
  return adapted(
      scope, x,
      linear(x, weight, bias ? vector(scope, "bias", {config_.hidden_size}, Init::fill(0)) : Value{}));
}

Value ModelBuilder::norm(const Scope& scope, Value x) {
  return rms_norm(x, config_.rms_norm_eps, vector(scope, "weight", {x.size(-1)}, Init::fill(1)));
}

Value ModelBuilder::activation(Value x) const {
  switch (config_.hidden_act) {
    case Activation::silu: return silu(x);
    case Activation::gelu: return gelu(x);
    case Activation::gelu_tanh: return gelu_tanh(x);
    case Activation::relu: return relu(x);
    case Activation::relu2: return square(relu(x));
  }
  return x;
}

Value ModelBuilder::drop(Value x, double probability) {
  return options_.training && probability > 0 ? dropout(x, probability, rng_, next_stream_++) : x;
}

// ---- attention

const Rope& ModelBuilder::rope(int64_t width) {
  const auto found = ropes_.find(width);
  if (found != ropes_.end()) return found->second;
  const int64_t length = options_.cache_length > 0 ? options_.cache_length : options_.length;
  Rope tables = rope_tables(graph_, config_, width, length);
  if (options_.cache_length > 0) {  // the T new tokens stand at the end of the valid ones
    const Value first = length_ - constant(graph_, static_cast<double>(options_.length), DType::i32);
    tables = rope_at(tables, iota(graph_, {options_.length}, 0) + first);
  }
  return ropes_.emplace(width, tables).first->second;
}

Value ModelBuilder::attend(int64_t layer, Value q, Value k, Value v, double scale) {
  if (scale == 0) scale = config_.score_scale();
  AttentionOptions attention_options{.scale = scale, .window = config_.window_of_layer(layer).value_or(0)};
  if (config_.attention_cap) {
    attention_options.cap = *config_.attention_cap;
    attention_options.cap_type = config_.attention_cap_type;
  }
  if (options_.documents) attention_options.q_documents = attention_options.k_documents = documents_;
  if (options_.cache_length > 0) attention_options.length = length_;
  if (options_.training && config_.attention_dropout > 0) {
    attention_options.dropout = config_.attention_dropout;
    attention_options.dropout_stream = next_stream_++;
    attention_options.rng = rng_;
  }
  return attention(compute(q), compute(k), compute(v), attention_options);
}

Value ModelBuilder::cached(int64_t layer, std::string_view name, Value x) {
  if (options_.cache_length == 0) return x;
  // [B K, S, d]: what a head reads for every new token lies in one piece of memory.
  const Shape shape = x.shape();
  const int64_t heads = shape[0] * shape[2], length = options_.cache_length;
  const Value cache =
      state(graph_, fmt::format("cache.{}.{}", layer, name), options_.compute, {heads, length, shape[3]});
  const Value offset = length_ - constant(graph_, static_cast<double>(options_.length), DType::i32);
  const Value rows = reshape(transpose(compute(x), {0, 2, 1, 3}), {heads, shape[1], shape[3]});
  const Value all = reshape(assign_slice(cache, rows, offset), {shape[0], shape[2], length, shape[3]});
  return transpose(all, {0, 2, 1, 3});
}

// Boolean [.., T, T] of a layer's mask, for the auxiliary loss.
Value ModelBuilder::visible(int64_t layer, const Shape& scores) const {
  const Value query = iota(graph_, scores, 2), key = iota(graph_, scores, 3);
  const Value no = constant_like(equal(query, key), 0);
  Value result = less_equal(key, query);
  if (const auto window = config_.window_of_layer(layer))
    result = where(less(query - constant_like(query, static_cast<double>(*window)), key), result, no);
  if (!options_.documents) return result;
  const Value of_query = unsqueeze(unsqueeze(documents_, 1), 3),
              of_key = unsqueeze(unsqueeze(documents_, 1), 2);
  const Value same = broadcast_to(equal(of_query, of_key), scores);
  const Value real = broadcast_to(less_equal(constant_like(of_query, 0), of_query), scores);
  return where(same, where(real, result, no), no);
}

void ModelBuilder::compare_heads(int64_t layer, Value q, Value k) {
  if (!options_.head_similarity) return;
  const int64_t group = q.size(2) / k.size(2);
  const Value heads = transpose(compute(q), 1, 2);  // [B, H, T, d]
  const Value keys = transpose(compute(k), 1, 2);   // [B, K, T, d]
  const Shape s = keys.shape();
  const Value repeated = reshape(broadcast_to(unsqueeze(keys, 2), {s[0], s[1], group, s[2], s[3]}),
                                 {s[0], s[1] * group, s[2], s[3]});
  Value scores = matmul(heads, repeated, {.transpose_b = true, .dtype = DType::f32}) * config_.score_scale();
  if (config_.attention_cap) scores = apply_cap(config_.attention_cap_type, *config_.attention_cap, scores);
  const Value similarity =
      head_similarity(config_.head_sim_loss_type, scores, visible(layer, scores.shape()));
  const Value part = similarity * (1.0 / static_cast<double>(config_.num_hidden_layers));
  model_.head_similarity = model_.head_similarity ? model_.head_similarity + part : part;
}

// ---- shared pieces

Heads project_heads(ModelBuilder& b, const Scope& s, Value x) {
  const ModelConfig& c = b.config();
  const int64_t d = c.head_dim;
  const auto heads = [&](std::string_view name, int64_t count) {
    const Value y = b.project(s / name, x, count * d, c.attention_bias);
    return reshape(y, {x.size(0), x.size(1), count, d});
  };
  const auto normed = [&](std::string_view name, Value y) { return c.qk_norm ? b.norm(s / name, y) : y; };
  const Rope& r = b.rope(d);
  return {rope(normed("q_norm", heads("q_proj", c.num_attention_heads)), r.cos, r.sin),
          rope(normed("k_norm", heads("k_proj", c.num_key_value_heads)), r.cos, r.sin),
          heads("v_proj", c.num_key_value_heads)};
}

Value merge_heads(Value x) { return reshape(x, {x.size(0), x.size(1), x.size(2) * x.size(3)}); }

Value gated_mlp(ModelBuilder& b, const Scope& s, Value x) {
  const ModelConfig& c = b.config();
  const Value gate = b.project(s / "gate_proj", x, c.intermediate_size, c.mlp_bias);
  const Value up = b.project(s / "up_proj", x, c.intermediate_size, c.mlp_bias);
  return b.project_back(s / "down_proj", b.activation(gate) * up, c.mlp_bias);
}

Value residual_block(ModelBuilder& b, const Scope& s, int64_t layer, Value h, Attention attention) {
  const ModelConfig& c = b.config();
  const auto add = [&](Value branch) {
    return h + b.drop(branch, c.residual_dropout) * c.residual_multiplier;
  };

  Value a = attention(b, s / "self_attn", layer, c.input_layernorm ? b.norm(s / "input_layernorm", h) : h);
  if (c.post_attention_layernorm) a = b.norm(s / "post_attention_branch_layernorm", a);
  h = add(a);
  // Llama's name for the norm before the MLP is post_attention_layernorm.
  Value m = gated_mlp(b, s / "mlp", c.pre_ffnn_layernorm ? b.norm(s / "post_attention_layernorm", h) : h);
  if (c.post_ffnn_layernorm) m = b.norm(s / "post_feedforward_layernorm", m);
  return add(m);
}

}  // namespace nf
