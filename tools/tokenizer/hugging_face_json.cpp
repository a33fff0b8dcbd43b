#include "tools/tokenizer/hugging_face_json.h"

#include <nf/error.h>
#include <nf/json.h>

namespace nf::hugging_face {
namespace {

using Json = nlohmann::json;
using Type = simdjson::dom::element_type;

constexpr int kMaxDepth = 64;  // as check_json()

}  // namespace

TokenizerJson::TokenizerJson(const std::string& text, const std::string& source) : source_(source) {
  Element document;
  if (const auto error = parser_.parse(text).get(document)) {
    check_json(text, source);  // says where
    fail("{}: not valid JSON, {}", source, simdjson::error_message(error));
  }
  rest_ = copy(document, 0, false);
}

Json TokenizerJson::copy(const Element& element, int depth, bool is_model) {
  require(depth < kMaxDepth || !(element.is_array() || element.is_object()),
          "{}: JSON nested deeper than {} levels", source_, kMaxDepth);
  switch (element.type()) {
    case Type::ARRAY: {
      Json list = Json::array();
      for (const Element& entry : simdjson::dom::array(element))
        list.push_back(copy(entry, depth + 1, false));
      return list;
    }
    case Type::OBJECT: {
      Json object = Json::object();
      for (const auto& [key, value] : simdjson::dom::object(element)) {
        const bool apart = is_model && (key == "vocab" || key == "merges");
        if (apart) (key == "vocab" ? vocab_ : merges_) = value;
        Json inner = apart ? Json() : copy(value, depth + 1, depth == 0 && key == "model");
        if (!object.emplace(std::string(key), std::move(inner)).second)
          fail("{}: key '{}' is given twice in one object; keep one of them", source_, printable(key));
      }
      return object;
    }
    case Type::STRING: return std::string(std::string_view(element));
    case Type::INT64: return int64_t(element);
    case Type::UINT64: return uint64_t(element);
    case Type::DOUBLE: return double(element);
    case Type::BOOL: return bool(element);
    case Type::NULL_VALUE: return nullptr;
  }
  return nullptr;
}

}  // namespace nf::hugging_face
