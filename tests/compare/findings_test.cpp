#include "tools/compare/findings.h"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <deque>

#include "models/config.h"
#include "tests/trainer/training_support.h"

using namespace nf;

namespace {

// Runs of 100 tokens a step whose validation losses are given, one for each ten steps, the first before
// training.
class Runs {
 public:
  void add(const std::string& name, const std::string& group, double step_seconds,
           const std::vector<double>& losses, RunStatus status = RunStatus::done) {
    RunHistory& history = histories_.emplace_back();
    for (size_t i = 0; i < losses.size(); ++i) {
      for (size_t k = 1; i > 0 && k <= 10; ++k) {
        const double step = static_cast<double>(10 * (i - 1) + k);
        history.log(static_cast<int64_t>(step),
                    std::array{Metric{"loss", losses[i]}, Metric{"tokens", 100 * step},
                               Metric{"seconds", step_seconds * step}});
      }
      history.log(static_cast<int64_t>(10 * i), std::array{Metric{"val_loss", losses[i]}});
    }
    runs.push_back({.facts = {.name = name, .group = group, .parameters = 1000, .kv_cache_bytes = 64},
                    .status = status,
                    .history = &history});
  }
  std::vector<PageRun> runs;

 private:
  std::deque<RunHistory> histories_;
};

std::string cell(const Comparison& comparison, size_t row, const std::string& label) {
  for (size_t i = 0; i < comparison.table.columns.size(); ++i)
    if (comparison.table.columns[i].label == label) return comparison.table.rows[row].cells[i].text;
  return "no such column";
}

}  // namespace

TEST_CASE("findings: where a curve first comes down to a level") {
  const std::array<double, 4> x{0, 10, 20, 30}, y{5, 3, 1, 2};
  CHECK(first_below(x, y, 4) == 5);
  CHECK(first_below(x, y, 3) == 10);
  CHECK(first_below(x, y, 2) == 15);
  CHECK(first_below(x, y, 6) == 0);
  CHECK(std::isnan(first_below(x, y, 0.5)));
  const std::array<double, 4> gap{5, NAN, 1, 2};
  CHECK(first_below(x, gap, 3) == 10);
}

TEST_CASE("findings: the best, and how much sooner it is where the others end") {
  Runs runs;
  runs.add("gqa", "", 0.01, {5, 3, 2.5, 2.4, 2.0});
  runs.add("ngpt", "", 0.02, {5, 2.5, 2.0, 1.6, 1.5});
  runs.runs[0].facts.kv_cache_bytes = 32;
  const Comparison comparison = compare(runs.runs);
  REQUIRE(comparison.findings.size() == 4);
  CHECK(comparison.findings[0] == "ngpt learns best: validation loss 1.5000, 0.5000 below gqa.");
  // It is at 2.0 after 20 of 40 steps, each of which takes twice as long.
  CHECK(comparison.findings[1] ==
        "ngpt comes to where gqa ends with 2.0× fewer tokens, in about the same time.");
  CHECK(comparison.findings[2] ==
        "gqa is the fastest with 10.0k tokens per second, ngpt the slowest with 5.00k.");
  CHECK(comparison.findings[3] ==
        "gqa needs the smallest KV cache: 32 B per token of a generated text, against 64 B for ngpt.");
  CHECK(cell(comparison, 0, "tokens to 2.000") == "4.00k");
  CHECK(cell(comparison, 1, "tokens to 2.000") == "2.00k");
  CHECK(cell(comparison, 1, "val loss") == "1.5000");
  CHECK(cell(comparison, 0, "time") == "0:00");
}

TEST_CASE("findings: a lead that another seed may reverse is none") {
  Runs runs;
  runs.add("mha", "", 0.01, {5, 3, 2.003});
  runs.add("gqa", "", 0.01, {5, 3, 2.0});
  CHECK(compare(runs.runs).findings[0] ==
        "gqa and mha learn equally well: validation loss 2.0000 and 2.0030, which another seed may reverse.");
}

TEST_CASE("findings: seeds are averaged, and their spread decides") {
  Runs runs;
  runs.add("mha", "mha", 0.01, {5, 3, 2.0});
  runs.add("mha-seed2", "mha", 0.01, {5, 3, 2.2});
  runs.add("gqa", "gqa", 0.01, {5, 3, 2.1});
  runs.add("gqa-seed2", "gqa", 0.01, {5, 3, 1.9});
  const Comparison close = compare(runs.runs);
  CHECK(close.table.rows.size() == 2);
  CHECK(cell(close, 0, "val loss") == "2.1000 ±0.1414");
  CHECK(close.findings[0].starts_with("gqa and mha learn equally well"));
  runs.add("ngpt", "ngpt", 0.01, {5, 3, 1.5});
  runs.add("ngpt-seed2", "ngpt", 0.01, {5, 3, 1.6});
  CHECK(compare(runs.runs).findings[0] == "ngpt learns best: validation loss 1.5500, 0.4500 below gqa.");
}

TEST_CASE("findings: of a model with several settings the best counts, when there are other models") {
  Runs runs;
  runs.add("gqa,lr=1", "", 0.01, {5, 3, 2.0});
  runs.add("gqa,lr=2", "", 0.01, {5, 3, 1.8});
  CHECK(compare(runs.runs).findings[0] ==
        "gqa,lr=2 learns best: validation loss 1.8000, 0.2000 below gqa,lr=1.");
  runs.add("ngpt,lr=1", "", 0.01, {5, 3, 1.9});
  runs.add("ngpt,lr=2", "", 0.01, {5, 3, 1.5});
  const Comparison comparison = compare(runs.runs);
  CHECK(comparison.table.rows.size() == 4);
  REQUIRE(comparison.findings.size() >= 2);
  CHECK(comparison.findings[0] == "ngpt,lr=2 learns best: validation loss 1.5000, 0.3000 below gqa,lr=2.");
  CHECK(comparison.findings[1] ==
        "Each model is taken at its best of the 4 settings tried: ngpt,lr=2; gqa,lr=2.");
}

TEST_CASE("findings: what is not done yet is in the table, and says nothing") {
  Runs runs;
  runs.add("gqa", "", 0.01, {5, 3, 2.0});
  runs.add("ngpt", "", 0.01, {5, 2.5}, RunStatus::running);
  runs.runs.push_back({.facts = {.name = "diff"}});
  const Comparison comparison = compare(runs.runs);
  CHECK(comparison.findings.empty());
  REQUIRE(comparison.table.rows.size() == 3);
  CHECK(comparison.table.rows[1].cells[0].text == "ngpt (not done)");
  CHECK(cell(comparison, 1, "val loss") == "2.5000");
  CHECK(cell(comparison, 2, "val loss") == "–");
}

TEST_CASE("findings: models of different sizes are named, with what would make them equal") {
  ModelConfig small = small_model(), large = small_model();
  large.intermediate_size = 128;
  std::vector<PageRun> runs;
  for (const ModelConfig& model : {small, large}) {
    PageRun run;
    run.facts.name = runs.empty() ? "small" : "large";
    ModelConfig with_words = model;
    with_words.vocab_size = 257;
    run.facts.parameters = count_parameters(with_words).total;
    run.facts.config_json = to_json(with_words);
    runs.push_back(run);
  }
  CHECK(size_warning(runs).find("-m small,intermediate_size=128 would make them equal") != std::string::npos);
  runs.pop_back();
  CHECK(size_warning(runs).empty());
  CHECK(size_warning({}).empty());
}
