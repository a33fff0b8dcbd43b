// The sections of a tokenizer.json that say how text is prepared and put together again; see hugging_face.h.
// Every function throws Error that names the section and what is wrong with it or not supported.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "tools/tokenizer/bpe_tokenizer.h"

namespace nf::hugging_face {

using Json = nlohmann::json;

// A JSON object whose values are asked for by key and type.
class Object {
 public:
  Object(const Json& json, std::string what);

  const std::string& what() const { return what_; }
  const Json& value(const char* key) const;  // null when there is none
  std::string text(const char* key) const;
  std::string text_or(const char* key, std::string_view otherwise) const;  // also for null
  bool flag(const char* key, bool otherwise = false) const;                // also for null
  int64_t count(const char* key) const;

 private:
  const Json& json_;
  std::string what_;
};

// Whether it ends in ByteLevel: the model's symbols are bytes then.
bool read_pre_tokenizer(const Json& json, PreTokenizer& out);

void read_normalizer(const Json& json, Normalizer& out);

struct Template {
  std::optional<int32_t> before, behind;  // the token put before and behind a text
};
Template read_post_processor(const Json& json);

// How names in the vocabulary become text.
struct Decoder {
  struct ByteLevel {};
  struct ByteFallback {};
  struct Replace {
    std::string text, by;
  };
  struct Metaspace {
    std::string replacement;
    bool drops_first;  // at the start of the text, the replacement becomes nothing instead of a blank
  };
  std::vector<std::variant<ByteLevel, ByteFallback, Replace, Metaspace, DecodedStrip>>
      steps;                         // of every token
  std::vector<DecodedStrip> strips;  // of the whole text

  std::string piece(std::string name, bool first) const;
  bool first_differs() const;
};
Decoder read_decoder(const Json& json, bool bytes);

}  // namespace nf::hugging_face
