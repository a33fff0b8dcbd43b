// What stands between the matrix products of linear_cross_entropy: a block per token turns its row of hidden
// . weight into loss and logsumexp, and for the backward pass into the gradient with respect to that row:
//
//   logit = cap(logit_scale * scale * projected)      loss = logsumexp - logit[target] + z_loss logsumexp^2
//   d loss / d projected = g (p (1 + 2 z_loss logsumexp) - [is target]) cap'(logit) logit_scale scale
#pragma once

#include "cross_entropy_params.h"
#include "device.cuh"

namespace nf::cuda {

constexpr int kLossVector = 4;  // columns per access
constexpr float kLog2e = 1.4426950408889634f;

// How a projection becomes a logit: all that changes the code of each element.
template <LogitCap cap, bool scaled>
struct LogitRule {
  static constexpr bool kScaled = scaled;

  static __device__ __forceinline__ float factor(const CrossEntropyParams& p, int column) {
    return scaled ? p.logit_scale * p.scale[column] : p.logit_scale;
  }
  static __device__ __forceinline__ float capped(const CrossEntropyParams& p, float logit) {
    if (cap == LogitCap::soft) return p.cap * tanhf(logit / p.cap);
    // fminf and fmaxf would turn a NaN into a number.
    if (cap == LogitCap::hard) return logit > p.cap ? p.cap : logit < -p.cap ? -p.cap : logit;
    return logit;
  }
  // Of the cap at a logit that went through it.
  static __device__ __forceinline__ float slope(const CrossEntropyParams& p, float logit) {
    if (cap == LogitCap::soft) return 1.0f - (logit / p.cap) * (logit / p.cap);
    if (cap == LogitCap::hard) return fabsf(logit) < p.cap ? 1.0f : 0.0f;
    return 1.0f;
  }
  static __device__ __forceinline__ float at(const CrossEntropyParams& p, float projected, int column) {
    return capped(p, projected * factor(p, column));
  }
};

// Calls body(first column, four projections) for every vector of the row that begins before `columns`.
// Several are on their way at once; body may write to what it is given.
template <typename Body>
__device__ __forceinline__ void each_vector(const float* row, int columns, Body body) {
  constexpr int kStep = kLossThreads * kLossVector, kAtOnce = 2;
  for (int first = threadIdx.x * kLossVector; first < columns; first += kAtOnce * kStep) {
    Vector<float, kLossVector> vectors[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (first + i * kStep < columns) vectors[i] = load_vector<kLossVector>(row + first + i * kStep);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (first + i * kStep < columns) body(first + i * kStep, vectors[i]);
  }
}

// The sum of 2^(exponent) relative to the largest one, both kept up to date.
struct OnlineSum {
  float largest = lowest(), sum = 0;  // finite, so that a logit of -infinity counts as nothing

  __device__ __forceinline__ void add(float x) {
    if (x > largest) {
      sum *= fast_exp2(largest - x);
      largest = x;
    }
    sum += fast_exp2(x - largest);
  }
};

// logsumexp of the row; every thread gets it.
template <typename Logit>
__device__ __forceinline__ float row_logsumexp(const CrossEntropyParams& p, const float* row,
                                               float* scratch) {
  OnlineSum own;
  each_vector(row, p.real, [&](int column, const Vector<float, kLossVector>& projected) {
#pragma unroll
    for (int i = 0; i < kLossVector; ++i)
      if (column + i < p.real) own.add(Logit::at(p, projected.items[i], column + i) * kLog2e);
  });
  const float largest = block_reduce<Max, kLossThreads>(own.largest, scratch);
  const float sum = block_reduce<Sum, kLossThreads>(own.sum * fast_exp2(own.largest - largest), scratch);
  return (largest + log2f(sum)) / kLog2e;
}

// Writes the loss of the block's token; returns whether its target counts.
template <typename Logit>
__device__ __forceinline__ bool finish_loss(const CrossEntropyParams& p, const float* row, float logsumexp) {
  const int32_t target = p.targets[blockIdx.x];
  const bool is_valid = target >= 0 && target < p.real;
  if (threadIdx.x == 0) {
    float loss = target == p.ignore_index ? 0.0f : not_a_number();
    if (is_valid) loss = logsumexp - Logit::at(p, row[target], target) + p.z_loss * logsumexp * logsumexp;
    p.loss[blockIdx.x] = loss;
  }
  return is_valid;
}

template <typename Logit>
__device__ void cross_entropy_forward(const CrossEntropyParams& p) {
  __shared__ float scratch[kLossThreads / 32];
  const float* row = p.projected + blockIdx.x * p.stride;
  const float logsumexp = row_logsumexp<Logit>(p, row, scratch);
  finish_loss<Logit>(p, row, logsumexp);
  if (threadIdx.x == 0) p.logsumexp[blockIdx.x] = logsumexp;
}

// With a scale, `projected` becomes what each element adds to the scale's gradient.
template <typename T, typename Logit>
__device__ void cross_entropy_backward(const CrossEntropyParams& p) {
  __shared__ float scratch[kLossThreads / 32];
  float* row = p.projected + blockIdx.x * p.stride;
  T* gradient = static_cast<T*>(p.gradient) + blockIdx.x * p.stride;
  const float logsumexp = row_logsumexp<Logit>(p, row, scratch);
  const bool is_valid = finish_loss<Logit>(p, row, logsumexp);
  const int32_t target = p.targets[blockIdx.x];
  const float upstream = is_valid ? p.grad_loss[blockIdx.x] : 0.0f;
  const float z_factor = 1.0f + 2.0f * p.z_loss * logsumexp;
  __syncthreads();  // finish_loss has read the target's projection
  each_vector(row, p.vocab, [&](int column, Vector<float, kLossVector> projected) {
    Vector<T, kLossVector> out;
#pragma unroll
    for (int i = 0; i < kLossVector; ++i) {
      float grad = 0, factor = 0;
      if (is_valid && column + i < p.real) {
        factor = Logit::factor(p, column + i);
        const float logit = Logit::capped(p, projected.items[i] * factor);
        const float probability = fast_exp2((logit - logsumexp) * kLog2e);
        grad = upstream * (probability * z_factor - (column + i == target ? 1.0f : 0.0f)) *
               Logit::slope(p, logit);
      }
      from_float(grad * factor, out.items[i]);
      projected.items[i] = grad == 0 ? 0.0f : grad * p.logit_scale * projected.items[i];
    }
    store_vector<kLossVector>(gradient + column, out);
    if (Logit::kScaled) store_vector<kLossVector>(row + column, projected);
  });
}

// Adds what the rows give to the scale's gradient: 32 columns per block, a warp takes every so-many-th row.
__device__ inline void scale_gradient(const CrossEntropyParams& p) {
  constexpr int kParts = kLossThreads / kScaleColumns;
  __shared__ float sums[kParts][kScaleColumns];
  const int x = threadIdx.x % kScaleColumns, part = threadIdx.x / kScaleColumns;
  const int64_t column = int64_t(blockIdx.x) * kScaleColumns + x;
  float sum = 0;
  if (column < p.vocab) {
#pragma unroll 8
    for (int64_t row = part; row < p.tokens; row += kParts) sum += p.projected[row * p.stride + column];
  }
  sums[part][x] = sum;
  __syncthreads();
  if (part > 0 || column >= p.vocab) return;
  sum = p.is_first_chunk ? 0.0f : p.scale_gradient[column];
  for (int i = 0; i < kParts; ++i) sum += sums[i][x];
  p.scale_gradient[column] = sum;
}

}  // namespace nf::cuda
