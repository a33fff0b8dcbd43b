// Adapters: what their files may say, and that a merged one computes what the adapted model does. The
// gradients of A and B are checked with the golden models.
#include "tools/lora.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "models/model.h"
#include "nf/error.h"
#include "tests/support/folder.h"
#include "tools/evaluate.h"
#include "tools/load_model.h"

using namespace nf;
namespace fs = std::filesystem;

namespace {

fs::path golden(const char* name) { return fs::path(NF_TESTS_DIR) / "golden" / name; }

std::string refusal(std::string_view text) {
  try {
    parse_adapter(text, "adapter_config.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void check_refused(std::string_view text, const char* part) {
  const std::string message = refusal(text);
  CHECK_MESSAGE(message.find(part) != std::string::npos, part << " is not in: " << message);
}

// A golden adapted model as two folders: its base without the adapter, and the adapter. As others cut it.
void split(const char* name, const Folder& folder, LoraConfig& lora) {
  const SafetensorsFile whole = SafetensorsFile::open(golden(name));
  ModelConfig config = parse_model_config(read_file(golden(name) / "config.json"), name);
  lora = *config.lora;
  config.lora.reset();
  SafetensorsWriter base, adapter;
  for (NamedTensor tensor : whole.tensors()) {
    if (tensor.name.find(".lora_") == std::string::npos) {
      base.add(tensor);
    } else {
      tensor.name.insert(0, kAdapterPrefix);
      adapter.add(tensor);
    }
  }
  fs::create_directories(folder.path / "base");
  fs::create_directories(folder.path / "adapter");
  folder.write("base/config.json", to_json(config));
  base.write(folder.path / "base" / "model.safetensors");
  adapter.write(folder.path / "adapter" / "adapter_model.safetensors");
  folder.write("adapter/adapter_config.json", to_json(Adapter{lora, "../base"}));
}

}  // namespace

TEST_CASE("lora: settings as text") {
  const LoraConfig lora = parse_lora("r=4,alpha=8,targets=q_proj,k_proj,dropout=0.1", "x");
  CHECK(lora.rank == 4);
  CHECK(lora.alpha == 8);
  CHECK(lora.scale() == 2);
  CHECK(lora.targets == std::vector<std::string>{"q_proj", "k_proj"});
  CHECK(lora.dropout == 0.1);
  CHECK(parse_lora("", "x") == LoraConfig{});
  const auto refused = [](const char* text, const char* part) {
    CHECK_THROWS_WITH_AS(parse_lora(text, "--lora"), doctest::Contains(part), Error);
  };
  refused("r=x", "'r' is 'x', not a number");
  refused("r=4,8", "not '8'");
  refused("rank=4", "unknown 'rank'; there are r, alpha, targets and dropout");

  const auto config = [](std::string_view value, std::string_view type = "gqa") {
    return parse_model_config(fmt::format(R"({{"attention_type": "{}", "lora": {}}})", type, value), "c");
  };
  CHECK(config(R"("targets=all-linear")").lora->targets.size() == 7);
  CHECK(config(R"({"r": 2, "targets": ["kv_b_proj"]})", "mla").lora->rank == 2);
  CHECK_THROWS_WITH_AS(config(R"("targets=kv_b_proj")"),
                       doctest::Contains("gqa has no projection 'kv_b_proj'"), Error);
  CHECK_THROWS_WITH_AS(config(R"("r=0")"), doctest::Contains("r is 0"), Error);
  CHECK_THROWS_WITH_AS(config(R"("alpha=0")"), doctest::Contains("alpha is 0"), Error);
  CHECK_THROWS_WITH_AS(config(R"("dropout=1")"), doctest::Contains("dropout is 1"), Error);
  CHECK_THROWS_WITH_AS(config("{}", "ngpt"), doctest::Contains("unit length"), Error);
  CHECK_THROWS_WITH_AS(config(R"({"rank": 2})"), doctest::Contains("'rank'"), Error);
  const ModelConfig written = config(R"("r=3,targets=o_proj")");
  CHECK(parse_model_config(to_json(written), "c") == written);
}

TEST_CASE("lora: the counted adapters are the model's") {
  for (const char* type : {"gqa", "mla", "diff"}) {
    ModelConfig config = parse_model_config(
        fmt::format(R"({{"attention_type": "{}", "vocab_size": 9, "hidden_size": 32, "num_hidden_layers": 2,
                        "num_attention_heads": 4, "lora": "r=3,targets=all-linear"}})",
                    type),
        "c");
    int64_t adapters = 0, all = 0;
    for (const Parameter& p : model_parameters(config)) {
      CHECK(p.trained == p.adapter);
      all += p.shape.elements();
      if (p.adapter) adapters += p.shape.elements();
    }
    CHECK(count_parameters(config).adapters == adapters);
    CHECK(count_parameters(config).total == all);
  }
}

