#include "tools/trainer/run_state.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "models/config_values.h"
#include "nf/error.h"
#include "nf/json.h"

namespace nf {
namespace {

using Ordered = nlohmann::ordered_json;
using nlohmann::json;

constexpr int64_t kFormat = 1;

// What a run computes does not depend on this key of the model.
constexpr std::string_view kFreeKey = "gradient_checkpointing";

// Keys of the identity whose value is a hash.
constexpr std::string_view kHashedKeys[] = {"tokenizer", "text", "base model"};

// Training keys that are names, of which a change means nothing.
constexpr std::string_view kNames[] = {"data", "run_name", "init_from", "track"};

bool is_in(std::string_view key, std::span<const std::string_view> keys) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

const json& member(const json& object, const char* key, std::string_view source) {
  require(object.is_object() && object.contains(key), "{}: '{}' is missing", source, key);
  return object[key];
}

int64_t count(const json& object, const char* key, std::string_view source) {
  const json& value = member(object, key, source);
  require(value.is_number_unsigned() && value.get<uint64_t>() < (uint64_t{1} << 62),
          "{}: '{}' is {}, not a count", source, key, shown(value));
  return value.get<int64_t>();
}

void check_identity(const json& written, const json& wanted, std::string_view source) {
  require(written.is_object(), "{}: 'identity' must be an object", source);
  for (const auto& [key, value] : wanted.items()) {
    const json before = written.value(key, json());
    require(before == value || !is_in(key, kHashedKeys),
            "{}: the {} is not the one that the run was made with; resume with the same, or begin a new run "
            "with another --out",
            source, key);
    require(
        before == value,
        "{}: the run was made with {} = {}, now it is {}; resume without -m to take the run's own config, "
        "or begin a new run with another --out",
        source, key, shown(before), shown(value));
  }
}

}  // namespace

std::string run_identity(const ModelConfig& model, const TrainSettings& s, const TrainingData& data,
                         const std::string& base) {
  Ordered identity = {{"seed", s.seed},
                      {"batch_size", s.batch_size},
                      {"grad_accum", s.grad_accum},
                      {"seq_len", s.seq_len},
                      {"batch_mode", name(s.batch_mode)},
                      {"val_fraction", s.val_fraction},
                      {"optimizer", name(s.optimizer)},
                      {"ema on", s.ema > 0},
                      {"tokenizer", fmt::format("{:016x}", data.tokenizer->fingerprint())},
                      {"text", fmt::format("{:016x}", data.train.fingerprint())}};
  if (!base.empty()) identity["base model"] = base;
  const Ordered keys = Ordered::parse(to_json(model));
  for (const auto& [key, value] : keys.items())
    if (key != kFreeKey) identity["model." + key] = value;
  return identity.dump();
}

std::vector<std::string> changed_settings(std::string_view before, std::string_view now,
                                          std::string_view source) {
  check_json(before, source);
  const Ordered old = Ordered::parse(before), fresh = Ordered::parse(now);
  require(old.is_object() && old.value("training", Ordered()).is_object(), "{}: 'training' is missing",
          source);
  std::vector<std::string> lines;
  const auto compare = [&](const std::string& key, const Ordered& a, const Ordered& b) {
    const auto value = [&](const Ordered& object) {
      return object.contains(key) ? shown(object[key]) : std::string("not set");
    };
    if (value(a) != value(b))
      lines.push_back(fmt::format("{} {} in the checkpoint, {} now", key, value(a), value(b)));
  };
  compare(std::string(kFreeKey), old, fresh);
  Ordered keys = fresh["training"];
  keys.update(old["training"]);
  for (const auto& [key, value] : keys.items())
    if (!is_in(key, kNames)) compare(key, old["training"], fresh["training"]);
  return lines;
}

std::string to_json(const RunState& run, const std::string& identity) {
  Ordered object = {
      {"format", kFormat},
      {"step", run.step},
      {"tokens", run.tokens},
      {"position",
       {{"seed", run.position.seed}, {"epoch", run.position.epoch}, {"index", run.position.index}}},
      {"evaluated_step", run.evaluated_step},
      {"best_loss", run.best_loss ? Ordered(*run.best_loss) : Ordered()},
      {"best_step", run.best_step},
      {"identity", Ordered::parse(identity)}};
  return object.dump(2) + "\n";
}

RunState parse_run_state(std::string_view text, const std::string& identity, std::string_view source) {
  check_json(text, source);
  const json object = json::parse(text);
  require(count(object, "format", source) == kFormat, "{}: written by another version of nf-train", source);
  check_identity(member(object, "identity", source), json::parse(identity), source);
  RunState run;
  run.step = count(object, "step", source);
  run.tokens = count(object, "tokens", source);
  const json& position = member(object, "position", source);
  const json& seed = member(position, "seed", source);
  require(seed.is_number_unsigned(), "{}: 'seed' is {}, not a whole number", source, shown(seed));
  run.position = {.seed = seed.get<uint64_t>(),
                  .epoch = count(position, "epoch", source),
                  .index = count(position, "index", source)};
  run.evaluated_step = count(object, "evaluated_step", source);
  const json& best = member(object, "best_loss", source);
  require(best.is_null() || best.is_number(), "{}: 'best_loss' is {}, not a number", source, shown(best));
  if (best.is_number()) run.best_loss = best.get<double>();
  run.best_step = count(object, "best_step", source);
  return run;
}

}  // namespace nf
