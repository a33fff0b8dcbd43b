#pragma once

#include "types.h"

namespace nf::cuda {

enum class ScoreCap { none, soft, hard };

// A tensor [batch, row, head, width]; strides in elements, that of the width is 1.
struct AttentionOperand {
  void* data;
  int64_t batch_stride, row_stride, head_stride;
};

struct AttentionParams {
  AttentionOperand q, k, v, out;                      // [B, T, H, d_k], [B, S, K, d_k], [B, S, K, d_v]
  AttentionOperand grad_out, grad_q, grad_k, grad_v;  // backward only
  float* logsumexp;                                   // [B, H, T], natural logarithm
  float* delta;                                       // backward: [B, H, T], sum over d_v of out * grad_out
  float *partial_out, *partial_logsumexp;             // [splits, B, H, T, d_v] and [splits, B, H, T]
  float *partial_grad_k, *partial_grad_v;             // [B, K, parts, S, d_k] and the same of d_v
  const int32_t *q_documents, *k_documents;           // [B, T] and [B, S], or null
  const int32_t* length;                              // valid keys, or null: all
  const uint32_t* rng;                                // seed low, high, step, micro step; with dropout
  uint64_t dropout_stream;
  int32_t batch, queries, keys, heads, kv_heads;  // B, T, S, H, K
  int32_t key_width, value_width;                 // d_k, d_v
  int32_t window;
  int32_t splits, split_keys;  // blockIdx.y's part of the keys, when there are several
  int32_t key_parts;           // sm_90a: of a group's heads, whose gradients of keys are summed afterwards
  int32_t section;             // sm_90a: heads whose lots follow one another, see LotPlace
  float scale, cap, dropout;
};

// Bytes of a tile in shared memory. Rows lie 16 bytes further apart than they are wide: widths are multiples
// of 16 elements, so that the same 16 bytes of eight consecutive rows are in different banks.
constexpr int tile_bytes(int rows, int width, int element_bytes) {
  return rows * (width * element_bytes + 16);
}

}  // namespace nf::cuda
