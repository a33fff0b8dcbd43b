// The command line of nf-train and nf-estimate: flags become keys, keys are merged over the config, parsers
// check them.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <deque>
#include <nlohmann/json.hpp>

#include "nf/error.h"
#include "nf/json.h"
#include "tools/config_file.h"
#include "tools/settings_flags.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::string_view kSource = "command line";
constexpr const char* kTraining = ": training";  // after a file's name: its section

// Keys of a config that only exist as other spellings; their flags too.
constexpr auto kModelSpellings =
    std::to_array<std::string_view>({"attn_bias", "hidden_dim", "q_compressed", "kv_compressed",
                                     "rope_head_dim", "logits_scaling", "attention_multiplier"});

// Training keys whose value is text even when it looks like a number.
constexpr auto kTextKeys = std::to_array<std::string_view>(
    {"data", "text_field", "subset", "split", "out", "run_name", "init_from"});

// Training keys whose right values depend on the optimizer.
constexpr auto kOptimizerKeys = std::to_array<std::string_view>(
    {"lr", "weight_decay", "beta1", "beta2", "eps", "momentum", "nesterov", "muon_scaling"});

// Pairs of which only one rules: the command line's takes the place of the config's.
constexpr std::pair<std::string_view, std::string_view> kAlternatives[] = {{"steps", "epochs"},
                                                                           {"warmup_steps", "warmup_ratio"}};

template <typename Range>
bool is_in(std::string_view word, const Range& words) {
  return std::find(std::begin(words), std::end(words), word) != std::end(words);
}

std::string dashed(std::string_view name) {
  std::string out(name);
  std::replace(out.begin(), out.end(), '_', '-');
  return out;
}

std::string underscored(std::string_view name) {
  std::string out(name);
  std::replace(out.begin(), out.end(), '-', '_');
  return out;
}

// What a value's text means: a whole number, a number, a truth value, nothing, JSON, or else the text itself.
json value_of(const std::string& text) {
  const char *begin = text.data(), *end = begin + text.size();
  int64_t whole = 0;
  if (const auto [at, error] = std::from_chars(begin, end, whole); at == end && error == std::errc())
    return whole;
  double number = 0;
  if (const auto [at, error] = std::from_chars(begin, end, number);
      at == end && error == std::errc() && std::isfinite(number))
    return number;
  if (text == "true" || text == "True") return true;
  if (text == "false" || text == "False") return false;
  if (text == "null" || text == "None" || text == "none") return nullptr;
  if (text.starts_with('{') || text.starts_with('[')) {
    check_json(text, kSource);
    return json::parse(text);
  }
  return text;
}

// --- splitting the line
// ---------------------------------------------------------------------------------------------

// Flags for the keys of the model, made once from the table of keys.
std::deque<Flag> model_flags(std::deque<std::string>& names) {
  std::deque<Flag> flags;
  const auto add = [&](std::string_view key) {
    if (key == "gradient_checkpointing" || key == "lora") return;  // have their own rows
    flags.push_back({names.emplace_back(dashed(key)), "", FlagKind::optional, "", ""});
  };
  for (const std::string_view key : model_keys()) add(key);
  for (const std::string_view key : kModelSpellings) add(key);
  return flags;
}

// The words of the line. A pasted "\ # comment" reaches a program as the word " #" and the comment's words:
// the comment goes, as do words of blanks.
std::vector<std::string> words_of(int argc, const char* const* argv) {
  std::vector<std::string> words;
  for (std::string& word : flag_words(argc, argv)) {
    const size_t first = word.find_first_not_of(" \t\r\n");
    if (first == std::string::npos) continue;
    if (first > 0 && word[first] == '#') break;
    words.push_back(std::move(word));
  }
  return words;
}

// All flags of the line, in the order of the tables.
std::vector<GivenFlag> split(int argc, const char* const* argv, std::string_view program,
                             const std::deque<Flag>& model) {
  std::vector<const Flag*> flags;
  for (const FlagGroup& group : flag_groups())
    for (const Flag& flag : group.flags) flags.push_back(&flag);
  for (const Flag& flag : model) flags.push_back(&flag);
  return split_flags(program, words_of(argc, argv), flags, "texts are given with --data");
}

