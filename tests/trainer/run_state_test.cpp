#include "tools/trainer/run_state.h"

#include <doctest/doctest.h>

#include <limits>

#include "nf/error.h"
#include "tests/trainer/training_support.h"

using namespace nf;

namespace {

struct Described {
  Folder folder;
  TrainSettings settings = small_settings(folder.write("a.txt", small_text(200)));
  TrainingData data = load_training_data(settings);
  ModelConfig model = with_vocabulary(small_model(), *data.tokenizer);

  std::string identity() const { return run_identity(model, settings, data); }
};

RunState sample() {
  return {.step = 120,
          .tokens = int64_t{1} << 40,
          .position = {.seed = std::numeric_limits<uint64_t>::max(), .epoch = 3, .index = 17},
          .evaluated_step = 110,
          .best_loss = 1.0 / 3,
          .best_step = 100};
}

}  // namespace

TEST_CASE("run state: what is written is read back, to the last bit") {
  const Described run;
  const RunState state = parse_run_state(to_json(sample(), run.identity()), run.identity(), "state");
  CHECK(state.step == 120);
  CHECK(state.tokens == int64_t{1} << 40);
  CHECK(state.position == sample().position);
  CHECK(state.best_loss == 1.0 / 3);
  CHECK(state.best_step == 100);
  CHECK(state.evaluated_step == 110);
  RunState none = sample();
  none.best_loss.reset();
  CHECK(!parse_run_state(to_json(none, run.identity()), run.identity(), "state").best_loss);
}

TEST_CASE("run state: a run that would take another course is refused, by the key and both values") {
  const Described before;
  const std::string text = to_json(sample(), before.identity());
  const auto refusal = [&](const Described& now) -> std::string {
    try {
      parse_run_state(text, now.identity(), "RUN/trainer_state.json");
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  {
    Described now;
    now.settings.batch_size = 4;
    CHECK(refusal(now).starts_with(
        "RUN/trainer_state.json: the run was made with batch_size = 2, now it is 4;"));
  }
  {
    Described now;
    now.model.rope_theta = 5;
    CHECK(refusal(now).find("model.rope_theta = 10000.0, now it is 5.0") != std::string::npos);
  }
  {
    Described now;
    now.settings.data = {now.folder.write("b.txt", small_text(201))};
    now.data = load_training_data(now.settings);
    CHECK(refusal(now).find("the text is not the one that the run was made with") != std::string::npos);
  }
  Described now;  // these may change
  now.settings.lr = 1;
  now.settings.steps = 1000;
  now.settings.threads = 7;
  now.settings.dtype = ComputeType::bf16;
  now.model.gradient_checkpointing.mode = GradientCheckpointing::Mode::layer;
  CHECK(refusal(now) == "");
}

TEST_CASE("run state: what may change is told, a line for each setting") {
  const Described before;
  const std::string written = merged_config_json(before.model, before.settings);
  const auto changes = [&](const Described& now) {
    return changed_settings(written, merged_config_json(now.model, now.settings), "config.json");
  };
  CHECK(changes(before).empty());
  Described now;
  now.settings.lr = 0.002;
  now.settings.schedule = Schedule::constant;
  now.settings.steps = 0;
  now.settings.epochs = 3;
  now.settings.run_name = "another";
  now.settings.threads = 7;
  now.model.gradient_checkpointing.mode = GradientCheckpointing::Mode::layer;
  CHECK(changes(now) ==
        std::vector<std::string>{"gradient_checkpointing \"none\" in the checkpoint, \"layer\" now",
                                 "epochs not set in the checkpoint, 3.0 now",
                                 "lr 0.003 in the checkpoint, 0.002 now",
                                 "schedule \"cosine\" in the checkpoint, \"constant\" now",
                                 "steps 20 in the checkpoint, not set now"});
  for (const char* text : {"", "[]", "{}", R"({"training": 3})"})
    CHECK_THROWS_AS(changed_settings(text, written, "config.json"), Error);
}

TEST_CASE("run state: text that is none is an error, not a surprise") {
  const Described run;
  const std::string identity = run.identity(), good = to_json(sample(), identity);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    return text.replace(at, from.size(), to);
  };
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("{}"), with("\"step\": 120", "\"step\": -1"),
        with("\"step\": 120", "\"step\": 1e99"), with("\"step\": 120", "\"step\": \"120\""),
        with("\"format\": 1", "\"format\": 2"), with("\"epoch\"", "\"epochs\""),
        with("\"position\": {", "\"position\": 3, \"x\": {"),
        with("\"identity\": {", "\"identity\": [], \"x\": {"), good.substr(0, good.size() / 2)}) {
    CAPTURE(text);
    CHECK_THROWS_AS(parse_run_state(text, identity, "state"), Error);
  }
}
