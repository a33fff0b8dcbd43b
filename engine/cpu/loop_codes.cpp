// Which instruction a node of a loop's body becomes.
#include <bit>

#include "cpu/loop_program.h"
#include "graph/op_table.h"

namespace nf::cpu {
namespace {

struct CodeRow {
  Op op;
  Code floats, integers;
};
constexpr Code kNone = Code::count_;
constexpr CodeRow kElementwise[] = {
    {Op::neg, Code::neg_f, Code::neg_i},    {Op::exp, Code::exp_f, kNone},
    {Op::log, Code::log_f, kNone},          {Op::sqrt, Code::sqrt_f, kNone},
    {Op::rsqrt, Code::rsqrt_f, kNone},      {Op::tanh, Code::tanh_f, kNone},
    {Op::sigmoid, Code::sigmoid_f, kNone},  {Op::erf, Code::erf_f, kNone},
    {Op::abs, Code::abs_f, Code::abs_i},    {Op::sin, Code::sin_f, kNone},
    {Op::cos, Code::cos_f, kNone},          {Op::add, Code::add_f, Code::add_i},
    {Op::sub, Code::sub_f, Code::sub_i},    {Op::mul, Code::mul_f, Code::mul_i},
    {Op::div, Code::div_f, Code::div_i},    {Op::max, Code::max_f, Code::max_i},
    {Op::min, Code::min_f, Code::min_i},    {Op::equal, Code::equal_f, Code::equal_i},
    {Op::less, Code::less_f, Code::less_i}, {Op::less_equal, Code::less_equal_f, Code::less_equal_i},
    {Op::where, Code::where, Code::where},
};

// The instruction of a cast between lanes; copy where the lanes stay as they are.
Code cast_code(DType from, DType to) {
  if (!integer_lanes(from)) {
    switch (to) {
      case DType::bf16: return from == DType::bf16 ? Code::copy : Code::round_bf16;
      case DType::f16: return from == DType::f16 ? Code::copy : Code::round_f16;
      case DType::i32: return Code::f_to_i;
      case DType::u8: return Code::f_to_u8;
      case DType::boolean: return Code::f_to_bool;
      default: return Code::copy;
    }
  }
  switch (to) {
    case DType::u8: return from == DType::i32 ? Code::i_to_u8 : Code::copy;
    case DType::boolean: return from == DType::boolean ? Code::copy : Code::i_to_bool;
    case DType::i32: return Code::copy;
    default: return Code::i_to_f;
  }
}

}  // namespace

uint32_t lane_of(double value, DType dtype) {
  switch (dtype) {
    case DType::i32:
    case DType::u8: return static_cast<uint32_t>(static_cast<int64_t>(value));
    case DType::boolean: return value != 0 ? 1 : 0;
    case DType::bf16: return std::bit_cast<uint32_t>(to_float(to_bf16(static_cast<float>(value))));
    case DType::f16: return std::bit_cast<uint32_t>(to_float(to_f16(static_cast<float>(value))));
    default: return std::bit_cast<uint32_t>(static_cast<float>(value));
  }
}

Code elementwise_code(const Graph& body, const Node& node) {
  if (node.op == Op::cast) return cast_code(body.type(node.inputs[0]).dtype, node.outputs[0].dtype);
  for (const CodeRow& row : kElementwise)
    if (row.op == node.op) {
      const Code code =
          integer_lanes(body.type(node.inputs[0]).dtype) && node.op != Op::where ? row.integers : row.floats;
      require(code != kNone, "loop: {} of integers", nf::name(node.op));
      return code;
    }
  fail("loop: {} cannot stand in a body", nf::name(node.op));
}

// The five kinds of reductions stand in the same order in each family of codes.
Code reduction_code(Code family, const Node& node, bool product) {
  const bool integers = integer_lanes(node.outputs[0].dtype);
  const int kind = product ? 4 : (integers ? 2 : 0) + (node.op == Op::reduce_max ? 1 : 0);
  return static_cast<Code>(static_cast<int>(family) + kind);
}

Code load_code(DType dtype, bool strided) {
  const int offset =
      strided ? static_cast<int>(Code::load_bf16_strided) - static_cast<int>(Code::load_bf16) : 0;
  const auto at = [&](Code code) { return static_cast<Code>(static_cast<int>(code) + offset); };
  switch (dtype) {
    case DType::bf16: return at(Code::load_bf16);
    case DType::f16: return at(Code::load_f16);
    case DType::u8:
    case DType::boolean: return at(Code::load_u8);
    default: return strided ? Code::load_32_strided : Code::copy;
  }
}

Code store_code(DType dtype, bool strided) {
  switch (load_code(dtype, strided)) {
    case Code::load_bf16: return Code::store_bf16;
    case Code::load_f16: return Code::store_f16;
    case Code::load_u8: return Code::store_u8;
    case Code::load_bf16_strided: return Code::store_bf16_strided;
    case Code::load_f16_strided: return Code::store_f16_strided;
    case Code::load_u8_strided: return Code::store_u8_strided;
    case Code::load_32_strided: return Code::store_32_strided;
    default: return Code::copy;
  }
}

}  // namespace nf::cpu
