#include "tools/tokenizer/hugging_face_parts.h"

#include <nf/error.h>
#include <nf/json.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <functional>

#include "tools/tokenizer/byte_letters.h"

namespace nf::hugging_face {
namespace {

// Calls `read` for an entry of a section, or for each one in its Sequence, with the entry's type.
using ReadEntry = std::function<void(const Object& entry, const std::string& type)>;
void for_each_entry(const Json& json, const std::string& section, const char* list, const ReadEntry& read) {
  if (json.is_null()) return;
  const Object entry(json, section);
  const std::string type = entry.text("type");
  if (type != "Sequence") return read(entry, type);
  const Json& entries = entry.value(list);
  require(entries.is_array(), "{}: '{}' of a Sequence must be a list", section, list);
  for (const Json& inner : entries) for_each_entry(inner, section, list, read);
}

[[noreturn]] void refuse(const Object& entry, const std::string& type) {
  fail("{} type {} is not supported", entry.what(), printable(type));
}

std::string not_empty(const Object& entry, const char* key) {
  std::string text = entry.text(key);
  require(!text.empty(), "{}: '{}' is empty", entry.what(), key);
  return text;
}

// {"String": …} or {"Regex": …}.
struct Pattern {
  std::string text;
  bool literal;
};
Pattern read_pattern(const Object& entry) {
  const Json& json = entry.value("pattern");
  require(json.is_object() && json.size() == 1, R"({}: pattern must be {{"String": …}} or {{"Regex": …}})",
          entry.what());
  const Object pattern(json, entry.what() + ": pattern");
  const bool literal = json.contains("String");
  const Pattern result{pattern.text(literal ? "String" : "Regex"), literal};
  require(!result.text.empty(), "{}: pattern is empty", entry.what());
  return result;
}

struct BehaviorName {
  std::string_view name;
  SplitBehavior behavior;
};
constexpr BehaviorName kBehaviors[] = {{"Removed", SplitBehavior::removed},
                                       {"Isolated", SplitBehavior::isolated},
                                       {"MergedWithPrevious", SplitBehavior::merged_with_previous},
                                       {"MergedWithNext", SplitBehavior::merged_with_next},
                                       {"Contiguous", SplitBehavior::contiguous}};

SplitBehavior read_behavior(const Object& entry) {
  const std::string name = entry.text("behavior");
  for (const BehaviorName& known : kBehaviors)
    if (known.name == name) return known.behavior;
  fail("{}: behavior {} is not supported", entry.what(), printable(name));
}

struct SchemeName {
  std::string_view name;
  PrependScheme scheme;
};
constexpr SchemeName kSchemes[] = {
    {"always", PrependScheme::always}, {"first", PrependScheme::first}, {"never", PrependScheme::never}};

// "add_prefix_space": false is how older files spell "never".
PrependScheme read_scheme(const Object& entry) {
  const std::string name =
      entry.text_or("prepend_scheme", entry.flag("add_prefix_space", true) ? "always" : "never");
  for (const SchemeName& known : kSchemes)
    if (known.name == name) return known.scheme;
  fail("{}: prepend_scheme {} is not supported", entry.what(), printable(name));
}

// "<0x0A>" is one byte.
std::string byte_or_same(const std::string& name) {
  unsigned byte = 0;
  if (name.size() != 6 || !name.starts_with("<0x") || name.back() != '>') return name;
  const auto [end, error] = std::from_chars(name.data() + 3, name.data() + 5, byte, 16);
  return error == std::errc() && end == name.data() + 5 ? std::string(1, static_cast<char>(byte)) : name;
}

std::string blanks(const std::string& name, const Decoder::Metaspace& kind, bool first) {
  return replace_all(name, kind.replacement, first && kind.drops_first ? "" : " ");
}

}  // namespace

Object::Object(const Json& json, std::string what) : json_(json), what_(std::move(what)) {
  require(json.is_object(), "{} must be an object", what_);
}

const Json& Object::value(const char* key) const {
  static const Json null;
  const auto found = json_.find(key);
  return found == json_.end() ? null : *found;
}

std::string Object::text(const char* key) const {
  const Json& found = value(key);
  require(found.is_string(), "{}: '{}' must be a text", what_, key);
  return found.get<std::string>();
}

std::string Object::text_or(const char* key, std::string_view otherwise) const {
  return value(key).is_null() ? std::string(otherwise) : text(key);
}

bool Object::flag(const char* key, bool otherwise) const {
  const Json& found = value(key);
  require(found.is_null() || found.is_boolean(), "{}: '{}' must be true or false", what_, key);
  return found.is_null() ? otherwise : found.get<bool>();
}

int64_t Object::count(const char* key) const {
  const Json& found = value(key);
  require(found.is_number_integer() && found >= 0 && found <= 1000,
          "{}: '{}' must be a whole number up to 1000", what_, key);
  return found.get<int64_t>();
}

bool read_pre_tokenizer(const Json& json, PreTokenizer& out) {
  bool bytes = false;
  for_each_entry(json, "pre_tokenizer", "pretokenizers", [&](const Object& entry, const std::string& type) {
    require(!bytes, "pre_tokenizer: {} after ByteLevel is not supported", printable(type));
    if (type == "ByteLevel") {
      bytes = true;
      if (entry.flag("add_prefix_space", true)) out.prefix_space();
      if (entry.flag("use_regex", true)) out.cut(kGpt2Pattern, false, SplitBehavior::isolated, false);
    } else if (type == "Split") {
      const Pattern pattern = read_pattern(entry);
      out.cut(pattern.text, pattern.literal, read_behavior(entry), entry.flag("invert"));
    } else if (type == "Digits") {
      out.digits(entry.flag("individual_digits"));
    } else if (type == "Metaspace") {
      out.metaspace(not_empty(entry, "replacement"), read_scheme(entry), entry.flag("split", true));
    } else {
      refuse(entry, type);
    }
  });
  return bytes;
}

void read_normalizer(const Json& json, Normalizer& out) {
  constexpr std::array<std::string_view, 4> kForms = {"NFC", "NFD", "NFKC", "NFKD"};
  for_each_entry(json, "normalizer", "normalizers", [&](const Object& entry, const std::string& type) {
    if (const auto form = std::ranges::find(kForms, type); form != kForms.end()) {
      out.unicode(static_cast<UnicodeForm>(form - kForms.begin()));
    } else if (type == "Prepend") {
      out.prepend(entry.text("prepend"));
    } else if (type == "Replace") {
      Pattern pattern = read_pattern(entry);
      if (pattern.literal)
        out.replace(std::move(pattern.text), entry.text("content"));
      else
        out.replace(Regex(pattern.text), entry.text("content"));
    } else {
      refuse(entry, type);
    }
  });
}

Template read_post_processor(const Json& json) {
  Template result;
  for_each_entry(json, "post_processor", "processors", [&](const Object& entry, const std::string& type) {
    if (type == "ByteLevel") return;  // concerns offsets only
    if (type != "TemplateProcessing") refuse(entry, type);
    const Json &pieces = entry.value("single"), &tokens = entry.value("special_tokens");
    require(pieces.is_array() && tokens.is_object(),
            "post_processor: single must be a list, special_tokens an object");
    bool behind = false;
    for (const Json& piece : pieces) {
      if (piece.is_object() && piece.contains("Sequence")) {
        require(!behind, "post_processor: a template that repeats the text is not supported");
        behind = true;
        continue;
      }
      const Json special = piece.is_object() ? piece.value("SpecialToken", Json()) : Json();
      const std::string name = Object(special, "post_processor: a part of single").text("id");
      const Json ids =
          Object(tokens.value(name, Json()), "post_processor: special token " + printable(name)).value("ids");
      std::optional<int32_t>& place = behind ? result.behind : result.before;
      require(ids.is_array() && ids.size() == 1 && ids[0].is_number_integer() && ids[0] >= 0 &&
                  ids[0] <= INT32_MAX && !place,
              "post_processor: more than one token on one side of the text is not supported");
      place = ids[0].get<int32_t>();
    }
    require(behind, "post_processor: the template does not hold the text");
  });
  return result;
}

std::string Decoder::piece(std::string name, bool first) const {
  for (const auto& step : steps) {
    if (std::holds_alternative<ByteLevel>(step))
      name = from_byte_letters(name).value_or(name);
    else if (std::holds_alternative<ByteFallback>(step))
      name = byte_or_same(name);
    else if (const auto* replace = std::get_if<Replace>(&step))
      name = replace_all(name, replace->text, replace->by);
    else if (const auto* metaspace = std::get_if<Metaspace>(&step))
      name = blanks(name, *metaspace, first);
    else
      name = std::get<DecodedStrip>(step).apply(name);
  }
  return name;
}

bool Decoder::first_differs() const {
  return std::ranges::any_of(steps, [](const auto& step) {
    const auto* metaspace = std::get_if<Metaspace>(&step);
    return metaspace && metaspace->drops_first;
  });
}

Decoder read_decoder(const Json& json, bool bytes) {
  Decoder decoder;
  if (json.is_null()) {
    require(bytes, "decoder null is not supported without the pre-tokenizer ByteLevel");
    decoder.steps.emplace_back(Decoder::ByteLevel{});
  }
  bool fused = false;
  for_each_entry(json, "decoder", "decoders", [&](const Object& entry, const std::string& type) {
    if (type == "Strip") {
      const DecodedStrip strip{not_empty(entry, "content"), entry.count("start"), entry.count("stop")};
      if (fused)
        decoder.strips.push_back(strip);
      else
        decoder.steps.emplace_back(strip);
      return;
    }
    require(!fused, "decoder: {} after Fuse or ByteLevel is not supported", printable(type));
    if (type == "ByteLevel") {
      decoder.steps.emplace_back(Decoder::ByteLevel{});
      fused = true;
    } else if (type == "Fuse") {
      fused = true;
    } else if (type == "ByteFallback") {
      decoder.steps.emplace_back(Decoder::ByteFallback{});
    } else if (type == "Replace") {
      const Pattern pattern = read_pattern(entry);
      require(pattern.literal, "decoder: Replace of a Regex is not supported");
      decoder.steps.emplace_back(Decoder::Replace{pattern.text, entry.text("content")});
    } else if (type == "Metaspace") {
      decoder.steps.emplace_back(
          Decoder::Metaspace{not_empty(entry, "replacement"), read_scheme(entry) != PrependScheme::never});
    } else {
      refuse(entry, type);
    }
  });
  return decoder;
}

}  // namespace nf::hugging_face
