#pragma once

#include "types.h"

namespace nf::cuda {

constexpr int kLossThreads = 512;  // of every block
// That fit on a processor at once. A soft cap and a scale would take registers for two alone; with four
// blocks they would not find enough.
constexpr int kLossBlocks = 3;
constexpr int kScaleColumns = 32;  // of a block of scale_gradient

enum class LogitCap : int32_t { none, soft, hard };

// Rows of one chunk of tokens; see cross_entropy.cuh.
struct CrossEntropyParams {
  float* projected;        // [tokens, stride]: hidden . weight
  void* gradient;          // [tokens, stride] of the operands' dtype: with respect to `projected`
  const int32_t* targets;  // [tokens]
  const float* scale;      // [vocab] or null
  const float* grad_loss;  // [tokens]
  float* loss;             // [tokens]
  float* logsumexp;        // [tokens], forward alone
  float* scale_gradient;   // [vocab]
  int64_t tokens, stride;  // stride: a multiple of 8
  int32_t vocab, real;     // columns from `real` on are padding
  int32_t ignore_index;
  float logit_scale, cap, z_loss;
  bool is_first_chunk;
};

}  // namespace nf::cuda
