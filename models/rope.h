// Rotary position embeddings: inverse frequencies and tables, stretched as Hugging Face does it.
#pragma once

#include <vector>

#include "models/config.h"
#include "nf/ops.h"

namespace nf {

struct RopeFrequencies {
  std::vector<double> inverse;  // [width / 2]
  double factor = 1;            // multiplies cos and sin (yarn)
};

// For heads of even `width` and sequences of `length` tokens (which only "dynamic" looks at).
RopeFrequencies rope_frequencies(const ModelConfig& config, int64_t width, int64_t length);

// cos and sin [length, width] as nf::rope takes them: both halves of a row alike, sin negated in the first.
// Angles in f64.
struct Rope {
  Value cos, sin;
};
Rope rope_tables(Graph& graph, const ModelConfig& config, int64_t width, int64_t length);

// The rows of the tables at `positions` i32 [T].
Rope rope_at(const Rope& tables, Value positions);

}  // namespace nf
