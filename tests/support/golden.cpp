#include "tests/support/golden.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "models/training_step.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

// ||a - b|| / ||b||; a NaN in either gives NaN, which fails every comparison.
double relative_distance(std::span<const std::byte> a, std::span<const std::byte> b) {
  REQUIRE(a.size() == b.size());
  double difference = 0, norm = 0;
  for (size_t at = 0; at < a.size(); at += sizeof(float)) {
    float x, y;
    std::memcpy(&x, a.data() + at, sizeof x);
    std::memcpy(&y, b.data() + at, sizeof y);
    difference += (static_cast<double>(x) - y) * (static_cast<double>(x) - y);
    norm += static_cast<double>(y) * y;
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

}  // namespace

fs::path golden_folder() {
  const char* moved = std::getenv("NF_TESTS_DIR");
  return fs::path(moved != nullptr ? moved : NF_TESTS_DIR) / "golden";
}

Golden read_golden(const fs::path& folder) {
  const auto table = [&](const char* file) -> std::optional<IdTable> {
    if (!fs::exists(folder / file)) return std::nullopt;
    return read_id_table(folder / file, 0);
  };
  return {folder,
          {.ids = *table("ids.json"), .targets = table("targets.json"), .documents = table("documents.json")},
          nlohmann::json::parse(std::ifstream(folder / "expected.json")),
          SafetensorsFile::open(folder / "expected.safetensors")};
}

std::vector<fs::path> golden_folders() {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(golden_folder()))
    if (entry.is_directory()) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  return folders;
}

void check_against(const Golden& golden, std::shared_ptr<const Device> device, DType compute,
                   double loss_tolerance, double tolerance) {
  LoadedModel model = load_model(golden.folder, std::move(device));
  const Evaluation result = evaluate(model, golden.input, compute, true);
  CHECK(result.tokens == golden.expected["tokens"].get<int64_t>());
  const auto loss = golden.expected["loss"].get<double>();
  CHECK(std::abs(result.loss - loss) <= loss_tolerance * std::abs(loss));
  for (const Parameter& p : model.parameters) {
    if (!p.trained) {
      CHECK(!model.state->contains(gradient_name(p.name)));
      continue;
    }
    CAPTURE(p.name);
    const std::string gradient = gradient_name(p.name);
    std::vector<Buffer> copies;
    const double lost =
        compute == DType::bf16 ? golden.expected["gradient_errors_bf16"].value(p.name, 0.0) : 0.0;
    CHECK(relative_distance(model.state->host_bytes(gradient, copies),
                            golden.tensors.at("grad." + p.name).bytes) <= std::max(tolerance, 2 * lost));
  }
  const std::vector<float> values = logits(model, golden.input, compute);
  CHECK(relative_distance(std::as_bytes(std::span(values)), golden.tensors.at("logits").bytes) <= tolerance);
}

}  // namespace nf
