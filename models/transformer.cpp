// The skeleton around all variants: embedding, blocks, final norm, logits or loss.
#include "models/blocks.h"

namespace nf {
namespace {

Variant variant_of(const ModelConfig& config) {
  const WeightRules weights{.std = config.initializer_range};
  switch (config.attention_type) {
    case AttentionType::mha:
    case AttentionType::gqa: return {.block = gqa_block, .weights = weights};
    case AttentionType::diff: return {.block = diff_block, .weights = weights};
    case AttentionType::mla: return {.block = mla_block, .weights = weights};
    case AttentionType::ngpt: return ngpt_variant(config);
  }
  fail("model: unknown attention_type");
}

struct Head {
  Value weight;  // [V, D]
  CrossEntropyOptions options;
};

Head output_head(ModelBuilder& b, const Scope& root, const Variant& variant) {
  const ModelConfig& c = b.config();
  Head head;
  head.weight = b.head_matrix(root);
  head.options.logit_scale = c.logit_scale;
  head.options.z_loss = c.z_loss;
  if (c.logit_cap) {
    head.options.cap = *c.logit_cap;
    head.options.cap_type = c.logit_cap_type;
  }
  if (variant.logit_scales) head.options.scale = variant.logit_scales(b, root);
  return head;
}

Value logits_of(Value hidden, const Head& head) {
  Value logits = matmul(hidden, head.weight, {.transpose_b = true, .dtype = DType::f32});
  if (head.options.scale) logits = logits * head.options.scale;
  return apply_cap(head.options.cap_type, head.options.cap, logits * head.options.logit_scale);
}

void check(const ModelConfig& config, const ModelOptions& options) {
  require(config.vocab_size > 0, "model: vocab_size is not known");
  require(options.batch > 0 && options.length > 0, "model: batch {} of length {}", options.batch,
          options.length);
  require(options.length <= config.max_position_embeddings &&
              options.cache_length <= config.max_position_embeddings,
          "model: {} tokens are more than max_position_embeddings, {}",
          std::max(options.length, options.cache_length), config.max_position_embeddings);
  require(!(options.cache_length > 0 && config.lora), "model: generation needs the adapters merged");
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
  const Variant variant = variant_of(config);
  ModelBuilder b(graph, config, options, variant.weights, model);

  Value h;
  {
    const Scope s = root / "model" / "embed_tokens";
    h = embedding(b.embedding_table(root), ids) * config.embedding_multiplier;
    h = b.drop(h, config.embedding_dropout);
  }
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    h = variant.block(b, root / fmt::format("model.layers.{}", layer), layer, h);
  if (variant.final_norm) h = b.norm(root / "model" / "norm", h);
  model.hidden = h;

  if (options.cache_length > 0)
    h = slice(h, 1, options.length - 1, 1);  // the next token follows the last one
  const Scope s = root / "lm_head";
  const Head head = output_head(b, root, variant);
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
    if (!p.trained) continue;
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