TEST_CASE("lora: adapter_config.json is read as PEFT writes it, or refused by the key") {
  Adapter adapter{{.rank = 4, .alpha = 32, .targets = {"q_proj", "o_proj"}, .dropout = 0.05}, "/models/base"};
  const Adapter back = parse_adapter(to_json(adapter), "adapter_config.json");
  CHECK(back.lora == adapter.lora);
  CHECK(back.base == adapter.base);
  const auto with = [](std::string_view more) {
    return fmt::format(R"({{"peft_type": "LORA", "base_model_name_or_path": "b", "r": 8, "target_modules":
      ["q_proj"]{}}})",
                       more);
  };
  CHECK(refusal(with("")).empty());
  CHECK(refusal(with(R"(, "rank_pattern": {}, "modules_to_save": null, "use_dora": false, "revision": null)"))
            .empty());
  CHECK(parse_adapter(R"({"peft_type": "LORA", "base_model_name_or_path": "b", "r": 8, "target_modules":
    "all-linear"})",
                      "x")
            .lora.targets == std::vector<std::string>{"all-linear"});
  check_refused("[]", "not a JSON object");
  check_refused("{}", "'peft_type' is null");
  check_refused(R"({"peft_type": "IA3"})", "'peft_type' is \"IA3\", only LORA");
  check_refused(with(R"(, "use_dora": true)"), "'use_dora' is true, which is not supported");
  check_refused(with(R"(, "rank_pattern": {"q_proj": 4})"), "'rank_pattern'");
  check_refused(with(R"(, "modules_to_save": ["lm_head"])"), "'modules_to_save'");
  check_refused(with(R"(, "bias": "all")"), "'bias' is \"all\"");
  check_refused(with(R"(, "lora_alpha": "x")"), "'lora_alpha' is \"x\"");
  check_refused(R"({"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"]})",
                "'base_model_name_or_path' is null");
  check_refused(R"({"peft_type": "LORA", "base_model_name_or_path": "b", "r": -1, "target_modules": ["a"]})",
                "'r' is -1");
  check_refused(R"({"peft_type": "LORA", "base_model_name_or_path": "b", "r": 1, "target_modules": [1]})",
                "'target_modules' holds 1");
}

TEST_CASE("lora: a merged adapter computes what the adapted model does") {
  for (const char* name : {"gqa_lora", "mla_lora"}) {
    CAPTURE(name);
    const Folder folder;
    LoraConfig lora;
    split(name, folder, lora);
    const IdTable ids = read_id_table(golden(name) / "ids.json", 0);
    LoadedModel merged = load_model(folder.path / "adapter", cpu_device(1));
    CHECK(merged.adapter);
    CHECK(merged.folder == folder.path / "adapter" / ".." / "base");  // the tokenizer would be there
    CHECK_FALSE(merged.config.lora);
    CHECK_FALSE(std::ranges::any_of(
        merged.state->names(), [](const std::string& n) { return n.find("lora") != std::string::npos; }));
    const std::vector<float> ours = logits(merged, {.ids = ids, .targets = {}, .documents = {}}, DType::f32);
    const SafetensorsFile file = SafetensorsFile::open(golden(name) / "expected.safetensors");
    const std::span<const std::byte> expected = file.at("logits").bytes;
    std::vector<float> theirs(ours.size());
    REQUIRE(expected.size() == theirs.size() * sizeof(float));
    std::memcpy(theirs.data(), expected.data(), expected.size());
    float worst = 0;
    for (size_t i = 0; i < ours.size(); ++i) worst = std::max(worst, std::abs(ours[i] - theirs[i]));
    CHECK(worst < 1e-4F);
    // Of what is loaded for bf16 alone no matrix stays in f32.
    LoadedModel narrow = load_model(folder.path / "adapter", cpu_device(1), DType::bf16);
    CHECK(logits(narrow, {.ids = ids, .targets = {}, .documents = {}}, DType::bf16) ==
          logits(merged, {.ids = ids, .targets = {}, .documents = {}}, DType::bf16));
    for (const Parameter& p : narrow.parameters)
      CHECK(narrow.state->contains(p.name) == (p.used_wide || !p.used_narrow));
  }
}

TEST_CASE("lora: folders that are no adapter of this base") {
  const Folder folder;
  LoraConfig lora;
  split("gqa_lora", folder, lora);
  const auto refused = [&](const Adapter& adapter, const char* part) {
    folder.write("adapter/adapter_config.json", to_json(adapter));
    CHECK_THROWS_WITH_AS(load_model(folder.path / "adapter", cpu_device(1)), doctest::Contains(part), Error);
  };
  refused({lora, "../nowhere"}, "the base model '../nowhere' is no folder here");
  refused({lora, "../adapter"}, "is an adapter where a model is expected");
  LoraConfig other = lora;
  other.rank = 2;
  refused({other, "../base"}, "lora_A.weight' has shape [3, 24], this model needs [2, 24]");
  other = lora;
  other.targets.push_back("k_proj");
  refused({other, "../base"},
          "has no tensor 'base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight'");
  other.targets = {"q_a_proj"};
  refused({other, "../base"}, "gqa has no projection 'q_a_proj'");
}
