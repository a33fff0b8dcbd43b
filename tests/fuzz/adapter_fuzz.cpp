// Any bytes as adapter_config.json. What is accepted is plain LoRA, and survives being written again.
#include "tests/fuzz/fuzz.h"
#include "tools/lora.h"

using namespace nf;
using namespace nf::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text = text_of(data, size);
  accepts([&] {
    const Adapter adapter = parse_adapter(text, "adapter_config.json");
    const Adapter back = parse_adapter(to_json(adapter), "written");
    expect(back.base == adapter.base && back.lora == adapter.lora, "an adapter is read back");
  });
  accepts([&] { parse_lora(text, "--lora"); });
  return 0;
}
