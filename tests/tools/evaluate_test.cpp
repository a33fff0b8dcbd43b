// Models against the golden trajectories in tests/golden: loss, logits and every gradient.
#include "tools/evaluate.h"

#include <doctest/doctest.h>

#include "models/training_step.h"
#include "tests/support/golden.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

TEST_CASE("f32 on the CPU: loss, logits and gradients of every golden model") {
  const std::vector<fs::path> folders = golden_folders();
  REQUIRE(folders.size() >= 15);
  for (const fs::path& folder : folders) {
    CAPTURE(folder.filename().string());
    check_against(read_golden(folder), cpu_device(2), DType::f32, 1e-5, 1e-4);
  }
}

TEST_CASE("bf16 on the CPU") {
  for (const fs::path& folder : golden_folders()) {
    CAPTURE(folder.filename().string());
    const Golden golden = read_golden(folder);
    check_against(golden, cpu_device(2), DType::bf16, 5e-3, 2e-2);
  }
}

TEST_CASE("f32 on the reference device") {
  for (const char* name : {"mha_head_sim_jsd", "mla_window", "ngpt_gqa"}) {
    CAPTURE(name);
    check_against(read_golden(fs::path(NF_TESTS_DIR) / "golden" / name), reference_device(), DType::f32, 1e-6,
                  1e-5);
  }
}

TEST_CASE("without gradients the loss is the same, and grad/ is not touched") {
  const Golden golden = read_golden(fs::path(NF_TESTS_DIR) / "golden" / "gqa");
  LoadedModel model = load_model(golden.folder, cpu_device(1));
  const double loss = evaluate(model, golden.input, DType::f32, false).loss;
  CHECK(!model.state->contains(gradient_name(model.parameters[0].name)));
  CHECK(loss == doctest::Approx(golden.expected["loss"].get<double>()).epsilon(1e-5));
}

TEST_CASE("wrong inputs are Errors") {
  const Golden golden = read_golden(fs::path(NF_TESTS_DIR) / "golden" / "gqa");
  LoadedModel model = load_model(golden.folder, cpu_device(1));
  EvaluationInput input = golden.input;
  input.targets = IdTable{1, 1, {0}};
  CHECK_THROWS_WITH_AS(evaluate(model, input, DType::f32, false), doctest::Contains("targets are [1, 1]"),
                       Error);
  input.targets = IdTable{input.ids.rows, input.ids.columns - 1, {}};
  input.targets->values.assign(static_cast<size_t>(input.ids.rows * (input.ids.columns - 1)), kIgnoreIndex);
  CHECK_THROWS_WITH_AS(evaluate(model, input, DType::f32, false), doctest::Contains("no targets"), Error);
}

}  // namespace
}  // namespace nf
