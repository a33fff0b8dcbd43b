// What no format of others has a word for.
#pragma once

#include <functional>
#include <string_view>

#include "models/config.h"

namespace nf {

// Throws Error naming the key unless it holds.
using Need = std::function<void(bool holds, std::string_view key)>;

// Settings that every format leaves at what they usually are: caps, factors, the places of a block's norms.
inline void need_usual_block(const ModelConfig& c, const Need& need) {
  need(!c.attention_cap, "attention_cap");
  need(!c.logit_cap, "logit_cap");
  need(c.logit_scale == 1, "logit_scale");
  need(c.attention_scale == 0, "attention_scale");
  need(c.embedding_multiplier == 1, "embedding_multiplier");
  need(c.residual_multiplier == 1, "residual_multiplier");
  need(c.input_layernorm, "input_layernorm");
  need(c.pre_ffnn_layernorm, "pre_ffnn_layernorm");
  need(!c.post_attention_layernorm, "post_attention_layernorm");
  need(!c.post_ffnn_layernorm, "post_ffnn_layernorm");
}

}  // namespace nf
