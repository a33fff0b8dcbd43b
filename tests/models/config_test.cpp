#include "models/config.h"

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <string>

#include "nf/error.h"

using namespace nf;

namespace {

std::string message_of(std::string_view json, std::string_view source = "c.json") {
  try {
    parse_config(json, source);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

ModelConfig parse(std::string_view json) { return parse_model_config(json, "c.json"); }

}  // namespace

TEST_CASE("config: defaults are the specification's") {
  const ModelConfig c = parse(R"({"attention_type": "gqa"})");
  CHECK(c.vocab_size == 0);
  CHECK(c.hidden_size == 256);
  CHECK(c.intermediate_size == 1024);
  CHECK(c.num_hidden_layers == 8);
  CHECK(c.num_attention_heads == 8);
  CHECK(c.num_key_value_heads == 2);
  CHECK(c.head_dim == 32);
  CHECK(c.hidden_act == Activation::silu);
  CHECK(c.max_position_embeddings == 2048);
  CHECK(c.rope_theta == 10000);
  CHECK_FALSE(c.rope_scaling);
  CHECK(c.rms_norm_eps == 1e-6);
  CHECK(c.initializer_range == 0.02);
  CHECK(c.logit_cap_type == CapType::soft);
  CHECK(c.input_layernorm);
  CHECK(c.pre_ffnn_layernorm);
  CHECK_FALSE(c.post_attention_layernorm);
  CHECK_FALSE(c.post_ffnn_layernorm);
  CHECK(c.lambda_std_dev == 0.1);
  CHECK(parse(R"({"attention_type": "mha"})").num_key_value_heads == 8);
  CHECK(parse(R"({"attention_type": "diff"})").num_key_value_heads == 2);
}

TEST_CASE("config: mla derives its widths, q_lora_rank stays none") {
  const ModelConfig c = parse(R"({"attention_type": "mla"})");
  CHECK_FALSE(c.q_lora_rank);
  CHECK(c.kv_lora_rank == 64);
  CHECK(c.qk_rope_head_dim == 16);
  CHECK(c.qk_nope_head_dim == 32);
  CHECK(c.v_head_dim == 32);
  CHECK(c.num_key_value_heads == 8);
  CHECK(c.key_width() == 48);
  CHECK(c.value_width() == 32);
  CHECK(c.score_scale() == doctest::Approx(1 / std::sqrt(48.0)));
}

TEST_CASE("config: score scale and widths of each variant") {
  CHECK(parse(R"({"attention_type": "gqa"})").score_scale() == doctest::Approx(1 / std::sqrt(32.0)));
  CHECK(parse(R"({"attention_type": "ngpt"})").score_scale() == doctest::Approx(std::sqrt(32.0)));
  CHECK(parse(R"({"attention_type": "gqa", "attention_scale": 0.5})").score_scale() == 0.5);
  CHECK(parse(R"({"attention_type": "diff"})").value_width() == 64);
  CHECK(parse(R"({"attention_type": "diff"})").key_width() == 32);
}

TEST_CASE("config: unknown keys suggest the nearest known one") {
  CHECK(message_of(R"({"attention_type": "gqa", "hiden_size": 8})") ==
        "c.json: unknown key 'hiden_size'; did you mean 'hidden_size'?");
  CHECK(contains(message_of(R"({"attention_type": "gqa", "num_atention_heads": 8})"),
                 "'num_attention_heads'?"));
  CHECK(contains(message_of(R"({"attention_type": "gqa", "batchsize": 8})"), "did you mean 'batch_size'?"));
  CHECK(contains(message_of(R"({"attention_type": "gqa", "batch_size": 8})"),
                 "belongs in the \"training\" section"));
  CHECK(message_of(R"({"attention_type": "gqa", "zzzzzzzzzzzzzz": 8})") ==
        "c.json: unknown key 'zzzzzzzzzzzzzz'");
  CHECK(contains(message_of(R"({"attention_type": "gqa", "a\nb": 8})"), "'a\\x0ab'"));
  CHECK(contains(message_of(R"({"attention_type": "gqa", "dtype": "f32"})"), "training"));
}

TEST_CASE("config: wrong types name the key and what it takes") {
  CHECK(message_of(R"({"attention_type": "gqa", "hidden_size": "256"})") ==
        "c.json: 'hidden_size' must be a whole number, not \"256\"");
  CHECK(contains(message_of(R"({"attention_type": "gqa", "hidden_size": 256.0})"), "a whole number"));
  CHECK(contains(message_of(R"({"attention_type": "gqa", "hidden_size": null})"), "a whole number"));
  CHECK(contains(message_of(R"({"attention_type": "gqa", "hidden_size": 18446744073709551615})"),
                 "a whole number"));
  CHECK(contains(message_of(R"({"attention_type": "gqa", "rope_theta": true})"),
                 "'rope_theta' must be a number"));
  CHECK(contains(message_of(R"({"attention_type": "gqa", "attention_bias": 1})"), "true or false"));
  CHECK(contains(message_of(R"({"attention_type": "gqa", "hidden_act": "elu"})"),
                 "one of silu, gelu, gelu_tanh, relu, relu2"));
  CHECK(contains(message_of(R"({"attention_type": 3})"), "one of mha, gqa, diff, ngpt, mla"));
  CHECK(contains(message_of(R"({"attention_type": "gqa", "rope_scaling": 2})"), "an object or null"));
  CHECK(contains(message_of(R"({"attention_type": "gqa", "training": 2})"), "'training' must be an object"));
  CHECK(contains(message_of(R"([1])"), "JSON object"));
  CHECK(contains(message_of(R"({})"), "'attention_type' is missing"));
  CHECK(contains(message_of("{\"attention_type\": \"gqa\",\n  oops}"),
                 "c.json: line 2, column 3: not valid JSON"));
  CHECK(contains(message_of(R"({"attention_type": "gqa", "attention_type": "mha"})"), "given twice"));
}

TEST_CASE("config: impossible values say the rule") {
  const auto with = [](std::string_view type, std::string_view rest) {
    return message_of(fmt::format(R"({{"attention_type": "{}", {}}})", type, rest));
  };
  CHECK(contains(with("gqa", R"("num_key_value_heads": 3)"),
                 "(8) must be a multiple of 'num_key_value_heads' (3)"));
  CHECK(contains(with("mha", R"("num_key_value_heads": 2)"), "one key/value head per query head"));
  CHECK(contains(with("gqa", R"("head_dim": 7)"), "must be even"));
  CHECK(contains(with("gqa", R"("hidden_size": 250)"), "multiple of 'num_attention_heads'"));
  CHECK(contains(with("diff", R"("num_attention_heads": 5, "head_dim": 8, "num_key_value_heads": 1)"),
                 "must be even"));
  CHECK(contains(with("gqa", R"("sliding_window": 0)"), "'sliding_window' is 0"));
  CHECK(contains(with("gqa", R"("sliding_window_pattern": 4)"), "needs 'sliding_window'"));
  CHECK(contains(with("gqa", R"("vocab_size": -1)"), "at least 1"));
  CHECK(contains(with("gqa", R"("vocab_size": 0)"), "at least 1"));
  CHECK(contains(with("gqa", R"("vocab_size": 99999999999)"), "'vocab_size'"));
  CHECK(contains(with("gqa", R"("hidden_size": 0)"), "'hidden_size' is 0"));
  CHECK(contains(with("gqa", R"("num_attention_heads": 0)"), "'num_attention_heads' is 0"));
  CHECK(contains(with("gqa", R"("hidden_size": 9223372036854775807)"), "it must lie in"));
  CHECK(contains(with("gqa", R"("attention_dropout": 1)"), "below 1"));
  CHECK(contains(with("gqa", R"("logit_cap": -3)"), "'logit_cap' is -3"));
  CHECK(contains(with("gqa", R"("rms_norm_eps": 0)"), "'rms_norm_eps'"));
  CHECK(contains(with("gqa", R"("logit_cap_type": "none")"), "must be soft or hard"));
  CHECK(contains(with("gqa", R"("kv_lora_rank": 8)"), "belong to mla"));
  CHECK(contains(with("mla", R"("qk_rope_head_dim": 3)"), "even"));
  CHECK(contains(with("ngpt", R"("attention_bias": true)"), "no biases"));
  CHECK(contains(with("ngpt", R"("input_layernorm": true)"), "ngpt has no norms"));
  CHECK(contains(with("gqa", R"("rope_scaling": {"rope_type": "yarn", "factor": 0.5})"), "at least 1"));
  CHECK(contains(with("gqa", R"("rope_scaling": {"rope_type": "su", "factor": 2})"),
                 "linear, dynamic, yarn, llama3"));
  CHECK(contains(with("gqa", R"("rope_scaling": {"rope_type": "yarn", "facto": 2})"),
                 "did you mean 'factor'?"));
}

TEST_CASE("config: other spellings") {
  CHECK(parse(R"({"attention_type": "gqa", "attn_bias": true})").attention_bias);
  CHECK(contains(message_of(R"({"attention_type": "gqa", "attn_bias": true, "attention_bias": false})"),
                 "keep one"));
  CHECK(parse(R"({"attention_type": "gqa", "attention_multiplier": 0.25})").attention_scale == 0.25);
  CHECK(parse(R"({"attention_type": "gqa", "logits_scaling": 8})").logit_scale == 0.125);
  CHECK(contains(message_of(R"({"attention_type": "gqa", "logits_scaling": 1, "logit_scale": 1})"),
                 "keep one"));
  CHECK(contains(message_of(R"({"attention_type": "gqa", "logits_scaling": 0})"), "must not be 0"));
  const ModelConfig mla =
      parse(R"({"attention_type": "mla", "q_compressed": 128, "kv_compressed": 32, "rope_head_dim": 8})");
  CHECK(mla.q_lora_rank == 128);
  CHECK(mla.kv_lora_rank == 32);
  CHECK(mla.qk_rope_head_dim == 8);
}

TEST_CASE("config: a file saved by upstream is read") {
  const ModelConfig c = parse(R"({"vocab_size": 1000, "max_position_embeddings": 2048, "hidden_size": 256,
    "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
    "hidden_act": "silu", "initializer_range": 0.02, "rms_norm_eps": 1e-06, "use_cache": true, "rope_theta": null,
    "rope_scaling": null, "attention_dropout": 0.0, "attention_scale": 0, "attention_type": "gqa-ngpt",
    "input_layernorm": false, "post_attention_layernorm": false, "pre_ffnn_layernorm": false,
    "post_ffnn_layernorm": false, "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0,
    "attention_multiplier": 1.0, "attention_cap": null, "logit_cap": null, "attn_bias": false, "mlp_bias": false,
    "use_ngpt": true, "tie_word_embeddings": false, "gradient_checkpointing": true})");
  CHECK(c.attention_type == AttentionType::ngpt);
  CHECK(c.attention_scale == 0);
  CHECK(c.rope_theta == 10000);
  CHECK(c.gradient_checkpointing.mode == GradientCheckpointing::Mode::layer);
}

TEST_CASE("config: Hugging Face's files are read") {
  const std::string sizes =
      R"("vocab_size": 32000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
         "num_attention_heads": 4, "torch_dtype": "bfloat16", "dtype": "bfloat16", "bos_token_id": 1,
         "eos_token_id": [2, 3], "use_cache": true, "transformers_version": "4.57.1", "pretraining_tp": 1,
         "architectures": ["X"])";
  const auto of = [&](std::string_view type, std::string_view rest) {
    return parse(fmt::format(R"({{"model_type": "{}", {}{}}})", type, sizes, rest));
  };
  const ModelConfig llama3 =
      of("llama", R"(, "num_key_value_heads": 2, "rope_theta": 500000.0, "rope_scaling":
    {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
     "rope_type": "llama3"})");
  CHECK(llama3.attention_type == AttentionType::gqa);
  CHECK(llama3.rope_scaling->type == RopeScalingType::llama3);
  CHECK(llama3.rope_scaling->original_max_position_embeddings == 8192);
  CHECK(of("llama", "").attention_type == AttentionType::mha);
  CHECK(of("llama", R"(, "num_key_value_heads": 4)").attention_type == AttentionType::mha);
  CHECK(of("llama", R"(, "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"})").rope_theta ==
        5000);
  const ModelConfig diff = of("diffllama", R"(, "lambda_std_dev": 0.2)");
  CHECK(diff.attention_type == AttentionType::diff);
  CHECK(diff.num_key_value_heads == 4);
  CHECK(diff.rms_norm_eps == 1e-5);
  CHECK(diff.lambda_std_dev == 0.2);
  CHECK(of("ngpt", "").attention_type == AttentionType::ngpt);
  const std::string mla =
      R"(, "q_lora_rank": null, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16,
    "v_head_dim": 16, "n_routed_experts": 8, "n_shared_experts": 1, "rope_interleave": false)";
  CHECK(of("deepseek_v3", mla + R"(, "first_k_dense_replace": 2)").attention_type == AttentionType::mla);
  CHECK_THROWS_WITH_AS(of("deepseek_v3", mla + R"(, "first_k_dense_replace": 1)"),
                       doctest::Contains("mixtures of experts"), Error);
  CHECK_THROWS_WITH_AS(of("gpt2", ""), doctest::Contains("'model_type' \"gpt2\" is not supported"), Error);
  CHECK_THROWS_WITH_AS(parse(R"({"model_type": "llama", "hidden_size": 64})"),
                       doctest::Contains("needs 'vocab_size'"), Error);
}

