#include "tools/compare/request.h"

#include <doctest/doctest.h>

#include "nf/error.h"

using namespace nf;

namespace {

CompareRequest parse(std::vector<const char*> words) {
  words.insert(words.begin(), "nf-compare");
  return parse_compare(static_cast<int>(words.size()), words.data());
}

std::string refusal(const std::vector<const char*>& words) {
  try {
    parse(words);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("compare: budgets") {
  CHECK(parse_budget("tokens=2M").amount == 2e6);
  CHECK(parse_budget("tokens=500k").kind == Budget::Kind::tokens);
  CHECK(parse_budget("flops=1.5e15").amount == 1.5e15);
  CHECK(parse_budget("flops=2P").amount == 2e15);
  CHECK(parse_budget("time=10m").amount == 600);
  CHECK(parse_budget("time=90").amount == 90);
  CHECK(parse_budget("time=2h").kind == Budget::Kind::seconds);
  for (const char* wrong : {"", "2M", "tokens", "tokens=", "tokens=-1", "tokens=0", "tokens=x", "tokens=1m",
                            "time=1M", "steps=10", "flops=nan", "flops=1e300"})
    CHECK_THROWS_AS(parse_budget(wrong), Error);
}

TEST_CASE("compare: each model has its own folder, and what is its own") {
  const CompareRequest request = parse({"-m", "gqa", "-m", "ngpt.json,lr=0.004,num_hidden_layers=3", "--data",
                                        "x", "--out", "o", "--batch_size=4", "--dtype", "f32"});
  REQUIRE(request.contestants.size() == 2);
  const Contestant &gqa = request.contestants[0], &ngpt = request.contestants[1];
  CHECK(gqa.name == "gqa");
  CHECK(ngpt.name == "ngpt");
  CHECK(gqa.line.settings.out == "o/gqa");
  CHECK(ngpt.line.settings.run_name == "ngpt");
  CHECK(ngpt.line.settings.lr == 0.004);
  CHECK(gqa.line.settings.lr == 0.001);
  CHECK(ngpt.line.model.num_hidden_layers == 3);
  CHECK(gqa.line.model.num_hidden_layers == 6);
  CHECK(gqa.line.settings.batch_size == 4);
  CHECK(ngpt.line.settings.warmup_for(100) == 0);  // the variant's own
  CHECK(gqa.line.settings.warmup_ratio == 0.0625);
  CHECK(request.budget.kind == Budget::Kind::steps);
  CHECK(!request.evaluation_given);
}

TEST_CASE("compare: the same config twice is told apart by its changes") {
  const CompareRequest request =
      parse({"-m", "gqa,lr=0.001", "gqa,lr=0.002", "--data", "x", "--eval-every=5"});
  REQUIRE(request.contestants.size() == 2);
  CHECK(request.contestants[0].name == "gqa,lr=0.001");
  CHECK(request.contestants[1].line.settings.out == "runs/compare/gqa,lr=0.002");
  CHECK(request.evaluation_given);
  CHECK(refusal({"-m", "gqa", "-m", "gqa.json", "--data", "x"}).find("given twice") != std::string::npos);
}

TEST_CASE("compare: seeds, all models with one before the next") {
  const CompareRequest request =
      parse({"-m", "gqa", "-m", "mha", "--data", "x", "--seeds", "2", "--seed", "7"});
  REQUIRE(request.contestants.size() == 4);
  CHECK(request.contestants[1].name == "mha");
  CHECK(request.contestants[2].name == "gqa-seed8");
  CHECK(request.contestants[2].group == "gqa");
  CHECK(request.contestants[2].line.settings.seed == 8);
  CHECK(request.contestants[2].line.settings.split_seed == 7);  // all are judged on the same text
  CHECK(request.contestants[2].line.settings.out == "runs/compare/gqa-seed8");
}

TEST_CASE("compare: what is wrong is said in one line") {
  CHECK(refusal({"--data", "x"}).find("give the models") != std::string::npos);
  CHECK(refusal({"-m", "gqa", "-m", "mha,batch_size=3", "--data", "x"}) ==
        "nf-compare: gqa has batch-size 16, mha has 3; give --batch-size for all, so that they see the same "
        "batches");
  CHECK(refusal({"-m", "gqa", "--data", "x", "--budgte", "tokens=1M"}).find("did you mean '--budget'") !=
        std::string::npos);
  CHECK(refusal({"-m", "gqa", "--data", "x", "--bacth-size", "4"}).find("did you mean '--batch-size'") !=
        std::string::npos);
  CHECK(refusal({"-m", "gqa", "--data", "x", "--resume"}).find("goes on") != std::string::npos);
  CHECK(refusal({"-m", "gqa", "--data", "x", "--budget", "tokens=1M", "--steps", "5"}).find("keep one") !=
        std::string::npos);
  CHECK(refusal({"-m", "gqa", "--data", "x", "--seeds", "0"}).find("--seeds") != std::string::npos);
  CHECK(refusal({"-m", "gqa", "--data", "x", "--eval-every", "0"}).find("validation loss") !=
        std::string::npos);
  CHECK(refusal({"-m", "gqa", "--data", "x", "--json"}).find("metrics.jsonl") != std::string::npos);
  CHECK(refusal({"-m", "gqa,lr", "--data", "x"}).find("KEY=VALUE") != std::string::npos);
  CHECK(refusal({"-m", "gqa"}).find("--data") != std::string::npos);
  CHECK(refusal({"-m"}).find("needs a value") != std::string::npos);
  CHECK(parse({"--help"}).help->find("--budget") != std::string::npos);
}
