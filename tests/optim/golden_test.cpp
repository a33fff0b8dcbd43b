// Five steps of every optimizer against trajectories made in double precision by PyTorch and the papers'
// formulas.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "nf/safetensors.h"
#include "tests/optim/update_support.h"

using namespace nf;
using namespace nf::test;

namespace {

struct Golden {
  SafetensorsFile file = SafetensorsFile::open(NF_TESTS_DIR "/golden/optimizers.safetensors");
  nlohmann::json settings = nlohmann::json::parse(std::ifstream(NF_TESTS_DIR "/golden/optimizers.json"));

  Tensor tensor(const std::string& name) const {
    const NamedTensor& found = file.at(name);
    return decode(found.bytes, {found.dtype, found.shape});
  }
};

OptimizerOptions options_of(const nlohmann::json& settings) {
  OptimizerOptions options{.weight_decay = settings.at("weight_decay"), .clip = 0};
  const std::string kind = settings.at("kind");
  if (kind == "sgd") options.optimizer = Optimizer::sgd;
  if (kind == "lion") options.optimizer = Optimizer::lion;
  if (kind == "muon") options.optimizer = Optimizer::muon;
  options.beta1 = settings.value("beta1", options.beta1);
  options.beta2 = settings.value("beta2", options.beta2);
  options.eps = settings.value("eps", options.eps);
  options.momentum = settings.value("momentum", options.momentum);
  options.nesterov = settings.value("nesterov", options.nesterov);
  if (settings.value("scaling", "") == "moonshot") options.muon_scaling = MuonScaling::moonshot;
  return options;
}

// The largest error of a weight on the way, relative to max(1, |weight|).
double trajectory_error(const Golden& golden, const std::string& name,
                        const std::shared_ptr<const Device>& device) {
  const nlohmann::json& settings = golden.settings.at(name);
  const std::string prefix = name.starts_with("tall_") ? "tall_" : "";
  Bindings state{{"w", golden.tensor(prefix + "w0")}};
  double error = 0;
  for (int64_t step = 1; step <= 5; ++step) {
    const std::string number = std::to_string(step);
    run_step(
        device, options_of(settings),
        {.gradient = golden.tensor(prefix + "g" + number), .learning_rate = settings.at("lr"), .step = step},
        state);
    error = std::max(error, largest_error(state.at("w"), golden.tensor(name + "." + number)));
  }
  return error;
}

}  // namespace

TEST_CASE("optimizers follow their golden trajectories") {
  const Golden golden;
  CHECK(golden.settings.size() == 11);
  for (const auto& device : {reference_device(), cpu_device(2)})
    for (const auto& [name, settings] : golden.settings.items()) {
      CAPTURE(name);
      CAPTURE(device->name());
      // A few roundings of numbers near 3, five times; Muon goes through fifteen products on top.
      const bool is_muon = settings.at("kind") == "muon";
      CHECK(trajectory_error(golden, name, device) < (is_muon ? 2e-6 : 1e-6));
    }
}
