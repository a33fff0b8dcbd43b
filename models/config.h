// ModelConfig: every choice that makes a model, read from and written to JSON.
//
// Names follow Hugging Face where they have one. A config file written by Hugging Face for a Llama, Mistral,
// Qwen2, Qwen3, DiffLlama or dense DeepSeek-V3 model is accepted as it is: keys without a meaning here (token
// ids, dtypes, generation defaults) are ignored, `model_type` chooses the variant. Every other unknown key is
// an error that suggests the nearest known one.
//
// Notation of the comments: D hidden_size, L layers, H query heads, K key/value heads, d head_dim, F
// intermediate_size, V vocabulary, T tokens of a sequence.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/lora.h"
#include "nf/ops.h"

namespace nf {

enum class AttentionType : uint8_t { mha, gqa, diff, ngpt, mla };
enum class Activation : uint8_t { silu, gelu, gelu_tanh, relu, relu2 };  // gelu is the exact one, with erf
enum class HeadSimLossType : uint8_t { mse, jsd };
enum class RopeScalingType : uint8_t { linear, dynamic, yarn, llama3 };

std::string_view name(AttentionType type);
std::string_view name(Activation activation);
std::string_view name(CapType type);
std::string_view name(HeadSimLossType type);
std::string_view name(RopeScalingType type);

// How rotary angles are stretched to longer sequences; fields as in Hugging Face's `rope_scaling`.
struct RopeScaling {
  RopeScalingType type = RopeScalingType::linear;
  double factor = 1;                                 // >= 1
  int64_t original_max_position_embeddings = 0;      // the angles were made for; default: the model's
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  double beta_fast = 32, beta_slow = 1;              // yarn: rotations that bound the blend
  std::optional<double> attention_factor;        // yarn: factor of cos and sin; default 0.1 ln(factor) + 1
  std::optional<double> mscale, mscale_all_dim;  // yarn as DeepSeek writes it

  bool operator==(const RopeScaling&) const = default;
};

// What the backward pass may recompute instead of keeping.
struct GradientCheckpointing {
  enum class Mode : uint8_t { none, layer, bytes };
  Mode mode = Mode::none;
  int64_t bytes = 0;  // activation budget when mode is bytes

  bool operator==(const GradientCheckpointing&) const = default;
};

struct ModelConfig {
  AttentionType attention_type = AttentionType::gqa;
  int64_t vocab_size = 0;  // 0: not known yet, taken from the tokenizer

  int64_t hidden_size = 256;
  int64_t intermediate_size = 1024;
  int64_t num_hidden_layers = 8;
  int64_t num_attention_heads = 8;
  int64_t num_key_value_heads = 0;  // 0 until resolve(): H for mha and mla, else 2
  int64_t head_dim = 0;             // 0 until resolve(): D / H. The q, k, v width of mha, gqa, diff, ngpt
  Activation hidden_act = Activation::silu;

  int64_t max_position_embeddings = 2048;
  double rope_theta = 10000;
  std::optional<RopeScaling> rope_scaling;
  double rms_norm_eps = 1e-6;
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  bool attention_bias = false;                // q, k, v and o (mla: q_a, kv_a and o)
  std::optional<bool> attention_output_bias;  // o alone, where it differs from the others; see output_bias()
  bool qk_norm =
      false;  // RMS norm of every query and key head before the rotation, with gains (not mla, ngpt)
  bool mlp_bias = false;  // gate, up and down
  double attention_dropout = 0;
  double residual_dropout = 0;
  double embedding_dropout = 0;

  double attention_scale = 0;  // 0: automatic, see score_scale()
  std::optional<double> attention_cap;
  std::optional<double> logit_cap;
  CapType attention_cap_type = CapType::soft;
  CapType logit_cap_type = CapType::soft;
  double logit_scale = 1;
  double embedding_multiplier = 1;
  double residual_multiplier = 1;

  // Norms of a block, each with its own gain. All off in ngpt.
  bool input_layernorm = true;            // before attention
  bool post_attention_layernorm = false;  // on attention's output, before it is added to the residual stream
  bool pre_ffnn_layernorm = true;         // before the MLP
  bool post_ffnn_layernorm = false;       // on the MLP's output, before it is added

  std::optional<int64_t> sliding_window;          // token i sees j with i - window < j <= i
  std::optional<int64_t> sliding_window_pattern;  // every n-th layer is full; see window_of_layer()

