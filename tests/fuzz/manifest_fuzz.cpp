// Any bytes as a checkpoint's manifest, beside whole files: what passes for undamaged opens.
#include "nf/safetensors.h"
#include "tests/fuzz/fuzz.h"
#include "tools/trainer/checkpoint.h"

using namespace nf;
using namespace nf::fuzz;

namespace {

std::filesystem::path whole_checkpoint() {
  return write_checkpoint(
      folder().path, 7,
      {.model = {}, .optimizer = {}, .config_json = "{}", .trainer_state_json = "{}", .files = {}});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::filesystem::path checkpoint = whole_checkpoint();
  folder().write("checkpoint-7/manifest.json", text_of(data, size));
  if (find_damage(checkpoint)) return 0;
  expect(find_checkpoint(checkpoint).step >= 0, "a checkpoint has a step");
  expect(open_checkpoint(checkpoint).config_json == "{}", "the files are the checkpoint's");
  return 0;
}
