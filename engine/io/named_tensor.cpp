#include "nf/named_tensor.h"

#include "nf/error.h"
#include "nf/json.h"

namespace nf {

std::optional<uint64_t> byte_count(const Shape& shape, DType dtype) {
  auto total = static_cast<uint64_t>(size_of(dtype));
  for (const int64_t size : shape) {
    if (size < 0) return std::nullopt;
    if (size != 0 && total > static_cast<uint64_t>(INT64_MAX) / static_cast<uint64_t>(size))
      return std::nullopt;
    total *= static_cast<uint64_t>(size);
  }
  return total;
}

void check_bytes(const NamedTensor& tensor, std::string_view who) {
  const std::optional<uint64_t> bytes = byte_count(tensor.shape, tensor.dtype);
  require(bytes == tensor.bytes.size(), "{}: tensor '{}' has {} bytes, {} {} needs {}", who,
          printable(tensor.name), tensor.bytes.size(), name(tensor.dtype), tensor.shape,
          bytes ? std::to_string(*bytes) : "more than a file can hold");
}

}  // namespace nf
