// The skeleton around all variants: embedding, blocks, final norm, logits or loss.
#include <cmath>

#include "models/blocks.h"

namespace nf {
namespace {

Value block(ModelBuilder& b, const Scope& s, int64_t layer, Value h) {
  switch (b.config().attention_type) {
    case AttentionType::mha:
    case AttentionType::gqa: return residual_block(b, s, layer, h, gqa_attention);
    case AttentionType::diff: return residual_block(b, s, layer, h, diff_attention);
    case AttentionType::mla: return residual_block(b, s, layer, h, mla_attention);
    case AttentionType::ngpt: return ngpt_block(b, s, layer, h);
  }
  return h;
}

struct Head {
  Value weight;  // [V, D]
  CrossEntropyOptions options;
};

Head output_head(ModelBuilder& b, const Scope& root) {
  const ModelConfig& c = b.config();
  const bool is_ngpt = c.attention_type == AttentionType::ngpt;
  const double base = 1 / std::sqrt(static_cast<double>(c.hidden_size));
  const Init init = Init::normal(is_ngpt ? base : c.initializer_range);
  Head head;
  head.weight =
      c.tie_word_embeddings
          ? b.matrix(root / "model" / "embed_tokens", "weight", c.vocab_size, c.hidden_size, init, 1)
          : b.matrix(root / "lm_head", "weight", c.vocab_size, c.hidden_size, init, 1);
  head.options.logit_scale = c.logit_scale;
  head.options.z_loss = c.z_loss;
  if (c.logit_cap) {
    head.options.cap = *c.logit_cap;
    head.options.cap_type = c.logit_cap_type;
  }
  if (is_ngpt) head.options.scale = ngpt_scale(b, root, "sz", c.vocab_size, 1, base);
  return head;
}

Value logits_of(Value hidden, const Head& head) {
  Value logits = matmul(hidden, head.weight, {.transpose_b = true, .dtype = DType::f32});
  if (head.options.scale) logits = logits * head.options.scale;
  logits = logits * head.options.logit_scale;
  if (head.options.cap_type == CapType::soft) return soft_cap(logits, head.options.cap);
  return head.options.cap_type == CapType::hard ? hard_cap(logits, head.options.cap) : logits;
}

void check(const ModelConfig& config, const ModelOptions& options) {
  require(config.vocab_size > 0, "model: vocab_size is not known");
  require(options.batch > 0 && options.length > 0, "model: batch {} of length {}", options.batch,
          options.length);
  require(options.length <= config.max_position_embeddings &&
              options.cache_length <= config.max_position_embeddings,
          "model: {} tokens are more than max_position_embeddings, {}",
          std::max(options.length, options.cache_length), config.max_position_embeddings);
  require(!(options.cache_length > 0 && (options.training || options.loss || options.documents)),
          "model: generation with caches has no loss, dropout or documents");
}

}  // namespace

std::string narrow_name(const std::string& parameter) { return parameter + "@bf16"; }

ModelGraph build_model(Graph& graph, const ModelConfig& config, const ModelOptions& options) {
  check(config, options);
  ModelGraph model;
  const Scope root(graph);
  const Value ids = input(graph, "ids", DType::i32, {options.batch, options.length});
  ModelBuilder b(graph, config, options, model);

  const Init init = Init::normal(config.attention_type == AttentionType::ngpt
                                     ? 1 / std::sqrt(static_cast<double>(config.hidden_size))
                                     : config.initializer_range);
  Value h;
  {
    const Scope s = root / "model" / "embed_tokens";
    h = embedding(b.embedding_table(s, "weight", {config.vocab_size, config.hidden_size}, init), ids) *
        config.embedding_multiplier;
    h = b.drop(h, config.embedding_dropout);
  }
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    h = block(b, root / fmt::format("model.layers.{}", layer), layer, h);
  if (config.attention_type != AttentionType::ngpt) h = b.norm(root / "model" / "norm", h);
  model.hidden = h;

  if (options.cache_length > 0)
    h = slice(h, 1, options.length - 1, 1);  // the next token follows the last one
  const Scope s = root / "lm_head";
  const Head head = output_head(b, root);
  if (!options.loss) {
    model.logits = logits_of(b.compute(h), head);
    return model;
  }
  const Value targets = input(graph, "targets", DType::i32, {options.batch, options.length});
  const int64_t tokens = options.batch * options.length;
  model.token_losses = linear_cross_entropy(reshape(b.compute(h), {tokens, config.hidden_size}), head.weight,
                                            reshape(targets, {tokens}), head.options);
  return model;
}

std::vector<Parameter> model_parameters(const ModelConfig& config) {
  Graph graph;
  return build_model(graph, config, {.compute = DType::bf16, .loss = false}).parameters;
}

void initialize_parameters(State& state, const std::vector<Parameter>& parameters, uint64_t seed) {
  Graph normalize;
  for (const Parameter& p : parameters) {
    state.ensure(p.name, {DType::f32, p.shape});
    if (p.init_std > 0)
      fill_normal(state, p.name, p.init_std, seed);
    else
      fill_constant(state, p.name, p.init_value);
    if (p.normalize_axis < 0) continue;
    const Value weight = nf::state(normalize, p.name, DType::f32, p.shape);
    assign(weight, l2_normalize(weight, p.normalize_axis));
  }
  if (normalize.size() > 0)
    compile(normalize, std::shared_ptr<State>(std::shared_ptr<State>(), &state), {.name = "initialize"})
        ->run();
}

}  // namespace nf
