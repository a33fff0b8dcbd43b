#include "models/config_spellings.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <utility>

#include "models/config_names.h"
#include "models/config_values.h"
#include "nf/error.h"

namespace nf {
namespace {

using json = nlohmann::json;

// Other spellings of our keys: upstream's, and older ones of Hugging Face.
struct Alias {
  std::string_view alias, key;
};
constexpr auto kAliases = std::to_array<Alias>({{"attn_bias", "attention_bias"},
                                                {"hidden_dim", "hidden_size"},
                                                {"q_compressed", "q_lora_rank"},
                                                {"kv_compressed", "kv_lora_rank"},
                                                {"rope_head_dim", "qk_rope_head_dim"},
                                                {"n_embd", "hidden_size"},
                                                {"n_layer", "num_hidden_layers"},
                                                {"n_head", "num_attention_heads"}});

// Keys that Hugging Face or upstream write and that change nothing about the model computed here.
constexpr auto kIgnored = std::to_array<std::string_view>({"_attn_implementation",
                                                           "_attn_implementation_autoset",
                                                           "_name_or_path",
                                                           "add_cross_attention",
                                                           "architectures",
                                                           "attn_implementation",
                                                           "aux_loss_alpha",
                                                           "auto_map",
                                                           "bad_words_ids",
                                                           "begin_suppress_tokens",
                                                           "bos_token_id",
                                                           "chunk_size_feed_forward",
                                                           "cross_attention_hidden_size",
                                                           "decoder_start_token_id",
                                                           "diversity_penalty",
                                                           "do_sample",
                                                           "early_stopping",
                                                           "encoder_no_repeat_ngram_size",
                                                           "eos_token_id",
                                                           "ep_size",
                                                           "exponential_decay_length_penalty",
                                                           "finetuning_task",
                                                           "forced_bos_token_id",
                                                           "forced_eos_token_id",
                                                           "id2label",
                                                           "is_decoder",
                                                           "is_encoder_decoder",
                                                           "label2id",
                                                           "length_penalty",
                                                           "max_length",
                                                           "min_length",
                                                           "moe_intermediate_size",
                                                           "moe_layer_freq",
                                                           "n_group",
                                                           "n_shared_experts",
                                                           "no_repeat_ngram_size",
                                                           "norm_topk_prob",
                                                           "num_beam_groups",
                                                           "num_beams",
                                                           "num_experts_per_tok",
                                                           "num_nextn_predict_layers",
                                                           "num_return_sequences",
                                                           "output_attentions",
                                                           "output_hidden_states",
                                                           "output_scores",
                                                           "pad_token_id",
                                                           "prefix",
                                                           "pretraining_tp",
                                                           "problem_type",
                                                           "pruned_heads",
                                                           "qk_head_dim",
                                                           "remove_invalid_values",
                                                           "repetition_penalty",
                                                           "return_dict",
                                                           "return_dict_in_generate",
                                                           "routed_scaling_factor",
                                                           "scoring_func",
                                                           "sep_token_id",
                                                           "seq_aux",
                                                           "suppress_tokens",
                                                           "task_specific_params",
                                                           "temperature",
                                                           "tf_legacy_loss",
                                                           "tie_encoder_decoder",
                                                           "tokenizer_class",
                                                           "top_k",
                                                           "top_p",
                                                           "topk_group",
                                                           "topk_method",
                                                           "torch_dtype",
                                                           "torchscript",
                                                           "transformers_version",
                                                           "typical_p",
                                                           "use_bfloat16",
                                                           "use_cache",
                                                           "use_ngpt"});

// Classes of Hugging Face that are one of our variants.
struct ModelType {
  std::string_view name;
  AttentionType type;
  double rms_norm_eps;  // the class's default, when the file leaves it out
};
constexpr std::array<ModelType, 7> kModelTypes = {{{"llama", AttentionType::gqa, 1e-6},
                                                   {"mistral", AttentionType::gqa, 1e-6},
                                                   {"qwen2", AttentionType::gqa, 1e-6},
                                                   {"qwen3", AttentionType::gqa, 1e-6},
                                                   {"diffllama", AttentionType::diff, 1e-5},
                                                   {"deepseek_v3", AttentionType::mla, 1e-6},
                                                   {"ngpt", AttentionType::ngpt, 1e-6}}};

void set_once(json& object, std::string_view key, json value, std::string_view alias,
              std::string_view source) {
  const auto [at, added] = object.emplace(std::string(key), value);
  if (added || *at == value) return;
  if (at->is_null())
    *at = std::move(value);
  else
    fail("{}: '{}' and '{}' mean the same and differ; keep one", source, alias, key);
}

void replace_aliases(json& object, std::string_view source) {
  for (const Alias& row : kAliases)
    if (object.contains(row.alias)) set_once(object, row.key, take(object, row.alias), row.alias, source);
}

// Granite's and upstream's scales.
void replace_scales(json& object, std::string_view source) {
  if (object.contains("logits_scaling")) {
    require(!object.contains("logit_scale"),
            "{}: both 'logit_scale' (multiplies) and 'logits_scaling' (divides) are given; keep one", source);
    const json value = take(object, "logits_scaling");
    double divisor = 1;
    if (!value.is_null()) read(divisor, value, fmt::format("{}: 'logits_scaling'", source));
    require(divisor != 0, "{}: 'logits_scaling' divides the logits, it must not be 0", source);
    object["logit_scale"] = 1 / divisor;
  }
  if (object.contains("attention_multiplier")) {
    const json value = take(object, "attention_multiplier");
    double multiplier = 0, scale = 0;
    if (!value.is_null()) read(multiplier, value, fmt::format("{}: 'attention_multiplier'", source));
    const bool both = object.contains("attention_scale") && !object["attention_scale"].is_null();
    if (both) read(scale, object["attention_scale"], fmt::format("{}: 'attention_scale'", source));
    // Upstream writes the pair (0, 1) into every file and means automatic.
    if (both && scale == 0 && multiplier == 1) return;
    require(!both || multiplier == 0 || scale == multiplier,
            "{}: 'attention_multiplier' and 'attention_scale' mean the same and differ; keep one", source);
    if (!both) object["attention_scale"] = multiplier;
  }
}

// Newer Hugging Face files gather rope_theta and rope_scaling in rope_parameters; "default" is no scaling.
void replace_rope(json& object, std::string_view source) {
  if (json parameters = take(object, "rope_parameters"); !parameters.is_null()) {
    require(parameters.is_object(), "{}: 'rope_parameters' must be an object, not {}", source,
            shown(parameters));
    if (parameters.contains("rope_theta"))
      set_once(object, "rope_theta", take(parameters, "rope_theta"), "rope_parameters.rope_theta", source);
    if (!parameters.empty())
      set_once(object, "rope_scaling", std::move(parameters), "rope_parameters", source);
  }
  const auto scaling = object.find("rope_scaling");
  if (scaling == object.end() || !scaling->is_object()) return;
  const json type = scaling->value("rope_type", scaling->value("type", json(nullptr)));
  if (type == "default") *scaling = nullptr;
}

// What a class does without being told, where that is not our default.
void add_class_defaults(json& object, std::string_view model_type) {
  if (model_type == "mistral") object.emplace("sliding_window", 4096);
  if (model_type == "qwen2") {
    object["attention_bias"] = true;
    object["attention_output_bias"] = false;
  }
  if (model_type == "qwen3") {
    object["qk_norm"] = true;
    object.emplace("head_dim", 128);
  }
  if (model_type == "qwen2" || model_type == "qwen3") object.emplace("use_sliding_window", false);
}

// What a class of Hugging Face implies: the variant, and that sizes are never left out.
void apply_model_type(json& object, std::string_view source) {
  const json type = take(object, "model_type");
  if (type.is_null()) return;
  const auto row =
      std::find_if(kModelTypes.begin(), kModelTypes.end(), [&](const auto& m) { return type == m.name; });
  if (type == "nanoformer") return;
  require(
      row != kModelTypes.end(),
      "{}: 'model_type' {} is not supported; expected llama, mistral, qwen2, qwen3, diffllama, deepseek_v3, "
      "ngpt or nanoformer",
      source, shown(type));
  if (object.contains("attention_type")) return;
  for (const std::string_view key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"})
    require(object.contains(key), "{}: a {} config needs '{}'", source, row->name, key);
  object.emplace("num_key_value_heads", nullptr);
  object.emplace("rms_norm_eps", row->rms_norm_eps);
  add_class_defaults(object, row->name);
  const json& heads = object["num_key_value_heads"];
  const bool own_heads = heads.is_null() || heads == object["num_attention_heads"];
  object["attention_type"] =
      enum_name(row->type == AttentionType::gqa && own_heads ? AttentionType::mha : row->type);
  if (row->type == AttentionType::mla)
    for (const std::string_view key : {"kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"})
      require(object.contains(key), "{}: a {} config needs '{}'", source, row->name, key);
  if (row->name == "deepseek_v3")
    require(object.contains("rope_interleave"),
            "{}: a deepseek_v3 config needs '\"rope_interleave\": false'; without it the weights are laid "
            "out for "
            "interleaved rotary pairs, which are not supported",
            source);
}

// Hugging Face's words for which layers see a window only: all of them or none, for us.
void settle_windows(json& object, std::string_view source) {
  const json windowed = take(object, "use_sliding_window"), first = take(object, "max_window_layers"),
             types = take(object, "layer_types");
  if (windowed == false) object.erase("sliding_window");
  if (windowed == true && !first.is_null())
    require(first == 0, "{}: 'max_window_layers' is {}: layers that differ in their window are not supported",
            source, shown(first));
  if (types.is_null()) return;
  const auto all = [&](const char* type) {
    return types.is_array() &&
           std::all_of(types.begin(), types.end(), [&](const json& layer) { return layer == type; });
  };
  require(all("full_attention") || all("sliding_attention"),
          "{}: 'layer_types' must be full_attention everywhere, or sliding_attention", source);
  if (all("full_attention")) object.erase("sliding_window");
}

// Keys that are fine as long as they say nothing we cannot do.
void check_unsupported(json& object, std::string_view source) {
  const json interleave = take(object, "rope_interleave");
  require(interleave.is_null() || interleave == false,
          "{}: 'rope_interleave' must be false: rotary pairs are (j, j + d/2) here", source);
  const json dense = take(object, "first_k_dense_replace"), experts = take(object, "n_routed_experts");
  if (!dense.is_null() || !experts.is_null()) {
    int64_t dense_layers = 0, layers = 0;
    if (!dense.is_null()) read(dense_layers, dense, fmt::format("{}: 'first_k_dense_replace'", source));
    if (object.contains("num_hidden_layers"))
      read(layers, object["num_hidden_layers"], fmt::format("{}: 'num_hidden_layers'", source));
    require(
        experts.is_null() || dense_layers >= layers,
        "{}: mixtures of experts are not supported; 'first_k_dense_replace' ({}) must cover all {} layers",
        source, dense_layers, layers);
  }
  settle_windows(object, source);
}

}  // namespace

void replace_spellings(json& object, std::string_view source) {
  replace_aliases(object, source);
  replace_scales(object, source);
  replace_rope(object, source);
}

void canonicalise(json& object, std::string_view source) {
  apply_model_type(object, source);
  check_unsupported(object, source);
  for (const std::string_view key : kIgnored) object.erase(std::string(key));
  // Hugging Face's dtype of the stored weights; ours is a training key and must not vanish here unseen.
  if (const auto at = object.find("dtype"); at != object.end())
    if (at->is_null() || *at == "float32" || *at == "bfloat16" || *at == "float16") object.erase(at);
  // Absent K is 2 for the grouped variants; null says "one per head", as in Hugging Face and upstream.
  const auto heads = object.find("num_key_value_heads");
  if (heads != object.end() && heads->is_null() && object.contains("num_attention_heads"))
    *heads = object["num_attention_heads"];
  // Defaults that others write as null.
  for (const std::string_view key :
       {"rope_theta", "attention_scale", "logit_scale", "gradient_checkpointing"})
    if (const auto at = object.find(key); at != object.end() && at->is_null()) object.erase(at);
}

}  // namespace nf
