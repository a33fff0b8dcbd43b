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
  rest_ = copy(document, "", 0);
}

Json TokenizerJson::copy(const Element& element, std::string_view path, int depth) {
  require(depth <= kMaxDepth, "{}: JSON nested deeper than {} levels", source_, kMaxDepth);
  switch (element.type()) {
    case Type::ARRAY: {
      Json list = Json::array();
      for (const Element& entry : simdjson::dom::array(element)) list.push_back(copy(entry, "[]", depth + 1));
      return list;
    }
    case Type::OBJECT: {
      Json object = Json::object();
      for (const auto& [key, value] : simdjson::dom::object(element)) {
        const bool in_model = path == "model", is_vocab = in_model && key == "vocab";
        const bool apart = is_vocab || (in_model && key == "merges");
        const std::string_view inner = depth == 0 ? key : "[]";
        const bool is_new =
            object.emplace(std::string(key), apart ? Json() : copy(value, inner, depth + 1)).second;
        if (!is_new)
          fail("{}: key '{}' is given twice in one object; keep one of them", source_, printable(key));
        if (apart) (is_vocab ? vocab_ : merges_) = value;
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
