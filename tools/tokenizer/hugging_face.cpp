#include "tools/tokenizer/hugging_face.h"

#include <nf/error.h>
#include <nf/json.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tools/tokenizer/byte_letters.h"
#include "tools/tokenizer/hugging_face_json.h"
#include "tools/tokenizer/hugging_face_parts.h"
#include "tools/tokenizer/token_table.h"

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

// A file holds hundreds of thousands of tokens and merges: what an error would say about one of them is put
// together when there is an error.

using Element = TokenizerJson::Element;

std::optional<int32_t> valid_id(int64_t id) {
  return id >= 0 && id < kMostTokens ? std::optional(static_cast<int32_t>(id)) : std::nullopt;
}

[[noreturn]] void fail_id(std::string_view what, std::string_view value) {
  fail("{} must be a whole number from 0 to {}, not {}", what, kMostTokens - 1, printable(value));
}

int32_t id_of(const Json& value, std::string_view what) {
  const auto id = value.is_number_integer() ? valid_id(value.get<int64_t>()) : std::nullopt;
  if (!id) fail_id(what, value.dump());
  return *id;
}

struct Vocabulary {
  std::vector<std::string> names;  // by id; empty: a hole
  TokenTable ids;                  // of names in the file's JSON

  int32_t at(std::string_view name, std::string_view what) const {
    if (const auto id = ids.find(name)) return *id;
    fail("{}: '{}' is not in the vocabulary", what, printable(name));
  }
};

Vocabulary read_vocabulary(const std::optional<Element>& json) {
  simdjson::dom::object entries;
  require(json && json->get(entries) == simdjson::SUCCESS && entries.begin() != entries.end(),
          "model.vocab must be an object of tokens and ids");
  Vocabulary vocabulary;
  const auto expected = static_cast<size_t>(std::distance(entries.begin(), entries.end()));
  vocabulary.ids = TokenTable(expected);
  vocabulary.names.reserve(expected);
  for (const auto& [name, value] : entries) {
    int64_t number = -1;
    const auto found = value.get(number) == simdjson::SUCCESS ? valid_id(number) : std::nullopt;
    if (!found) fail_id(fmt::format("model.vocab: the id of '{}'", printable(name)), simdjson::minify(value));
    require(!name.empty(), "model.vocab: a token is empty");
    const auto id = static_cast<size_t>(*found);
    if (vocabulary.names.size() <= id) vocabulary.names.resize(id + 1);
    if (!vocabulary.names[id].empty())
      fail("model.vocab: id {} is '{}' and '{}'", id, printable(vocabulary.names[id]), printable(name));
    vocabulary.names[id] = name;
    if (!vocabulary.ids.add(name, *found))
      fail("model.vocab: '{}' is given twice; keep one of them", printable(name));
  }
  return vocabulary;
}

// The two tokens of a merge: "left right", or ["left", "right"].
std::pair<std::string_view, std::string_view> merge_names(const Element& entry, size_t number) {
  std::string_view text;
  if (entry.get(text) == simdjson::SUCCESS) {
    const size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
      fail("model.merges: entry {}: '{}' is not two tokens with a blank between them", number,
           printable(text));
    return {text.substr(0, space), text.substr(space + 1)};
  }
  simdjson::dom::array pair;
  std::string_view left, right;
  require(entry.get(pair) == simdjson::SUCCESS && pair.size() == 2 &&
              pair.at(0).get(left) == simdjson::SUCCESS && pair.at(1).get(right) == simdjson::SUCCESS,
          "model.merges: entry {}: neither a text nor a pair of texts", number);
  return {left, right};
}

std::vector<BpeMerge> read_merges(const std::optional<Element>& json, const Vocabulary& vocabulary) {
  simdjson::dom::array entries;
  require(json && json->get(entries) == simdjson::SUCCESS, "model.merges must be a list");
  std::vector<BpeMerge> merges;
  for (const Element& entry : entries) {
    const auto id = [&](std::string_view name) {
      const auto found = vocabulary.ids.find(name);
      return found ? *found : vocabulary.at(name, fmt::format("model.merges: entry {}", merges.size()));
    };
    const auto [left, right] = merge_names(entry, merges.size());
    merges.push_back({id(left), id(right)});
  }
  return merges;
}

std::vector<int32_t> read_byte_fallback(const Vocabulary& vocabulary) {
  std::vector<int32_t> ids;
  for (int byte = 0; byte < 256; ++byte)
    ids.push_back(vocabulary.at(fmt::format("<0x{:02X}>", byte), "model.byte_fallback"));
  return ids;
}

BpeParts read_model(const TokenizerJson& json, const Vocabulary& vocabulary, bool bytes) {
  const Object model(json.rest()["model"], "model");
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
  parts.merges = read_merges(json.merges(), vocabulary);
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
    const std::optional<int32_t> known = vocabulary.ids.find(token.content);
    require((name.empty() || name == token.content) && (!known || *known == token.id),
            "{}: '{}' has id {}, elsewhere in the file that is not so", what, printable(token.content), id);
    name = token.content;
    vocabulary.ids.add(entry["content"].get_ref<const std::string&>(), token.id);
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

BpeTokenizerParts read_parts(const TokenizerJson& json) {
  const Object file(json.rest(), "");
  require(file.text_or("version", "1.0") == "1.0", "version {} is not supported",
          printable(file.text_or("version", "")));
  require(file.value("truncation").is_null(), "truncation is not supported: make it null");

  BpeTokenizerParts parts;
  const bool bytes = read_pre_tokenizer(file.value("pre_tokenizer"), parts.pre_tokenizer);
  read_normalizer(file.value("normalizer"), parts.normalizer);
  Vocabulary vocabulary = read_vocabulary(json.vocab());
  parts.model = read_model(json, vocabulary, bytes);
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

std::unique_ptr<BpeTokenizer> parse_hugging_face(std::string text, const std::string& source) {
  const hugging_face::TokenizerJson json(text, source);
  if (!json.is_object() || !json.rest().contains("model")) return nullptr;
  try {
    BpeTokenizerParts parts = hugging_face::read_parts(json);
    parts.json = std::move(text);
    return std::make_unique<BpeTokenizer>(std::move(parts));
  } catch (const Error& error) {
    fail("tokenizer: {}: {}", source, error.what());
  }
}

}  // namespace nf
