#include "tools/trainer/trainer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "nf/file.h"
#include "tests/trainer/late_device.h"
#include "tests/trainer/training_support.h"
#include "tools/program.h"
#include "tools/tracking/jsonl_tracker.h"
#include "tools/trainer/tensors.h"

using namespace nf;
namespace fs = std::filesystem;

namespace {

CommandLine line_for(const Folder& folder, const std::string& out) {
  CommandLine line;
  line.settings = small_settings(folder.write("text.txt", small_text(2000)));
  line.settings.val_fraction = 0.1;
  line.settings.eval_every = 5;
  line.settings.eval_batches = 2;
  line.settings.out = folder.path / out;
  line.settings.json = true;
  line.model = small_model();
  line.model.residual_dropout = 0.1;
  return line;
}

uint64_t weights_hash(const fs::path& checkpoint) { return hash_file(checkpoint / "model.safetensors"); }

// Both ended with step 20, with the same bits, and tell the same.
void check_same_run(const fs::path& one, const fs::path& other) {
  const fs::path a = one / "checkpoint-20", b = other / "checkpoint-20";
  CHECK(weights_hash(a) == weights_hash(b));
  CHECK(hash_file(a / "optimizer.safetensors") == hash_file(b / "optimizer.safetensors"));
  CHECK(read_file(a / "trainer_state.json") == read_file(b / "trainer_state.json"));
  for (const char* metric : {"loss", "val_loss", "grad_norm", "lr"}) {
    CAPTURE(metric);
    const MetricSeries before = read_metric(one / "metrics.jsonl", metric),
                       after = read_metric(other / "metrics.jsonl", metric);
    CHECK(before.steps == after.steps);
    CHECK(before.values == after.values);
  }
}

}  // namespace

TEST_CASE("trainer: a run leaves what others need") {
  const Folder folder;
  CommandLine line = line_for(folder, "run");
  line.settings.save_every = 4;
  line.settings.keep = 2;
  CHECK(train(line) == kExitDone);
  const fs::path run = folder.path / "run";
  for (const char* file :
       {"config.json", "tokenizer.json", "metrics.jsonl", "best", "checkpoint-20/config.json",
        "checkpoint-20/optimizer.safetensors", "checkpoint-20/tokenizer.json"})
    CHECK_MESSAGE(fs::exists(run / file), file);
  CHECK(parse_config(read_file(run / "config.json"), "config").model.vocab_size == 257);
  CHECK(!find_damage(run / "checkpoint-20"));

  const MetricSeries losses = read_metric(run / "metrics.jsonl", "loss"),
                     validation = read_metric(run / "metrics.jsonl", "val_loss");
  CHECK(losses.steps.size() == 20);
  CHECK(losses.values.back() < losses.values.front());
  CHECK(validation.steps == std::vector<double>{0, 5, 10, 15, 20});
  CHECK(fs::read_symlink(run / "best") == "checkpoint-20");  // the loss still falls
  int64_t checkpoints = 0;
  for (const auto& entry : fs::directory_iterator(run))
    checkpoints += entry.path().filename().string().starts_with("checkpoint-");
  CHECK(checkpoints == 2);
}

TEST_CASE("trainer: report.html shows the whole run, also after it was stopped and resumed") {
  const Folder folder;
  CommandLine line = line_for(folder, "run");
  const fs::path run = folder.path / "run";
  CHECK(train(line, [](const Trainer& trainer) { return trainer.step() == 7; }) == kExitInterrupted);
  const auto shown = [&] {
    const std::string html = read_file(run / "report.html"), mark = "const data = ";
    const size_t begin = html.find(mark) + mark.size();
    return nlohmann::json::parse(html.substr(begin, html.find('\n', begin) - begin - 1))["runs"][0];
  };
  CHECK(shown()["status"] == "stopped");
  CHECK(shown()["train"]["step"].size() == 7);
  line.settings.resume = true;
  line.settings.resume_from = run.string();
  CHECK(train(line) == kExitDone);
  const nlohmann::json data = shown();
  CHECK(data["status"] == "done");
  CHECK(data["train"]["step"].size() == 20);
  CHECK(data["val"]["step"] == nlohmann::json::parse("[0,5,10,15,20]"));
  CHECK(data["val"]["tokens"].back() == data["train"]["tokens"].back());
  CHECK(data["train"]["memory"].size() == 20);
  // Time goes on where it was.
  const auto seconds = data["train"]["seconds"].get<std::vector<double>>();
  CHECK(std::is_sorted(seconds.begin(), seconds.end()));
  CHECK(seconds.front() > 0);
  const MetricSeries memory = read_metric(run / "metrics.jsonl", "memory");
  REQUIRE(!memory.values.empty());
  CHECK(memory.values.front() > 1e6);
}

