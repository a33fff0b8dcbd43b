#include "models/lora.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "models/model.h"
#include "nf/json.h"

namespace nf {
namespace {

constexpr std::string_view kAll = "all-linear";  // PEFT's word for it
constexpr std::string_view kA = ".lora_A.weight", kB = ".lora_B.weight", kWeight = ".weight";
constexpr int64_t kMaxRank = 1 << 16;

template <typename Number>
Number number_of(std::string_view text, std::string_view key, std::string_view source) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(error == std::errc() && end == text.data() + text.size(), "{}: '{}' is '{}', not a number", source,
          key, printable(text));
  return value;
}

}  // namespace

bool LoraConfig::adapts(std::string_view projection) const {
  return std::find(targets.begin(), targets.end(), projection) != targets.end();
}

LoraConfig parse_lora(std::string_view text, std::string_view source) {
  LoraConfig lora;
  std::string_view key;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    std::string_view item = text.substr(0, comma);
    text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
    if (const size_t equals = item.find('='); equals != std::string_view::npos) {
      key = item.substr(0, equals);
      item.remove_prefix(equals + 1);
      if (key == "targets") lora.targets.clear();
    } else {  // one more of a list
      require(key == "targets", "{}: takes r=8,alpha=16,targets=q_proj,v_proj,dropout=0.05, not '{}'", source,
              printable(item));
    }
    if (key == "r")
      lora.rank = number_of<int64_t>(item, key, source);
    else if (key == "alpha")
      lora.alpha = number_of<double>(item, key, source);
    else if (key == "dropout")
      lora.dropout = number_of<double>(item, key, source);
    else if (key == "targets")
      lora.targets.emplace_back(item);
    else
      fail("{}: unknown '{}'; there are r, alpha, targets and dropout", source, printable(key));
  }
  return lora;
}

std::vector<Projection> projections(const ModelConfig& c) {
  const int64_t hidden = c.hidden_size, heads = c.num_attention_heads;
  std::vector<Projection> result;
  if (c.attention_type == AttentionType::mla) {
    const int64_t query = heads * (c.qk_nope_head_dim + c.qk_rope_head_dim);
    if (c.q_lora_rank)
      result = {{"q_a_proj", *c.q_lora_rank, hidden}, {"q_b_proj", query, *c.q_lora_rank}};
    else
      result = {{"q_proj", query, hidden}};
    result.push_back({"kv_a_proj_with_mqa", c.kv_lora_rank + c.qk_rope_head_dim, hidden});
    result.push_back({"kv_b_proj", heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank});
    result.push_back({"o_proj", hidden, heads * c.v_head_dim});
  } else {
    const int64_t keys = c.num_key_value_heads * c.head_dim;
    result = {{"q_proj", heads * c.head_dim, hidden},
              {"k_proj", keys, hidden},
              {"v_proj", keys, hidden},
              {"o_proj", hidden, heads * c.head_dim}};
  }
  result.push_back({"gate_proj", c.intermediate_size, hidden});
  result.push_back({"up_proj", c.intermediate_size, hidden});
  result.push_back({"down_proj", hidden, c.intermediate_size});
  return result;
}

void resolve_lora(ModelConfig& config, std::string_view source) {
  if (!config.lora) return;
  LoraConfig& lora = *config.lora;
  require(config.attention_type != AttentionType::ngpt,
          "{}: 'lora': ngpt keeps its matrices at unit length, which they lose with an adapter on top",
          source);
  require(lora.rank >= 1 && lora.rank <= kMaxRank, "{}: 'lora': r is {}, it must lie in 1 to {}", source,
          lora.rank, kMaxRank);
  require(std::isfinite(lora.alpha) && lora.alpha > 0, "{}: 'lora': alpha is {}, it must be positive", source,
          lora.alpha);
  require(lora.dropout >= 0 && lora.dropout < 1,
          "{}: 'lora': dropout is {}, it must be at least 0 and below 1", source, lora.dropout);
  std::vector<std::string_view> known;
  for (const Projection& projection : projections(config)) known.push_back(projection.name);
  if (lora.targets == std::vector<std::string>{std::string(kAll)})
    lora.targets.assign(known.begin(), known.end());
  require(!lora.targets.empty(), "{}: 'lora' needs targets: some of {}, or {}", source,
          fmt::join(known, ", "), kAll);
  for (const std::string& target : lora.targets)
    require(std::find(known.begin(), known.end(), target) != known.end(),
            "{}: 'lora': {} has no projection '{}'; there are {}", source, name(config.attention_type),
            printable(target), fmt::join(known, ", "));
}

void merge_lora(State& state, const ModelConfig& config, const std::vector<Parameter>& parameters) {
  Graph graph;
  for (const Parameter& b : parameters) {
    if (!b.name.ends_with(kB)) continue;
    const std::string stem = b.name.substr(0, b.name.size() - kB.size());
    const TensorType& a = state.type(stem + std::string(kA));
    const Value low = nf::state(graph, stem + std::string(kA), DType::f32, a.shape),
                high = nf::state(graph, b.name, DType::f32, b.shape),
                weight = nf::state(graph, stem + std::string(kWeight), DType::f32, {b.shape[0], a.shape[1]});
    assign(weight, weight + matmul(high, low) * config.lora->scale());
  }
  compile(graph, std::shared_ptr<State>(std::shared_ptr<State>(), &state), {.name = "merge_lora"})->run();
  for (const Parameter& p : parameters)
    if (p.adapter) state.erase(p.name);
}

}  // namespace nf
