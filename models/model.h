// Models as graph builders: from a ModelConfig to graphs.
//
// All variants share one skeleton (models/transformer.cpp); what makes a variant is its attention and its
// blocks: models/gqa.cpp (mha and gqa), diff.cpp, ngpt.cpp, mla.cpp, each reading like its paper.
#pragma once

#include <string>
#include <vector>

#include "models/config.h"
#include "nf/executable.h"
#include "nf/gradients.h"
#include "nf/ops.h"
#include "nf/optim.h"
#include "nf/state.h"

namespace nf {

// A stored tensor of the model, named as in safetensors ("model.layers.0.self_attn.q_proj.weight").
struct Parameter {
  std::string name;
  Shape shape;
  double init_std = 0;  // drawn from N(0, init_std^2); 0: filled with init_value
  double init_value = 0;
  bool decay = false;         // weight decay applies
  bool layer_matrix = false;  // a matrix inside a layer
  bool adapter = false;       // of lora.h; without gradients are all others then
  bool trained = true;
  int normalize_axis = -1;   // nGPT: kept at unit length along this axis
  bool used_wide = false;    // read as f32 by the graph
  bool used_narrow = false;  // read as an operand of matrix products in the compute type, if that is bf16
};

// Every model graph reads the f32 state NAME and, when the compute type is bf16, the bf16 state NAME@bf16 for
// operands of matrix products. copy_narrow() of training_step.h keeps the second in step with the first; a
// frozen matrix that products alone read has only the second.
std::string narrow_name(const std::string& parameter);

struct ModelOptions {
  int64_t batch = 1;             // B
  int64_t length = 1;            // T
  DType compute = DType::f32;    // operands of matrix products: f32 or bf16
  bool training = false;         // dropout is active
  bool documents = false;        // the input "documents" masks attention
  bool loss = true;              // the input "targets" and the loss; otherwise logits
  bool head_similarity = false;  // the auxiliary loss is computed
  int64_t cache_length = 0;  // > 0: generation with caches so long; the input "length" counts valid tokens
};

// What a model adds to a graph. Inputs, by name: ids i32 [B, T]; targets i32 [B, T] (kIgnoreIndex where there
// is none); documents i32 [B, T] (-1 is padding); rng i32 [4] when dropout is active; length i32 scalar with
// caches.
struct ModelGraph {
  std::vector<Parameter> parameters;  // in the order of the model
  std::vector<Value> wide, narrow;    // per parameter: the states read; empty where not
  Value hidden;                       // [B, T, D] after the final norm
  Value logits;                       // f32 [B, T, V]; without `loss`
  Value token_losses;                 // f32 [B T]; with `loss`: z-loss included, 0 at ignored targets
  Value head_similarity;              // f32 scalar, mean over layers, unweighted; if asked for
};

// Adds the model to the graph. Throws Error when the config cannot run like this (a length beyond
// max_position_embeddings, …).
ModelGraph build_model(Graph& graph, const ModelConfig& config, const ModelOptions& options);

// The parameters alone: traced from a tiny graph, without building the model.
std::vector<Parameter> model_parameters(const ModelConfig& config);

// Fills every trained parameter's state by its rule, from Philox streams keyed by (seed, name): the same
// weights whatever else the state holds. For nGPT the matrices are brought to unit length.
void initialize_parameters(State& state, const std::vector<Parameter>& parameters, uint64_t seed);

}  // namespace nf
