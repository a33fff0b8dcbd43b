#include "tools/tokenizer/hugging_face.h"

#include <nf/error.h>
#include <nf/json.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tools/tokenizer/byte_letters.h"
#include "tools/tokenizer/hugging_face_parts.h"

namespace nf::hugging_face {
namespace {

constexpr int32_t kMostTokens = 1 << 24;

// Special tokens that end a document, as families of models name theirs.
constexpr std::string_view kEndNames[] = {"<|endoftext|>",
                                          "</s>",
                                          "<|end_of_text|>",
                                          "<eos>",
                                          "<|eos|>",
                                          "[EOS]",
                                          "<EOS>",
                                          "<|EOT|>",
                                          "<\xEF\xBD\x9C"
                                          "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};

int32_t id_of(const Json& value, const std::string& what) {
  require(value.is_number_integer() && value >= 0 && value < kMostTokens,
          "{} must be a whole number from 0 to {}, not {}", what, kMostTokens - 1, printable(value.dump()));
  return value.get<int32_t>();
}

struct Vocabulary {
  std::vector<std::string> names;  // by id; empty: a hole
  std::unordered_map<std::string, int32_t> ids;

  int32_t at(const std::string& name, std::string_view what) const {
    const auto found = ids.find(name);
    require(found != ids.end(), "{}: '{}' is not in the vocabulary", what, printable(name));
    return found->second;
  }
};

Vocabulary read_vocabulary(const Json& json) {
  require(json.is_object() && !json.empty(), "model.vocab must be an object of tokens and ids");
  Vocabulary vocabulary;
  vocabulary.ids.reserve(json.size());
  for (const auto& [name, value] : json.items()) {
    const auto id =
        static_cast<size_t>(id_of(value, fmt::format("model.vocab: the id of '{}'", printable(name))));
    require(!name.empty(), "model.vocab: a token is empty");
    if (vocabulary.names.size() <= id) vocabulary.names.resize(id + 1);
    require(vocabulary.names[id].empty(), "model.vocab: id {} is '{}' and '{}'", id,
            printable(vocabulary.names[id]), printable(name));
    vocabulary.names[id] = name;
    vocabulary.ids.emplace(name, static_cast<int32_t>(id));
  }
  return vocabulary;
}

std::vector<BpeMerge> read_merges(const Json& json, const Vocabulary& vocabulary) {
  require(json.is_array(), "model.merges must be a list");
  std::vector<BpeMerge> merges;
  merges.reserve(json.size());
  for (const Json& entry : json) {
    const std::string what = fmt::format("model.merges: entry {}", merges.size());
    std::string left, right;
    if (entry.is_string()) {
      const auto& text = entry.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      require(space != std::string::npos && text.find(' ', space + 1) == std::string::npos,
              "{}: '{}' is not two tokens with a blank between them", what, printable(text));
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else {
      require(entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string(),
              "{}: neither a text nor a pair of texts", what);
      left = entry[0].get<std::string>();
      right = entry[1].get<std::string>();
    }
    merges.push_back({vocabulary.at(left, what), vocabulary.at(right, what)});
  }
  return merges;
}

std::vector<int32_t> read_byte_fallback(const Vocabulary& vocabulary) {
  std::vector<int32_t> ids;
  for (int byte = 0; byte < 256; ++byte)
    ids.push_back(vocabulary.at(fmt::format("<0x{:02X}>", byte), "model.byte_fallback"));
  return ids;
}

BpeParts read_model(const Json& json, const Vocabulary& vocabulary, bool bytes) {
  const Object model(json, "model");
  require(model.text_or("type", "BPE") == "BPE", "model type {} is not supported",
          printable(model.text_or("type", "")));
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    require(model.text_or(key, "").empty(), "model.{} is not supported", key);
  const Json& dropout = model.value("dropout");
  require(dropout.is_null() || dropout == 0, "model.dropout is not supported");

  BpeParts parts;
  parts.bytes = bytes;
  for (const std::string& name : vocabulary.names)
    parts.tokens.push_back(bytes ? from_byte_letters(name).value_or("") : name);
  parts.merges = read_merges(model.value("merges"), vocabulary);
  parts.ignore_merges = model.flag("ignore_merges");
  parts.fuse_unknown = model.flag("fuse_unk");
  if (model.flag("byte_fallback")) parts.byte_fallback = read_byte_fallback(vocabulary);
  if (const std::string unknown = model.text_or("unk_token", ""); !unknown.empty())
    parts.unknown = vocabulary.at(unknown, "model.unk_token");
  return parts;
}

std::vector<AddedToken> read_added_tokens(const Json& json, Vocabulary& vocabulary) {
  require(json.is_null() || json.is_array(), "added_tokens must be a list");
  std::vector<AddedToken> tokens;
  for (const Json& entry : json) {
    const std::string what = fmt::format("added_tokens: entry {}", tokens.size());
    const Object object(entry, what);
    AddedToken token{.id = id_of(object.value("id"), what + ": id"),
                     .content = object.text("content"),
                     .special = object.flag("special"),
                     .single_word = object.flag("single_word"),
                     .lstrip = object.flag("lstrip"),
                     .rstrip = object.flag("rstrip"),
                     .normalized = object.flag("normalized")};
    require(!token.content.empty(), "{}: content is empty", what);
    const auto id = static_cast<size_t>(token.id);
    if (vocabulary.names.size() <= id) vocabulary.names.resize(id + 1);
    std::string& name = vocabulary.names[id];
    const auto known = vocabulary.ids.find(token.content);
    require((name.empty() || name == token.content) &&
                (known == vocabulary.ids.end() || known->second == token.id),
            "{}: '{}' has id {}, elsewhere in the file that is not so", what, printable(token.content), id);
    name = token.content;
    vocabulary.ids.emplace(token.content, token.id);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

std::optional<int32_t> end_by_name(const std::vector<AddedToken>& tokens) {
  for (const std::string_view name : kEndNames)
    for (const AddedToken& token : tokens)
      if (token.special && token.content == name) return token.id;
  return std::nullopt;
}

BpeTokenizerParts read_parts(const Json& json) {
  const Object file(json, "");
  require(file.text_or("version", "1.0") == "1.0", "version {} is not supported",
          printable(file.text_or("version", "")));
  require(file.value("truncation").is_null(), "truncation is not supported: make it null");

  BpeTokenizerParts parts;
  const bool bytes = read_pre_tokenizer(file.value("pre_tokenizer"), parts.pre_tokenizer);
  read_normalizer(file.value("normalizer"), parts.normalizer);
  Vocabulary vocabulary = read_vocabulary(Object(file.value("model"), "model").value("vocab"));
  parts.model = read_model(file.value("model"), vocabulary, bytes);
  parts.added = read_added_tokens(file.value("added_tokens"), vocabulary);

  const Template form = read_post_processor(file.value("post_processor"));
  const auto exists = [&](const std::optional<int32_t>& id) {
    return !id || (static_cast<size_t>(*id) < vocabulary.names.size() &&
                   !vocabulary.names[static_cast<size_t>(*id)].empty());
  };
  require(exists(form.before) && exists(form.behind), "post_processor: a token is not in the vocabulary");
  parts.bos = form.before;
  parts.eos = form.behind ? form.behind : end_by_name(parts.added);
  if (const Json& padding = file.value("padding"); padding.is_object() && padding.contains("pad_id"))
    parts.pad = id_of(padding["pad_id"], "padding.pad_id");
  require(exists(parts.pad), "padding.pad_id is not in the vocabulary");

  const Decoder decoder = read_decoder(file.value("decoder"), bytes);
  Regex::Matcher matcher;
  std::string memory;
  for (const AddedToken& token : parts.added) {
    std::string& name = vocabulary.names[static_cast<size_t>(token.id)];
    if (token.special)
      name.clear();  // has no text
    else if (token.normalized)
      name = parts.normalizer.normalize(token.content, memory, matcher);
  }
  for (const std::string& name : vocabulary.names) parts.pieces.push_back(decoder.piece(name, false));
  if (decoder.first_differs())
    for (const std::string& name : vocabulary.names) parts.first_pieces.push_back(decoder.piece(name, true));
  parts.strips = decoder.strips;
  return parts;
}

}  // namespace
}  // namespace nf::hugging_face

namespace nf {

std::unique_ptr<BpeTokenizer> parse_hugging_face(const nlohmann::json& json, std::string text,
                                                 const std::string& source) {
  try {
    BpeTokenizerParts parts = hugging_face::read_parts(json);
    parts.json = std::move(text);
    return std::make_unique<BpeTokenizer>(std::move(parts));
  } catch (const Error& error) {
    fail("tokenizer: {}: {}", source, error.what());
  }
}

}  // namespace nf