  // mla only; 0 (or none) in the other variants.
  std::optional<int64_t> q_lora_rank;  // none: queries are projected directly
  int64_t kv_lora_rank = 0;            // default D / 4
  int64_t qk_rope_head_dim = 0;        // default d / 2
  int64_t qk_nope_head_dim = 0;        // default d
  int64_t v_head_dim = 0;              // default d

  double lambda_std_dev = 0.1;  // diff: spread of the initial lambda vectors

  bool head_sim_loss = false;
  double head_sim_loss_weight = 1;
  bool head_sim_loss_after_warmup = false;
  HeadSimLossType head_sim_loss_type = HeadSimLossType::mse;
  double z_loss = 0;
  GradientCheckpointing gradient_checkpointing;

  std::optional<LoraConfig> lora;  // only adapters are trained

  bool operator==(const ModelConfig&) const = default;

  // Head widths that attention sees: of queries and keys, and of values. diff has 2 d wide values.
  int64_t key_width() const;
  int64_t value_width() const;
  // Factor of q k: attention_scale, or 1/sqrt(d), for ngpt sqrt(d), for mla 1/sqrt(d_nope + d_rope).
  double score_scale() const;
  bool output_bias() const { return attention_output_bias.value_or(attention_bias); }
  // The window of a 0-based layer; none when that layer sees everything. With a pattern n, layers n-1, 2n-1,
  // … are full.
  std::optional<int64_t> window_of_layer(int64_t layer) const;
};

// Fills what was left to derive (0 in num_key_value_heads, head_dim and mla's widths) and checks every rule;
// throws Error `source: rule` for a model that cannot exist. vocab_size may still be 0. Configs built in code
// go through here; the parsers below have done it.
ModelConfig resolve(ModelConfig config, std::string_view source = "config");

struct ParsedConfig {
  ModelConfig model;     // resolved
  std::string training;  // the "training" section as JSON text; empty when there is none
};

// Reads a config. `source` names it in messages, usually the file. Throws Error that names the key and what
// it takes.
ParsedConfig parse_config(std::string_view json, std::string_view source);

// The same with keys on top, another JSON object of the same form without "training": what a command line
// says. Derived values follow: hidden_size on top gives another head_dim unless the config states one.
ParsedConfig parse_config(std::string_view json, std::string_view overrides, std::string_view source);
ModelConfig parse_model_config(std::string_view json, std::string_view source);

// The file that find_config(name) finds, parsed.
ParsedConfig load_config(std::string_view name);

// Every key in a fixed order, as an indented JSON object; parse_model_config reads the same config back.
std::string to_json(const ModelConfig& config);

// "none", "layer", or bytes: "6GiB", "512MiB", "2GB", "1000000". Throws Error `source: …`.
GradientCheckpointing parse_gradient_checkpointing(std::string_view text, std::string_view source);
std::string to_string(const GradientCheckpointing& checkpointing);

// The config a name stands for: the file itself if there is one, else NAME or NAME.json in the folders of
// shipped configs: models/configs beside the program's folder, the install prefix's share/nanoformer/configs,
// and the compiled in NF_CONFIG_DIR. Throws Error that lists the shipped names.
std::filesystem::path find_config(std::string_view name);

// Keys of a config, and of its "training" section (what each means is in tools/settings.h), in the order of
// to_json.
std::span<const std::string_view> model_keys();
std::span<const std::string_view> training_keys();

// The known word nearest to `word` by edits (insert, delete, replace, swap of neighbours), or empty when none
// is near.
std::string_view nearest(std::string_view word, std::span<const std::string_view> known);

// Number of parameters, without padding of the vocabulary. Needs vocab_size.
struct ParameterCount {
  int64_t embedding = 0;  // V D
  int64_t head = 0;       // V D, 0 when tied
  int64_t block = 0;      // one layer
  int64_t last = 0;       // final norm D; ngpt: the logits' scale V
  int64_t adapters = 0;   // of all layers; with them the rest is frozen
  int64_t total = 0;      // with the adapters
};
ParameterCount count_parameters(const ModelConfig& config);

// Forward FLOPs per token, averaged over a sequence of T tokens: 2 per matrix parameter without the
// embedding's gather, and attention's 2 T_eff H (d_k + d_v), T_eff = (T+1)/2 or less where a window cuts.
double forward_flops_per_token(const ModelConfig& config, int64_t tokens);
// Of forward and backward: three times as many, or twice where the matrices are frozen and have no gradients.
double training_flops_per_token(const ModelConfig& config, int64_t tokens);

// Numbers kept per token and layer while generating: 2 K d; mla: kv_lora_rank + qk_rope_head_dim.
int64_t kv_cache_values(const ModelConfig& config);

}  // namespace nf
