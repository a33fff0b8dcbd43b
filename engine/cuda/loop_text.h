// How the text of loops is put together: lines and blocks, constants, positions.
#pragma once

#include <fmt/format.h>

#include <string>

#include "cuda/gpu.h"
#include "nf/dtype.h"
#include "nf/shape.h"

namespace nf::cuda {

class Text {
 public:
  template <typename... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) {
    text_.append(static_cast<size_t>(2 * depth_), ' ');
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
    text_ += '\n';
  }
  // "head {", until close().
  template <typename... Args>
  void open(fmt::format_string<Args...> format, Args&&... args) {
    line("{} {{", fmt::format(format, std::forward<Args>(args)...));
    ++depth_;
  }
  void unroll() { text_ += "#pragma unroll\n"; }
  void close() {
    --depth_;
    line("}}");
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  int depth_ = 1;
};

// A constant of that dtype as a literal of its lane.
std::string literal(double value, DType dtype);

// The offset of the position that is number `index` in a walk over `sizes`: a sum of terms, or "0".
std::string offset_of(const std::string& index, const Shape& sizes, const Strides& strides);

// A whole kernel: the entry point around its body, named after what it does and its hash.
KernelSource loop_kernel(const std::string& what, size_t pointers, uint32_t threads, const std::string& body);

}  // namespace nf::cuda
