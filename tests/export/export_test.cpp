// What nf-export writes, looked at without other people's programs; tests/e2e/nf_export_test.sh asks those.
#include "tools/export/export.h"

#include <doctest/doctest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "nf/error.h"
#include "nf/gguf.h"
#include "tests/trainer/training_support.h"
#include "tools/export/tokenizer_files.h"

using namespace nf;
using nlohmann::json;

namespace {

ModelConfig model_of(AttentionType type, int64_t vocab_size = 257) {
  ModelConfig config = small_model(type);
  config.vocab_size = vocab_size;
  return config;
}

LoadedModel fresh(const ModelConfig& config) {
  LoadedModel model;
  model.config = config;
  model.parameters = model_parameters(config);
  model.state = std::make_shared<State>(cpu_device(1));
  initialize_parameters(*model.state, model.parameters, 7);
  return model;
}

std::vector<float> floats_of(const NamedTensor& tensor) {
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

void check_refused(const ModelConfig& config, const char* key) {
  const auto tokenizer = make_tokenizer("byte");
  CHECK_THROWS_WITH_AS(hugging_face_config(config, *tokenizer, DType::f32), doctest::Contains(key), Error);
}

// A tokenizer of these documents' characters.
std::unique_ptr<Tokenizer> char_tokenizer(const std::vector<std::string>& documents) {
  return make_tokenizer("char", [&](const std::function<void(std::string_view)>& add) {
    for (const std::string& document : documents) add(document);
  });
}

}  // namespace

TEST_CASE("export: a config as Hugging Face writes it is read back as the same model") {
  const auto tokenizer = make_tokenizer("byte");
  for (const AttentionType type :
       {AttentionType::mha, AttentionType::gqa, AttentionType::diff, AttentionType::mla}) {
    CAPTURE(name(type));
    const ModelConfig config = model_of(type);
    const ModelConfig back =
        parse_model_config(hugging_face_config(config, *tokenizer, DType::bf16), "config.json");
    ModelConfig expected = config;
    if (type == AttentionType::mla) expected.head_dim = config.qk_rope_head_dim;  // not used by mla
    CHECK(back == expected);
  }
  const json written =
      json::parse(hugging_face_config(model_of(AttentionType::mla), *tokenizer, DType::bf16));
  CHECK(written["architectures"] == json{"DeepseekV3ForCausalLM"});
  CHECK(written["first_k_dense_replace"] == 2);
  CHECK(written["torch_dtype"] == "bfloat16");
  CHECK(written["eos_token_id"] == 256);
}

TEST_CASE("export: biases of q, k and v alone are Qwen2's, norms of q and k Qwen3's") {
  const auto tokenizer = make_tokenizer("byte");
  ModelConfig config = model_of(AttentionType::gqa);
  config.attention_bias = true;
  config.attention_output_bias = false;
  json written = json::parse(hugging_face_config(config, *tokenizer, DType::f32));
  CHECK(written["model_type"] == "qwen2");
  CHECK_FALSE(written.contains("attention_bias"));
  CHECK(parse_model_config(written.dump(), "c") == config);
  config.attention_bias = false;
  config.attention_output_bias.reset();
  config.qk_norm = true;
  written = json::parse(hugging_face_config(config, *tokenizer, DType::f32));
  CHECK(written["model_type"] == "qwen3");
  CHECK(parse_model_config(written.dump(), "c") == config);
}

TEST_CASE("export: what the class has no word for is refused by its key") {
  check_refused(model_of(AttentionType::ngpt), "'attention_type' is ngpt");
  const auto refused = [](AttentionType type, const char* key,
                          const std::function<void(ModelConfig&)>& change) {
    ModelConfig config = model_of(type);
    change(config);
    check_refused(config, key);
  };
  using enum AttentionType;
  refused(gqa, "'attention_cap'", [](ModelConfig& c) { c.attention_cap = 50; });
  refused(gqa, "'logit_cap'", [](ModelConfig& c) { c.logit_cap = 30; });
  refused(gqa, "'logit_scale'", [](ModelConfig& c) { c.logit_scale = 0.5; });
  refused(gqa, "'attention_scale'", [](ModelConfig& c) { c.attention_scale = 0.5; });
  refused(gqa, "'embedding_multiplier'", [](ModelConfig& c) { c.embedding_multiplier = 2; });
  refused(gqa, "'residual_multiplier'", [](ModelConfig& c) { c.residual_multiplier = 2; });
  refused(gqa, "'input_layernorm'", [](ModelConfig& c) { c.input_layernorm = false; });
  refused(gqa, "'post_ffnn_layernorm'", [](ModelConfig& c) { c.post_ffnn_layernorm = true; });
  refused(gqa, "MistralForCausalLM has no word for this model's 'attention_bias'", [](ModelConfig& c) {
    c.sliding_window = 8;
    c.attention_bias = true;
  });
  refused(gqa, "'sliding_window_pattern'",
          [](ModelConfig& c) { c.sliding_window = c.sliding_window_pattern = 8; });
  refused(gqa, "Qwen3ForCausalLM has no word for this model's 'sliding_window'", [](ModelConfig& c) {
    c.sliding_window = 8;
    c.qk_norm = true;
  });
  refused(gqa, "'attention_output_bias'", [](ModelConfig& c) { c.attention_output_bias = true; });
  refused(diff, "'qk_norm'", [](ModelConfig& c) { c.qk_norm = true; });
  refused(diff, "'mlp_bias'", [](ModelConfig& c) { c.mlp_bias = true; });
  refused(diff, "'sliding_window'", [](ModelConfig& c) { c.sliding_window = 8; });
  refused(mla, "'rms_norm_eps'", [](ModelConfig& c) { c.rms_norm_eps = 1e-5; });
}

TEST_CASE("export: the byte tokenizer is a byte-level BPE without merges") {
  const auto tokenizer = make_tokenizer("byte");
  const json file = json::parse(hugging_face_tokenizer(*tokenizer));
  CHECK(file["model"]["type"] == "BPE");
  CHECK(file["model"]["merges"].empty());
  const json& vocabulary = file["model"]["vocab"];
  CHECK(vocabulary.size() == 257);
  CHECK(vocabulary["A"] == 65);
  CHECK(vocabulary["Ġ"] == 32);   // as in GPT-2: a blank,
  CHECK(vocabulary["Ċ"] == 10);   // a line feed,
  CHECK(vocabulary["Ń"] == 173);  // the soft hyphen, the last that is moved
  CHECK(vocabulary["ÿ"] == 255);
  CHECK(file["added_tokens"][0]["content"] == "<|endoftext|>");
  CHECK(file["added_tokens"][0]["id"] == 256);
  CHECK(json::parse(tokenizer_config(*tokenizer, 64))["eos_token"] == "<|endoftext|>");
  CHECK(json::parse(tokenizer_config(*tokenizer, 64))["model_max_length"] == 64);
  CHECK(json::parse(generation_config(*tokenizer)) == json{{"eos_token_id", 256}});
}

TEST_CASE("export: characters are put together from their bytes") {
  const auto tokenizer = char_tokenizer({"aé漢", "è"});
  const json file = json::parse(hugging_face_tokenizer(*tokenizer));
  CHECK(file["model"]["vocab"] == json{{"a", 0}, {"è", 1}, {"é", 2}, {"漢", 3}, {"<|endoftext|>", 4}});
  CHECK(file["pre_tokenizer"].is_null());
  const ByteLevelVocabulary vocabulary = byte_level_vocabulary(*tokenizer);
  CHECK(vocabulary.tokens == std::vector<std::string>{"a", "Ã¨", "Ã©", "æ¼¢", "<|endoftext|>"});
  CHECK(vocabulary.types == std::vector<int32_t>{1, 1, 1, 1, 3});
  CHECK(vocabulary.merges == std::vector<std::string>{"Ã ¨", "Ã ©", "æ ¼", "æ¼ ¢"});
  CHECK(generation_config(*char_tokenizer({"ab"})) == "{}\n");
}

TEST_CASE("export: the rows of q and k are interleaved for GGUF, the rest stays") {
  const Folder folder;
  const auto tokenizer = make_tokenizer("byte");
  ModelConfig config = model_of(AttentionType::gqa, 260);
  config.attention_bias = true;
  const LoadedModel model = fresh(config);
  write_gguf(model, *tokenizer, folder.path / "x.gguf", DType::f32);
  const GgufFile file = GgufFile::open(folder.path / "x.gguf");
  CHECK(file.tensors().size() == model.parameters.size());
  CHECK(file.get<uint32_t>("llama.attention.head_count_kv") == 2);
  CHECK(file.get<float>("llama.attention.layer_norm_rms_epsilon") == 1e-6F);
  CHECK(file.list<std::string>("tokenizer.ggml.tokens").size() == 260);
  CHECK(file.list<std::string>("tokenizer.ggml.tokens")[259] == "[UNUSED259]");
  CHECK(file.list<int32_t>("tokenizer.ggml.token_type")[256] == 3);
  CHECK(file.get<uint32_t>("tokenizer.ggml.eos_token_id") == 256);
  CHECK_FALSE(file.get<bool>("tokenizer.ggml.add_bos_token"));

  const auto state = [&](const char* name) {
    return floats_of({name, DType::f32, {}, std::as_const(*model.state).memory(name)});
  };
  const auto written = [&](const char* name) {
    REQUIRE(file.find(name) != nullptr);
    return floats_of(*file.find(name));
  };
  CHECK(written("blk.1.attn_v.weight") == state("model.layers.1.self_attn.v_proj.weight"));
  CHECK(written("output.weight") == state("lm_head.weight"));
  const std::vector<float> ours = state("model.layers.1.self_attn.k_proj.weight"),
                           theirs = written("blk.1.attn_k.weight");
  const size_t heads = 2, width = 8, row = 32;  // row 2 j + part of a head is our row j + part d/2
  for (size_t head = 0; head < heads; ++head)
    for (size_t j = 0; j < width / 2; ++j)
      for (size_t part = 0; part < 2; ++part)
        for (size_t column = 0; column < row; ++column)
          CHECK(theirs[(head * width + 2 * j + part) * row + column] ==
                ours[(head * width + j + part * width / 2) * row + column]);
}

TEST_CASE("export: narrow weights are rounded; what f16 cannot hold is refused") {
  const LoadedModel model = fresh(model_of(AttentionType::gqa));
  const ConvertedWeights weights(model, DType::bf16, true);
  for (const NamedTensor& tensor : weights.tensors())
    CHECK(tensor.dtype == (tensor.shape.rank() == 1 ? DType::f32 : DType::bf16));
  const NamedTensor& head = weights.tensors().back();
  uint16_t narrow = 0;
  std::memcpy(&narrow, head.bytes.data(), sizeof narrow);
  CHECK(narrow == to_bf16(floats_of({head.name, DType::f32, {}, model.state->memory(head.name)})[0]).bits);

  const float large = 70000;
  std::memcpy(model.state->memory(head.name).data(), &large, sizeof large);
  CHECK_THROWS_WITH_AS(ConvertedWeights(model, DType::f16, false), doctest::Contains("too large for f16"),
                       Error);
}

TEST_CASE("export: a folder in shards loads as the same model") {
  const Folder folder;
  const LoadedModel model = fresh(model_of(AttentionType::diff));
  export_model(model, *make_tokenizer("byte"), folder.path / "out", {.shard_bytes = 20'000});
  const LoadedModel back = load_model(folder.path / "out", cpu_device(1));
  CHECK(back.config == model.config);
  for (const Parameter& p : model.parameters)
    CHECK(floats_of({p.name, DType::f32, {}, back.state->memory(p.name)}) ==
          floats_of({p.name, DType::f32, {}, model.state->memory(p.name)}));
  CHECK(std::filesystem::exists(folder.path / "out" / "model.safetensors.index.json"));
}