// --- meaning
// --------------------------------------------------------------------------------------------------------

// What the line says, before any config is read.
struct Request {
  std::string config;              // --model
  json model = json::object();     // keys of the model
  json training = json::object();  // keys of the training section
  bool resume = false, profile = false, json_lines = false, estimate = false, help = false;
  std::string resume_from;
  std::vector<std::string> notes;
};

void set(Request& request, std::string_view key, const std::vector<std::string>& values) {
  if (!is_in(key, training_keys())) {
    request.model[std::string(key)] = value_of(values.back());
    return;
  }
  json value = is_in(key, kTextKeys) ? json(values.back()) : value_of(values.back());
  if (key == "data") {
    value = request.training.value("data", json::array());
    for (const std::string& path : values) value.push_back(path);
  }
  const auto [at, added] = request.training.emplace(std::string(key), value);
  require(added || key == "data" || *at == value, "{}: '{}' is given twice, as {} and {}", kSource, key,
          at->dump(), value.dump());
  *at = std::move(value);
}

// --set: last word over all flags.
void set_pair(Request& request, const std::string& pair) {
  const size_t equals = pair.find('=');
  require(equals != std::string::npos && equals > 0, "{}: --set takes KEY=VALUE, not '{}'", kSource,
          printable(pair));
  std::string key = underscored(pair.substr(0, equals));
  if (key.starts_with("training.")) key = key.substr(std::string_view("training.").size());
  request.training.erase(key);
  request.model.erase(key);
  set(request, key, {pair.substr(equals + 1)});
}

void add_extra_args(Request& request, const std::string& text) {
  check_json(text, "command line: --extra-args");
  const json extra = json::parse(text);
  require(extra.is_object(), "{}: --extra-args takes a JSON object of model keys", kSource);
  request.model.update(extra);
}

// --wandb is --track with wandb in its list.
void add_wandb(Request& request) {
  json& track = request.training["track"];
  const std::string list = track.is_string() ? track.get<std::string>() : "jsonl";
  track = list.find("wandb") == std::string::npos ? list + ",wandb" : list;
}

// Flags that neither name a training key nor a key of the model. False when `name` is none of them.
bool apply_own_flag(Request& request, std::string_view name, const std::vector<std::string>& values) {
  const std::string& value = values.back();
  const bool off = value == "false" || value == "False";
  if (name == "model")
    request.config = value;
  else if (name == "extra-args")
    add_extra_args(request, value);
  else if (name == "profile")
    request.profile = true;
  else if (name == "json")
    request.json_lines = true;
  else if (name == "estimate")
    request.estimate = true;
  else if (name == "help")
    request.help = true;
  else if (name == "resume" || name == "resume-from-checkpoint") {
    request.resume = !off;
    if (value != "true" && value != "True" && !off) request.resume_from = value;
  } else if (name == "checkpoint-path") {
    request.resume = true;
    request.resume_from = value;
  } else if (name == "compile")
    request.notes.emplace_back("--compile: models are always compiled, the flag changes nothing");
  else if (name == "use-cache")
    request.notes.emplace_back("--use-cache: training keeps no cache, the flag changes nothing");
  else if (name == "wandb" && !off)
    add_wandb(request);
  else
    return name == "wandb" || name == "no-wandb" || name == "set";
  return true;
}

Request understand(const std::vector<GivenFlag>& given) {
  Request request;
  for (const auto& [flag, values] : given) {
    if (apply_own_flag(request, flag->name, values)) continue;
    set(request, flag->key.empty() ? underscored(flag->name) : std::string(flag->key), values);
  }
  for (const auto& [flag, values] : given)
    if (flag->name == "set")
      for (const std::string& pair : values) set_pair(request, pair);
  return request;
}

// --- configs
// --------------------------------------------------------------------------------------------------------

// The config that the line builds on: where it is, what it says, and its training section.
struct Base {
  std::string source;  // empty: none, the flags say everything
  std::string text = R"({"attention_type": "gqa"})";
  json training = json::object();
};

