#include "tools/trainer/session.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "tests/trainer/allocations.h"
#include "tests/trainer/late_device.h"
#include "tests/trainer/training_support.h"
#include "tools/program.h"

using namespace nf;

namespace {

// A session over a text, ready to step.
struct Ready {
  Folder folder;
  TrainSettings settings;
  TrainingData data;
  std::unique_ptr<Batches> batches;
  TrainingSession session;
  int64_t step = 0;

  explicit Ready(ModelConfig model = small_model(), const std::function<void(TrainSettings&)>& change = {},
                 std::shared_ptr<const Device> device = nullptr, const std::string& text = small_text(3000),
                 const std::string& file = "text.txt")
      : settings(changed(small_settings(folder.write(file, text)), change)),
        data(load_training_data(settings)),
        batches(training_batches(data, settings)),
        session(with_vocabulary(model, *data.tokenizer), settings, data.documents,
                device ? std::move(device) : open_device(settings)) {
    session.initialize();
  }

  StepResult next() { return session.step(*batches, ++step, settings.lr); }

 private:
  static TrainSettings changed(TrainSettings settings, const std::function<void(TrainSettings&)>& change) {
    if (change) change(settings);
    return settings;
  }
};

std::vector<float> weights_after(int64_t steps, const ModelConfig& model,
                                 const std::function<void(TrainSettings&)>& change = {}) {
  Ready run(model, change);
  for (int64_t i = 0; i < steps; ++i) run.next();
  return weights_of(run.session);
}

}  // namespace

TEST_CASE("session: every variant starts near the uniform loss and learns") {
  for (const AttentionType type : {AttentionType::mha, AttentionType::gqa, AttentionType::diff,
                                   AttentionType::ngpt, AttentionType::mla}) {
    CAPTURE(name(type));
    Ready run(small_model(type), [](TrainSettings& s) { s.batch_size = 8; });
    const StepResult first = run.next();
    CHECK(first.loss == doctest::Approx(std::log(257)).epsilon(0.05));
    CHECK(first.tokens == 8 * 16);
    CHECK(first.gradient_norm > 0);
    double loss = 0;
    for (int i = 0; i < 60; ++i) loss = run.next().loss;
    CHECK(loss < first.loss - 1.5);
  }
}

