// A config as one of the classes of Hugging Face's transformers.
#include <nlohmann/json.hpp>

#include "nf/error.h"
#include "tools/export/export.h"
#include "tools/export/expressible.h"

namespace nf {
namespace {

using Ordered = nlohmann::ordered_json;

struct ModelClass {
  std::string_view architecture, model_type;
  bool attention_bias, mlp_bias;  // the class can have them
};
constexpr ModelClass kLlama = {"LlamaForCausalLM", "llama", true, true};
constexpr ModelClass kMistral = {"MistralForCausalLM", "mistral", false, false};
constexpr ModelClass kQwen2 = {"Qwen2ForCausalLM", "qwen2", true,
                               false};  // q, k and v always have them, o never
constexpr ModelClass kQwen3 = {"Qwen3ForCausalLM", "qwen3", true, false};
constexpr ModelClass kDiff = {"DiffLlamaForCausalLM", "diffllama", true, false};
constexpr ModelClass kDeepseek = {"DeepseekV3ForCausalLM", "deepseek_v3", true, false};

bool is(const ModelClass& target, const ModelClass& other) { return target.model_type == other.model_type; }

const ModelClass& llama_class(const ModelConfig& c) {
  if (c.qk_norm) return kQwen3;
  if (c.attention_bias && !c.output_bias()) return kQwen2;
  return c.sliding_window ? kMistral : kLlama;
}

const ModelClass& class_of(const ModelConfig& c) {
  switch (c.attention_type) {
    case AttentionType::mha:
    case AttentionType::gqa: return llama_class(c);
    case AttentionType::diff: return kDiff;
    case AttentionType::mla: return kDeepseek;
    case AttentionType::ngpt: break;
  }
  fail(
      "export: 'attention_type' is ngpt, and no class of transformers computes it: hidden states of unit "
      "length, learned rates instead of sums and norms");
}

void check_expressible(const ModelConfig& c, const ModelClass& target) {
  const auto need = [&](bool holds, std::string_view key) {
    require(holds, "export: {} has no word for this model's '{}'", target.architecture, key);
  };
  need_usual_block(c, need);
  need(!c.sliding_window || is(target, kMistral), "sliding_window");
  need(!c.sliding_window_pattern, "sliding_window_pattern");
  need(!c.attention_bias || target.attention_bias, "attention_bias");
  need(!c.mlp_bias || target.mlp_bias, "mlp_bias");
  need(c.output_bias() == c.attention_bias || is(target, kQwen2), "attention_output_bias");
  need(!c.qk_norm || is(target, kQwen3), "qk_norm");
  if (c.attention_type != AttentionType::mla) return;
  need(c.rms_norm_eps == 1e-6,
       "rms_norm_eps");  // the class has 1e-6 in its inner norms, whatever the config says
  need(!c.rope_scaling || c.rope_scaling->mscale_all_dim.value_or(0) == 0, "rope_scaling.mscale_all_dim");
}

std::string_view activation(Activation activation) {
  return activation == Activation::gelu_tanh ? "gelu_pytorch_tanh" : name(activation);
}

std::string_view torch_name(DType dtype) {
  if (dtype == DType::bf16) return "bfloat16";
  return dtype == DType::f16 ? "float16" : "float32";
}

void add_latent(Ordered& out, const ModelConfig& c) {
  out["head_dim"] = c.qk_rope_head_dim;  // what rotary embedding turns there
  out["q_lora_rank"] = c.q_lora_rank ? Ordered(*c.q_lora_rank) : Ordered();
  out["kv_lora_rank"] = c.kv_lora_rank;
  out["qk_rope_head_dim"] = c.qk_rope_head_dim;
  out["qk_nope_head_dim"] = c.qk_nope_head_dim;
  out["v_head_dim"] = c.v_head_dim;
  out["rope_interleave"] = false;
  out["first_k_dense_replace"] = c.num_hidden_layers;  // no layer has experts
}

}  // namespace

std::string hugging_face_config(const ModelConfig& c, const Tokenizer& tokenizer, DType dtype) {
  const ModelClass& target = class_of(c);
  check_expressible(c, target);
  const Ordered ours = Ordered::parse(to_json(c));
  Ordered out = {{"architectures", {target.architecture}}, {"model_type", target.model_type}};
  for (const char* key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "max_position_embeddings", "rope_theta", "rope_scaling",
        "rms_norm_eps", "initializer_range", "tie_word_embeddings", "attention_dropout"})
    out[key] = ours[key];
  out["hidden_act"] = activation(c.hidden_act);
  if (target.attention_bias && !is(target, kQwen2)) out["attention_bias"] = c.attention_bias;
  if (is(target, kQwen2) || is(target, kQwen3)) out["use_sliding_window"] = false;
  if (target.mlp_bias) out["mlp_bias"] = c.mlp_bias;
  if (is(target, kMistral)) out["sliding_window"] = *c.sliding_window;
  if (c.attention_type == AttentionType::diff) out["lambda_std_dev"] = c.lambda_std_dev;
  if (c.attention_type == AttentionType::mla) add_latent(out, c);
  const auto set = [&](const char* key, std::optional<int32_t> id) {
    out[key] = id ? Ordered(*id) : Ordered();
  };
  set("bos_token_id", tokenizer.bos_id());
  set("eos_token_id", tokenizer.eos_id());
  set("pad_token_id", tokenizer.pad_id());
  out["torch_dtype"] = torch_name(dtype);
  out["use_cache"] = true;
  return out.dump(2) + "\n";
}

}  // namespace nf
