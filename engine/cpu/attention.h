// Attention, forward and backward, without a T x S matrix in memory (FlashAttention-2: Dao, "Faster attention
// with better parallelism and work partitioning", 2023).
//
//   s_ij   = cap(scale * <q_i, k_j>)                    for the keys j that query i sees, -inf for the others
//   lse_i  = log sum_j exp(s_ij)
//   out_i  = sum_j keep_ij / (1 - p) * exp(s_ij - lse_i) * v_j
//
// Query i stands at position p_i; it sees key j iff all of these hold:
//   j < keys, and j < *length when a length is given;
//   j <= p_i                      when causal;
//   p_i - window < j <= p_i       when window > 0;
//   documents of both are equal and not negative, when documents are given.
// p_i = *length - queries + i when a length is given, else keys - queries + i. A query that sees nothing has
// out 0, lse -inf and gradient 0.
//
// Threads: calls are re-entrant. Results are the same bits for any number of threads. Nothing is allocated.
// Products: f32 operands by f32 FMA; bf16 operands by VDPBF16PS where the CPU has it (P and dS are then
// rounded to bf16), else widened to f32. Softmax and every accumulation are f32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/tensor_view.h"
#include "nf/ops.h"

namespace nf::cpu {

// All that is known when the graph is compiled.
struct AttentionConfig {
  int64_t batch = 0, queries = 0, keys = 0;  // B, T, S
  int64_t heads = 0, kv_heads = 0;           // H, K: K divides H; query head h reads kv head h / (H / K)
  int64_t key_width = 0, value_width = 0;    // d_k, d_v, each 1 … 256
  float scale = 1.0F;
  float cap = 0.0F;  // > 0 unless cap_type is none
  // soft: cap * tanh(s / cap). hard: s clamped to [-cap, cap], gradient 0 outside.
  CapType cap_type = CapType::none;
  bool causal = false;
  int64_t window = 0;           // 0: none
  float dropout = 0.0F;         // p in [0, 1): probability of zeroing a softmax weight
  uint64_t dropout_stream = 0;  // Philox stream
};

// What one call reads. Views have any strides whose last is 1, and share one dtype, f32 or bf16.
struct AttentionInputs {
  TensorView q;                          // [B, T, H, d_k]
  TensorView k;                          // [B, S, K, d_k]
  TensorView v;                          // [B, S, K, d_v]
  const int32_t* q_documents = nullptr;  // [B, T] or null
  const int32_t* k_documents = nullptr;  // [B, S], null iff q_documents is null
  const int32_t* length = nullptr;       // scalar or null: valid keys, the T new ones included (decoding)
  const uint32_t* rng = nullptr;         // {seed low, seed high, step, micro step}; null iff dropout is 0
};

// Dropout: weight (b, h, i, j) is zeroed iff
//   philox_uniform(philox_word(((b * H + h) * T + i) * S + j, dropout_stream, key)) < p,
//   key = {rng[0] ^ rng[2] * 0x9E3779B9, rng[1] ^ rng[3] * 0x85EBCA6B}.

// Bytes that attention_forward needs at `workspace` (64-byte aligned). `dtype` is that of q, k and v.
size_t attention_forward_workspace(const AttentionConfig& config, DType dtype, int threads);

// out: [B, T, H, d_v], f32 or bf16, strided with last stride 1. logsumexp: [B, H, T] dense, of the scaled,
// capped, masked scores (before dropout). Throws Error when shapes, dtypes or strides break the contract
// above.
void attention_forward(const AttentionConfig& config, const AttentionInputs& inputs, TensorView out,
                       float* logsumexp, void* workspace, int threads);

// Bytes that attention_backward needs at `workspace` (64-byte aligned). Linear in T and S.
size_t attention_backward_workspace(const AttentionConfig& config, DType dtype, int threads);

// out and logsumexp are the results of attention_forward on the same inputs; grad_out: [B, T, H, d_v], f32 or
// bf16. grad_q, grad_k, grad_v: shapes of q, k, v, f32 or bf16, strided with last stride 1; overwritten.
void attention_backward(const AttentionConfig& config, const AttentionInputs& inputs, TensorView out,
                        const float* logsumexp, TensorView grad_out, TensorView grad_q, TensorView grad_k,
                        TensorView grad_v, void* workspace, int threads);

}  // namespace nf::cpu
