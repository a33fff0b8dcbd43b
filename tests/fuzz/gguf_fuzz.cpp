// Any bytes as a .gguf file. What opens is read to its last byte, and survives being written again.
#include "nf/gguf.h"

#include <algorithm>

#include "tests/fuzz/fuzz.h"

using namespace nf;
using namespace nf::fuzz;

namespace {

bool is_writable(const NamedTensor& tensor) { return tensor.name.size() < 64; }

// NaN is not equal to itself, so values are compared by being written.
GgufWriter copy_of(const GgufFile& file) {
  GgufWriter writer;
  for (const auto& [key, value] : file.metadata())
    if (key != "general.alignment") writer.set(key, value);
  for (const NamedTensor& tensor : file.tensors())
    if (is_writable(tensor)) writer.add(tensor);
  return writer;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string path = folder().write("x.gguf", text_of(data, size));
  accepts([&] {
    const GgufFile file = GgufFile::open(path);
    const auto first = folder().path / "first.gguf", second = folder().path / "second.gguf";
    copy_of(file).write(first);
    const GgufFile copy = GgufFile::open(first);
    for (const NamedTensor& tensor : file.tensors()) {
      if (!is_writable(tensor)) continue;
      const NamedTensor* other = copy.find(tensor.name);
      expect(other != nullptr && other->dtype == tensor.dtype && other->shape == tensor.shape &&
                 std::ranges::equal(other->bytes, tensor.bytes),
             "tensors are read back");
    }
    copy_of(copy).write(second);
    expect(read_file(first) == read_file(second), "keys are read back");
  });
  return 0;
}