TEST_CASE("session: the bits do not depend on threads or on gradient checkpointing") {
  for (const ComputeType dtype : {ComputeType::f32, ComputeType::bf16}) {
    CAPTURE(name(dtype));
    ModelConfig model = small_model();
    model.residual_dropout = 0.1;
    model.attention_dropout = 0.1;
    const auto one = [&](TrainSettings& s) { s.dtype = dtype, s.grad_accum = 2, s.threads = 1; };
    const auto three = [&](TrainSettings& s) { s.dtype = dtype, s.grad_accum = 2, s.threads = 3; };
    const std::vector<float> expected = weights_after(4, model, one);
    CHECK(weights_after(4, model, three) == expected);
    model.gradient_checkpointing.mode = GradientCheckpointing::Mode::layer;
    CHECK(weights_after(4, model, one) == expected);
    model.gradient_checkpointing = {GradientCheckpointing::Mode::bytes, 850'000};
    CHECK(weights_after(4, model, one) == expected);
  }
}

TEST_CASE("session: dropout draws anew in every step and micro-batch, and follows the seed") {
  ModelConfig model = small_model();
  model.residual_dropout = 0.5;
  const auto seeded = [](int64_t seed) { return [=](TrainSettings& s) { s.seed = seed; }; };
  CHECK(weights_after(2, model, seeded(1)) == weights_after(2, model, seeded(1)));
  Ready run(model);
  const BatchPosition start = run.batches->position();
  const auto loss_of_step = [&](int64_t step) {
    run.session.initialize();
    run.batches->seek(start);
    return run.session.step(*run.batches, step, 0).loss;
  };
  CHECK(loss_of_step(1) == loss_of_step(1));
  CHECK(loss_of_step(1) != loss_of_step(2));
}

TEST_CASE("session: micro-batches add up to the step of one large batch") {
  const std::vector<float> small =
      weights_after(1, small_model(), [](TrainSettings& s) { s.grad_accum = 4; });
  const std::vector<float> large =
      weights_after(1, small_model(), [](TrainSettings& s) { s.batch_size = 8; });
  REQUIRE(small.size() == large.size());
  Ready untrained;
  const std::vector<float> before = weights_of(untrained.session);
  double difference = 0, change = 0;
  for (size_t i = 0; i < small.size(); ++i) {
    difference += std::pow(static_cast<double>(small[i] - large[i]), 2);
    change += std::pow(static_cast<double>(small[i] - before[i]), 2);
  }
  // AdamW's first step is nearly the gradient's sign, so entries that are almost zero may differ.
  CHECK(std::sqrt(difference) < 0.02 * std::sqrt(change));
}

TEST_CASE("session: padded batches of many lengths train, and padding changes no loss") {
  std::string lines;
  for (int i = 0; i < 60; ++i)
    lines += "{\"text\": \"" + std::string(static_cast<size_t>(1 + i % 30), 'a') + "b\"}\n";
  Ready run(
      small_model(),
      [](TrainSettings& s) {
        s.batch_mode = BatchMode::pad;
        s.seq_len = 20;  // not a multiple of 8: rows end at 24
      },
      nullptr, lines, "text.jsonl");
  CHECK(run.data.documents);
  const double first = run.next().loss;
  double last = 0;
  for (int i = 0; i < 40; ++i) {
    const StepResult result = run.next();
    CHECK(result.tokens > 0);
    CHECK(result.tokens <= 2 * 20);
    last = result.loss;
  }
  CHECK(last < first - 2);
}

TEST_CASE("session: evaluation repeats itself and leaves the weights alone") {
  Ready run(small_model(), [](TrainSettings& s) { s.val_fraction = 0.2, s.eval_every = 1; });
  const std::vector<float> before = weights_of(run.session);
  const auto validation = validation_batches(run.data, run.settings);
  const BatchPosition start = validation->position();
  const double first = run.session.evaluate(*validation, 3);
  validation->seek(start);
  CHECK(run.session.evaluate(*validation, 3) == first);
  CHECK(first == doctest::Approx(std::log(257)).epsilon(0.05));
  CHECK(weights_of(run.session) == before);
}

TEST_CASE("session: steps allocate nothing after the first") {
  for (const ComputeType dtype : {ComputeType::f32, ComputeType::bf16}) {
    ModelConfig model = small_model();
    model.residual_dropout = 0.1;
    Ready run(model, [&](TrainSettings& s) { s.grad_accum = 2, s.dtype = dtype; });
    run.next();
    const int64_t before = allocations();
    for (int i = 0; i < 5; ++i) run.next();
    CHECK(allocations() - before == 0);
  }
}

TEST_CASE("session: on a device that works by itself steps may overlap, with the same bits") {
  const auto device = std::make_shared<LateDevice>();
  const auto twice = [](TrainSettings& s) { s.grad_accum = 2; };
  Ready expected(small_model(), twice), run(small_model(), twice, device);
  CHECK(!expected.session.may_overlap());
  REQUIRE(run.session.may_overlap());
  run.session.launch(*run.batches, 1, run.settings.lr);
  for (int64_t step = 1; step <= 5; ++step) {
    if (step < 5) run.session.launch(*run.batches, step + 1, run.settings.lr);
    const StepResult result = run.session.finish(), wanted = expected.next();
    CHECK(result.loss == wanted.loss);
    CHECK(result.gradient_norm == wanted.gradient_norm);
    CHECK((device->waiting() > 0) == (step < 5));
  }
  std::vector<Buffer> copies;
  for (const Parameter& p : run.session.parameters()) {
    const std::span<const std::byte> got = run.session.state().host_bytes(p.name, copies),
                                     wanted = expected.session.state().memory(p.name);
    CHECK(std::equal(got.begin(), got.end(), wanted.begin(), wanted.end()));
  }
}

TEST_CASE("session: at most two steps are under way") {
  Ready run;
  CHECK_THROWS_AS(run.session.finish(), Error);
  for (int64_t step = 1; step <= 2; ++step) run.session.launch(*run.batches, step, 0);
  CHECK_THROWS_AS(run.session.launch(*run.batches, 3, 0), Error);
}

// Breaks one weight.
void spoil(State& state, const std::string& name) {
  std::vector<std::byte> bytes(static_cast<size_t>(state.type(name).bytes()));
  state.read(name, bytes);
  const float bad = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(bytes.data() + 40, &bad, sizeof bad);
  state.write(name, bytes);
}

TEST_CASE("session: a loss that is not finite names its origin, with the next step under way too") {
  Ready run(
      small_model(), [](TrainSettings& s) { s.grad_accum = 2; }, std::make_shared<LateDevice>());
  run.session.launch(*run.batches, 1, run.settings.lr);
  run.session.finish();
  spoil(run.session.state(), "model.layers.0.self_attn.o_proj.weight");
  run.session.launch(*run.batches, 2, run.settings.lr);
  run.session.launch(*run.batches, 3, run.settings.lr);
  CHECK_THROWS_WITH_AS(
      run.session.finish(),
      doctest::Contains("step 2: the loss is not a number; the first value that is not finite: state "
                        "'model.layers.0.self_attn.o_proj.weight'"),
      RunFailed);
}

TEST_CASE("session: a loss that is not finite names its origin") {
  Ready run;
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  spoil(run.session.state(), name);
  CHECK_THROWS_WITH_AS(run.next(), doctest::Contains("state 'model.layers.1.mlp.down_proj.weight'"),
                       RunFailed);
}

TEST_CASE("session: a gradient that is not finite changes nothing") {
  Ready run;
  run.next();
  const std::vector<float> before = weights_of(run.session);
  // A learning rate that is not a number would ruin the weights at once if the update were made.
  State& state = run.session.state();
  Executable& update = run.session.executables().update();
  const std::string gradient = "grad/" + run.session.parameters()[0].name;
  std::vector<std::byte> bytes(static_cast<size_t>(state.type(gradient).bytes()));
  const float bad = std::numeric_limits<float>::infinity();
  std::memcpy(bytes.data(), &bad, sizeof bad);
  state.write(gradient, bytes);
  update.run();
  CHECK(!std::isfinite(update.scalar("gradient_norm")));
  CHECK(weights_of(run.session) == before);
}
