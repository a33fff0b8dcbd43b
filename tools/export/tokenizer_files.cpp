#include "tools/export/tokenizer_files.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "nf/error.h"
#include "nf/json.h"
#include "tools/tokenizer/byte_letters.h"
#include "tools/tokenizer/hugging_face_file.h"
#include "tools/tokenizer/scanners.h"

namespace nf {
namespace {

using Ordered = nlohmann::ordered_json;

constexpr const char* kEndOfText = "<|endoftext|>";

Ordered parsed(const Tokenizer& tokenizer) { return Ordered::parse(tokenizer.to_json()); }

bool is_ours(const Ordered& json, std::string_view kind) { return json.value("kind", Ordered()) == kind; }

// A BPE without merges, its special token behind its vocabulary.
Ordered plain_bpe(Ordered vocabulary, std::optional<int32_t> end_of_text, Ordered pre_tokenizer,
                  Ordered decoder) {
  Ordered added = Ordered::array();
  if (end_of_text) {
    vocabulary[kEndOfText] = *end_of_text;
    added.push_back(special_token(*end_of_text, kEndOfText));
  }
  return bpe_file({std::move(vocabulary), Ordered::array(), std::move(added), std::move(pre_tokenizer),
                   std::move(decoder)});
}

Ordered byte_bpe(const Tokenizer& tokenizer) {
  Ordered vocabulary = Ordered::object();
  for (int byte = 0; byte < 256; ++byte)
    vocabulary[to_byte_letters(std::string(1, static_cast<char>(byte)))] = byte;
  return plain_bpe(std::move(vocabulary), tokenizer.eos_id(), byte_level(false), byte_level(true));
}

Ordered char_bpe(const Tokenizer& tokenizer, const Ordered& ours) {
  Ordered vocabulary = Ordered::object();
  auto& items = vocabulary.get_ref<Ordered::object_t&>();  // past the object's own linear search
  for (const Ordered& character : ours["characters"]) {
    const auto id = static_cast<int64_t>(items.size());
    items.emplace_back(character.get<std::string>(), id);
  }
  return plain_bpe(std::move(vocabulary), tokenizer.eos_id(), nullptr, {{"type", "Fuse"}});
}

// The spelling of a special token.
std::optional<std::string> content_of(const Ordered& file, std::optional<int32_t> id) {
  if (!id) return std::nullopt;
  for (const Ordered& token : file.value("added_tokens", Ordered::array()))
    if (token.value("id", Ordered()) == *id) return token.value("content", "");
  return std::nullopt;
}

Ordered hugging_face_json(const Tokenizer& tokenizer) {
  const Ordered json = parsed(tokenizer);
  if (is_ours(json, "byte")) return byte_bpe(tokenizer);
  if (is_ours(json, "char")) return char_bpe(tokenizer, json);
  return json;
}

// --- for GGUF

// Characters of more than one byte are put together by merges, from the left; what lies between needs no
// token.
void merge_bytes(std::string_view character, std::vector<std::string>& merges) {
  for (size_t bytes = 1; bytes < character.size(); ++bytes) {
    std::string merge =
        to_byte_letters(character.substr(0, bytes)) + ' ' + to_byte_letters(character.substr(bytes, 1));
    if (std::find(merges.end() - static_cast<ptrdiff_t>(std::min<size_t>(merges.size(), 4)), merges.end(),
                  merge) == merges.end())
      merges.push_back(std::move(merge));
  }
}

struct PreTokenizer {
  std::string_view pattern, name;
};
// The patterns of well-known tokenizers, and what llama.cpp calls them.
constexpr PreTokenizer kPreTokenizers[] = {
    {kGpt2Pattern, "gpt-2"}, {kLlama3Pattern, "llama-bpe"}, {kQwen2Pattern, "qwen2"}};

// What cuts text into words: the pattern of a Split, or GPT-2's inside ByteLevel; "" when nothing does.
// Anything else is an Error.
std::string word_pattern(const Ordered& pre_tokenizer) {
  std::vector<Ordered> steps = {pre_tokenizer};
  if (pre_tokenizer.value("type", "") == "Sequence")
    steps = pre_tokenizer.value("pretokenizers", Ordered::array()).get<std::vector<Ordered>>();
  std::string pattern;
  bool byte_level = false;
  for (const Ordered& step : steps) {
    const std::string type = step.value("type", "");
    const bool supported = type == "ByteLevel" || (type == "Split" && pattern.empty());
    require(supported, "gguf: a pre_tokenizer with {} cannot be expressed",
            type.empty() ? "nothing in it" : printable(type));
    if (type == "ByteLevel") {
      byte_level = true;
      require(!step.value("add_prefix_space", false), "gguf: 'add_prefix_space' cannot be expressed");
      const bool cuts = step.value("use_regex", true);
      require(!cuts || pattern.empty(), "gguf: a pre_tokenizer that cuts text twice cannot be expressed");
      if (cuts) pattern = kGpt2Pattern;
    } else {
      pattern = step.value("pattern", Ordered::object()).value("Regex", "");
      require(!pattern.empty(), "gguf: a pre_tokenizer that splits at a fixed text cannot be expressed");
    }
    if (byte_level) break;
  }
  require(byte_level, "gguf: only byte-level tokenizers can be expressed");
  return pattern;
}

std::string pre_tokenizer_name(const Ordered& file) {
  const std::string pattern = word_pattern(file.value("pre_tokenizer", Ordered::object()));
  if (pattern.empty()) {
    require(file["model"].value("merges", Ordered::array()).empty(),
            "gguf: a tokenizer that does not cut text into words before its merges cannot be expressed");
    return "gpt-2";  // without merges it does not matter how text is cut
  }
  for (const PreTokenizer& known : kPreTokenizers)
    if (pattern == known.pattern) return std::string(known.name);
  fail("gguf: llama.cpp has no name for the pre_tokenizer pattern {}", printable(pattern));
}

ByteLevelVocabulary empty_vocabulary(const Tokenizer& tokenizer) {
  const auto size = static_cast<size_t>(tokenizer.vocab_size());
  ByteLevelVocabulary result;
  result.tokens.resize(size);
  result.types.assign(size, ByteLevelVocabulary::kUnused);
  return result;
}

void set_token(ByteLevelVocabulary& vocabulary, const Ordered& id, std::string text, int32_t type) {
  const auto at = id.is_number_integer() ? id.get<int64_t>() : -1;
  require(at >= 0 && at < std::ssize(vocabulary.tokens),
          "gguf: the id {} of token '{}' is outside the vocabulary", id.dump(), printable(text));
  vocabulary.tokens[static_cast<size_t>(at)] = std::move(text);
  vocabulary.types[static_cast<size_t>(at)] = type;
}

ByteLevelVocabulary char_vocabulary(const Tokenizer& tokenizer, const Ordered& ours) {
  ByteLevelVocabulary result = empty_vocabulary(tokenizer);
  size_t id = 0;
  for (const Ordered& item : ours["characters"]) {
    const auto character = item.get<std::string>();
    set_token(result, id++, to_byte_letters(character), ByteLevelVocabulary::kNormal);
    merge_bytes(character, result.merges);
  }
  if (const auto end = tokenizer.eos_id()) set_token(result, *end, kEndOfText, ByteLevelVocabulary::kControl);
  result.pre_tokenizer = "gpt-2";
  return result;
}

}  // namespace

std::string hugging_face_tokenizer(const Tokenizer& tokenizer) {
  return hugging_face_json(tokenizer).dump(1) + "\n";
}

std::string tokenizer_config(const Tokenizer& tokenizer, int64_t longest) {
  const Ordered file = hugging_face_json(tokenizer);
  Ordered config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                    {"model_max_length", longest},
                    {"clean_up_tokenization_spaces", false}};
  const auto set = [&](const char* key, std::optional<int32_t> id) {
    if (const auto content = content_of(file, id)) config[key] = *content;
  };
  set("bos_token", tokenizer.bos_id());
  set("eos_token", tokenizer.eos_id());
  set("pad_token", tokenizer.pad_id());
  return config.dump(2) + "\n";
}

