// The row kernels of cross_entropy.cpp: everything between its matrix products, vectorised. Rows of hidden,
// weight and exponentials are f32 or bf16 as their dtype says.
#pragma once

#include <cstdint>

#include "nf/dtype.h"
#include "nf/ops.h"

namespace nf::cpu {

// Part of a token's row of logits: a block of the vocabulary.
struct LogitBlock {
  const float* projected;  // [columns] hidden . weight
  const float* scale;      // [columns] or null
  int64_t columns;         // those that are no padding
  float logit_scale, cap;
  CapType cap_type;
};

// The logit of a column: scaled and capped.
float finished_logit(const LogitBlock& block, int64_t column);

// The slope of the cap at a finished logit.
float cap_slope(const LogitBlock& block, float logit);

float largest_logit(const LogitBlock& block);

struct ExponentialSum {
  float sum;      // of e^(logit - reference)
  float largest;  // logit
};

// Also writes e^(logit - reference) times the slope of the cap to out[0, width), zeros for padding, unless
// out is null.
ExponentialSum exponentials(const LogitBlock& block, float reference, void* out, DType dtype, int64_t width);

// The same without a cap, for rows of bf16, on processors with VDPBF16PS; null where the compiler knows none.
using Bf16Exponentials = ExponentialSum (*)(const LogitBlock& block, float reference, uint16_t* out,
                                            int64_t width);
Bf16Exponentials bf16_exponentials();

// out = factor row
void scaled_row(const void* row, float factor, void* out, DType dtype, int64_t count);

// out = factor sums + row_factor row, rounded once.
void combined_row(const float* sums, float factor, const void* row, float row_factor, void* out, DType dtype,
                  int64_t count);

// sums += factor row
void add_row(float* sums, const void* row, float factor, DType dtype, int64_t count);

// out = factor sums, or out += factor sums; returns sums . row.
float add_scaled_sums(const float* sums, const void* row, DType dtype, float factor, bool accumulate,
                      float* out, int64_t count);

}  // namespace nf::cpu