TEST_CASE("trainer: the best weights are kept unless nobody wants them") {
  const Folder folder;
  const CommandLine line = line_for(folder, "run");
  const Silence silence;
  CHECK(Trainer(line, {.brief = true, .keep_best = false}).run([] { return false; }) == kExitDone);
  CHECK(!fs::exists(fs::symlink_status(folder.path / "run/best")));
  CHECK(fs::exists(folder.path / "run/checkpoint-20"));
  CHECK(!fs::exists(folder.path / "run/checkpoint-5"));
}

TEST_CASE("trainer: stopped and resumed, the run ends with the same bits, whatever the threads") {
  for (const ComputeType dtype : {ComputeType::f32, ComputeType::bf16}) {
    CAPTURE(name(dtype));
    const Folder folder;
    CommandLine whole = line_for(folder, "whole");
    whole.settings.dtype = dtype;
    whole.settings.ema = 0.9;
    CHECK(train(whole) == kExitDone);

    CommandLine parts = whole;
    parts.settings.out = folder.path / "parts";
    CHECK(train(parts, [](const Trainer& trainer) { return trainer.step() == 7; }) == kExitInterrupted);
    CHECK(fs::exists(folder.path / "parts/checkpoint-7"));
    parts.settings.resume = true;
    parts.settings.resume_from = parts.settings.out;
    parts.settings.threads = 3;
    CHECK(train(parts, [](const Trainer& trainer) { return trainer.step() == 10; }) == kExitInterrupted);
    parts.settings.threads = 2;
    CHECK(train(parts) == kExitDone);

    check_same_run(folder.path / "whole", folder.path / "parts");
  }
}

TEST_CASE("trainer: steps overlap on a device that works by itself, and nothing else differs") {
  const Folder folder;
  CommandLine line = line_for(folder, "cpu");
  line.settings.save_every = 6;
  line.settings.keep = 10;
  CHECK(train(line) == kExitDone);
  line.settings.out = folder.path / "late";
  const Silence silence;
  const auto run_late = [&](const std::function<bool(const Trainer&, int64_t waiting)>& stop) {
    const auto device = std::make_shared<LateDevice>();
    Trainer trainer(line, {.device = device});
    return trainer.run([&] { return stop(trainer, device->waiting()); });
  };
  int64_t overlapped = 0;
  CHECK(run_late([&](const Trainer& trainer, int64_t waiting) {
          overlapped += waiting > 0;
          return trainer.step() == 8;
        }) == kExitInterrupted);
  CHECK(overlapped > 0);
  CHECK(!fs::exists(folder.path / "late/checkpoint-0"));  // where the first step was under way
  CHECK(fs::exists(folder.path / "late/checkpoint-9"));   // which was under way when it was stopped
  line.settings.resume = true;
  line.settings.resume_from = line.settings.out;
  CHECK(run_late([](const Trainer&, int64_t) { return false; }) == kExitDone);
  line.settings.resume_from = folder.path / "late/checkpoint-6";
  line.settings.out = folder.path / "again";
  CHECK(run_late([](const Trainer&, int64_t) { return false; }) == kExitDone);
  CHECK(!fs::exists(folder.path / "again/checkpoint-6"));
  CHECK(weights_hash(folder.path / "again/checkpoint-20") == weights_hash(folder.path / "cpu/checkpoint-20"));

  check_same_run(folder.path / "cpu", folder.path / "late");
}

TEST_CASE("trainer: nothing is overwritten unasked") {
  const Folder folder;
  CommandLine line = line_for(folder, "run");
  line.settings.steps = 4;
  line.settings.save_every = 2;
  CHECK(train(line) == kExitDone);
  CHECK(refusal(line).find("has a run already; continue it with --resume") != std::string::npos);

  CommandLine back = line;
  back.settings.resume = true;
  back.settings.resume_from = folder.path / "run/checkpoint-2";
  CHECK(refusal(back).find("has checkpoint-4 already, later than step 2") != std::string::npos);
  back.settings.out = folder.path / "branch";
  CHECK(train(back) == kExitDone);
  CHECK(weights_hash(folder.path / "branch/checkpoint-4") == weights_hash(folder.path / "run/checkpoint-4"));
}

TEST_CASE("trainer: resuming a finished run trains no more; with more steps it goes on") {
  const Folder folder;
  CommandLine line = line_for(folder, "run");
  CHECK(train(line) == kExitDone);
  const uint64_t before = weights_hash(folder.path / "run/checkpoint-20");
  line.settings.resume = true;
  line.settings.resume_from = line.settings.out;
  CHECK(train(line) == kExitDone);
  CHECK(weights_hash(folder.path / "run/checkpoint-20") == before);
  line.settings.steps = 25;
  CHECK(train(line) == kExitDone);
  CHECK(fs::exists(folder.path / "run/checkpoint-25"));
}

