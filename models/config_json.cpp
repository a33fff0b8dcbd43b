// Reading and writing a ModelConfig as JSON. Every key is one row of a table: its name, how to read it, how
// to write it.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

#include "models/config.h"
#include "models/config_names.h"
#include "models/config_spellings.h"
#include "models/config_values.h"
#include "nf/error.h"
#include "nf/file.h"
#include "nf/json.h"

namespace nf {
namespace {

using json = nlohmann::json;             // reading: order means nothing
using Ordered = nlohmann::ordered_json;  // writing

// --- values
// ---------------------------------------------------------------------------------------------------------

using nf::read;  // plain values; the overloads below would hide it

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