TEST_CASE("config: JSON round trip keeps every key, the order is stable") {
  for (const char* type : {"mha", "gqa", "diff", "ngpt", "mla"}) {
    CAPTURE(type);
    ModelConfig c = parse(fmt::format(R"({{"attention_type": "{}", "vocab_size": 257, "logit_cap": 30.5,
      "rope_scaling": {{"type": "yarn", "factor": 2, "mscale": 0.7}}, "sliding_window": 5,
      "sliding_window_pattern": 3, "gradient_checkpointing": "1GiB", "z_loss": 1e-4}})",
                                      type));
    CHECK(parse(to_json(c)) == c);
    CHECK(to_json(parse(to_json(c))) == to_json(c));
    c.gradient_checkpointing = {.mode = GradientCheckpointing::Mode::layer};
    c.vocab_size = 0;
    CHECK(parse(to_json(c)) == c);
  }
  const std::string text = to_json(parse(R"({"attention_type": "gqa"})"));
  size_t last = 0;
  for (const std::string_view key : model_keys()) {
    const size_t at = text.find(fmt::format("\n  \"{}\":", key));
    CAPTURE(key);
    REQUIRE(at != std::string::npos);
    CHECK(at >= last);
    last = at;
  }
}

TEST_CASE("config: the training section is handed on as text") {
  const ParsedConfig parsed =
      parse_config(R"({"attention_type": "gqa", "training": {"steps": 5}})", "c.json");
  CHECK(parsed.training == R"({"steps":5})");
  CHECK(parse_config(R"({"attention_type": "gqa"})", "c.json").training.empty());
}

