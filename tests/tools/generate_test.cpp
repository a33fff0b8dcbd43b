// Generation through the cache against the full logits; sampling.
#include "tools/generate.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "models/training_step.h"
#include "tools/evaluate.h"

namespace nf {
namespace {

// A model with weights large enough that its logits differ clearly.
LoadedModel small_random_model(std::string_view json) {
  LoadedModel model;
  model.config = parse_model_config(json, "test");
  model.parameters = model_parameters(model.config);
  model.state = std::make_shared<State>(cpu_device(1));
  for (Parameter& p : model.parameters)
    if (p.init_std > 0) p.init_std = 0.3;
  initialize_parameters(*model.state, model.parameters, 7);
  copy_narrow(*model.state, model.parameters);
  return model;
}

std::string config_json(std::string_view type, std::string_view more = "") {
  return fmt::format(
      R"({{"attention_type": "{}", "vocab_size": 37, "hidden_size": 32, "intermediate_size": 48,
          "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 32{}}})",
      type, more);
}

int32_t argmax(std::span<const float> values) {
  return static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

// The whole sequence is run again for every token.
std::vector<float> full_last_logits(LoadedModel& model, const std::vector<int32_t>& ids, DType compute) {
  const IdTable table{1, static_cast<int64_t>(ids.size()), ids};
  const std::vector<float> all = logits(model, {.ids = table, .targets = {}, .documents = {}}, compute);
  return {all.end() - model.config.vocab_size, all.end()};
}

void check_greedy(const std::string& json, DType compute, double tolerance) {
  CAPTURE(json);
  LoadedModel model = small_random_model(json);
  const int64_t capacity = 18;
  Generator generator(model, compute, capacity);
  std::vector<int32_t> ids = {3, 14, 15, 9, 2};
  std::span<const float> cached = generator.append(ids);
  while (static_cast<int64_t>(ids.size()) < capacity) {
    const std::vector<float> full = full_last_logits(model, ids, compute);
    for (size_t i = 0; i < full.size(); ++i)
      REQUIRE(std::abs(static_cast<double>(cached[i] - full[i])) <= tolerance);
    const int32_t token = sample(cached, ids, {.temperature = 0}, static_cast<int64_t>(ids.size()));
    REQUIRE(token == argmax(cached));
    if (compute == DType::f32) REQUIRE(token == argmax(full));
    ids.push_back(token);
    cached = generator.append(std::span(&token, 1));
    CHECK(generator.position() == static_cast<int64_t>(ids.size()));
  }
  const int32_t more = 0;
  CHECK_THROWS_WITH_AS(generator.append(std::span(&more, 1)), doctest::Contains("do not fit in 18"), Error);
}

const std::vector<std::string>& configs() {
  static const std::vector<std::string> all = {
      config_json("mha"),
      config_json("gqa"),
      config_json("gqa", R"(, "sliding_window": 4)"),
      config_json("gqa", R"(, "sliding_window": 3, "sliding_window_pattern": 2, "attention_cap": 5.0)"),
      config_json("diff"),
      config_json("diff", R"(, "sliding_window": 5)"),
      config_json("ngpt"),
      config_json("ngpt", R"(, "sliding_window": 4)"),
      config_json("mla", R"(, "kv_lora_rank": 16, "q_lora_rank": 12)"),
      config_json("mla", R"(, "sliding_window": 6)"),
  };
  return all;
}

TEST_CASE("greedy generation through the cache is the argmax of the full logits") {
  for (const std::string& json : configs()) check_greedy(json, DType::f32, 1e-4);
}

TEST_CASE("the cached logits in bf16 are near the full ones") {
  for (const std::string& json : configs()) check_greedy(json, DType::bf16, 0.25);
}

TEST_CASE("a prompt may come in parts") {
  LoadedModel model = small_random_model(config_json("gqa"));
  const std::vector<int32_t> ids = {1, 2, 3, 4, 5, 6, 7};
  Generator whole(model, DType::f32, 8);
  const auto at_once = whole.append(ids);
  const std::vector<float> expected(at_once.begin(), at_once.end());
  Generator parts(model, DType::f32, 8);
  parts.append(std::span(ids).first(3));
  parts.append(std::span(ids).subspan(3, 1));
  const auto last = parts.append(std::span(ids).subspan(4));
  for (size_t i = 0; i < expected.size(); ++i) CHECK(last[i] == doctest::Approx(expected[i]).epsilon(1e-4));
}

TEST_CASE("a capacity beyond the model's length is an Error") {
  LoadedModel model = small_random_model(config_json("gqa"));
  CHECK_THROWS_WITH_AS(Generator(model, DType::f32, 33), doctest::Contains("max_position_embeddings is 32"),
                       Error);
}

// ---- sampling

const std::vector<float> kLogits = {0.0F, 2.0F, 1.0F, -1.0F, 1.5F};  // by likelihood: 1 4 2 0 3

std::map<int32_t, int> histogram(const SamplingOptions& options, int draws = 4000) {
  std::map<int32_t, int> counts;
  for (int position = 0; position < draws; ++position) ++counts[sample(kLogits, {}, options, position)];
  return counts;
}

std::vector<int32_t> tokens_of(const std::map<int32_t, int>& counts) {
  std::vector<int32_t> tokens;
  for (const auto& [token, count] : counts) tokens.push_back(token);
  return tokens;
}

TEST_CASE("the same seed and position draw the same token, others do not") {
  int same_seed = 0, other_seed = 0;
  for (int64_t position = 0; position < 200; ++position) {
    const int32_t token = sample(kLogits, {}, {.temperature = 1, .seed = 5}, position);
    same_seed += token == sample(kLogits, {}, {.temperature = 1, .seed = 5}, position);
    other_seed += token == sample(kLogits, {}, {.temperature = 1, .seed = 6}, position);
  }
  CHECK(same_seed == 200);
  CHECK(other_seed < 120);
}

TEST_CASE("tokens are drawn as often as the softmax says") {
  const std::map<int32_t, int> counts = histogram({.temperature = 1});
  double sum = 0;
  for (float logit : kLogits) sum += std::exp(static_cast<double>(logit));
  for (int32_t token = 0; token < 5; ++token) {
    const double p = std::exp(static_cast<double>(kLogits[static_cast<size_t>(token)])) / sum;
    const double deviation = std::sqrt(4000 * p * (1 - p));
    REQUIRE(counts.contains(token));
    CHECK(std::abs(counts.at(token) - 4000 * p) < 4.5 * deviation);
  }
}

TEST_CASE("top-k, top-p and min-p keep the likeliest tokens") {
  CHECK(tokens_of(histogram({.temperature = 1})) == std::vector<int32_t>{0, 1, 2, 3, 4});
  CHECK(tokens_of(histogram({.temperature = 1, .top_k = 2})) == std::vector<int32_t>{1, 4});
  CHECK(tokens_of(histogram({.temperature = 1, .top_k = 1})) == std::vector<int32_t>{1});
  // Probabilities in order: 0.463 0.281 0.170 0.063 0.023.
  CHECK(tokens_of(histogram({.temperature = 1, .top_p = 0.4})) == std::vector<int32_t>{1});
  CHECK(tokens_of(histogram({.temperature = 1, .top_p = 0.7})) == std::vector<int32_t>{1, 4});
  CHECK(tokens_of(histogram({.temperature = 1, .top_p = 0.8})) == std::vector<int32_t>{1, 2, 4});
  // Relative to the likeliest: 1 0.607 0.368 0.135 0.0498.
  CHECK(tokens_of(histogram({.temperature = 1, .min_p = 0.5})) == std::vector<int32_t>{1, 4});
  CHECK(tokens_of(histogram({.temperature = 1, .min_p = 0.1})) == std::vector<int32_t>{0, 1, 2, 4});
}

TEST_CASE("temperature 0 takes the likeliest, the first of equals") {
  CHECK(sample(kLogits, {}, {.temperature = 0}, 0) == 1);
  const std::vector<float> equal = {1.0F, 3.0F, 3.0F};
  CHECK(sample(equal, {}, {.temperature = 0}, 0) == 1);
}

TEST_CASE("the repetition penalty divides positive and multiplies negative logits, once per token") {
  const std::vector<int32_t> seen = {1, 1, 1};
  CHECK(sample(kLogits, seen, {.temperature = 0, .repetition_penalty = 1.2}, 0) == 1);  // 2 / 1.2 > 1.5
  CHECK(sample(kLogits, seen, {.temperature = 0, .repetition_penalty = 1.5}, 0) == 4);  // 2 / 1.5 < 1.5
  const std::vector<float> negative = {-1.0F, -1.5F};
  const std::vector<int32_t> first = {0};
  CHECK(sample(negative, first, {.temperature = 0, .repetition_penalty = 1.2}, 0) == 0);
  CHECK(sample(negative, first, {.temperature = 0, .repetition_penalty = 2}, 0) == 1);
}

TEST_CASE("sampling options out of range are Errors") {
  CHECK_NOTHROW(check(SamplingOptions{}));
  CHECK_THROWS_AS(check({.temperature = -1}), Error);
  CHECK_THROWS_AS(check({.top_k = -1}), Error);
  CHECK_THROWS_AS(check({.top_p = 0}), Error);
  CHECK_THROWS_AS(check({.top_p = 1.5}), Error);
  CHECK_THROWS_AS(check({.min_p = 2}), Error);
  CHECK_THROWS_AS(check({.repetition_penalty = 0}), Error);
}

}  // namespace
}  // namespace nf
