// A tensor as files hold it: what the readers of nf/safetensors.h and nf/gguf.h return and their writers
// take.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "nf/dtype.h"
#include "nf/shape.h"

namespace nf {

// A named tensor whose bytes live elsewhere. In a file that others wrote, `bytes` may not be aligned to its
// elements.
struct NamedTensor {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  std::span<const std::byte> bytes;  // dense, row-major; shape.elements() * size_of(dtype) of them
};

// Bytes of a dense tensor; none when a size is negative or the product does not fit 63 bits. For shapes that
// come from outside.
std::optional<uint64_t> byte_count(const Shape& shape, DType dtype);

// Throws Error `who: …` unless the tensor has exactly the bytes of its dtype and shape.
void check_bytes(const NamedTensor& tensor, std::string_view who);

}  // namespace nf