TEST_CASE("config: gradient checkpointing in bytes") {
  CHECK(parse_gradient_checkpointing("6GiB", "x").bytes == int64_t{6} << 30);
  CHECK(parse_gradient_checkpointing("512MiB", "x").bytes == int64_t{512} << 20);
  CHECK(parse_gradient_checkpointing("1.5 GiB", "x").bytes == int64_t{3} << 29);
  CHECK(parse_gradient_checkpointing("2GB", "x").bytes == 2'000'000'000);
  CHECK(parse_gradient_checkpointing("1000", "x").bytes == 1000);
  for (const char* bad : {"", "some", "-5MiB", "0", "6 apples", "GiB", "1e40GiB", "nan"})
    CHECK_THROWS_WITH_AS(parse_gradient_checkpointing(bad, "x"),
                         doctest::Contains("x: expected none, layer or bytes"), Error);
}

TEST_CASE("config: windows by layer") {
  ModelConfig c;
  c.sliding_window = 16;
  CHECK(c.window_of_layer(0) == 16);
  c.sliding_window_pattern = 3;
  CHECK(c.window_of_layer(1) == 16);
  CHECK_FALSE(c.window_of_layer(2));
  CHECK(c.window_of_layer(3) == 16);
}

TEST_CASE("config: parameters by the published formulas") {
  const int64_t D = 256, F = 1024, L = 8, H = 8, K = 2, d = 32, V = 1000;
  const auto count = [](const char* type, const char* rest = "") {
    return count_parameters(
        parse(fmt::format(R"({{"attention_type": "{}", "vocab_size": 1000{}}})", type, rest)));
  };
  const int64_t gqa = D * d * (2 * H + 2 * K) + 3 * D * F + 2 * D;
  CHECK(count("gqa").block == gqa);
  CHECK(count("gqa").total == 2 * V * D + L * gqa + D);
  CHECK(count("gqa", R"(, "tie_word_embeddings": true)").total == V * D + L * gqa + D);
  CHECK(count("mha").block == D * d * 4 * H + 3 * D * F + 2 * D);
  CHECK(count("diff").block == gqa + 4 * d);
  CHECK(count("ngpt").block == D * d * (2 * H + 2 * K) + 3 * D * F + H * d + 2 * F + 2 * D);
  CHECK(count("ngpt").last == V);
  CHECK(count("gqa", R"(, "attention_bias": true, "mlp_bias": true)").block ==
        gqa + (H + 2 * K) * d + D + 2 * F + D);
  CHECK(count("gqa", R"(, "post_ffnn_layernorm": true)").block == gqa + D);
  // mla by hand: q 256 x 8 (32 + 16), kv_a 256 x (64 + 16), kv_b 64 x 8 (32 + 32), o 256 x 256, the gain of
  // 64
  CHECK(count("mla").block == 256 * 384 + 256 * 80 + 64 * 512 + 256 * 256 + 64 + 3 * D * F + 2 * D);
  CHECK(count("mla", R"(, "q_lora_rank": 96)").block ==
        96 * 256 + 96 * 384 + 96 + 256 * 80 + 64 * 512 + 256 * 256 + 64 + 3 * D * F + 2 * D);
  CHECK_THROWS_WITH_AS(count_parameters(parse(R"({"attention_type": "gqa"})")),
                       doctest::Contains("vocab_size"), Error);
}

TEST_CASE("config: forward FLOPs and the cache") {
  const double D = 256, F = 1024, L = 8, H = 8, K = 2, d = 32, V = 1000;
  const auto flops = [](const char* type, int64_t T, const char* rest = "") {
    return forward_flops_per_token(
        parse(fmt::format(R"({{"attention_type": "{}", "vocab_size": 1000{}}})", type, rest)), T);
  };
  const double matrices = L * (D * d * (2 * H + 2 * K) + 3 * D * F) + V * D;
  CHECK(flops("gqa", 1) == 2 * matrices + L * 2 * 1 * H * 2 * d);
  CHECK(flops("gqa", 99) == 2 * matrices + L * 2 * 50 * H * 2 * d);
  CHECK(flops("gqa", 99, R"(, "tie_word_embeddings": true)") == flops("gqa", 99));
  CHECK(flops("diff", 99) == 2 * matrices + L * 2 * 50 * H * 3 * d);
  // a window of 2 over 3 tokens: 1 + 2 + 2 visible
  CHECK(flops("gqa", 3, R"(, "sliding_window": 2)") ==
        doctest::Approx(2 * matrices + L * 2 * (5.0 / 3) * H * 2 * d));
  CHECK(flops("gqa", 3, R"(, "sliding_window": 3)") == flops("gqa", 3));
  CHECK(kv_cache_values(parse(R"({"attention_type": "gqa"})")) == 2 * 2 * 32);
  CHECK(kv_cache_values(parse(R"({"attention_type": "mla"})")) == 64 + 16);
}

TEST_CASE("config: the shipped ones parse and hold about 10 million parameters") {
  for (const char* type : {"mha", "gqa", "diff", "ngpt", "mla"}) {
    CAPTURE(type);
    ParsedConfig parsed = load_config(type);
    CHECK(name(parsed.model.attention_type) == type);
    CHECK_FALSE(parsed.training.empty());
    parsed.model.vocab_size = 257;
    const int64_t total = count_parameters(parsed.model).total;
    CHECK(total > 9'500'000);
    CHECK(total < 11'500'000);
  }
  CHECK_THROWS_WITH_AS(find_config("gqq"), doctest::Contains("shipped are diff, gqa, mha, mla, ngpt"), Error);
}

TEST_CASE("config: nearest words") {
  CHECK(nearest("attention_typ", model_keys()) == "attention_type");
  CHECK(nearest("vocba_size", model_keys()) == "vocab_size");
  CHECK(nearest("", model_keys()).empty());
  CHECK(nearest("a", training_keys()).empty());  // not lr, every letter of which would be new
  CHECK(nearest(std::string(5000, 'a'), model_keys()).empty());
}

TEST_CASE("config: Qwen2, Qwen3 and Mistral as Hugging Face writes them") {
  const auto sizes = [](std::string_view type, std::string_view more) {
    return fmt::format(R"({{"model_type": "{}", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96,
      "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2{}}})",
                       type, more);
  };
  const ModelConfig qwen2 = parse(sizes("qwen2", R"(, "sliding_window": 32, "use_sliding_window": false,
    "max_window_layers": 2, "layer_types": ["full_attention", "full_attention", "full_attention"])"));
  CHECK(qwen2.attention_bias);
  CHECK_FALSE(qwen2.output_bias());
  CHECK_FALSE(qwen2.sliding_window);
  CHECK_FALSE(qwen2.qk_norm);
  const ModelConfig qwen3 = parse(sizes("qwen3", R"(, "attention_bias": false)"));
  CHECK(qwen3.qk_norm);
  CHECK(qwen3.head_dim == 128);  // the class's default
  CHECK_FALSE(qwen3.attention_bias);
  CHECK(parse(sizes("mistral", "")).sliding_window == 4096);
  CHECK_FALSE(parse(sizes("mistral", R"(, "sliding_window": null)")).sliding_window);
  CHECK(contains(message_of(sizes("qwen2", R"(, "use_sliding_window": true, "sliding_window": 8,
    "max_window_layers": 2)")),
                 "'max_window_layers' is 2"));
  CHECK(contains(message_of(sizes("qwen3", R"(, "layer_types": ["full_attention", "sliding_attention"])")),
                 "'layer_types' must be full_attention everywhere"));
  CHECK(contains(message_of(sizes("gemma2", "")), "'model_type' \"gemma2\" is not supported"));
  CHECK(contains(message_of(R"({"attention_type": "mla", "qk_norm": true})"), "'qk_norm' belongs to"));
}
