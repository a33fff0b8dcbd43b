#include "tools/compare/request.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "nf/error.h"
#include "nf/json.h"
#include "tools/settings_flags.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kProgram = "nf-compare";
constexpr int64_t kMostSeeds = 100;

constexpr auto kOwnFlags = std::to_array<Flag>({
    {"model", "", FlagKind::list, "CONFIG[,KEY=VALUE…]",
     "a config file or a shipped one: mha, gqa, diff, ngpt, mla; with changes for this model alone; repeat "
     "it",
     "", 'm'},
    {"budget", "", FlagKind::value, "tokens|flops|time=AMOUNT",
     "how long each model is trained: tokens=2M, flops=1e15, time=10m", "the steps of the configs"},
    {"seeds", "", FlagKind::value, "N", "train each model N times, with as many seeds, to see the spread",
     "1"},
    {"out", "out", FlagKind::value, "DIR", "folder of the runs and of report.html", "runs/compare"},
    {"help", "", FlagKind::toggle, "", "this text", "", 'h'},
});

// Flags of nf-train that make no sense for several runs, and what to do instead.
constexpr std::pair<std::string_view, std::string_view> kRefused[] = {
    {"resume", "the same command goes on where the runs stopped"},
    {"resume-from-checkpoint", "the same command goes on where the runs stopped"},
    {"checkpoint-path", "the same command goes on where the runs stopped"},
    {"run-name", "the runs are named after their models"},
    {"estimate", "use nf-estimate"},
    {"profile", "use nf-train"},
    {"json", "every run's metrics.jsonl has the figures"},
};

// What all must agree in to see the same batches and be measured on the same text.
struct Shared {
  std::string_view flag;
  std::string (*value)(const TrainSettings&);
};
constexpr Shared kShared[] = {
    {"data", [](const TrainSettings& s) { return fmt::format("{}", fmt::join(s.data, " ")); }},
    {"tokenizer", [](const TrainSettings& s) { return s.tokenizer; }},
    {"text-field", [](const TrainSettings& s) { return s.text_field; }},
    {"val-fraction", [](const TrainSettings& s) { return fmt::format("{}", s.val_fraction); }},
    {"batch-mode", [](const TrainSettings& s) { return std::string(name(s.batch_mode)); }},
    {"batch-size", [](const TrainSettings& s) { return fmt::format("{}", s.batch_size); }},
    {"grad-accum", [](const TrainSettings& s) { return fmt::format("{}", s.grad_accum); }},
    {"seq-len", [](const TrainSettings& s) { return fmt::format("{}", s.seq_len); }},
    {"eval-batches", [](const TrainSettings& s) { return fmt::format("{}", s.eval_batches); }},
    {"seed", [](const TrainSettings& s) { return fmt::format("{}", s.seed); }},
    {"split-seed", [](const TrainSettings& s) { return fmt::format("{}", s.split_seed); }},
};

// A word of the line that gives the flag, "--name" or "--name=value", or its short form.
bool is_flag(std::string_view word, const Flag& flag) {
  const std::string dashed = "--" + std::string(flag.name);
  return word == dashed || word.starts_with(dashed + "=") ||
         (flag.letter != 0 && word == std::string("-") + flag.letter);
}

// Takes the flag's values out of the words.
std::vector<std::string> take(std::vector<std::string>& words, const Flag& flag) {
  std::vector<std::string> values, rest;
  for (size_t i = 0; i < words.size(); ++i) {
    if (!is_flag(words[i], flag)) {
      rest.push_back(words[i]);
      continue;
    }
    if (flag.kind == FlagKind::toggle) {
      values.emplace_back("true");
    } else if (const size_t equals = words[i].find('=');
               words[i].starts_with("--") && equals != std::string::npos) {
      values.push_back(words[i].substr(equals + 1));
    } else {
      require(i + 1 < words.size(), "{}: {} needs a value, {}", kProgram, words[i], flag.takes);
      values.push_back(words[++i]);
      while (flag.kind == FlagKind::list && i + 1 < words.size() && !words[i + 1].starts_with('-'))
        values.push_back(words[++i]);
    }
  }
  words = std::move(rest);
  return values;
}

std::string_view flag_of(std::string_view word) {
  word.remove_prefix(2);
  return word.substr(0, word.find('='));
}

