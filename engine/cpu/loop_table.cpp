#include "cpu/isa.h"
#include "cpu/loop_kernels.h"

namespace nf::cpu {

const LoopTable& loop_table() {
  static const LoopTable table = [] {
    const CpuFeatures& features = cpu_features();
    const LoopIsa isa = features.avx512 ? LoopIsa::avx512 : features.avx2 ? LoopIsa::avx2 : LoopIsa::portable;
    LoopTable result{};
    fill_map_kernels(result, isa);
    fill_move_kernels(result, isa);
    return result;
  }();
  return table;
}

std::string_view name(Code code) {
  static constexpr std::array<std::string_view, kCodes> kNames = {"copy",
                                                                  "neg_f",
                                                                  "exp_f",
                                                                  "log_f",
                                                                  "sqrt_f",
                                                                  "rsqrt_f",
                                                                  "tanh_f",
                                                                  "sigmoid_f",
                                                                  "erf_f",
                                                                  "abs_f",
                                                                  "sin_f",
                                                                  "cos_f",
                                                                  "round_bf16",
                                                                  "round_f16",
                                                                  "f_to_i",
                                                                  "f_to_u8",
                                                                  "f_to_bool",
                                                                  "i_to_f",
                                                                  "i_to_u8",
                                                                  "i_to_bool",
                                                                  "neg_i",
                                                                  "abs_i",
                                                                  "add_f",
                                                                  "sub_f",
                                                                  "mul_f",
                                                                  "div_f",
                                                                  "max_f",
                                                                  "min_f",
                                                                  "equal_f",
                                                                  "less_f",
                                                                  "less_equal_f",
                                                                  "add_i",
                                                                  "sub_i",
                                                                  "mul_i",
                                                                  "div_i",
                                                                  "max_i",
                                                                  "min_i",
                                                                  "equal_i",
                                                                  "less_i",
                                                                  "less_equal_i",
                                                                  "where",
                                                                  "load_bf16",
                                                                  "load_f16",
                                                                  "load_u8",
                                                                  "load_32_strided",
                                                                  "load_bf16_strided",
                                                                  "load_f16_strided",
                                                                  "load_u8_strided",
                                                                  "store_bf16",
                                                                  "store_f16",
                                                                  "store_u8",
                                                                  "store_32_strided",
                                                                  "store_bf16_strided",
                                                                  "store_f16_strided",
                                                                  "store_u8_strided",
                                                                  "iota",
                                                                  "philox",
                                                                  "reduce_sum_f",
                                                                  "reduce_max_f",
                                                                  "reduce_sum_i",
                                                                  "reduce_max_i",
                                                                  "reduce_sum_product",
                                                                  "begin_sum_f",
                                                                  "begin_max_f",
                                                                  "begin_sum_i",
                                                                  "begin_max_i",
                                                                  "begin_sum_product",
                                                                  "part_sum_f",
                                                                  "part_max_f",
                                                                  "part_sum_i",
                                                                  "part_max_i",
                                                                  "part_sum_product",
                                                                  "end_sum_f",
                                                                  "end_max_f",
                                                                  "end_sum_i",
                                                                  "end_max_i",
                                                                  "end_sum_product",
                                                                  "column_sum_f",
                                                                  "column_max_f",
                                                                  "column_sum_i",
                                                                  "column_max_i",
                                                                  "column_sum_product"};
  static_assert(!kNames.back().empty());
  return kNames[static_cast<size_t>(code)];
}

}  // namespace nf::cpu
