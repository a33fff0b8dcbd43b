// Text generation: sampling from a model with a key/value cache.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tools/load_model.h"

namespace nf {

struct SamplingOptions {
  double temperature = 0.8;  // 0: always the likeliest token
  int64_t top_k = 0;         // only the k likeliest; 0: all
  // Only the likeliest that together reach this probability (Holtzman et al., arXiv 1904.09751).
  double top_p = 1;
  // Only tokens at least this fraction as likely as the likeliest (Nguyen et al., arXiv 2407.01082).
  double min_p = 0;
  // Divides positive and multiplies negative logits of tokens seen (Keskar et al., arXiv 1909.05858).
  double repetition_penalty = 1;
  uint64_t seed = 1;
};

// Throws Error for options out of range.
void check(const SamplingOptions& options);

// The token drawn at `position` (which together with the seed decides the random number). `seen`: tokens so
// far.
int32_t sample(std::span<const float> logits, std::span<const int32_t> seen, const SamplingOptions& options,
               int64_t position);

// A model with caches for `capacity` tokens (at most max_position_embeddings) of one sequence.
class Generator {
 public:
  Generator(LoadedModel& model, DType compute, int64_t capacity);

  int64_t capacity() const { return capacity_; }
  int64_t position() const { return position_; }  // tokens in the caches

  // Appends tokens and returns the logits f32 [V] of what follows the last; valid until the next call. Throws
  // Error when the caches are full.
  std::span<const float> append(std::span<const int32_t> tokens);

 private:
  std::unique_ptr<Executable> compile_for(int64_t tokens);

  LoadedModel& model_;
  DType compute_;
  int64_t capacity_, position_ = 0;
  std::unique_ptr<Executable> one_token_;
  std::vector<float> logits_;
};

}  // namespace nf
