// The instructions of fused loops: plain functions over a tile of 32-bit lanes (f32, i32, or a boolean as i32
// 0 or 1; bf16 and f16 values are held as f32, u8 as i32). Each is compiled for every instruction set.
//
// A value's bits depend on its operands alone: not on its place in the tile, the tile's size, or what runs
// before. Reductions add in an order that depends on the row's length alone (see reduce_* below).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace nf::cpu {

// What a call works on: `rows` x `cols` elements. Operand i's row r begins at in[i] + r * step[i] bytes; its
// lanes are consecutive, or, when the pattern calls it a splat, it has one lane per row.
struct LoopArgs {
  const void* in[3] = {};
  int64_t step[3] = {};
  void* out = nullptr;
  int64_t out_step = 0;
  int64_t rows = 0, cols = 0;
  int64_t stride = 0;   // bytes between columns of a strided load or store; iota's step
  uint64_t stream = 0;  // philox
};
using LoopFunction = void (*)(const LoopArgs& args);

enum class Code : uint8_t {
  // elementwise, in place allowed (out may equal an operand that is no splat)
  copy,
  neg_f,
  exp_f,
  log_f,
  sqrt_f,
  rsqrt_f,
  tanh_f,
  sigmoid_f,
  erf_f,
  abs_f,
  sin_f,
  cos_f,
  round_bf16,
  round_f16,
  f_to_i,
  f_to_u8,
  f_to_bool,
  i_to_f,
  i_to_u8,
  i_to_bool,
  neg_i,
  abs_i,
  add_f,
  sub_f,
  mul_f,
  div_f,
  max_f,
  min_f,
  equal_f,
  less_f,
  less_equal_f,
  add_i,
  sub_i,
  mul_i,
  div_i,
  max_i,
  min_i,
  equal_i,
  less_i,
  less_equal_i,
  where,
  // from memory to lanes: consecutive elements, or `stride` bytes apart
  load_bf16,
  load_f16,
  load_u8,
  load_32_strided,
  load_bf16_strided,
  load_f16_strided,
  load_u8_strided,
  // from lanes to memory (32-bit consecutive: copy)
  store_bf16,
  store_f16,
  store_u8,
  store_32_strided,
  store_bf16_strided,
  store_f16_strided,
  store_u8_strided,
  // out[r][c] = in[0] as an integer + r * step[0] + c * stride
  iota,
  // the same number n, but out is philox word n of `stream` as uniform f32; in[1] is the rng, i32 [4],
  // `stride`
  // bytes apart
  philox,
  // Row reductions: out[r] = the reduction of row r of in[0] (of in[0] * in[1] for *_product). Lane l of 64
  // folds
  // elements l, l + 64, … in order; then lanes l and l + 32 are combined, l and l + 16, …
  reduce_sum_f,
  reduce_max_f,
  reduce_sum_i,
  reduce_max_i,
  reduce_sum_product,
  // The same in pieces, for one long row: out is the 64 lanes; begin sets them, part folds in cols elements
  // (a multiple
  // of 64 but for the last piece), end combines in[0]'s lanes into out[0].
  begin_sum_f,
  begin_max_f,
  begin_sum_i,
  begin_max_i,
  begin_sum_product,
  part_sum_f,
  part_max_f,
  part_sum_i,
  part_max_i,
  part_sum_product,
  end_sum_f,
  end_max_f,
  end_sum_i,
  end_max_i,
  end_sum_product,
  // Column reductions: out[r][c] = out[r][c] + in[r][c], rows in order (out_step 0: all into one row).
  column_sum_f,
  column_max_f,
  column_sum_i,
  column_max_i,
  column_sum_product,
  count_,
};
inline constexpr int kCodes = static_cast<int>(Code::count_);
std::string_view name(Code code);

// The lanes of a row reduction's state.
inline constexpr int64_t kReduceLanes = 64;

// Functions by code and pattern: bit i is set where operand i is a splat. Null where no program uses it.
using LoopTable = std::array<std::array<LoopFunction, 8>, kCodes>;

// The table for the best instruction set that cpu_features() allows.
const LoopTable& loop_table();

// Each fills in its part, for the instruction set `target`, one of hwy's HWY_AVX2, ….
enum class LoopIsa : uint8_t { portable, avx2, avx512 };
void fill_map_kernels(LoopTable& table, LoopIsa isa);
void fill_move_kernels(LoopTable& table, LoopIsa isa);

}  // namespace nf::cpu
