// The row kernels of cross_entropy.cpp: everything between its matrix products, vectorised.
#pragma once

#include <cstdint>

#include "nf/dtype.h"
#include "nf/ops.h"

namespace nf::cpu {

struct LogitRow {
  float* logits;        // [vocab]: hidden . weight; overwritten with the final logits by finish_logits
  const float* scale;   // [vocab] or null
  int64_t vocab, real;  // columns from `real` on are padding
  float logit_scale, cap;
  CapType cap_type;
};

// Scales and caps the row in place and returns the logsumexp over its real columns.
float finish_logits(const LogitRow& row);

struct GradientRow {
  LogitRow row;            // after finish_logits
  const float* projected;  // [vocab] hidden . weight before finish_logits; null without scale
  float logsumexp;
  float grad;      // with respect to the token's loss
  float z_factor;  // 1 + 2 z_loss logsumexp
  int64_t target;  // a valid one
  void* out;       // [vocab] gradient with respect to hidden . weight, f32 or bf16
  DType out_dtype;
  float* scale_terms;  // [vocab], this token's part of the scale's gradient; null without scale
};
void logits_gradient(const GradientRow& row);

// sums[v] += terms[v]
void add_to(float* sums, const float* terms, int64_t count);

}  // namespace nf::cpu