// Refuses what the parser of nf-train's flags would take for something else.
void check_rest(const std::vector<std::string>& words) {
  std::set<std::string, std::less<>> known;
  for (const FlagGroup& group : flag_groups())
    for (const Flag& flag : group.flags) known.emplace(flag.name);
  for (const std::string_view key : model_keys()) {
    std::string flag(key);
    std::replace(flag.begin(), flag.end(), '_', '-');
    known.insert(std::move(flag));
  }
  std::vector<std::string_view> own;
  for (const Flag& flag : kOwnFlags) own.push_back(flag.name);
  for (const std::string& word : words) {
    if (!word.starts_with("--")) continue;
    const std::string_view flag = flag_of(word);
    for (const auto& [refused, instead] : kRefused)
      require(flag != refused, "{}: --{} is not for several runs; {}", kProgram, flag, instead);
    if (known.contains(flag)) continue;
    const std::string_view near = nearest(flag, own);
    require(near.empty(), "{}: unknown flag '{}'; did you mean '--{}'?", kProgram, printable(word), near);
  }
}

// "gqa.json,lr=0.002" is a config and changes of its own; a file of that very name comes first.
struct ModelWord {
  std::string config;
  std::vector<std::string> changes;
  std::string name;  // of the config: "gqa"
  std::string long_name() const {
    std::string text = name;
    for (const std::string& change : changes) text += "," + change;
    std::replace(text.begin(), text.end(), '/', '_');
    return text;
  }
};

ModelWord split_model(const std::string& word) {
  std::error_code ignored;
  const size_t comma = fs::exists(word, ignored) ? std::string::npos : word.find(',');
  ModelWord model;
  model.config = word.substr(0, comma);
  fs::path config = fs::path(model.config).lexically_normal();
  if (!config.has_filename()) config = config.parent_path();
  model.name = config.stem().string();
  std::string rest = comma == std::string::npos ? "" : word.substr(comma + 1);
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(','), rest.size());
    model.changes.push_back(rest.substr(0, end));
    require(model.changes.back().find('=') != std::string::npos, "{}: -m {}: changes are KEY=VALUE, not '{}'",
            kProgram, printable(word), printable(model.changes.back()));
    rest.erase(0, std::min(end + 1, rest.size()));
  }
  return model;
}

Contestant parse_contestant(const ModelWord& model, const std::string& name,
                            const std::vector<std::string>& rest, const fs::path& out) {
  std::vector<std::string> words{std::string(kProgram), "--model", model.config};
  words.insert(words.end(), rest.begin(), rest.end());
  for (const std::string& change : model.changes) words.insert(words.end(), {"--set", change});
  words.insert(words.end(), {"--out", (out / name).string()});
  std::vector<const char*> arguments;
  for (const std::string& word : words) arguments.push_back(word.c_str());
  return {.name = name,
          .group = name,
          .line = parse_command_line(static_cast<int>(arguments.size()), arguments.data(), Program::compare)};
}

void check_shared(const std::vector<Contestant>& contestants) {
  const Contestant& first = contestants.front();
  for (const Contestant& other : contestants)
    for (const auto& [flag, value] : kShared) {
      const std::string a = value(first.line.settings), b = value(other.line.settings);
      require(a == b, "{}: {} has {} {}, {} has {}; give --{} for all, so that they see the same batches",
              kProgram, first.name, flag, a, other.name, b, flag);
    }
}

bool mentions(const std::vector<std::string>& words, std::initializer_list<std::string_view> flags) {
  return std::any_of(words.begin(), words.end(), [&](std::string_view word) {
    while (word.starts_with('-')) word.remove_prefix(1);
    std::string name(word.substr(0, word.find('=')));
    std::replace(name.begin(), name.end(), '_', '-');
    return std::find(flags.begin(), flags.end(), name) != flags.end();
  });
}

std::string compare_help() {
  std::string out =
      "nf-compare trains several models on the same batches, one after another, and shows them side by "
      "side.\n\n"
      "  nf-compare -m mha -m gqa -m diff -m ngpt --data book.txt --budget tokens=2M\n"
      "  nf-compare -m gqa -m ngpt --data book.txt --budget time=10m --seeds 3 --out runs/seeds\n"
      "  nf-compare -m gqa,lr=1e-3 -m gqa,lr=2e-3 -m gqa,lr=4e-3 --data book.txt --budget tokens=2M\n\n";
  append_wrapped(
      out,
      "Every flag of nf-train holds for all models; see nf-train --help. Each run has its own folder in "
      "--out, as nf-train makes it; --out/report.html shows all, also while they train. Ctrl-C saves and "
      "stops; the same command goes on from there, and keeps what is done.");
  out += '\n';
  for (const Flag& flag : kOwnFlags) append_flag_help(out, flag, std::string(flag.default_text));
  return out;
}

}  // namespace

