// Training of adapters: what is trained, what it takes, what is left, and how it goes on.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "nf/error.h"
#include "nf/file.h"
#include "tests/trainer/training_support.h"
#include "tools/evaluate.h"
#include "tools/load_model.h"
#include "tools/lora.h"
#include "tools/program.h"
#include "tools/tracking/jsonl_tracker.h"
#include "tools/trainer/memory.h"
#include "tools/trainer/trainer.h"

using namespace nf;
namespace fs = std::filesystem;

namespace {

struct Runs {
  Folder folder;
  CommandLine base, adapter;

  Runs() {
    base.settings = small_settings(folder.write("text.txt", small_text(2000)));
    base.settings.val_fraction = 0.1;
    base.settings.eval_every = 5;
    base.settings.eval_batches = 2;
    base.settings.json = true;
    base.settings.out = folder.path / "base";
    base.model = small_model();
    adapter = base;
    adapter.settings.out = folder.path / "adapter";
    adapter.settings.init_from = base.settings.out;
    adapter.settings.seed = 2;
    adapter.settings.lr = 0.01;
    adapter.model.lora =
        LoraConfig{.rank = 4, .alpha = 8, .targets = {"q_proj", "down_proj"}, .dropout = 0.1};
  }
};

double last_validation(const fs::path& run) {
  return read_metric(run / "metrics.jsonl", "val_loss").values.back();
}

}  // namespace

TEST_CASE("lora: training begins at the base, leaves an adapter, and improves on the base") {
  Runs runs;
  CHECK(train(runs.base) == kExitDone);
  const fs::path base = runs.folder.path / "base" / "best";
  const uint64_t before = hash_file(base / "model.safetensors");
  CHECK(train(runs.adapter) == kExitDone);
  CHECK(hash_file(base / "model.safetensors") == before);

  const fs::path run = runs.folder.path / "adapter", checkpoint = run / "checkpoint-20";
  const MetricSeries validation = read_metric(run / "metrics.jsonl", "val_loss");
  CHECK(validation.values.front() ==
        doctest::Approx(last_validation(runs.folder.path / "base")).epsilon(1e-6));
  CHECK(validation.values.back() < validation.values.front() - 0.005);
  CHECK_FALSE(find_damage(checkpoint));
  CHECK_FALSE(fs::exists(checkpoint / "model.safetensors"));
  const SafetensorsFile file = SafetensorsFile::open(checkpoint / kAdapterModel);
  CHECK(file.tensors().size() == 8);  // A and B of two projections in two layers
  CHECK(file.at("base_model.model.model.layers.1.mlp.down_proj.lora_A.weight").shape == Shape{4, 64});
  CHECK(file.at("base_model.model.model.layers.1.mlp.down_proj.lora_B.weight").shape == Shape{32, 4});
  CHECK(SafetensorsFile::open(checkpoint / "optimizer.safetensors").tensors().size() ==
        16);  // AdamW's moments
  const Adapter written = read_adapter(checkpoint);
  CHECK(written.lora == *runs.adapter.model.lora);
  CHECK(fs::equivalent(written.base, base));

  // Merged, it is the model that was trained.
  LoadedModel merged = load_model(run, cpu_device(1));
  CHECK(merged.adapter);
  TrainingData data = load_training_data(runs.adapter.settings);
  const auto batches = validation_batches(data, runs.adapter.settings);
  CHECK(mean_loss(merged, *batches, 2, DType::f32).loss ==
        doctest::Approx(last_validation(run)).epsilon(1e-5));
}

TEST_CASE("lora: stopped and resumed, an adapter ends with the same bits") {
  Runs runs;
  runs.base.settings.steps = 3;
  runs.adapter.settings.dtype = ComputeType::bf16;
  CHECK(train(runs.base) == kExitDone);
  CHECK(train(runs.adapter) == kExitDone);
  CommandLine halves = runs.adapter;
  halves.settings.out = runs.folder.path / "halves";
  CHECK(train(halves, [](const Trainer& trainer) { return trainer.step() == 7; }) == kExitInterrupted);
  halves.settings.resume = true;
  halves.settings.resume_from = halves.settings.out;
  halves.settings.threads = 2;
  CHECK(train(halves) == kExitDone);
  const auto hash = [&](const char* run) {
    return hash_file(runs.folder.path / run / "checkpoint-20" / kAdapterModel);
  };
  CHECK(hash("halves") == hash("adapter"));

  // The base must stay what it was.
  const fs::path base = read_adapter(runs.folder.path / "halves" / "checkpoint-20").base;
  fs::remove_all(base / "optimizer.safetensors");
  const std::string weights = read_file(base / "model.safetensors");
  std::string altered = weights;
  altered[altered.size() - 3] ^= 1;
  write_file(base / "model.safetensors", altered);
  halves.settings.steps = 21;
  CHECK(refusal(halves).find("the base model is not the one that the run was made with") !=
        std::string::npos);
}

TEST_CASE("lora: frozen weights have no gradients, no moments, and no master where bf16 does") {
  ModelConfig model = small_model();
  model.vocab_size = 257;
  TrainSettings settings = small_settings("");
  settings.dtype = ComputeType::bf16;
  settings.save_every = 5;
  const auto device = cpu_device(1);
  const auto memory = [&] { return estimate_memory(model, plan_options(model, settings, false), *device); };
  const MemoryEstimate whole = memory();
  const int64_t all = count_parameters(model).total;
  model.lora = LoraConfig{.rank = 4};
  const ParameterCount count = count_parameters(model);
  const MemoryEstimate adapted = memory();
  CHECK(whole.gradients == 4 * all);
  CHECK(adapted.gradients == 4 * count.adapters);
  CHECK(adapted.optimizer == 8 * count.adapters);
  CHECK(adapted.checkpoint == 12 * count.adapters);
  // In f32: the embedding, the norms and the adapters.
  const int64_t norms = 5 * model.hidden_size;
  CHECK(adapted.weights == 4 * (count.embedding + norms + count.adapters));
  CHECK(adapted.narrow_copies == 2 * (count.total - count.embedding - norms));
  CHECK(adapted.arena() < whole.arena());

  // And that is what a session holds.
  model.lora->dropout = 0;
  TrainingSession session(model, settings, false, device);
  session.initialize();
  CHECK(session.state().bytes() == adapted.state());
}

TEST_CASE("lora: what cannot be adapted is said") {
  Runs runs;
  CommandLine alone = runs.adapter;
  alone.settings.init_from.clear();
  CHECK(refusal(alone).find("say which one with --init-from") != std::string::npos);
  runs.base.settings.steps = runs.adapter.settings.steps = 1;
  CHECK(train(runs.base) == kExitDone);
  CHECK(train(runs.adapter) == kExitDone);
  CommandLine twice = runs.adapter;
  twice.settings.init_from = runs.adapter.settings.out;
  twice.settings.out = runs.folder.path / "twice";
  CHECK(refusal(twice).find("is an adapter; write it and its base as one model first") != std::string::npos);
  CommandLine file = runs.adapter;
  file.settings.init_from = runs.folder.path / "base" / "checkpoint-1" / "model.safetensors";
  file.settings.out = runs.folder.path / "file";
  CHECK(refusal(file).find("needs its base's folder, not a file") != std::string::npos);
}