std::string generation_config(const Tokenizer& tokenizer) {
  Ordered config = Ordered::object();
  const auto set = [&](const char* key, std::optional<int32_t> id) {
    if (id) config[key] = *id;
  };
  set("bos_token_id", tokenizer.bos_id());
  set("eos_token_id", tokenizer.eos_id());
  set("pad_token_id", tokenizer.pad_id());
  return config.dump(2) + "\n";
}

ByteLevelVocabulary byte_level_vocabulary(const Tokenizer& tokenizer) {
  if (const Ordered ours = parsed(tokenizer); is_ours(ours, "char")) return char_vocabulary(tokenizer, ours);
  const Ordered file = hugging_face_json(tokenizer);
  const Ordered model = file.value("model", Ordered::object());
  require(model.value("type", "") == "BPE", "gguf: a tokenizer of type {} cannot be expressed",
          printable(model.value("type", "unknown")));
  require(file.value("normalizer", Ordered()).is_null(),
          "gguf: a tokenizer with a normalizer cannot be expressed");
  ByteLevelVocabulary result = empty_vocabulary(tokenizer);
  result.pre_tokenizer = pre_tokenizer_name(file);
  for (const auto& [token, id] : model["vocab"].items())
    set_token(result, id, token, ByteLevelVocabulary::kNormal);
  for (const Ordered& token : file.value("added_tokens", Ordered::array()))
    set_token(
        result, token["id"], token.value("content", ""),
        token.value("special", false) ? ByteLevelVocabulary::kControl : ByteLevelVocabulary::kUserDefined);
  for (const Ordered& merge : model["merges"])
    result.merges.push_back(merge.is_array() ? merge[0].get<std::string>() + ' ' + merge[1].get<std::string>()
                                             : merge.get<std::string>());
  return result;
}

}  // namespace nf
