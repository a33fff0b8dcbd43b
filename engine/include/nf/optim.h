// Optimizers as graph builders, and learning-rate schedules.
//
// An optimizer adds its update to a graph like any other computation, so the compiler fuses it: AdamW is one
// loop per parameter. Its memory is State: "adamw.m/NAME", "adamw.v/NAME", "momentum/NAME", "ema/NAME", all
// f32. Formulas are those of the papers; AdamW equals torch.optim.AdamW.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "nf/graph.h"

namespace nf {

enum class Optimizer : uint8_t {
  adamw,  // Loshchilov & Hutter, arXiv 1711.05101
  sgd,    // momentum, optionally Nesterov's; weight decay joins the gradient, as in torch.optim.SGD
  lion,   // Chen et al., arXiv 2302.06675
  muon,   // Jordan et al. 2024, for the matrices of the layers; AdamW for everything else
};
enum class MuonScaling : uint8_t {
  original,  // sqrt(max(1, rows / cols))
  moonshot,  // 0.2 sqrt(max(rows, cols)): the learning rate of AdamW carries over (arXiv 2502.16982)
};

struct OptimizerOptions {
  Optimizer optimizer = Optimizer::adamw;
  double weight_decay = 0.1;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;  // adamw; lion has no eps
  double momentum = 0.95;                        // sgd and muon
  bool nesterov = true;                          // sgd and muon
  MuonScaling muon_scaling = MuonScaling::original;
  DType muon_products = DType::f32;  // or bf16: the operands of newton_schulz
  double clip = 1;                   // largest global gradient norm; 0: no clipping
  double ema = 0;                    // decay of the averaged weights "ema/NAME"; 0: none
};

struct TrainedParameter {
  std::string name;
  Value weight;               // its f32 state
  Value gradient;             // f32, same shape
  bool decay = false;         // weight decay applies
  bool layer_matrix = false;  // a matrix inside a layer: Muon updates it
  int normalize_axis = -1;    // nGPT: scaled to unit length along this axis after the update; -1: not
};

struct OptimizerInputs {
  Value learning_rate;   // f32 scalar: eta of this step
  Value step;            // f32 scalar: 1, 2, …
  Value gradient_scale;  // f32 scalar that every gradient is multiplied by first: 1 / number of target tokens
};

struct OptimizerUpdate {
  Value gradient_norm;         // f32 scalar, before clipping
  std::vector<Value> weights;  // the new ones, in the parameters' order, already assigned to their states
};

// Adds clipping by global norm, the update, normalisation and the moving average to the graph, with the
// assignments to weights and moments. When the norm is not finite every state keeps its value. In step 1 the
// average starts at the weight from before the update (skipped or not), whatever its state held. Throws Error
// for options out of range and for parameters that do not fit them.
OptimizerUpdate optimizer_update(std::span<const TrainedParameter> parameters,
                                 const OptimizerOptions& options, const OptimizerInputs& inputs);

// The orthogonal factor that Muon moves along: five quintic Newton-Schulz steps on u / |u|; u is a matrix,
// f32, and so is the result. Its singular values lie in about [0.7, 1.2]. `products` is the dtype of the
// operands of the matrix products, f32 or bf16; they accumulate in f32.
Value newton_schulz(Value u, DType products = DType::f32);

enum class Schedule : uint8_t { constant, linear, cosine, wsd };
enum class DecayShape : uint8_t { linear, one_minus_sqrt };

struct ScheduleOptions {
  Schedule schedule = Schedule::cosine;
  int64_t warmup_steps = 0;
  int64_t total_steps = 1;
  double min_lr_ratio = 0.1;    // cosine: where it ends
  double decay_fraction = 0.2;  // wsd: the last part of the run
  DecayShape decay_shape = DecayShape::linear;
};

// The factor of the peak learning rate for the 1-based `step`: rises linearly over the warm-up, then
// constant; or linear to 0 as Hugging Face's get_linear_schedule_with_warmup; or half a cosine to
// min_lr_ratio; or stable with a decay to 0 at the end (warm-up, stable, decay). Always in [0, 1].
double learning_rate_factor(const ScheduleOptions& options, int64_t step);

}  // namespace nf
