// mha and gqa as llama.cpp's architecture "llama", with norms of q and k as "qwen3".
//
// The first turns neighbouring pairs (2 j, 2 j + 1) of a head, ours and the second the pairs (j, j + d/2):
// for "llama" the rows of q_proj and k_proj are interleaved accordingly, as llama.cpp's own converter does.
#include "nf/gguf.h"

#include <cmath>
#include <cstring>
#include <deque>

#include "models/rope.h"
#include "nf/error.h"
#include "tools/export/export.h"
#include "tools/export/expressible.h"
#include "tools/export/tokenizer_files.h"

namespace nf {
namespace {

std::string architecture_of(const ModelConfig& c) { return c.qk_norm ? "qwen3" : "llama"; }

void check_expressible(const ModelConfig& c) {
  const std::string architecture = architecture_of(c);
  const auto need = [&](bool holds, std::string_view key) {
    require(holds, "export: llama.cpp's architecture \"{}\" has no word for this model's '{}'", architecture,
            key);
  };
  need(c.attention_type == AttentionType::mha || c.attention_type == AttentionType::gqa, "attention_type");
  need(c.hidden_act == Activation::silu, "hidden_act");
  need_usual_block(c, need);
  need(!c.sliding_window, "sliding_window");
  need(!c.qk_norm || !c.attention_bias, "attention_bias");
  need(!c.qk_norm || !c.output_bias(), "attention_output_bias");
  need(!c.qk_norm || !c.mlp_bias, "mlp_bias");
  if (c.rope_scaling)
    need(c.rope_scaling->type == RopeScalingType::linear || c.rope_scaling->type == RopeScalingType::llama3,
         "rope_scaling");
}

struct NamePart {
  std::string_view ours, theirs;
};
constexpr NamePart kLayerNames[] = {
    {"input_layernorm", "attn_norm"},    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},      {"self_attn.v_proj", "attn_v"},
    {"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.o_proj", "attn_output"}, {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"}};
constexpr NamePart kOtherNames[] = {{"model.embed_tokens.weight", "token_embd.weight"},
                                    {"model.norm.weight", "output_norm.weight"},
                                    {"lm_head.weight", "output.weight"}};

// "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight".
std::string gguf_name(std::string_view name) {
  for (const NamePart& row : kOtherNames)
    if (name == row.ours) return std::string(row.theirs);
  constexpr std::string_view kLayers = "model.layers.";
  if (name.starts_with(kLayers)) {
    const std::string_view rest = name.substr(kLayers.size());
    const size_t first = rest.find('.'), last = rest.rfind('.');
    for (const NamePart& row : kLayerNames)
      if (first < last && rest.substr(first + 1, last - first - 1) == row.ours)
        return fmt::format("blk.{}.{}{}", rest.substr(0, first), row.theirs, rest.substr(last));
  }
  fail("export: llama.cpp has no tensor for '{}'", name);
}

// Rows [heads, 2, d/2] -> [heads, d/2, 2]; the rows of a bias are its elements.
std::vector<std::byte> interleaved(const NamedTensor& tensor, int64_t heads) {
  const auto rows = static_cast<size_t>(tensor.shape[0]), row = tensor.bytes.size() / rows;
  const size_t width = rows / static_cast<size_t>(heads), half = width / 2;
  std::vector<std::byte> out(tensor.bytes.size());
  for (size_t i = 0; i < rows; ++i) {
    const size_t head = i / width, part = i % width / half, j = i % half;
    std::memcpy(out.data() + (head * width + 2 * j + part) * row, tensor.bytes.data() + i * row, row);
  }
  return out;
}

void set_sizes(GgufWriter& writer, const ModelConfig& c) {
  const std::string prefix = architecture_of(c) + '.';
  const auto count = [&](const char* key, int64_t value) {
    writer.set(prefix + key, static_cast<uint32_t>(value));
  };
  count("vocab_size", c.vocab_size);
  count("context_length", c.max_position_embeddings);
  count("embedding_length", c.hidden_size);
  count("block_count", c.num_hidden_layers);
  count("feed_forward_length", c.intermediate_size);
  count("attention.head_count", c.num_attention_heads);
  count("attention.head_count_kv", c.num_key_value_heads);
  count("attention.key_length", c.head_dim);
  count("attention.value_length", c.head_dim);
  count("rope.dimension_count", c.head_dim);
  writer.set(prefix + "rope.freq_base", static_cast<float>(c.rope_theta));
  writer.set(prefix + "attention.layer_norm_rms_epsilon", static_cast<float>(c.rms_norm_eps));
  if (c.rope_scaling && c.rope_scaling->type == RopeScalingType::linear) {
    writer.set(prefix + "rope.scaling.type", std::string("linear"));
    writer.set(prefix + "rope.scaling.factor", static_cast<float>(c.rope_scaling->factor));
  }
}

// What the frequencies are divided by: llama.cpp takes Llama 3's scaling as a tensor.
std::vector<float> frequency_factors(const ModelConfig& c) {
  ModelConfig plain = c;
  plain.rope_scaling.reset();
  const auto scaled = rope_frequencies(c, c.head_dim, c.max_position_embeddings).inverse,
             unscaled = rope_frequencies(plain, c.head_dim, c.max_position_embeddings).inverse;
  std::vector<float> factors;
  for (size_t j = 0; j < scaled.size(); ++j) factors.push_back(static_cast<float>(unscaled[j] / scaled[j]));
  return factors;
}

void set_tokenizer(GgufWriter& writer, const Tokenizer& tokenizer, int64_t vocab_size) {
  // Without being told, llama.cpp takes token 11 for the end, as in GPT-2's vocabulary.
  require(
      tokenizer.eos_id().has_value(),
      "export: llama.cpp needs an end-of-text token, and this {} tokenizer has none (it was made from one "
      "document); train with several documents or another tokenizer",
      tokenizer.name());
  ByteLevelVocabulary vocabulary = byte_level_vocabulary(tokenizer);
  vocabulary.tokens.resize(static_cast<size_t>(vocab_size));
  vocabulary.types.resize(static_cast<size_t>(vocab_size), ByteLevelVocabulary::kUnused);
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id)
    if (vocabulary.types[id] == ByteLevelVocabulary::kUnused)
      vocabulary.tokens[id] = fmt::format("[UNUSED{}]", id);
  writer.set("tokenizer.ggml.model", std::string("gpt2"));
  writer.set("tokenizer.ggml.pre", vocabulary.pre_tokenizer);
  writer.set("tokenizer.ggml.tokens", GgufArray(std::move(vocabulary.tokens)));
  writer.set("tokenizer.ggml.token_type", GgufArray(std::move(vocabulary.types)));
  writer.set("tokenizer.ggml.merges", GgufArray(std::move(vocabulary.merges)));
  const auto id = [](int32_t value) { return static_cast<uint32_t>(value); };
  writer.set("tokenizer.ggml.eos_token_id", id(*tokenizer.eos_id()));
  writer.set("tokenizer.ggml.bos_token_id", id(tokenizer.bos_id().value_or(*tokenizer.eos_id())));
  if (tokenizer.pad_id()) writer.set("tokenizer.ggml.padding_token_id", id(*tokenizer.pad_id()));
  writer.set("tokenizer.ggml.add_bos_token", tokenizer.bos_id().has_value());
  writer.set("tokenizer.ggml.add_eos_token", false);
}

uint32_t file_type(DType dtype) {  // llama.cpp's LLAMA_FTYPE
  if (dtype == DType::bf16) return 32;
  return dtype == DType::f16 ? 1 : 0;
}

}  // namespace

void write_gguf(const LoadedModel& model, const Tokenizer& tokenizer, const std::filesystem::path& out,
                DType dtype) {
  const ModelConfig& c = model.config;
  check_expressible(c);
  GgufWriter writer;
  writer.set("general.architecture", architecture_of(c));
  writer.set("general.name", out.stem().string());
  writer.set("general.file_type", file_type(dtype));
  set_sizes(writer, c);
  set_tokenizer(writer, tokenizer, c.vocab_size);

  const ConvertedWeights weights(model, dtype, true);
  std::deque<std::vector<std::byte>> memory;
  for (NamedTensor tensor : weights.tensors()) {
    const bool q = tensor.name.find(".q_proj.") != std::string::npos;
    if (!c.qk_norm && (q || tensor.name.find(".k_proj.") != std::string::npos))
      tensor.bytes =
          memory.emplace_back(interleaved(tensor, q ? c.num_attention_heads : c.num_key_value_heads));
    tensor.name = gguf_name(tensor.name);
    writer.add(std::move(tensor));
  }
  std::vector<float> factors;
  if (c.rope_scaling && c.rope_scaling->type == RopeScalingType::llama3) {
    factors = frequency_factors(c);
    writer.add({"rope_freqs.weight", DType::f32, {std::ssize(factors)}, std::as_bytes(std::span(factors))});
  }
  writer.write(out);
}

}  // namespace nf
