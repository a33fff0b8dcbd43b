#include "cuda/sources.h"

#include "base/hash.h"

namespace nf::cuda {

std::string_view type_name(DType dtype) {
  switch (dtype) {
    case DType::f32: return "float";
    case DType::bf16: return "bf16";
    case DType::f16: return "f16";
    case DType::f64: return "double";
    case DType::i32: return "int32_t";
    case DType::i64: return "int64_t";
    case DType::u8: return "uint8_t";
    case DType::boolean: return "bool";
  }
  return "";
}

KernelSource instantiate(std::string_view file, std::string_view params, std::string_view function,
                         uint32_t threads, uint32_t blocks_per_processor) {
  const std::string body = fmt::format(
      "(const __grid_constant__ nf::cuda::{0} params) {{\n  using namespace nf::cuda;\n  {1}(params);\n}}\n",
      params, function);
  const std::string bounds = fmt::format("__launch_bounds__({}, {})", threads, blocks_per_processor);
  const std::string name = fmt::format("{}_{:016x}", function.substr(0, function.find('<')),
                                       hash(bounds + body + std::string(file)));
  return {name, fmt::format("nf::cuda::{}", params),
          fmt::format("#include \"{}\"\nextern \"C\" __global__ {} void {}{}", file, bounds, name, body)};
}

}  // namespace nf::cuda
