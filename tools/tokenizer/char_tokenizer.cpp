#include "tools/tokenizer/char_tokenizer.h"

#include <nf/error.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

std::string utf8(char32_t code_point) {
  std::string text;
  append_utf8(text, code_point);
  return text;
}

// Calls visit(code point, byte offset, index of the character) for each character; Error for invalid UTF-8.
template <typename Visit>
void for_each_character(std::string_view text, Visit visit) {
  for (size_t at = 0, index = 0; at < text.size(); ++index) {
    const Utf8Character character = first_character(text.substr(at));
    require(character.kind == Utf8Character::Kind::whole, "tokenizer: invalid UTF-8 at byte {} of the text",
            at);
    visit(character.code_point, at, index);
    at += character.length;
  }
}

// A character as a message shows it: itself when it is visible, and its number.
std::string describe(char32_t code_point) {
  const bool control = code_point < 0x20 || (code_point >= 0x7F && code_point < 0xA0);
  return control ? fmt::format("U+{:04X}", static_cast<uint32_t>(code_point))
                 : fmt::format("'{}' (U+{:04X})", utf8(code_point), static_cast<uint32_t>(code_point));
}

}  // namespace

void CharTokenizer::Builder::add(std::string_view text) {
  for_each_character(text, [&](char32_t code_point, size_t, size_t) {
    if (code_point >= seen_.size()) seen_.resize(code_point + 1);
    seen_[code_point] = true;
  });
}

std::unique_ptr<CharTokenizer> CharTokenizer::Builder::finish(bool end_of_text) const {
  std::vector<char32_t> characters;
  for (size_t i = 0; i < seen_.size(); ++i)
    if (seen_[i]) characters.push_back(static_cast<char32_t>(i));
  require(!characters.empty(), "tokenizer: a char tokenizer needs training text, and there is none");
  return std::make_unique<CharTokenizer>(std::move(characters), end_of_text);
}

CharTokenizer::CharTokenizer(std::vector<char32_t> characters, bool end_of_text)
    : characters_(std::move(characters)), end_of_text_(end_of_text) {
  require(!characters_.empty(), "tokenizer: a char tokenizer needs at least one character");
  require(std::is_sorted(characters_.begin(), characters_.end(), std::less_equal<>()),
          "tokenizer: the characters of a char tokenizer must be distinct and ascending");
  ascii_.fill(-1);
  for (size_t i = 0; i < characters_.size() && characters_[i] < ascii_.size(); ++i)
    ascii_[characters_[i]] = static_cast<int32_t>(i);
}

int32_t CharTokenizer::vocab_size() const {
  return static_cast<int32_t>(characters_.size()) + (end_of_text_ ? 1 : 0);
}

std::optional<int32_t> CharTokenizer::eos_id() const {
  return end_of_text_ ? std::optional(static_cast<int32_t>(characters_.size())) : std::nullopt;
}

int32_t CharTokenizer::find(char32_t code_point) const {
  if (code_point < ascii_.size()) return ascii_[code_point];
  const auto found = std::lower_bound(characters_.begin(), characters_.end(), code_point);
  if (found == characters_.end() || *found != code_point) return -1;
  return static_cast<int32_t>(found - characters_.begin());
}

void CharTokenizer::encode(std::string_view text, std::vector<int32_t>& ids) const {
  for_each_character(text, [&](char32_t code_point, size_t byte, size_t index) {
    const int32_t id = find(code_point);
    if (id < 0)  // not require(): the description is dear
      fail(
          "tokenizer: {} at character {} (byte {}) is not among the {} characters of this char tokenizer; "
          "rebuild it on text that holds it, or use the byte tokenizer",
          describe(code_point), index, byte, characters_.size());
    ids.push_back(id);
  });
}

std::string CharTokenizer::decode(std::span<const int32_t> ids) const {
  std::string bytes;
  bytes.reserve(ids.size());
  for (const int32_t id : ids) {
    require(id >= 0 && id < vocab_size(), "tokenizer: id {} is outside the char vocabulary of {}", id,
            vocab_size());
    if (id != eos_id()) append_utf8(bytes, characters_[static_cast<size_t>(id)]);
  }
  return bytes;
}

std::string CharTokenizer::to_json() const {
  nlohmann::ordered_json json{{"format", "nanoformer-tokenizer"}, {"version", 1}, {"kind", "char"}};
  json["end_of_text"] = end_of_text_;
  json["characters"] = nlohmann::ordered_json::array();
  for (const char32_t code_point : characters_) json["characters"].push_back(utf8(code_point));
  return json.dump(1) + "\n";
}

}  // namespace nf
