// Any bytes as the index that names the shards of a model: two whole shards lie beside it.
#include "nf/safetensors.h"
#include "tests/fuzz/fuzz.h"

using namespace nf;
using namespace nf::fuzz;

namespace {

void write_shard(const char* file, const char* tensor) {
  static constexpr std::byte kByte[1] = {};
  SafetensorsWriter writer;
  writer.add({tensor, DType::u8, {1}, kByte});
  writer.write(folder().path / file);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool shards_written =
      (write_shard("s1.safetensors", "a"), write_shard("s2.safetensors", "b"), true);
  expect(shards_written, "the shards are there");
  folder().write("model.safetensors.index.json", text_of(data, size));
  accepts([] {
    const SafetensorsFile file = SafetensorsFile::open(folder().path);
    for (const NamedTensor& tensor : file.tensors())
      expect(file.at(tensor.name).bytes.size() == 1, "tensors are those of the shards");
  });
  return 0;
}
