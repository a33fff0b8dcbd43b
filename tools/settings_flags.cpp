#include "tools/settings_flags.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "nf/error.h"
#include "tools/device.h"

namespace nf {
namespace {

using enum FlagKind;

constexpr auto kModel = std::to_array<Flag>({
    {"model", "", value, "CONFIG",
     "config file, folder of a run, or a shipped config: mha, gqa, diff, ngpt, mla", "", 'm'},
    {"set", "", list, "KEY=VALUE",
     "set any key of the model or of the \"training\" section; repeatable, wins over flags"},
    {"gradient-checkpointing", "", optional, "none|layer|BYTES",
     "recompute in the backward pass to save memory", "none"},
    {"lora", "", value, "r=8,alpha=16,targets=q_proj,v_proj",
     "freeze the weights of --init-from and train low-rank adapters of these projections (all-linear: of "
     "all); also "
     "dropout=0.05",
     "none"},
    {"extra-args", "", value, "JSON", ""},
});

constexpr auto kData = std::to_array<Flag>({
    {"data", "data", list, "PATH",
     "texts: files (text, JSONL, JSON, Parquet, also .gz and .zst), folders, or a dataset of the Hugging "
     "Face hub as OWNER/NAME[@REVISION]; repeatable. Their tokens are kept in NF_CACHE "
     "(~/.cache/nanoformer), at most NF_CACHE_GB gigabytes of them (50, or a fifth of the disk)",
     "none"},
    {"dataset", "data", list, "PATH", ""},
    {"text-field", "text_field", value, "NAME", "field of the records that holds the text"},
    {"subset", "subset", value, "NAME", "subset of the dataset from the hub", "the only one, or default"},
    {"split", "split", value, "NAME", "split of the dataset from the hub"},
    {"val-fraction", "val_fraction", value, "X", "share of the text kept for validation"},
    {"tokenizer", "tokenizer", value, "byte|char|PATH",
     "tokens are bytes, the characters that occur, or those of a tokenizer.json (nf-tokenize, Hugging Face)"},
    {"batch-mode", "batch_mode", value, "pack|pad",
     "fill rows with documents end to end, or one document per row"},
    {"batch-size", "batch_size", value, "B", "sequences of a micro-batch"},
    {"grad-accum", "grad_accum", value, "A", "micro-batches of a step"},
    {"gradient-accumulation-steps", "grad_accum", value, "A", ""},
    {"seq-len", "seq_len", value, "N", "tokens of a sequence", "256, or what the model allows"},
    {"max-seq-length", "seq_len", value, "N", ""},
    {"steps", "steps", value, "N", "optimizer steps to train", "as many as the epochs give"},
    {"max-steps", "steps", value, "N", ""},
    {"epochs", "epochs", value, "N", "passes over the text"},
    {"num-epochs", "epochs", value, "N", ""},
    {"num-train-epochs", "epochs", value, "N", ""},
});

constexpr auto kOptimizer = std::to_array<Flag>({
    {"optimizer", "optimizer", value, "adamw|sgd|lion|muon", "update rule"},
    {"optim", "optimizer", value, "NAME", ""},
    {"lr", "lr", value, "X", "peak learning rate",
     "adamw 0.001, ngpt 0.09 / sqrt(hidden_size), sgd 0.1, lion 0.0001, muon 0.02"},
    {"learning-rate", "lr", value, "X", ""},
    {"weight-decay", "weight_decay", value, "X", "decay of the matrices", "0.1, sgd and ngpt 0"},
    {"beta1", "beta1", value, "X", "decay of the first moment"},
    {"beta2", "beta2", value, "X", "decay of the second moment", "0.95, lion 0.99"},
    {"eps", "eps", value, "X", "added to the root of the second moment"},
    {"momentum", "momentum", value, "X", "of sgd and muon", "sgd 0.9, muon 0.95"},
    {"nesterov", "nesterov", optional, "true|false", "Nesterov's momentum in sgd and muon",
     "sgd false, muon true"},
    {"muon-scaling", "muon_scaling", value, "original|moonshot",
     "scale of muon's update; moonshot takes adamw's lr"},
    {"clip", "clip", value, "X", "largest norm of the gradient, 0 for none"},
    {"max-grad-norm", "clip", value, "X", ""},
    {"ema", "ema", value, "DECAY", "also keep an average of the weights, for example 0.999; 0 for none"},
});

constexpr auto kSchedule = std::to_array<Flag>({
    {"schedule", "schedule", value, "constant|linear|cosine|wsd",
     "course of the learning rate after the warm-up"},
    {"warmup-steps", "warmup_steps", value, "N", "steps of linear warm-up", "by the ratio"},
    {"warmup-ratio", "warmup_ratio", value, "X", "warm-up as a share of all steps", "0.02, ngpt 0"},
    {"min-lr-ratio", "min_lr_ratio", value, "X", "where cosine ends, as a share of the peak"},
    {"decay-fraction", "decay_fraction", value, "X", "share of the steps in which wsd decays"},
    {"decay-shape", "decay_shape", value, "linear|1-sqrt", "shape of that decay"},
});

constexpr auto kMachine = std::to_array<Flag>({
    {"dtype", "dtype", value, "bf16|f32", "operands of the matrix products; weights are f32 always"},
    {"device", "device", value, "cpu|cuda|reference", kDeviceHelp, "cpu"},
    {"threads", "threads", value, "N", "threads to use; results do not depend on it", "all cores"},
    {"seed", "seed", value, "S", "of initial weights, order of the data and dropout"},
    {"split-seed", "split_seed", value, "S", "of which part of the text validates", "the seed"},
    {"profile", "", toggle, "", "report the time of every kernel at the end"},
    {"compile", "", optional, "", ""},
    {"use-cache", "", optional, "", ""},
});

constexpr auto kRun = std::to_array<Flag>({
    {"out", "out", value, "DIR", "the run's folder: logs, config and checkpoints",
     "runs/ and the run's name"},
    {"output-dir", "out", value, "DIR", ""},
    {"run-name", "run_name", value, "NAME", "label of the run", "last part of --out, or the attention type"},
    {"eval-every", "eval_every", value, "N", "steps between validations, 0 for none"},
    {"eval-steps", "eval_every", value, "N", ""},
    {"eval-batches", "eval_batches", value, "N", "at most this many batches in a validation"},
    {"save-every", "save_every", value, "N", "steps between checkpoints, 0 for one at the end"},
    {"save-steps", "save_every", value, "N", ""},
    {"keep", "keep", value, "K", "checkpoints to keep, besides the best"},
    {"track", "track", value, "LIST",
     "where metrics go: jsonl (always), tensorboard, wandb (an offline run, sent by 'wandb sync')"},
    {"resume", "", optional, "DIR", "go on with a run from its newest whole checkpoint, or from a given one",
     "off"},
    {"resume-from-checkpoint", "", optional, "DIR", ""},
    {"checkpoint-path", "", value, "DIR", ""},
    {"init-from", "init_from", value, "DIR", "start from the weights of another model", "none"},
    {"json", "", toggle, "", "one JSON object a line on standard output"},
    {"estimate", "", toggle, "", "say what the run would need, and stop"},
    {"wandb", "", optional, "", ""},
    {"no-wandb", "", optional, "", ""},
    {"help", "", toggle, "", "this text", "", 'h'},
    {"version", "", toggle, "", "the version, and the backends compiled in"},
});

constexpr std::array<FlagGroup, 6> kGroups = {
    {{"Model", "-m gqa --num-hidden-layers 8 --intermediate-size 1536 --data book.txt", kModel},
     {"Data and length", "-m mha --data texts/ --batch-size 16 --seq-len 512 --epochs 2", kData},
     {"Optimizer", "-m gqa --data book.txt --optimizer muon --lr 0.02 --clip 1", kOptimizer},
     {"Schedule", "-m gqa --data book.txt --schedule wsd --warmup-steps 50 --decay-fraction 0.2", kSchedule},
     {"Machine", "-m ngpt --data book.txt --dtype f32 --threads 4 --seed 7", kMachine},
     {"Run", "--resume runs/book", kRun}}};

std::string shown_default(const Flag& flag, const nlohmann::json& defaults) {
  if (!flag.default_text.empty()) return std::string(flag.default_text);
  const auto at = defaults.find(flag.key);
  if (at == defaults.end()) return "";
  return at->is_string() ? at->get<std::string>() : at->dump();
}

// Of the groups after "Data and length", what changes memory, time or the answer's form.
constexpr auto kEstimateFlags = std::to_array<std::string_view>(
    {"optimizer", "ema", "dtype", "device", "threads", "init-from", "json", "help", "version"});

bool is_shown(Program program, const FlagGroup& group, const Flag& flag) {
  if (program != Program::estimate || group.title == "Model" || group.title == "Data and length") return true;
  return std::find(kEstimateFlags.begin(), kEstimateFlags.end(), flag.name) != kEstimateFlags.end();
}

std::string joined_model_keys() {
  std::string keys;
  for (const std::string_view key : model_keys()) {
    if (!keys.empty()) keys += ", ";
    keys += key;
  }
  return keys;
}

}  // namespace

std::span<const FlagGroup> flag_groups() { return kGroups; }

std::string_view program_name(Program program) {
  constexpr std::string_view kNames[] = {"nf-train", "nf-estimate", "nf-compare"};
  return kNames[static_cast<size_t>(program)];
}

std::string help_text(Program program) {
  const auto all = nlohmann::json::parse(merged_config_json(resolve(ModelConfig{}), TrainSettings{}));
  const nlohmann::json& defaults = all["training"];
  const std::string_view name = program_name(program);
  std::string out =
      program == Program::train
          ? "nf-train trains a small transformer on text.\n"
          : "nf-estimate says what a training run would need: parameters, memory, FLOPs, tokens.\n";
  out += fmt::format("\n  {} -m gqa --data book.txt{}\n\n", name,
                     program == Program::train ? " --out runs/book" : "");
  append_wrapped(
      out,
      "Settings come from the defaults [in brackets], then from the config's \"training\" section (the same "
      "names with underscores), then from the command line. Flags may be written with _ for -.");
  if (program == Program::train)
    append_wrapped(
        out,
        "Ctrl-C finishes the step, saves and stops; --resume goes on from there with the same result as if "
        "nothing had happened. Exit status: 0 done, 1 the run failed, 2 bad input, 130 stopped.");
  else
    append_wrapped(out, "It takes every flag of nf-train; those that change nothing here are not shown.");
  for (const FlagGroup& group : kGroups) {
    const auto shown = [&](const Flag& flag) { return is_shown(program, group, flag); };
    if (std::none_of(group.flags.begin(), group.flags.end(), shown)) continue;
    out += fmt::format("\n{}\n", group.title);
    if (std::all_of(group.flags.begin(), group.flags.end(), shown))
      out += fmt::format("  Example: {} {}\n", name, group.example);
    for (const Flag& flag : group.flags)
      if (shown(flag)) append_flag_help(out, flag, shown_default(flag, defaults));
    if (group.title == "Model")
      append_wrapped(
          out, "Every key of a config is a flag too, with or without a config: " + joined_model_keys(), 2);
  }
  return out;
}

}  // namespace nf