fs::path config_of_run(const fs::path& folder) {
  std::error_code ignored;
  require(fs::is_directory(folder, ignored), "{}: no such folder; give the folder of a run of nf-train",
          folder.string());
  const fs::path config = folder / "config.json";
  require(fs::is_regular_file(config, ignored), "{}: no config.json in this folder; give the model with -m",
          folder.string());
  return config;
}

Base read_base(const Request& request, std::string_view program) {
  Base base;
  fs::path file;
  if (!request.config.empty())
    file = find_config_file(request.config);
  else if (request.resume)
    file = config_of_run(request.resume_from);
  else if (request.training.contains("init_from"))
    file = config_of_run(request.training["init_from"].get<std::string>());
  else
    require(!request.model.empty(),
            "{}: give a model: -m CONFIG ({} are shipped) or flags such as --attention-type; see --help",
            program, kShippedConfigs);
  if (file.empty()) return base;
  base.source = file.string();
  base.text = read_config_file(file);
  const ParsedConfig parsed = parse_config(base.text, base.source);
  if (!parsed.training.empty()) {
    parse_training(parsed.training, parsed.model,
                   base.source + kTraining);  // its own mistakes, by its own name
    base.training = json::parse(parsed.training);
  }
  return base;
}

// The config's section with the line's keys on top.
json merge_training(const Base& base, Request& request) {
  json merged = base.training;
  for (const auto& [a, b] : kAlternatives) {
    if (request.training.contains(a)) merged.erase(std::string(b));
    if (request.training.contains(b)) merged.erase(std::string(a));
  }
  const json standard = std::string(name(TrainSettings{}.optimizer));
  if (request.training.contains("optimizer") &&
      request.training["optimizer"] != merged.value("optimizer", standard)) {
    std::vector<std::string_view> dropped;
    for (const std::string_view key : kOptimizerKeys)
      if (merged.erase(std::string(key)) > 0 && !request.training.contains(key)) dropped.push_back(key);
    if (!dropped.empty())
      request.notes.push_back(
          fmt::format("another optimizer than the config's: its {} are not used", fmt::join(dropped, ", ")));
  }
  merged.update(request.training);
  return merged;
}

// Keys of the model that a variant has no use for, and why.
struct WithoutEffect {
  std::string_view key;
  bool (*holds)(const ModelConfig& model);
  std::string_view why;
};
constexpr auto is_ngpt = [](const ModelConfig& model) { return model.attention_type == AttentionType::ngpt; };
constexpr WithoutEffect kWithoutEffect[] = {
    {"initializer_range", is_ngpt,
     "ngpt's initial weights have the standard deviation 1/sqrt(hidden_size), and are normalised then"},
    {"rms_norm_eps", is_ngpt, "ngpt has no RMS norms"},
    {"input_layernorm", is_ngpt, "ngpt has no norms with gains"},
    {"post_attention_layernorm", is_ngpt, "ngpt has no norms with gains"},
    {"pre_ffnn_layernorm", is_ngpt, "ngpt has no norms with gains"},
    {"post_ffnn_layernorm", is_ngpt, "ngpt has no norms with gains"},
    {"lambda_std_dev", [](const ModelConfig& model) { return model.attention_type != AttentionType::diff; },
     "only diff has lambdas"}};

// Settings of another optimizer or schedule.
struct UnusedSetting {
  std::string_view key;
  bool (*used)(const TrainSettings& settings);
  std::string_view by;
};
constexpr auto uses_momentum = [](const TrainSettings& s) {
  return s.optimizer == Optimizer::sgd || s.optimizer == Optimizer::muon;
};
constexpr auto uses_betas = [](const TrainSettings& s) { return s.optimizer != Optimizer::sgd; };
constexpr auto is_wsd = [](const TrainSettings& s) { return s.schedule == Schedule::wsd; };
constexpr UnusedSetting kUnusedSettings[] = {
    {"momentum", uses_momentum, "sgd and muon"},
    {"nesterov", uses_momentum, "sgd and muon"},
    {"muon_scaling", [](const TrainSettings& s) { return s.optimizer == Optimizer::muon; }, "muon"},
    {"beta1", uses_betas, "adamw, lion and muon"},
    {"beta2", uses_betas, "adamw, lion and muon"},
    {"eps", [](const TrainSettings& s) { return uses_betas(s) && s.optimizer != Optimizer::lion; },
     "adamw and muon"},
    {"min_lr_ratio", [](const TrainSettings& s) { return s.schedule == Schedule::cosine; },
     "--schedule cosine"},
    {"decay_fraction", is_wsd, "--schedule wsd"},
    {"decay_shape", is_wsd, "--schedule wsd"},
};