TEST_CASE("trainer: a resumed run agrees with the one before, or says where it does not") {
  const Folder folder;
  CommandLine line = line_for(folder, "run");
  line.settings.steps = 2;
  CHECK(train(line) == kExitDone);
  line.settings.resume = true;
  line.settings.resume_from = line.settings.out;
  line.settings.optimizer = Optimizer::lion;
  CHECK(refusal(line).find("made with optimizer = \"adamw\", now it is \"lion\"") != std::string::npos);
}

TEST_CASE("trainer: the tokenizer stays with the weights") {
  const Folder folder;
  CommandLine line = line_for(folder, "run");
  line.settings.tokenizer = "char";
  line.settings.steps = 2;
  CHECK(train(line) == kExitDone);

  CommandLine other = line;
  other.settings.resume = true;
  other.settings.resume_from = line.settings.out;
  other.settings.tokenizer = "byte";
  CHECK(refusal(other).find("made with the char tokenizer, now it is byte") != std::string::npos);

  CommandLine fresh = other;  // a new run takes it over, whatever its config says
  fresh.settings.resume = false;
  fresh.settings.init_from = line.settings.out;
  fresh.settings.out = folder.path / "fresh";
  CHECK(train(fresh) == kExitDone);
  const auto config = nlohmann::json::parse(read_file(folder.path / "fresh/config.json"));
  CHECK(config["training"]["tokenizer"] == "char");
}

TEST_CASE("trainer: a folder that cannot be written is found before the text is read") {
  const Folder folder;
  CommandLine line = line_for(folder, "text.txt");  // a file
  line.settings.data = {(folder.path / "nowhere.txt").string()};
  CHECK(refusal(line).find("--out: ") == 0);
}

TEST_CASE("trainer: the first step has no speed") {
  const Folder folder;
  const CommandLine line = line_for(folder, "run");
  CHECK(train(line) == kExitDone);
  const MetricSeries speed = read_metric(folder.path / "run/metrics.jsonl", "tokens_per_second");
  CHECK(speed.steps.size() == 19);
  CHECK(speed.steps.front() == 2);
}

TEST_CASE("trainer: weights from another run start a new one") {
  const Folder folder;
  CommandLine first = line_for(folder, "first");
  CHECK(train(first) == kExitDone);
  CommandLine second = line_for(folder, "second");
  second.settings.init_from = folder.path / "first";
  second.settings.steps = 1;
  CHECK(train(second) == kExitDone);
  const double begins = read_metric(folder.path / "second/metrics.jsonl", "val_loss").values.front(),
               ended = read_metric(folder.path / "first/metrics.jsonl", "val_loss").values.back();
  CHECK(begins == ended);

  second.settings.out = folder.path / "third";
  second.model.hidden_size = 48;
  CHECK(refusal(second).find("has shape [257, 32], this model needs [257, 48]") != std::string::npos);
  CHECK(!fs::exists(folder.path / "third"));
}

TEST_CASE("trainer: a vocabulary that is too small is refused") {
  const Folder folder;
  CommandLine line = line_for(folder, "run");
  line.model.vocab_size = 256;
  CHECK(refusal(line).find("vocab_size is 256, the byte tokenizer has 257 tokens") != std::string::npos);
  line.model.vocab_size = 300;
  line.settings.steps = 1;
  CHECK(train(line) == kExitDone);
}

TEST_CASE("trainer: head similarity that sets in after the warm-up changes the steps from there on") {
  const Folder folder;
  CommandLine line = line_for(folder, "plain");
  line.settings.warmup_ratio = 0;
  line.settings.warmup_steps = 3;
  line.settings.steps = 6;
  CHECK(train(line) == kExitDone);
  line.settings.out = folder.path / "similar";
  line.model.head_sim_loss = line.model.head_sim_loss_after_warmup = true;
  CHECK(train(line) == kExitDone);
  const auto plain = read_metric(folder.path / "plain/metrics.jsonl", "loss").values,
             similar = read_metric(folder.path / "similar/metrics.jsonl", "loss").values;
  for (size_t step = 0; step < 3; ++step) CHECK(plain[step] == similar[step]);
  CHECK(plain[3] != similar[3]);
  CHECK(read_metric(folder.path / "similar/metrics.jsonl", "head_similarity").steps ==
        std::vector<double>{4, 5, 6});
}

TEST_CASE("trainer: a profile names the kernels and leaves a trace") {
  const Folder folder;
  CommandLine line = line_for(folder, "run");
  line.settings.profile = true;
  CHECK(train(line) == kExitDone);
  const auto trace = nlohmann::json::parse(read_file(folder.path / "run/trace.json"));
  CHECK(trace["traceEvents"].size() > 100);
}
