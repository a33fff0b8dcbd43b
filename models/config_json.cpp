// Reading and writing a ModelConfig as JSON. Every key is one row of a table: its name, how to read it, how
// to write it.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

#include "models/config.h"
#include "models/config_names.h"
#include "nf/error.h"
#include "nf/file.h"
#include "nf/json.h"

namespace nf {
namespace {

using json = nlohmann::json;             // reading: order means nothing
using Ordered = nlohmann::ordered_json;  // writing

// --- values
// ---------------------------------------------------------------------------------------------------------
// `where` is "FILE: 'key'"; the messages go on from there.

std::string shown(const json& value) {
  return printable(value.dump(-1, ' ', true, json::error_handler_t::replace));
}

void read(bool& out, const json& value, const std::string& where) {
  require(value.is_boolean(), "{} must be true or false, not {}", where, shown(value));
  out = value.get<bool>();
}

void read(int64_t& out, const json& value, const std::string& where) {
  const bool fits =
      value.is_number_integer() && (!value.is_number_unsigned() || value.get<uint64_t>() <= INT64_MAX);
  require(fits, "{} must be a whole number, not {}", where, shown(value));
  out = value.get<int64_t>();
}

void read(double& out, const json& value, const std::string& where) {
  require(value.is_number(), "{} must be a number, not {}", where, shown(value));
  out = value.get<double>();
}

// Spellings that others use for a value of ours.
struct Synonym {
  std::string_view word, ours;
};
constexpr std::array<Synonym, 4> kSynonyms = {
    {{"swish", "silu"}, {"gelu_pytorch_tanh", "gelu_tanh"}, {"gelu_new", "gelu_tanh"}, {"gqa-ngpt", "ngpt"}}};

template <typename Enum>
requires std::is_enum_v<Enum>
void read(Enum& out, const json& value, const std::string& where) {
  const auto& words = kWords<Enum>;
  std::string word = value.is_string() ? value.get<std::string>() : "";
  for (const Synonym& synonym : kSynonyms)
    if (synonym.word == word) word = synonym.ours;
  const auto at = std::find(words.begin(), words.end(), word);
  require(at != words.end(), "{} must be one of {}, not {}", where, fmt::join(words, ", "), shown(value));
  out = static_cast<Enum>(at - words.begin());
}

void read(GradientCheckpointing& out, const json& value, const std::string& where) {
  if (value.is_boolean())  // as upstream and Hugging Face write it
    out.mode = value.get<bool>() ? GradientCheckpointing::Mode::layer : GradientCheckpointing::Mode::none;
  else if (value.is_string())
    out = parse_gradient_checkpointing(value.get<std::string>(), where);
  else {
    require(value.is_number_integer(), "{} must be \"none\", \"layer\" or bytes such as \"6GiB\", not {}",
            where, shown(value));
    out = parse_gradient_checkpointing(value.dump(), where);
  }
}

template <typename T>
void read(std::optional<T>& out, const json& value, const std::string& where);

// As text, or as an object of the same keys.
void read(LoraConfig& out, const json& value, const std::string& where) {
  if (value.is_string()) {
    out = parse_lora(value.get<std::string>(), where);
    return;
  }
  require(value.is_object(), "{} must be an object with r, alpha, targets and dropout, or null, not {}",
          where, shown(value));
  for (const auto& [key, item] : value.items()) {
    const std::string at = fmt::format("{}: '{}'", where, printable(key));
    if (key == "r") {
      read(out.rank, item, at);
    } else if (key == "alpha") {
      read(out.alpha, item, at);
    } else if (key == "dropout") {
      read(out.dropout, item, at);
    } else {
      require(key == "targets" && item.is_array(), "{} unknown, or not a list of names", at);
      out.targets.clear();
      for (const json& target : item) {
        require(target.is_string(), "{} must hold names, not {}", at, shown(target));
        out.targets.push_back(target.get<std::string>());
      }
    }
  }
}

[[noreturn]] void fail_unknown(std::string_view source, std::string_view key, std::string_view place,
                               std::span<const std::string_view> known) {
  const std::string_view near = nearest(key, known);
  if (near.empty()) fail("{}: unknown key '{}'{}", source, printable(key), place);
  fail("{}: unknown key '{}'{}; did you mean '{}'?", source, printable(key), place, near);
}

constexpr std::array<std::string_view, 11> kRopeKeys = {"rope_type",
                                                        "factor",
                                                        "original_max_position_embeddings",
                                                        "low_freq_factor",
                                                        "high_freq_factor",
                                                        "beta_fast",
                                                        "beta_slow",
                                                        "attention_factor",
                                                        "mscale",
                                                        "mscale_all_dim",
                                                        "type"};

void read(RopeScaling& out, const json& value, const std::string& where) {
  require(value.is_object(), "{} must be an object or null, not {}", where, shown(value));
  require(value.contains("rope_type") || value.contains("type"), "{} needs 'rope_type': one of {}", where,
          fmt::join(kWords<RopeScalingType>, ", "));
  for (const auto& [key, item] : value.items()) {
    const std::string at = fmt::format("{}: '{}'", where, printable(key));
    if (std::find(kRopeKeys.begin(), kRopeKeys.end(), key) == kRopeKeys.end())
      fail_unknown(where, key, "", kRopeKeys);
    if (key == "rope_type" || key == "type") read(out.type, item, at);
    if (key == "factor") read(out.factor, item, at);
    if (key == "original_max_position_embeddings") read(out.original_max_position_embeddings, item, at);
    if (key == "low_freq_factor") read(out.low_freq_factor, item, at);
    if (key == "high_freq_factor") read(out.high_freq_factor, item, at);
    if (key == "beta_fast") read(out.beta_fast, item, at);
    if (key == "beta_slow") read(out.beta_slow, item, at);
    if (key == "attention_factor") read(out.attention_factor, item, at);
    if (key == "mscale") read(out.mscale, item, at);
    if (key == "mscale_all_dim") read(out.mscale_all_dim, item, at);
  }
}

template <typename T>
void read(std::optional<T>& out, const json& value, const std::string& where) {
  out.reset();
  if (!value.is_null()) read(out.emplace(), value, where);
}

template <typename T>
Ordered write(const T& value) {
  if constexpr (std::is_enum_v<T>)
    return enum_name(value);
  else
    return value;
}

Ordered write(const GradientCheckpointing& value) {
  if (value.mode == GradientCheckpointing::Mode::bytes) return value.bytes;
  return to_string(value);
}

Ordered write(const RopeScaling& s) {
  Ordered out = {{"rope_type", enum_name(s.type)},
                 {"factor", s.factor},
                 {"original_max_position_embeddings", s.original_max_position_embeddings}};
  if (s.type == RopeScalingType::llama3) {
    out["low_freq_factor"] = s.low_freq_factor;
    out["high_freq_factor"] = s.high_freq_factor;
  }
  if (s.type == RopeScalingType::yarn) {
    out["beta_fast"] = s.beta_fast;
    out["beta_slow"] = s.beta_slow;
  }
  if (s.attention_factor) out["attention_factor"] = *s.attention_factor;
  if (s.mscale) out["mscale"] = *s.mscale;
  if (s.mscale_all_dim) out["mscale_all_dim"] = *s.mscale_all_dim;
  return out;
}

Ordered write(const LoraConfig& lora) {
  return {{"r", lora.rank}, {"alpha", lora.alpha}, {"targets", lora.targets}, {"dropout", lora.dropout}};
}

template <typename T>
Ordered write(const std::optional<T>& value) {
  return value ? write(*value) : Ordered(nullptr);
}

// --- keys
// -----------------------------------------------------------------------------------------------------------

struct Key {
  std::string_view name;
  void (*read)(ModelConfig&, const json&, const std::string& where);
  Ordered (*write)(const ModelConfig&);
};

template <auto Member>
constexpr Key key(std::string_view name) {
  return {name, [](ModelConfig& c, const json& v, const std::string& where) { read(c.*Member, v, where); },
          [](const ModelConfig& c) -> Ordered { return write(c.*Member); }};
}

// A size whose 0 means "derived", which JSON says by null.
template <auto Member>
constexpr Key derived(std::string_view name) {
  return {
      name,
      [](ModelConfig& c, const json& v, const std::string& where) {
        c.*Member = 0;
        if (v.is_null()) return;
        read(c.*Member, v, where);
        require(c.*Member > 0, "{} must be at least 1, not {}", where, shown(v));
      },
      [](const ModelConfig& c) -> Ordered { return c.*Member == 0 ? Ordered(nullptr) : Ordered(c.*Member); }};
}

// A cap; upstream writes 0 for none.
template <auto Member>
constexpr Key cap(std::string_view name) {
  return {name,
          [](ModelConfig& c, const json& v, const std::string& where) {
            read(c.*Member, v, where);
            if (c.*Member && *(c.*Member) == 0) (c.*Member).reset();
          },
          [](const ModelConfig& c) -> Ordered { return write(c.*Member); }};
}

using C = ModelConfig;
constexpr auto kKeys = std::to_array<Key>({
    key<&C::attention_type>("attention_type"),
    derived<&C::vocab_size>("vocab_size"),
    key<&C::hidden_size>("hidden_size"),
    key<&C::intermediate_size>("intermediate_size"),
    key<&C::num_hidden_layers>("num_hidden_layers"),
    key<&C::num_attention_heads>("num_attention_heads"),
    derived<&C::num_key_value_heads>("num_key_value_heads"),
    derived<&C::head_dim>("head_dim"),
    key<&C::hidden_act>("hidden_act"),
    key<&C::max_position_embeddings>("max_position_embeddings"),
    key<&C::rope_theta>("rope_theta"),
    key<&C::rope_scaling>("rope_scaling"),
    key<&C::rms_norm_eps>("rms_norm_eps"),
    key<&C::initializer_range>("initializer_range"),
    key<&C::tie_word_embeddings>("tie_word_embeddings"),
    key<&C::attention_bias>("attention_bias"),
    key<&C::attention_output_bias>("attention_output_bias"),
    key<&C::mlp_bias>("mlp_bias"),
    key<&C::qk_norm>("qk_norm"),
    key<&C::attention_dropout>("attention_dropout"),
    key<&C::residual_dropout>("residual_dropout"),
    key<&C::embedding_dropout>("embedding_dropout"),
    key<&C::attention_scale>("attention_scale"),
    cap<&C::attention_cap>("attention_cap"),
    key<&C::attention_cap_type>("attention_cap_type"),
    cap<&C::logit_cap>("logit_cap"),
    key<&C::logit_cap_type>("logit_cap_type"),
    key<&C::logit_scale>("logit_scale"),
    key<&C::embedding_multiplier>("embedding_multiplier"),
    key<&C::residual_multiplier>("residual_multiplier"),
    key<&C::input_layernorm>("input_layernorm"),
    key<&C::post_attention_layernorm>("post_attention_layernorm"),
    key<&C::pre_ffnn_layernorm>("pre_ffnn_layernorm"),
    key<&C::post_ffnn_layernorm>("post_ffnn_layernorm"),
    key<&C::sliding_window>("sliding_window"),
    key<&C::sliding_window_pattern>("sliding_window_pattern"),
    key<&C::q_lora_rank>("q_lora_rank"),
    derived<&C::kv_lora_rank>("kv_lora_rank"),
    derived<&C::qk_rope_head_dim>("qk_rope_head_dim"),
    derived<&C::qk_nope_head_dim>("qk_nope_head_dim"),
    derived<&C::v_head_dim>("v_head_dim"),
    key<&C::lambda_std_dev>("lambda_std_dev"),
    key<&C::head_sim_loss>("head_sim_loss"),
    key<&C::head_sim_loss_weight>("head_sim_loss_weight"),
    key<&C::head_sim_loss_after_warmup>("head_sim_loss_after_warmup"),
    key<&C::head_sim_loss_type>("head_sim_loss_type"),
    key<&C::z_loss>("z_loss"),
    key<&C::gradient_checkpointing>("gradient_checkpointing"),
    key<&C::lora>("lora"),
});

constexpr auto kKeyNames = [] {
  std::array<std::string_view, kKeys.size()> names;
  for (size_t i = 0; i < names.size(); ++i) names[i] = kKeys[i].name;
  return names;
}();

constexpr auto kTrainingKeys = std::to_array<std::string_view>(
    {"data",         "text_field",   "subset",       "split",          "val_fraction", "tokenizer",
     "batch_mode",   "batch_size",   "grad_accum",   "seq_len",        "steps",        "epochs",
     "optimizer",    "lr",           "weight_decay", "beta1",          "beta2",        "eps",
     "momentum",     "nesterov",     "muon_scaling", "clip",           "ema",          "schedule",
     "warmup_steps", "warmup_ratio", "min_lr_ratio", "decay_fraction", "decay_shape",  "dtype",
     "device",       "threads",      "seed",         "split_seed",     "out",          "run_name",
     "eval_every",   "eval_batches", "save_every",   "keep",           "track",        "init_from"});

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

// --- other people's files
// -------------------------------------------------------------------------------------------

// Takes a key out of the object; null when it is absent.
json take(json& object, std::string_view key) {
  const auto at = object.find(key);
  if (at == object.end()) return nullptr;
  json value = std::move(*at);
  object.erase(at);
  return value;
}

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

void replace_spellings(json& object, std::string_view source) {
  replace_aliases(object, source);
  replace_scales(object, source);
  replace_rope(object, source);
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

// Leaves our keys alone. Spellings have been replaced.
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

json parse_object(std::string_view text, std::string_view source) {
  check_json(text, source);
  json object = json::parse(text);
  require(object.is_object(), "{}: a config is a JSON object, not {}", source, shown(object));
  return object;
}

void check_known(const json& object, std::string_view source) {
  for (const auto& [key, value] : object.items()) {
    if (std::find(kKeyNames.begin(), kKeyNames.end(), key) != kKeyNames.end()) continue;
    if (std::find(kTrainingKeys.begin(), kTrainingKeys.end(), key) != kTrainingKeys.end())
      fail("{}: key '{}' belongs in the \"training\" section", source, key);
    std::vector<std::string_view> known(kKeyNames.begin(), kKeyNames.end());
    known.insert(known.end(), kTrainingKeys.begin(), kTrainingKeys.end());
    fail_unknown(source, key, "", known);
  }
}

}  // namespace

ParsedConfig parse_config(std::string_view text, std::string_view overrides, std::string_view source) {
  json object = parse_object(text, source);
  json above = parse_object(overrides, source);
  ParsedConfig parsed;
  if (const json training = take(object, "training"); !training.is_null()) {
    require(training.is_object(), "{}: 'training' must be an object, not {}", source, shown(training));
    parsed.training = training.dump();
  }
  // Spellings first, so that a key on top replaces its alias below.
  replace_spellings(object, source);
  replace_spellings(above, source);
  object.update(above);
  canonicalise(object, source);
  check_known(object, source);
  require(object.contains("attention_type"), "{}: 'attention_type' is missing; expected one of {}", source,
          fmt::join(kWords<AttentionType>, ", "));
  for (const Key& key : kKeys)
    if (const auto at = object.find(key.name); at != object.end())
      key.read(parsed.model, *at, fmt::format("{}: '{}'", source, key.name));
  if (parsed.model.attention_type == AttentionType::ngpt)
    for (const std::string_view norm :
         {"input_layernorm", "post_attention_layernorm", "pre_ffnn_layernorm", "post_ffnn_layernorm"})
      require(!object.contains(norm) || object[norm] == false,
              "{}: ngpt has no norms with gains; remove '{}'", source, norm);
  parsed.model = resolve(parsed.model, source);
  return parsed;
}

ParsedConfig parse_config(std::string_view text, std::string_view source) {
  return parse_config(text, "{}", source);
}

ModelConfig parse_model_config(std::string_view text, std::string_view source) {
  return parse_config(text, source).model;
}

ParsedConfig load_config(std::string_view name) {
  const std::filesystem::path path = find_config(name);
  return parse_config(read_file(path, int64_t{1} << 24), path.string());
}

std::string to_json(const ModelConfig& config) {
  Ordered object = Ordered::object();
  for (const Key& key : kKeys) object[std::string(key.name)] = key.write(config);
  return object.dump(2) + "\n";
}

std::span<const std::string_view> model_keys() { return kKeyNames; }
std::span<const std::string_view> training_keys() { return kTrainingKeys; }

}  // namespace nf
