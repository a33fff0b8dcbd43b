// Any bytes as a .safetensors file. What opens is read to its last byte, and survives being written again.
#include "nf/safetensors.h"

#include <algorithm>
#include <cstring>

#include "tests/fuzz/fuzz.h"

using namespace nf;
using namespace nf::fuzz;

namespace {

void check_same(const SafetensorsFile& file, const SafetensorsFile& copy) {
  expect(copy.metadata() == file.metadata(), "metadata is read back");
  expect(copy.tensors().size() == file.tensors().size(), "every tensor is read back");
  for (const NamedTensor& tensor : file.tensors()) {
    const NamedTensor& other = copy.at(tensor.name);
    expect(other.dtype == tensor.dtype && other.shape == tensor.shape, "types and shapes are read back");
    expect(std::ranges::equal(other.bytes, tensor.bytes), "the bytes are read back");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string path = folder().write("x.safetensors", text_of(data, size));
  accepts([&] {
    const SafetensorsFile file = SafetensorsFile::open(path);
    SafetensorsWriter writer(file.metadata());
    for (const NamedTensor& tensor : file.tensors()) {
      expect(static_cast<int64_t>(tensor.bytes.size()) == tensor.shape.elements() * size_of(tensor.dtype),
             "a tensor has as many bytes as its shape says");
      writer.add(tensor);
    }
    const auto copy = folder().path / "copy.safetensors";
    writer.write(copy);
    check_same(file, SafetensorsFile::open(copy));
  });
  return 0;
}