Budget parse_budget(const std::string& text) {
  const size_t equals = text.find('=');
  const std::string kind = text.substr(0, equals),
                    given = equals == std::string::npos ? "" : text.substr(equals + 1);
  Budget budget{.text = text};
  double amount = 0;
  const auto [end, error] = std::from_chars(given.data(), given.data() + given.size(), amount);
  const std::string unit(end, given.data() + given.size());
  using Units = std::vector<std::pair<std::string_view, double>>;
  const Units counts{{"", 1},    {"k", 1e3},  {"K", 1e3},  {"M", 1e6}, {"G", 1e9},
                     {"B", 1e9}, {"T", 1e12}, {"P", 1e15}, {"E", 1e18}},
      times{{"", 1}, {"s", 1}, {"m", 60}, {"min", 60}, {"h", 3600}};
  if (kind == "tokens")
    budget.kind = Budget::Kind::tokens;
  else if (kind == "flops")
    budget.kind = Budget::Kind::flops;
  else if (kind == "time")
    budget.kind = Budget::Kind::seconds;
  else
    fail("{}: --budget is tokens=AMOUNT, flops=AMOUNT or time=AMOUNT, not '{}'", kProgram, printable(text));
  const Units& units = kind == "time" ? times : counts;
  const auto at = std::find_if(units.begin(), units.end(), [&](const auto& u) { return u.first == unit; });
  require(error == std::errc() && at != units.end() && amount > 0 && amount * at->second < 1e30,
          "{}: --budget {}: '{}' is no amount; {}", kProgram, kind, printable(given),
          kind == "time" ? "write 90s, 10m or 2h" : "write 500k, 2M or 1e9");
  budget.amount = amount * at->second;
  return budget;
}

CompareRequest parse_compare(int argc, const char* const* argv) {
  std::vector<std::string> words = flag_words(argc, argv);
  CompareRequest request;
  std::map<std::string_view, std::vector<std::string>> own;
  for (const Flag& flag : kOwnFlags) own[flag.name] = take(words, flag);
  if (!own["help"].empty()) {
    request.help = compare_help();
    return request;
  }
  check_rest(words);
  require(!own["model"].empty(), "{}: give the models to compare: -m mha -m gqa; see --help", kProgram);
  request.out = own["out"].empty() ? "runs/compare" : own["out"].back();
  if (!own["budget"].empty()) request.budget = parse_budget(own["budget"].back());
  int64_t seeds = 1;
  if (!own["seeds"].empty()) {
    const std::string& text = own["seeds"].back();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seeds);
    require(error == std::errc() && end == text.data() + text.size() && seeds >= 1 && seeds <= kMostSeeds,
            "{}: --seeds takes a whole number from 1 to {}, not '{}'", kProgram, kMostSeeds, printable(text));
  }
  request.evaluation_given = mentions(words, {"eval-every", "eval-steps"});
  request.saving_given = mentions(words, {"save-every", "save-steps"});
  require(request.budget.kind == Budget::Kind::steps ||
              !mentions(words, {"steps", "max-steps", "epochs", "num-epochs", "num-train-epochs"}),
          "{}: --budget and --steps or --epochs both say how long to train; keep one", kProgram);

  std::vector<ModelWord> asked;
  std::multiset<std::string> configs;
  for (const std::string& word : own["model"]) configs.insert(asked.emplace_back(split_model(word)).name);
  std::vector<Contestant> models;
  for (const ModelWord& model : asked) {
    // The name is as short as it can be.
    const std::string name = configs.count(model.name) > 1 ? model.long_name() : model.name;
    require(std::none_of(models.begin(), models.end(), [&](const Contestant& m) { return m.name == name; }),
            "{}: {} is given twice; changes make them two: -m {},lr=0.002", kProgram, name, model.config);
    models.push_back(parse_contestant(model, name, words, request.out));
    const TrainSettings& settings = models.back().line.settings;
    require(
        settings.eval_every > 0 && settings.val_fraction > 0,
        "{}: models are compared by their validation loss; --eval-every and --val-fraction must be above 0",
        kProgram);
  }
  check_shared(models);
  // All models with the first seed, then all with the next: whoever stops early has something to compare.
  for (int64_t seed = 0; seed < seeds; ++seed)
    for (const Contestant& model : models) {
      Contestant run = model;
      TrainSettings& settings = run.line.settings;
      settings.seed += seed;
      if (seed > 0) {
        run.name += fmt::format("-seed{}", settings.seed);
        settings.out = (request.out / run.name).string();
      }
      settings.run_name = run.name;
      request.contestants.push_back(std::move(run));
    }
  return request;
}

}  // namespace nf
