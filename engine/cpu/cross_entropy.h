// linear_cross_entropy on the CPU: output projection and loss together, a chunk of tokens at a time, so that
// the logits of all tokens never exist at once. The backward kernel computes each chunk's logits again and
// turns them into both gradients while they are in cache: three matrix products in all, and the loss falls
// out on the way.
//
// Determinism: chunks are cut by the sizes alone; each row's sums run in one fixed order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nf/dtype.h"
#include "nf/ops.h"

namespace nf::cpu {

struct CrossEntropyConfig {
  int64_t tokens = 0, width = 0, vocab = 0;  // N, D, V: rows of the weight
  DType dtype = DType::f32;                  // of hidden and weight: f32 or bf16
  bool scaled = false;                       // there is a scale
  CrossEntropyOptions options = {};          // its scale Value is not used
};

struct CrossEntropyInputs {
  const void* hidden = nullptr;      // [N, D] dense
  const void* weight = nullptr;      // [V, D] dense
  const int32_t* targets = nullptr;  // [N]; kIgnoreIndex or 0 <= target < V
  const float* scale = nullptr;      // [V] or null
};

size_t cross_entropy_workspace(const CrossEntropyConfig& config, bool backward, int threads);

// loss, logsumexp: f32 [N]. A target out of range makes the token's loss NaN.
void cross_entropy_forward(const CrossEntropyConfig& config, const CrossEntropyInputs& inputs, float* loss,
                           float* logsumexp, void* workspace, int threads);

struct CrossEntropyGradients {
  float* loss = nullptr;    // [N]
  void* hidden = nullptr;   // [N, D] in the config's dtype
  float* weight = nullptr;  // [V, D]
  float* scale = nullptr;   // [V], null without scale
  bool accumulate = false;  // the weight's gradient is added to what stands there
};

// grad_loss: f32 [N].
void cross_entropy_backward(const CrossEntropyConfig& config, const CrossEntropyInputs& inputs,
                            const float* grad_loss, const CrossEntropyGradients& gradients, void* workspace,
                            int threads);

}  // namespace nf::cpu
