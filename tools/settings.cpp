#include "tools/settings.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "models/config_values.h"
#include "nf/error.h"
#include "nf/json.h"
#include "tools/device.h"

namespace nf {
namespace {

using nlohmann::json;
using Ordered = nlohmann::ordered_json;

// --- words
// ----------------------------------------------------------------------------------------------------------

template <typename Enum>
constexpr std::array<std::string_view, 0> kWords{};
template <>
constexpr std::array<std::string_view, 4> kWords<Optimizer> = {"adamw", "sgd", "lion", "muon"};
template <>
constexpr std::array<std::string_view, 4> kWords<Schedule> = {"constant", "linear", "cosine", "wsd"};
template <>
constexpr std::array<std::string_view, 2> kWords<DecayShape> = {"linear", "1-sqrt"};
template <>
constexpr std::array<std::string_view, 2> kWords<MuonScaling> = {"original", "moonshot"};
template <>
constexpr std::array<std::string_view, 2> kWords<ComputeType> = {"bf16", "f32"};
template <>
constexpr auto kWords<DeviceKind> = kDeviceWords;
template <>
constexpr std::array<std::string_view, 2> kWords<BatchMode> = {"pack", "pad"};

template <typename Enum>
std::string_view word(Enum value) {
  return kWords<Enum>[static_cast<size_t>(value)];
}

// --- values
// ---------------------------------------------------------------------------------------------------------
// `where` is "SOURCE: 'key'"; the messages go on from there.

using nf::read;  // plain values; the overloads below would hide it

void read(std::string& out, const json& value, const std::string& where) {
  require(value.is_string(), "{} must be a string, not {}", where, shown(value));
  out = value.get<std::string>();
}

void read(std::vector<std::string>& out, const json& value, const std::string& where) {
  out.clear();
  if (value.is_string()) {
    out.push_back(value.get<std::string>());
    return;
  }
  require(value.is_array(), "{} must be a path or a list of paths, not {}", where, shown(value));
  for (const json& item : value) read(out.emplace_back(), item, where);
}

// "jsonl,tensorboard" or ["jsonl", "tensorboard"].
void read(Tracking& out, const json& value, const std::string& where) {
  constexpr std::string_view kRule = "{} must be a list of jsonl, tensorboard and wandb, not {}";
  std::vector<std::string> names;
  if (value.is_string()) {
    const std::string text = value.get<std::string>() + ",";
    for (size_t at = 0, end = 0; (end = text.find(',', at)) != std::string::npos; at = end + 1)
      names.push_back(text.substr(at, end - at));
  } else {
    require(value.is_array(), kRule, where, shown(value));
    for (const json& item : value) read(names.emplace_back(), item, where);
  }
  out = {};
  for (const std::string& name : names) {
    require(name == "jsonl" || name == "tensorboard" || name == "wandb", kRule, where, shown(value));
    out.tensorboard |= name == "tensorboard";
    out.wandb |= name == "wandb";
  }
}

template <typename Enum>
requires std::is_enum_v<Enum>
void read(Enum& out, const json& value, const std::string& where) {
  const auto& words = kWords<Enum>;
  const auto at = value.is_string()
                      ? std::find(words.begin(), words.end(), value.get_ref<const std::string&>())
                      : words.end();
  require(at != words.end(), "{} must be one of {}, not {}", where, fmt::join(words, ", "), shown(value));
  out = static_cast<Enum>(at - words.begin());
}

template <typename T>
Ordered write(const T& value) {
  if constexpr (std::is_enum_v<T>)
    return word(value);
  else if constexpr (std::is_same_v<T, Tracking>)
    return std::string("jsonl") + (value.tensorboard ? ",tensorboard" : "") + (value.wandb ? ",wandb" : "");
  else
    return value;
}

// --- keys
// -----------------------------------------------------------------------------------------------------------

struct Key {
  std::string_view name;
  void (*read)(TrainSettings&, const json&, const std::string& where);
  Ordered (*write)(const TrainSettings&);
  bool saved = true;  // in the run's config.json
};

template <auto Member>
constexpr Key key(std::string_view name, bool saved = true) {
  return {name, [](TrainSettings& s, const json& v, const std::string& where) { read(s.*Member, v, where); },
          [](const TrainSettings& s) -> Ordered { return write(s.*Member); }, saved};
}

using S = TrainSettings;
constexpr bool kNotSaved = false;  // belongs to the machine or to one start
constexpr auto kKeys = std::to_array<Key>({
    key<&S::data>("data"),
    key<&S::text_field>("text_field"),
    key<&S::subset>("subset"),
    key<&S::split>("split"),
    key<&S::val_fraction>("val_fraction"),
    key<&S::tokenizer>("tokenizer"),
    key<&S::batch_mode>("batch_mode"),
    key<&S::batch_size>("batch_size"),
    key<&S::grad_accum>("grad_accum"),
    key<&S::seq_len>("seq_len"),
    key<&S::steps>("steps"),
    key<&S::epochs>("epochs"),
    key<&S::optimizer>("optimizer"),
    key<&S::lr>("lr"),
    key<&S::weight_decay>("weight_decay"),
    key<&S::beta1>("beta1"),
    key<&S::beta2>("beta2"),
    key<&S::eps>("eps"),
    key<&S::momentum>("momentum"),
    key<&S::nesterov>("nesterov"),
    key<&S::muon_scaling>("muon_scaling"),
    key<&S::clip>("clip"),
    key<&S::ema>("ema"),
    key<&S::schedule>("schedule"),
    key<&S::warmup_steps>("warmup_steps"),
    key<&S::warmup_ratio>("warmup_ratio"),
    key<&S::min_lr_ratio>("min_lr_ratio"),
    key<&S::decay_fraction>("decay_fraction"),
    key<&S::decay_shape>("decay_shape"),
    key<&S::dtype>("dtype"),
    key<&S::device>("device", kNotSaved),
    key<&S::threads>("threads", kNotSaved),
    key<&S::seed>("seed"),
    key<&S::split_seed>("split_seed"),
    key<&S::out>("out", kNotSaved),
    key<&S::run_name>("run_name"),
    key<&S::eval_every>("eval_every"),
    key<&S::eval_batches>("eval_batches"),
    key<&S::save_every>("save_every"),
    key<&S::keep>("keep"),
    key<&S::track>("track"),
    key<&S::init_from>("init_from"),
});

void check_known(const json& object, const SourceOfKey& source_of) {
  for (const auto& [name, value] : object.items()) {
    const bool known =
        std::any_of(kKeys.begin(), kKeys.end(), [&name = name](const Key& key) { return key.name == name; });
    if (known) continue;
    const std::string source = source_of(name);
    const auto models = model_keys();
    if (std::find(models.begin(), models.end(), name) != models.end())
      fail("{}: key '{}' belongs to the model, outside \"training\"", source, name);
    const std::string_view near = nearest(name, training_keys());
    if (near.empty()) fail("{}: unknown key '{}'", source, printable(name));
    fail("{}: unknown key '{}'; did you mean '{}'?", source, printable(name), near);
  }
}

// --- defaults and rules
// ---------------------------------------------------------------------------------------------

int available_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

// The narrower the sphere, the higher the rate at which models on it learn best
// (tests/bench/results/ngpt_lr.md).
double ngpt_learning_rate(const ModelConfig& model) {
  return 0.09 / std::sqrt(static_cast<double>(model.hidden_size));
}

// What the rest depends on; called before the given keys are read into `s`, but for these few.
void fill_defaults(TrainSettings& s, const ModelConfig& model) {
  const bool ngpt = model.attention_type == AttentionType::ngpt;
  switch (s.optimizer) {
    case Optimizer::adamw: s.lr = ngpt ? ngpt_learning_rate(model) : 1e-3; break;
    case Optimizer::sgd:
      s.lr = 0.1;
      s.momentum = 0.9;
      s.nesterov = false;
      s.weight_decay = 0;
      break;
    case Optimizer::lion:
      s.lr = 1e-4;
      s.beta2 = 0.99;
      break;
    case Optimizer::muon: s.lr = s.muon_scaling == MuonScaling::moonshot ? 1e-3 : 0.02; break;
  }
  if (ngpt) {
    s.weight_decay = 0;
    s.warmup_ratio = 0;
  }
  s.seq_len = std::min(s.seq_len, model.max_position_embeddings);
  s.threads = available_threads();
}

// Two ways to say one thing: the one that is given replaces the default of the other.
void settle_alternatives(TrainSettings& s, const json& given, const SourceOfKey& source_of) {
  const auto both = [&](const char* a, const char* b) {
    // 0 says "not this way", as the files written for runs do.
    const bool has_a = given.contains(a) && given[a] != 0, has_b = given.contains(b) && given[b] != 0;
    require(!has_a || !has_b, "{}: '{}' and '{}' are two ways to say one thing; keep one", source_of(a), a,
            b);
    return std::pair(has_a, has_b);
  };
  require(!given.contains("steps") || s.steps > 0, "{}: 'steps' is {}, it must be at least 1",
          source_of("steps"), s.steps);
  require(!given.contains("epochs") || s.epochs > 0, "{}: 'epochs' is {}, it must be above 0",
          source_of("epochs"), s.epochs);
  if (both("steps", "epochs").first) s.epochs = 0;
  if (given.contains("warmup_steps") && !both("warmup_steps", "warmup_ratio").second) s.warmup_ratio = 0;
}

struct Range {
  std::string_view key;
  double value, low, high;
  std::string_view rule;
};

void check_ranges(const TrainSettings& s, const SourceOfKey& source_of) {
  constexpr double kCount = 1e12, kBatch = 1 << 20, kBelowOne = 1 - 1e-12, kTiny = 1e-300, kAny = 1e300;
  const auto real = [](int64_t value) { return static_cast<double>(value); };
  const Range ranges[] = {
      {"val_fraction", s.val_fraction, 0, kBelowOne, "at least 0 and below 1"},
      {"batch_size", real(s.batch_size), 1, kBatch, "from 1 to 1048576"},
      {"grad_accum", real(s.grad_accum), 1, kBatch, "from 1 to 1048576"},
      {"seq_len", real(s.seq_len), 1, kCount, "at least 1"},
      {"steps", real(s.steps), 0, kCount, "at least 1"},
      {"epochs", s.epochs, 0, kCount, "above 0"},
      {"lr", s.lr, kTiny, kAny, "above 0"},
      {"weight_decay", s.weight_decay, 0, kAny, "at least 0"},
      {"beta1", s.beta1, 0, kBelowOne, "at least 0 and below 1"},
      {"beta2", s.beta2, 0, kBelowOne, "at least 0 and below 1"},
      {"eps", s.eps, kTiny, kAny, "above 0"},
      {"momentum", s.momentum, 0, kBelowOne, "at least 0 and below 1"},
      {"clip", s.clip, 0, kAny, "at least 0"},
      {"ema", s.ema, 0, kBelowOne, "at least 0 and below 1"},
      {"warmup_steps", real(s.warmup_steps), 0, kCount,
       "at least 0"},  // a run that is shorter warms up throughout
      {"warmup_ratio", s.warmup_ratio, 0, 1, "from 0 to 1"},
      {"min_lr_ratio", s.min_lr_ratio, 0, 1, "from 0 to 1"},
      {"decay_fraction", s.decay_fraction, kTiny, 1, "above 0 and at most 1"},
      {"threads", real(s.threads), 1, 1024, "from 1 to 1024 (leave it out for all cores)"},
      {"seed", real(s.seed), 0, kAny, "at least 0"},
      {"split_seed", real(s.split_seed), 0, kAny, "at least 0"},
      {"eval_every", real(s.eval_every), 0, kCount, "at least 0"},
      {"eval_batches", real(s.eval_batches), 1, kCount, "at least 1"},
      {"save_every", real(s.save_every), 0, kCount, "at least 0"},
      {"keep", real(s.keep), 1, kCount, "at least 1"},
  };
  for (const Range& range : ranges)
    if (range.value < range.low || range.value > range.high || std::isnan(range.value))
      fail("{}: '{}' is {}, it must be {}", source_of(range.key), range.key, range.value, range.rule);
}

}  // namespace

std::string_view name(Optimizer value) { return word(value); }
std::string_view name(Schedule value) { return word(value); }
std::string_view name(DecayShape value) { return word(value); }
std::string_view name(MuonScaling value) { return word(value); }
std::string_view name(ComputeType value) { return word(value); }
std::string_view name(DeviceKind value) { return word(value); }
std::string_view name(BatchMode value) { return word(value); }

int64_t TrainSettings::warmup_for(int64_t total) const {
  const auto wanted = warmup_ratio > 0
                          ? static_cast<int64_t>(std::llround(warmup_ratio * static_cast<double>(total)))
                          : warmup_steps;
  return std::clamp<int64_t>(wanted, 0, total);
}

TrainSettings parse_training(std::string_view text, const ModelConfig& model, std::string_view source) {
  if (!text.empty()) check_json(text, source);
  return parse_training(text, model, [&](std::string_view) { return std::string(source); });
}

TrainSettings parse_training(std::string_view text, const ModelConfig& model, const SourceOfKey& source_of) {
  const json given = text.empty() ? json::object() : json::parse(text);
  require(given.is_object(), "{}: 'training' must be an object, not {}", source_of(""), shown(given));
  check_known(given, source_of);
  const auto where = [&](std::string_view key) { return fmt::format("{}: '{}'", source_of(key), key); };
  TrainSettings settings;
  if (given.contains("optimizer")) read(settings.optimizer, given["optimizer"], where("optimizer"));
  if (given.contains("muon_scaling"))
    read(settings.muon_scaling, given["muon_scaling"], where("muon_scaling"));
  fill_defaults(settings, model);
  for (const Key& key : kKeys)
    if (const auto at = given.find(key.name); at != given.end()) key.read(settings, *at, where(key.name));
  if (settings.tokenizer == "character") settings.tokenizer = "char";
  settle_alternatives(settings, given, source_of);
  if (!given.contains("split_seed")) settings.split_seed = settings.seed;
  check_ranges(settings, source_of);
  require(settings.seq_len <= model.max_position_embeddings,
          "{}: 'seq_len' is {}, the model's 'max_position_embeddings' allows at most {}",
          source_of("seq_len"), settings.seq_len, model.max_position_embeddings);
  return settings;
}

std::string merged_config_json(const ModelConfig& model, const TrainSettings& settings) {
  Ordered object = Ordered::parse(to_json(model));
  Ordered training = Ordered::object();
  for (const Key& key : kKeys)
    if (key.saved) training[std::string(key.name)] = key.write(settings);
  if (settings.steps > 0) training.erase("epochs");
  training.erase(settings.warmup_ratio > 0 ? "warmup_steps" : "warmup_ratio");
  if (settings.steps == 0) training.erase("steps");
  object["training"] = std::move(training);
  return object.dump(2) + "\n";
}

}  // namespace nf
