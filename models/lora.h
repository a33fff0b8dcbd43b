// Low-rank adapters (Hu et al., arXiv 2106.09685): a trained model's projections y = W x become
// y = W x + (alpha / r) B A dropout(x), with A [r, in] and B [out, r] trained and everything else frozen.
//
// A starts random, B at 0, so that training begins at the model itself. A frozen matrix has no gradient, no
// moments and, where products take bf16, no f32 master either. The parameters of an adapter are
// "….q_proj.lora_A.weight" and "….q_proj.lora_B.weight".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nf {

class State;
struct ModelConfig;
struct Parameter;

struct LoraConfig {
  int64_t rank = 8;
  double alpha = 16;
  std::vector<std::string> targets = {"q_proj", "v_proj"};  // the last parts of the projections' names
  double dropout = 0;                                       // of A's input, while training

  bool operator==(const LoraConfig&) const = default;

  double scale() const { return alpha / static_cast<double>(rank); }
  bool adapts(std::string_view projection) const;
};

// "r=8,alpha=16,targets=q_proj,v_proj,dropout=0.05"; what is left out has its default, "targets=all-linear"
// is every projection of the layers. Throws Error `source: …`.
LoraConfig parse_lora(std::string_view text, std::string_view source);

// A matrix of a layer that an adapter can be added to.
struct Projection {
  std::string_view name;  // the last part: "q_proj"
  int64_t out, in;
};
std::vector<Projection> projections(const ModelConfig& config);

// Throws Error `source: 'lora' …` for a rank, factor or probability out of range, and for targets that the
// model lacks. Replaces "all-linear" by the names it stands for.
void resolve_lora(ModelConfig& config, std::string_view source);

// Adds the adapters to the f32 weights, W + (alpha / r) B A, and removes them from the State. `parameters`
// are those of the adapted `config`.
void merge_lora(State& state, const ModelConfig& config, const std::vector<Parameter>& parameters);

}  // namespace nf
