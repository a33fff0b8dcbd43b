// Any bytes as a config: the model and its "training" section. What is accepted is written and read back
// alike.
#include "models/config.h"
#include "tests/fuzz/fuzz.h"
#include "tools/settings.h"

using namespace nf;
using namespace nf::fuzz;

namespace {

void check_training(const ParsedConfig& config) {
  TrainSettings settings;
  if (!accepts([&] { settings = parse_training(config.training, config.model, "config"); })) return;
  const std::string merged = merged_config_json(config.model, settings);
  const ParsedConfig again = parse_config(merged, "written config");
  expect(again.model == config.model, "the model in a run's config is read back");
  const TrainSettings settings_again = parse_training(again.training, again.model, "written config");
  expect(merged_config_json(again.model, settings_again) == merged, "the settings in it are read back");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ParsedConfig config;
  if (!accepts([&] { config = parse_config(text_of(data, size), "config"); })) return 0;
  expect(parse_model_config(to_json(config.model), "written config") == config.model, "a model is read back");
  check_training(config);
  return 0;
}
