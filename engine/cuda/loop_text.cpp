#include "cuda/loop_text.h"

#include <bit>
#include <cmath>

#include "base/hash.h"
#include "cuda/loop_plan.h"

namespace nf::cuda {

std::string literal(double value, DType dtype) {
  if (lane_of(dtype) == Lane::booleans) return value != 0 ? "true" : "false";
  if (lane_of(dtype) == Lane::integers) {
    const auto integer = static_cast<int64_t>(value);
    return integer == INT32_MIN ? "(-2147483647 - 1)" : std::to_string(integer);
  }
  float x = static_cast<float>(value);
  if (dtype == DType::bf16) x = to_float(to_bf16(x));
  if (dtype == DType::f16) x = to_float(to_f16(x));
  if (!std::isfinite(x)) return fmt::format("__uint_as_float(0x{:08x}u)", std::bit_cast<uint32_t>(x));
  std::string text = fmt::format("{}", x);  // the shortest that reads back as x
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text + "f";
}

std::string offset_of(const std::string& index, const Shape& sizes, const Strides& strides) {
  std::string sum;
  int64_t inner = 1;  // positions of the axes behind
  for (int axis = sizes.rank() - 1; axis >= 0;) {
    // Axes that are walked as one.
    int64_t size = sizes[axis];
    const int64_t stride = strides[axis];
    for (--axis; axis >= 0 && strides[axis] == stride * size; --axis) size *= sizes[axis];
    const int64_t outer = inner * size;
    if (stride != 0 && size > 1) {
      std::string term = index;
      if (inner > 1) term = fmt::format("{} / {}", term, inner);
      if (outer < sizes.elements()) term = fmt::format("{} % {}", term, size);
      term = term == index ? fmt::format("Index({})", index) : fmt::format("Index({})", term);
      if (stride != 1) term += fmt::format(" * {}", stride);
      sum = sum.empty() ? term : term + " + " + sum;
    }
    inner = outer;
  }
  return sum.empty() ? "0" : sum;
}

KernelSource loop_kernel(const std::string& what, size_t pointers, uint32_t threads,
                         const std::string& body) {
  const std::string params = fmt::format("nf::cuda::Pointers<{}>", pointers);
  const std::string rest =
      fmt::format("(const __grid_constant__ {} p) {{\n  using namespace nf::cuda;\n{}}}\n", params, body);
  const std::string name = fmt::format("{}_{:016x}", what, hash(rest, threads));
  return {name, params,
          fmt::format("#include \"loop.cuh\"\nextern \"C\" __global__ void __launch_bounds__({}) {}{}",
                      threads, name, rest)};
}

}  // namespace nf::cuda