void note_unused(const TrainSettings& settings, Request& request) {
  for (const auto& [key, used, by] : kUnusedSettings)
    if (request.training.contains(key) && !used(settings))
      request.notes.push_back(fmt::format("{} has no effect: it is a setting of {}", key, by));
}

// Tells of such keys of the model where somebody may believe in them: given by the line, or with a value of
// its own in the config (configs written for runs state every default).
void note_without_effect(const ModelConfig& model, const Base& base, Request& request) {
  static const json defaults = json::parse(to_json(resolve(ModelConfig{})));
  const json file = json::parse(base.text);
  for (const auto& [key, holds, why] : kWithoutEffect) {
    if (!holds(model)) continue;
    const bool by_file = !key.ends_with("layernorm") && file.contains(key) && file[key] != defaults[key];
    if (by_file || request.model.contains(key))
      request.notes.push_back(fmt::format("{} has no effect: {}", key, why));
  }
}

// Where a run resumes and what its folder is.
void settle_folders(TrainSettings& settings, const Request& request, const ModelConfig& model) {
  settings.resume = request.resume;
  settings.resume_from = request.resume_from;
  if (settings.out.empty() && settings.resume) {
    const fs::path from = fs::path(settings.resume_from).lexically_normal();
    const fs::path folder = from.has_filename() ? from : from.parent_path();
    const bool checkpoint =
        folder.filename().string().starts_with("checkpoint-") || folder.filename() == "best";
    settings.out = checkpoint ? (folder.has_parent_path() ? folder.parent_path() : fs::path(".")).string()
                              : folder.string();
  }
  if (settings.out.empty())
    settings.out =
        "runs/" + (settings.run_name.empty() ? std::string(name(model.attention_type)) : settings.run_name);
  if (settings.run_name.empty()) {
    const fs::path out = fs::path(settings.out).lexically_normal();
    settings.run_name = (out.has_filename() ? out : out.parent_path()).filename().string();
  }
}

}  // namespace

CommandLine parse_command_line(int argc, const char* const* argv, Program program) {
  const std::string_view called = program_name(program);
  std::deque<std::string> names;
  const std::deque<Flag> model = model_flags(names);
  Request request = understand(split(argc, argv, called, model));
  CommandLine line;
  if (request.help) {
    line.help = help_text(program);
    return line;
  }
  if (request.resume && request.resume_from.empty()) {
    const std::string run = request.training.value("run_name", "");
    request.resume_from = request.training.value("out", run.empty() ? "" : "runs/" + run);
    require(!request.resume_from.empty(), "{}: --resume needs the run's folder: --resume DIR, or --out DIR",
            called);
  }
  require(!request.resume || !request.training.contains("init_from"),
          "{}: --resume and --init-from both say which weights to start from; keep one", called);

  const Base base = read_base(request, called);
  line.config_source = base.source;
  line.model = parse_config(base.text, request.model.dump(), kSource).model;
  const json training = merge_training(base, request);
  line.settings = parse_training(training.dump(), line.model, [&](std::string_view key) {
    const bool from_file = !base.source.empty() && training.contains(key) && !request.training.contains(key);
    return from_file ? base.source + kTraining : std::string(kSource);
  });
  note_without_effect(line.model, base, request);
  note_unused(line.settings, request);
  settle_folders(line.settings, request, line.model);
  line.settings.profile = request.profile;
  line.settings.json = request.json_lines;
  line.settings.estimate = request.estimate || program == Program::estimate;
  line.notes = std::move(request.notes);
  require(line.settings.estimate || !line.settings.data.empty(), "{}: give the text to train on: --data FILE",
          called);
  return line;
}

}  // namespace nf
