// Any bytes as trainer_state.json, and as the config.json of the run that is resumed.
#include "tests/fuzz/fuzz.h"
#include "tools/trainer/run_state.h"

using namespace nf;
using namespace nf::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text = text_of(data, size), identity = R"({"seed": 1, "text": "00"})";
  RunState run;
  if (accepts([&] { run = parse_run_state(text, identity, "run state"); })) {
    const std::string written = to_json(run, identity);
    expect(to_json(parse_run_state(written, identity, "written state"), identity) == written,
           "a run state is read back");
  }
  static const std::string now = merged_config_json(resolve(ModelConfig{}), TrainSettings{});
  accepts([&] { changed_settings(text, now, "config"); });
  return 0;
}
