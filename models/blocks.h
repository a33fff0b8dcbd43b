// What the variants share: the context they build in, linear layers, heads, attention, the MLP.
#pragma once

#include <string_view>

#include "models/model.h"
#include "models/rope.h"

namespace nf {

// How a parameter starts.
struct Init {
  double std = 0, value = 0;
  static Init normal(double std) { return {.std = std}; }
  static Init fill(double value) { return {.value = value}; }
};

// How a variant starts and keeps its matrices and its embedding.
struct WeightRules {
  double std = 0;            // they start as N(0, std^2)
  bool decay = true;         // weight decay applies to the matrices
  bool unit_length = false;  // kept at unit length along their axis of the hidden_size
};

// Everything a block needs while it is built.
class ModelBuilder {
 public:
  ModelBuilder(Graph& graph, const ModelConfig& config, const ModelOptions& options,
               const WeightRules& weights, ModelGraph& model);

  const ModelConfig& config() const { return config_; }
  const ModelOptions& options() const { return options_; }
  Graph& graph() { return graph_; }

  // A parameter is registered at its first use. Vectors and the embedding are read as f32, matrices [out, in]
  // as operands of products, in the compute type.
  Value vector(const Scope& scope, std::string_view name, const Shape& shape, Init init);
  Value matrix(const Scope& scope, int64_t out, int64_t in);  // of a layer: scope.weight
  Value embedding_table(const Scope& root);                   // [V, D]
  Value head_matrix(const Scope& root);  // [V, D]: lm_head.weight, or the embedding where they are tied

  // y = x W^T (+ bias): [.., in] -> [.., out] in the compute type. The parameters are scope.weight and
  // scope.bias, and the adapter's where the config asks for one.
  Value project(const Scope& scope, Value x, int64_t out, bool bias);
  // The same for the projections back to the residual stream, whose start is scaled by 1/sqrt(2 L).
  Value project_back(const Scope& scope, Value x, bool bias);
  // rms(x) * scope.weight, f32.
  Value norm(const Scope& scope, Value x);
  Value activation(Value x) const;
  // Dropout of this model while training; streams are numbered in the order of these calls.
  Value drop(Value x, double probability);

  // cos and sin for q and k of this graph's positions.
  const Rope& rope(int64_t width);

  // Softmax attention of layer `layer` with this model's mask, window, cap, dropout and scale, unless `scale`
  // is given. q [B, T, H, d_k], k [B, S, K, d_k], v [B, S, K, d_v]; -> [B, T, H, d_v] in the compute type.
  Value attend(int64_t layer, Value q, Value k, Value v, double scale = 0);
  // Adds the layer's part of the head similarity loss, where the model has one: q [B, T, H, d], k [B, T, K,
  // d], all heads of the layer at once, with the scale that attend() uses.
  void compare_heads(int64_t layer, Value q, Value k);
  // While generating: stores x [B, T, ...] behind the valid tokens of the cache `name` of this layer and
  // returns all of it; otherwise x itself.
  Value cached(int64_t layer, std::string_view name, Value x);
  Value compute(Value x) const { return cast(x, options_.compute); }

 private:
  struct Entry {
    Value wide, narrow;
    size_t index;
  };
  enum HiddenAxis : int { kOut = 0, kIn = 1 };  // which axis of a matrix [out, in] is the hidden_size's
  Entry& parameter(Parameter parameter);
  Entry& embedding(const Scope& root);
  Entry& layer_matrix(const Scope& scope, int64_t out, int64_t in, double std, HiddenAxis hidden);
  Value adapted(const Scope& scope, Value x, Value y);
  int unit_axis(HiddenAxis hidden) const { return weights_.unit_length ? hidden : -1; }
  Value wide(Entry& entry);
  Value narrow(Entry& entry);
  Value visible(int64_t layer, const Shape& scores) const;

  Graph& graph_;
  const ModelConfig& config_;
  const ModelOptions& options_;
  const WeightRules weights_;
  ModelGraph& model_;
  std::unordered_map<std::string, Entry> entries_;
  std::unordered_map<int64_t, Rope> ropes_;
  Value documents_, length_, rng_;
  uint64_t next_stream_ = 1;
};

// Queries, keys and values as heads, rotated: q [B, T, H, d], k and v [B, T, K, d]; compute type for v, f32
// for q and k.
struct Heads {
  Value q, k, v;
};
Heads project_heads(ModelBuilder& b, const Scope& s, Value x);
Value merge_heads(Value x);  // [B, T, H, d] -> [B, T, H d]

// down(act(gate(x)) * up(x))
Value gated_mlp(ModelBuilder& b, const Scope& s, Value x);

// The residual block of all variants but nGPT: h + attn(norm(h)), then h + mlp(norm(h)), with optional norms
// behind.
using Attention = Value (*)(ModelBuilder& b, const Scope& s, int64_t layer, Value x);
Value residual_block(ModelBuilder& b, const Scope& s, int64_t layer, Value h, Attention attention);

// What a variant is to the skeleton around it.
struct Variant {
  Value (*block)(ModelBuilder& b, const Scope& s, int64_t layer, Value h);  // one layer
  WeightRules weights;
  bool final_norm = true;                                               // RMS norm before the head
  Value (*logit_scales)(ModelBuilder& b, const Scope& root) = nullptr;  // learned, [V]; null: none
};

// The variants, each in the file of its name.
Value gqa_block(ModelBuilder& b, const Scope& s, int64_t layer, Value h);
Value diff_block(ModelBuilder& b, const Scope& s, int64_t layer, Value h);
Value mla_block(ModelBuilder& b, const Scope& s, int64_t layer, Value h);
Variant ngpt_variant(const ModelConfig& config);

// Mean similarity of a layer's heads (models/head_similarity.cpp): scores [B, H, T, S] before the mask,
// visible boolean [.., T, S]. `mse`: mean over pairs of heads and visible positions of (S_i - S_j)^2; `jsd`:
// minus the mean over pairs and rows of the Jensen-Shannon divergence of the softmax rows.
Value head_similarity(HeadSimLossType type, Value scores, Value visible);

}  // namespace nf
