#include "tools/settings.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "nf/error.h"
#include "tests/support/folder.h"

using namespace nf;
namespace fs = std::filesystem;

namespace {

CommandLine parse(std::vector<const char*> words, Program program = Program::train) {
  words.insert(words.begin(), "nf-train");
  return parse_command_line(static_cast<int>(words.size()), words.data(), program);
}

std::string message_of(std::vector<const char*> words) {
  try {
    parse(std::move(words));
  } catch (const Error& error) {
    CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
    return error.what();
  }
  return "";
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

const ModelConfig kModel = resolve(ModelConfig{});

}  // namespace

TEST_CASE("settings: defaults < training section < command line") {
  const Folder folder;
  const std::string config = folder.write(
      "c.json", R"({"attention_type": "gqa", "training": {"lr": 0.01, "batch_size": 4, "steps": 7}})");
  const CommandLine line = parse({"-m", config.c_str(), "--data", "a.txt", "b.txt", "--lr", "5e-4"});
  CHECK(line.settings.lr == 5e-4);
  CHECK(line.settings.batch_size == 4);
  CHECK(line.settings.steps == 7);
  CHECK(line.settings.epochs == 0);
  CHECK(line.settings.clip == 1.0);
  CHECK(line.settings.data == std::vector<std::string>{"a.txt", "b.txt"});
  CHECK(line.config_source == config);
  CHECK(line.settings.out == "runs/gqa");
  CHECK(line.settings.threads >= 1);
  CHECK(line.notes.empty());
  const CommandLine set =
      parse({"-m", config.c_str(), "--data", "a.txt", "--lr", "5e-4", "--set", "lr=3", "--set",
             "training.beta2=0.5", "--set", "hidden_size=64", "--set", "logit_cap=30"});
  CHECK(set.settings.lr == 3);
  CHECK(set.settings.beta2 == 0.5);
  CHECK(set.model.hidden_size == 64);
  CHECK(set.model.head_dim == 8);  // derived values follow
  CHECK(set.model.logit_cap == 30);
}

TEST_CASE("settings: upstream's command works as it is written") {
  const CommandLine line = parse({"--dataset",
                                  "imdatta0/wikipedia_en_sample",
                                  "--batch_size",
                                  "8",
                                  "--gradient_accumulation_steps",
                                  "16",
                                  "--num_epochs",
                                  "1",
                                  "--lr",
                                  "5e-4",
                                  "--hidden_dim",
                                  "256",
                                  "--num_hidden_layers",
                                  "8",
                                  "--attention_type=gqa",
                                  " ",
                                  "--compile",
                                  " #",
                                  "or",
                                  "[one",
                                  "of"});
  CHECK(line.settings.data == std::vector<std::string>{"imdatta0/wikipedia_en_sample"});
  CHECK(line.settings.batch_size == 8);
  CHECK(line.settings.grad_accum == 16);
  CHECK(line.settings.epochs == 1);
  CHECK(line.settings.lr == 5e-4);
  CHECK(line.model.hidden_size == 256);
  CHECK(line.model.num_hidden_layers == 8);
  CHECK(line.model.attention_type == AttentionType::gqa);
  REQUIRE(line.notes.size() == 1);
  CHECK(contains(line.notes[0], "always compiled"));
  CHECK_FALSE(line.settings.estimate);

  const CommandLine more = parse({"--dataset",
                                  "x",
                                  "--estimate",
                                  "--head_sim_loss",
                                  "--head_sim_loss_weight",
                                  "0",
                                  "--attention_type",
                                  "ngpt",
                                  "--logit_cap",
                                  "30",
                                  "--logit_scale",
                                  "2",
                                  "--tie_word_embeddings",
                                  "--rope_theta",
                                  "None",
                                  "--max_grad_norm",
                                  "5",
                                  "--save_steps",
                                  "9",
                                  "--eval_steps",
                                  "8",
                                  "--run_name",
                                  "a1",
                                  "--no_wandb"});
  CHECK(more.settings.estimate);
  CHECK(more.model.attention_type == AttentionType::ngpt);
  CHECK(more.model.head_sim_loss);
  CHECK(more.model.head_sim_loss_weight == 0);
  CHECK(more.model.tie_word_embeddings);
  CHECK(more.model.logit_cap == 30);
  CHECK(more.model.logit_scale == 2);
  CHECK(more.settings.clip == 5);
  CHECK(more.settings.save_every == 9);
  CHECK(more.settings.eval_every == 8);
  CHECK(more.settings.out == "runs/a1");
  CHECK(more.notes.empty());

  const CommandLine mla = parse({"--dataset", "x", "--attention_type", "mla", "--extra_args",
                                 R"({"q_compressed": 64, "kv_compressed": 32})", "--rope_head_dim=8"});
  CHECK(mla.model.q_lora_rank == 64);
  CHECK(mla.model.kv_lora_rank == 32);
  CHECK(mla.model.qk_rope_head_dim == 8);
}

TEST_CASE("settings: every flag reaches its setting") {
  const TrainSettings s = parse({"-m",
                                 "gqa",
                                 "--data",
                                 "d",
                                 "--out",
                                 "o",
                                 "--steps",
                                 "10",
                                 "--grad-accum",
                                 "3",
                                 "--seq-len",
                                 "32",
                                 "--optimizer",
                                 "muon",
                                 "--schedule",
                                 "wsd",
                                 "--warmup-steps",
                                 "2",
                                 "--min-lr-ratio",
                                 "0.2",
                                 "--decay-fraction",
                                 "0.3",
                                 "--decay-shape",
                                 "1-sqrt",
                                 "--weight-decay",
                                 "0.4",
                                 "--beta1",
                                 "0.5",
                                 "--beta2",
                                 "0.6",
                                 "--eps",
                                 "1e-3",
                                 "--momentum",
                                 "0.7",
                                 "--nesterov",
                                 "false",
                                 "--muon-scaling",
                                 "moonshot",
                                 "--clip",
                                 "0",
                                 "--ema",
                                 "0.8",
                                 "--dtype",
                                 "f32",
                                 "--device",
                                 "reference",
                                 "--threads",
                                 "2",
                                 "--seed",
                                 "3",
                                 "--eval-every",
                                 "4",
                                 "--eval-batches",
                                 "5",
                                 "--save-every",
                                 "6",
                                 "--keep",
                                 "7",
                                 "--batch-mode",
                                 "pad",
                                 "--text-field",
                                 "7",
                                 "--subset",
                                 "8",
                                 "--split",
                                 "test",
                                 "--split-seed",
                                 "9",
                                 "--val-fraction",
                                 "0.25",
                                 "--tokenizer",
                                 "char",
                                 "--profile",
                                 "--json"})
                              .settings;
  CHECK(s.out == "o");
  CHECK(s.run_name == "o");
  CHECK(s.steps == 10);
  CHECK(s.grad_accum == 3);
  CHECK(s.seq_len == 32);
  CHECK(s.optimizer == Optimizer::muon);
  CHECK(s.schedule == Schedule::wsd);
  CHECK(s.warmup_steps == 2);
  CHECK(s.warmup_ratio == 0);
  CHECK(s.min_lr_ratio == 0.2);
  CHECK(s.decay_fraction == 0.3);
  CHECK(s.decay_shape == DecayShape::one_minus_sqrt);
  CHECK(s.weight_decay == 0.4);
  CHECK(s.beta1 == 0.5);
  CHECK(s.beta2 == 0.6);
  CHECK(s.eps == 1e-3);
  CHECK(s.momentum == 0.7);
  CHECK_FALSE(s.nesterov);
  CHECK(s.muon_scaling == MuonScaling::moonshot);
  CHECK(s.lr == 1e-3);
  CHECK(s.clip == 0);
  CHECK(s.ema == 0.8);
  CHECK(s.dtype == ComputeType::f32);
  CHECK(s.device == DeviceKind::reference);
  CHECK(s.threads == 2);
  CHECK(s.seed == 3);
  CHECK(s.eval_every == 4);
  CHECK(s.eval_batches == 5);
  CHECK(s.save_every == 6);
  CHECK(s.keep == 7);
  CHECK(s.batch_mode == BatchMode::pad);
  CHECK(s.text_field == "7");
  CHECK(s.subset == "8");
  CHECK(s.split == "test");
  CHECK(s.split_seed == 9);
  CHECK(s.val_fraction == 0.25);
  CHECK(s.tokenizer == "char");
  CHECK(s.profile);
  CHECK(s.json);
  const CommandLine bytes = parse({"-m", "gqa", "--data", "d", "--gradient-checkpointing", "6GiB"});
  CHECK(bytes.model.gradient_checkpointing.bytes == int64_t{6} << 30);
  const CommandLine layer = parse({"-m", "gqa", "--data", "d", "--gradient_checkpointing"});
  CHECK(layer.model.gradient_checkpointing.mode == GradientCheckpointing::Mode::layer);
  CHECK(parse({"-m", "gqa", "--data", "d", "--lr", "1", "--lr", "2"}).settings.lr == 2);
}

TEST_CASE("settings: defaults follow the optimizer and the variant") {
  const auto of = [](const char* json) { return parse_training(json, kModel, "t"); };
  CHECK(of("").lr == 1e-3);
  CHECK(of("").weight_decay == 0.1);
  CHECK(of("").beta2 == 0.95);
  CHECK(of(R"({"optimizer": "sgd"})").momentum == 0.9);
  CHECK_FALSE(of(R"({"optimizer": "sgd"})").nesterov);
  CHECK(of(R"({"optimizer": "lion"})").beta2 == 0.99);
  CHECK(of(R"({"optimizer": "muon"})").lr == 0.02);
  ModelConfig ngpt = kModel;
  ngpt.attention_type = AttentionType::ngpt;
  CHECK(parse_training("", ngpt, "t").weight_decay == 0);
  CHECK(parse_training("", ngpt, "t").warmup_for(1000) == 0);
  ngpt.hidden_size = 100;
  CHECK(parse_training("", ngpt, "t").lr == doctest::Approx(0.009));
  ngpt.hidden_size = 400;
  CHECK(parse_training("", ngpt, "t").lr == doctest::Approx(0.0045));
  CHECK(parse_training(R"({"lr": 0.003})", ngpt, "t").lr == 0.003);
  CHECK(parse_training(R"({"optimizer": "lion"})", ngpt, "t").lr == 1e-4);
  CHECK(of("").warmup_for(1000) == 20);
  CHECK(of(R"({"warmup_steps": 5})").warmup_for(1000) == 5);
  CHECK(of(R"({"warmup_steps": 50})").warmup_for(10) == 10);
  ModelConfig shorter = kModel;
  shorter.max_position_embeddings = 100;
  CHECK(parse_training("", shorter, "t").seq_len == 100);

  const CommandLine muon =
      parse({"-m", "gqa", "--data", "d", "--optimizer", "muon", "--weight-decay", "0.3"});
  CHECK(muon.settings.lr == 0.02);  // gqa.json's lr is adamw's
  CHECK(muon.settings.weight_decay == 0.3);
  REQUIRE(muon.notes.size() == 1);
  CHECK(contains(muon.notes[0], "its lr are not used"));
}

TEST_CASE("settings: the split's seed is the run's, unless it is given") {
  const auto of = [](const char* json) { return parse_training(json, kModel, "t"); };
  CHECK(of("").split_seed == 1);
  CHECK(of(R"({"seed": 7})").split_seed == 7);  // also what runs that were written before had
  CHECK(of(R"({"seed": 7, "split_seed": 3})").split_seed == 3);
  CHECK(of(R"({"seed": 7, "split_seed": 3})").seed == 7);
  const TrainSettings s = of(R"({"seed": 7, "split_seed": 3})");
  const ParsedConfig again = parse_config(merged_config_json(kModel, s), "t");
  CHECK(parse_training(again.training, again.model, "t").split_seed == 3);
}

TEST_CASE("settings: the shipped configs' sections are valid, and ngpt's follows its paper") {
  for (const char* type : {"mha", "gqa", "diff", "ngpt", "mla"}) {
    CAPTURE(type);
    const CommandLine line = parse({"-m", type, "--data", "d"});
    CHECK(line.settings.steps > 0);
    CHECK((line.settings.warmup_for(line.settings.steps) == 0) == (std::string_view(type) == "ngpt"));
    CHECK((line.settings.weight_decay == 0) == (std::string_view(type) == "ngpt"));
  }
  // A narrower nGPT than the shipped one has its own rate.
  CHECK(parse({"-m", "ngpt", "--data", "d"}).settings.lr == doctest::Approx(0.09 / std::sqrt(384.0)));
  CHECK(parse({"-m", "ngpt", "--data", "d", "--set", "hidden_size=96"}).settings.lr ==
        doctest::Approx(0.09 / std::sqrt(96.0)));
}

TEST_CASE("settings: the command line's steps or epochs replace the config's") {
  CHECK(parse({"-m", "gqa", "--data", "d", "--epochs", "2"}).settings.steps == 0);
  CHECK(parse({"-m", "gqa", "--data", "d", "--epochs", "2"}).settings.epochs == 2);
  CHECK(parse({"-m", "gqa", "--data", "d", "--warmup-ratio", "0.5"}).settings.warmup_for(100) == 50);
  CHECK(parse({"-m", "gqa", "--data", "d", "--steps", "8", "--warmup-steps", "50"}).settings.warmup_for(8) ==
        8);  // shorter than the config's warm-up
  CHECK(contains(message_of({"-m", "gqa", "--data", "d", "--epochs", "2", "--steps", "5"}), "two ways"));
}

TEST_CASE("settings: trackers are a list") {
  const auto track = [](std::vector<const char*> words) {
    words.insert(words.end(), {"-m", "gqa", "--data", "x"});
    return parse(words).settings.track;
  };
  CHECK(track({}) == Tracking{});
  CHECK(track({"--track", "jsonl"}) == Tracking{});
  CHECK(track({"--track", "jsonl,tensorboard"}) == Tracking{.tensorboard = true});
  CHECK(track({"--track", "wandb,tensorboard"}) == Tracking{.tensorboard = true, .wandb = true});
  CHECK(track({"--wandb"}) == Tracking{.wandb = true});
  CHECK(track({"--wandb", "--track", "tensorboard"}) == Tracking{.tensorboard = true, .wandb = true});
  CHECK(track({"--wandb", "--track", "wandb"}) == Tracking{.wandb = true});
  CHECK(track({"--no-wandb"}) == Tracking{});
  CHECK(parse_training(R"({"track": ["jsonl", "wandb"]})", kModel, "t").track == Tracking{.wandb = true});
  CHECK(contains(message_of({"-m", "gqa", "--data", "x", "--track", "tensorbord"}),
                 "'track' must be a list of jsonl, tensorboard and wandb, not \"tensorbord\""));
}

TEST_CASE("settings: mistakes are one line that says what is allowed") {
  const auto with = [](std::vector<const char*> words) {
    words.insert(words.begin(), {"-m", "gqa", "--data", "d"});
    return message_of(std::move(words));
  };
  CHECK(with({"--batchsize", "8"}) == "nf-train: unknown flag '--batchsize'; did you mean '--batch-size'?");
  CHECK(with({"--hiden_size", "8"}) ==
        "nf-train: unknown flag '--hiden-size'; did you mean '--hidden-size'?");
  CHECK(contains(with({"--qqqqqqqqqqqqqqqqqqq"}), "unknown flag"));
  CHECK(with({"stray"}).empty());  // another path of --data
  CHECK(contains(message_of({"stray", "-m", "gqa"}), "unexpected 'stray'; texts are given with --data"));
  CHECK(contains(with({"--threads", "0"}), "'threads' is 0, it must be from 1 to 1024"));
  CHECK(contains(with({"--threads", "two"}), "'threads' must be a whole number, not \"two\""));
  CHECK(contains(with({"--lr", "fast"}), "'lr' must be a number"));
  CHECK(contains(with({"--lr", "-1"}), "'lr' is -1, it must be above 0"));
  CHECK(contains(with({"--lr", "nan"}), "'lr' must be a number"));
  CHECK(with({"--lr"}) == "nf-train: --lr needs a value; see --help");
  CHECK(contains(with({"--optimizer", "adam"}), "one of adamw, sgd, lion, muon"));
  CHECK(contains(with({"--steps", "0"}), "'steps' is 0, it must be at least 1"));
  CHECK(contains(with({"--epochs", "0"}), "'epochs' is 0, it must be above 0"));
  CHECK(contains(with({"--seq-len", "4096"}), "'max_position_embeddings' allows at most 1024"));
  CHECK(contains(with({"--warmup-steps", "-1"}), "at least 0"));
  CHECK(contains(with({"--hidden-size", "257"}), "command line: 'hidden_size' (257) must be a multiple of"));
  CHECK(contains(with({"--hidden-size"}), "'hidden_size' must be a whole number"));
  CHECK(contains(with({"--set", "hiden_size=3"}), "unknown key 'hiden_size'; did you mean 'hidden_size'?"));
  CHECK(contains(with({"--set", "batchsize=3"}), "did you mean 'batch_size'?"));
  CHECK(contains(with({"--set", "steps"}), "KEY=VALUE"));
  CHECK(contains(with({"--extra-args", "[1]"}), "JSON object"));
  CHECK(contains(with({"--lr", "1", "--learning-rate", "2"}), "given twice"));
  CHECK(contains(with({"--init-from", "a", "--resume", "b"}), "keep one"));
  CHECK(contains(message_of({"-m", "gqa"}), "--data FILE"));
  CHECK(contains(message_of({"--data", "d"}), "give a model"));
  CHECK(contains(message_of({"-m", "gqq", "--data", "d"}), "shipped are diff, gqa"));
  CHECK(contains(message_of({"--resume", "--data", "d"}), "--resume needs the run's folder"));
  CHECK(contains(message_of({"--resume", "/nonexistent"}), "no such folder"));
}

TEST_CASE("settings: mistakes of a config's section name the file") {
  const auto of = [](const char* section) {
    const Folder folder;
    const std::string config =
        folder.write("c.json", fmt::format(R"({{"attention_type": "gqa", "training": {}}})", section));
    return message_of({"-m", config.c_str(), "--data", "d"});
  };
  CHECK(contains(of(R"({"batchsize": 3})"),
                 "c.json: training: unknown key 'batchsize'; did you mean 'batch_size'?"));
  CHECK(contains(of(R"({"lr": "1"})"), "c.json: training: 'lr' must be a number"));
  CHECK(contains(of(R"({"hidden_size": 1})"), "belongs to the model"));
  CHECK(contains(of(R"({"data": [1]})"), "'data' must be a string"));
  CHECK(contains(of(R"({"threads": 3000000000})"), "'threads' must be a whole number"));
  CHECK(contains(of(R"({"steps": 3, "epochs": 1})"), "two ways"));
}

TEST_CASE("settings: a value of the config's section that does not go with the line names the file") {
  const Folder folder;
  const std::string config = folder.write(
      "c.json", R"({"attention_type": "gqa", "training": {"seq_len": 512, "steps": 5, "batch_size": 4}})");
  const std::string message =
      message_of({"-m", config.c_str(), "--data", "d", "--max-position-embeddings", "128"});
  CHECK(message ==
        config + ": training: 'seq_len' is 512, the model's 'max_position_embeddings' allows at most 128");
  CHECK(contains(message_of({"-m", config.c_str(), "--data", "d", "--seq-len", "4096"}),
                 "command line: 'seq_len' is 4096"));
  CHECK(contains(message_of({"-m", config.c_str(), "--data", "d", "--set", "batch_size=0"}),
                 "command line: 'batch_size' is 0"));
}

TEST_CASE("settings: keys that a variant has no use for are told") {
  const auto notes = [](std::vector<const char*> words) {
    words.insert(words.end(), {"--data", "d"});
    return parse(std::move(words)).notes;
  };
  CHECK(notes({"-m", "ngpt"}).empty());
  CHECK(notes({"-m", "gqa", "--set", "initializer_range=0.3"}).empty());
  CHECK(notes({"-m", "diff", "--lambda-std-dev", "0.3"}).empty());
  REQUIRE(notes({"-m", "ngpt", "--set", "initializer_range=0.02"}).size() == 1);
  CHECK(contains(notes({"-m", "ngpt", "--set", "initializer_range=0.3"})[0],
                 "initializer_range has no effect: ngpt's initial weights have the standard deviation "
                 "1/sqrt(hidden_size)"));
  CHECK(contains(notes({"-m", "gqa", "--lambda-std-dev", "0.3"})[0], "lambda_std_dev has no effect"));
  const Folder folder;
  const std::string own = folder.write("own.json", R"({"attention_type": "ngpt", "initializer_range": 0.5})");
  CHECK(contains(notes({"-m", own.c_str()})[0], "initializer_range has no effect"));
  const std::string run = folder.write(
      "run.json", merged_config_json(parse({"-m", "ngpt", "--data", "d"}).model, TrainSettings{}));
  CHECK(notes({"-m", run.c_str()}).empty());  // it states every default
}

TEST_CASE("settings: flags of another optimizer or schedule are told") {
  const auto notes = [](std::vector<const char*> words) {
    words.insert(words.end(), {"-m", "gqa", "--data", "d"});
    return parse(std::move(words)).notes;
  };
  CHECK(notes({"--momentum", "0.8"}) ==
        std::vector<std::string>{"momentum has no effect: it is a setting of sgd and muon"});
  CHECK(notes({"--decay-fraction", "0.3", "--decay-shape", "linear"}).size() == 2);
  CHECK(contains(notes({"--schedule", "wsd", "--min-lr-ratio", "0.3"})[0], "min_lr_ratio has no effect"));
  CHECK(notes({"--schedule", "wsd", "--decay-fraction", "0.3"}).empty());
  CHECK(notes({"--beta1", "0.8", "--min-lr-ratio", "0.3"}).empty());
  const std::vector<std::string> sgd = notes({"--optimizer", "sgd", "--momentum", "0.8", "--beta2", "0.9"});
  CHECK(std::count_if(sgd.begin(), sgd.end(),
                      [](const std::string& note) { return contains(note, "beta"); }) == 1);
}

TEST_CASE("settings: the merged config reads back as the same run") {
  const Folder folder;
  for (const char* type : {"mha", "ngpt", "mla"}) {
    CommandLine line = parse({"-m", type, "--data", "a", "b", "--optimizer", "lion", "--lr", "0.3", "--ema",
                              "0.9", "--gradient-checkpointing", "1MiB", "--logit-cap", "12.5"});
    line.model.vocab_size = 257;
    const std::string text = merged_config_json(line.model, line.settings);
    const ParsedConfig parsed = parse_config(text, "run");
    CHECK(parsed.model == line.model);
    TrainSettings again = parse_training(parsed.training, parsed.model, "run");
    again.out = line.settings.out;
    CHECK(again == line.settings);
    CHECK(merged_config_json(parsed.model, again) == text);
  }
}

TEST_CASE("settings: a run resumes from its own config") {
  const Folder folder;
  CommandLine line = parse({"-m", "mla", "--data", "a", "--batch-size", "3", "--out", folder.path.c_str()});
  folder.write("config.json", merged_config_json(line.model, line.settings));
  const CommandLine resumed = parse({"--resume", folder.path.c_str(), "--steps", "1234"});
  CHECK(resumed.settings.resume);
  CHECK(resumed.settings.resume_from == folder.path.string());
  CHECK(resumed.settings.out == folder.path.string());
  CHECK(resumed.settings.batch_size == 3);
  CHECK(resumed.settings.steps == 1234);
  CHECK(resumed.settings.data == std::vector<std::string>{"a"});
  CHECK(resumed.model == line.model);
  CHECK(parse({"--resume", "--out", folder.path.c_str()}).model == line.model);
  CHECK(parse({"--resume_from_checkpoint", "--checkpoint_path", folder.path.c_str()}).model == line.model);

  fs::create_directories(folder.path / "checkpoint-5");
  fs::copy_file(folder.path / "config.json", folder.path / "checkpoint-5/config.json");
  const std::string checkpoint = (folder.path / "checkpoint-5/").string();
  CHECK(parse({"--resume", checkpoint.c_str()}).settings.out == folder.path.string());
  const CommandLine init = parse({"--init-from", folder.path.c_str(), "--data", "z", "--out", "o"});
  CHECK_FALSE(init.settings.resume);
  CHECK(init.settings.init_from == folder.path.string());
  CHECK(init.model == line.model);
}

TEST_CASE("settings: help shows every flag, default and group") {
  const std::string help = *parse({"--help"}).help;
  for (const char* part :
       {"-m, --model CONFIG", "--batch-size B", "[8]", "--lr X", "Schedule\n", "Example: nf-train",
        "--set KEY=VALUE", "hidden_size", "[cosine]", "--resume [DIR]"}) {
    CAPTURE(part);
    CHECK(contains(help, part));
  }
  CHECK_FALSE(contains(help, "--gradient-accumulation-steps"));
  const std::string estimate = *parse({"-h"}, Program::estimate).help;
  for (const char* part :
       {"nf-estimate -m", "every flag of nf-train", "--batch-size", "--optimizer", "--init-from"})
    CHECK(contains(estimate, part));
  for (const char* part : {"--out", "--resume", "--lr ", "Schedule", "--track", "--seed"}) {
    CAPTURE(part);
    CHECK_FALSE(contains(estimate, part));
  }
  size_t begin = 0;
  for (size_t end = help.find('\n'); end != std::string::npos;
       begin = end + 1, end = help.find('\n', begin)) {
    CHECK(end - begin <= 114);
    CHECK((end == begin || help[end - 1] != ' '));
  }
}

TEST_CASE("settings: every training key is known to both tables") {
  for (const std::string_view key : training_keys()) {
    CAPTURE(key);
    try {
      parse_training(fmt::format(R"({{"{}": {{}}}})", key), kModel, "t");
      FAIL("an object is no value of any key");
    } catch (const Error& error) {
      CHECK_FALSE(contains(error.what(), "unknown key"));
    }
  }
  // And back: what the settings hold.
  const auto settings = nlohmann::json::parse(merged_config_json(kModel, TrainSettings()))["training"];
  CHECK(settings.size() > 30);
  for (const auto& [key, value] : settings.items()) {
    CAPTURE(key);
    const auto keys = training_keys();
    CHECK(std::find(keys.begin(), keys.end(), key) != keys.end());
  }
}
