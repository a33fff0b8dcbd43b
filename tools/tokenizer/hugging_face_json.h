// The JSON of a tokenizer.json: a vocabulary and merges of hundreds of thousands of entries, which are read
// where they were parsed, and the rest, which is small.
#pragma once

#include <simdjson.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace nf::hugging_face {

class TokenizerJson {
 public:
  using Element = simdjson::dom::element;

  // Throws Error "source: …" as check_json() does. `text` is read only here.
  TokenizerJson(const std::string& text, const std::string& source);

  bool is_object() const { return rest_.is_object(); }
  // All but model.vocab and model.merges.
  const nlohmann::json& rest() const { return rest_; }
  // Live as long as this does.
  const std::optional<Element>& vocab() const { return vocab_; }
  const std::optional<Element>& merges() const { return merges_; }

 private:
  nlohmann::json copy(const Element& element, int depth, bool is_model);

  std::string source_;
  simdjson::dom::parser parser_;
  nlohmann::json rest_;
  std::optional<Element> vocab_, merges_;
};

}  // namespace nf::hugging_face
