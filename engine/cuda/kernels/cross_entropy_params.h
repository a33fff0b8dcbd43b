#pragma once

#include "types.h"

namespace nf::cuda {

constexpr int kLossThreads = 512;  // of every block
// Blocks that must fit on a processor at once. Unbounded, a soft cap with a scale takes so many registers
// that two fit; bounded to four it would spill.
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
