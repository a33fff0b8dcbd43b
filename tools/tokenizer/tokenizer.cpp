#include "tools/tokenizer/tokenizer.h"

#include <nf/error.h>
#include <nf/file.h>
#include <nf/json.h>

#include <nlohmann/json.hpp>

#include "tools/tokenizer/byte_tokenizer.h"
#include "tools/tokenizer/char_tokenizer.h"
#include "tools/tokenizer/hugging_face.h"
#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kFileName = "tokenizer.json";
constexpr int64_t kMaxBytes = int64_t{1} << 28;

std::unique_ptr<Tokenizer> parse_char(const Json& json, const std::string& file) {
  const Json end_of_text = json.value("end_of_text", Json());
  const Json list = json.value("characters", Json());
  require(end_of_text.is_boolean(), "tokenizer: {}: \"end_of_text\" must be true or false", file);
  require(list.is_array(), "tokenizer: {}: \"characters\" must be a list of one-character strings", file);

  std::vector<char32_t> characters;
  for (const Json& item : list) {
    const std::string text = item.is_string() ? item.get<std::string>() : std::string();
    require(!text.empty() && first_character(text).length == text.size(),
            "tokenizer: {}: entry {} of \"characters\" is not one character", file, characters.size());
    characters.push_back(first_character(text).code_point);
  }
  try {
    return std::make_unique<CharTokenizer>(std::move(characters), end_of_text.get<bool>());
  } catch (const Error& error) {
    fail("{} (in {})", error.what(), file);
  }
}

std::unique_ptr<Tokenizer> parse_byte(const Json&, const std::string&) {
  return std::make_unique<ByteTokenizer>();
}

struct Kind {
  std::string_view name;
  std::unique_ptr<Tokenizer> (*parse)(const Json&, const std::string& file);
};

constexpr Kind kKinds[] = {{"byte", parse_byte}, {"char", parse_char}};

std::unique_ptr<Tokenizer> make_char(const TrainingText& training_text) {
  require(static_cast<bool>(training_text),
          "tokenizer: a char tokenizer is built from training text; give it some");
  CharTokenizer::Builder builder;
  int64_t documents = 0;
  training_text([&](std::string_view text) {
    builder.add(text);
    ++documents;
  });
  return builder.finish(documents > 1);
}

}  // namespace

// FNV-1a, 64 bits (Fowler, Noll, Vo): small, byte-order free, good enough to tell tokenizers apart.
uint64_t Tokenizer::fingerprint() const {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : to_json()) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ULL;
  return hash;
}

void Tokenizer::save(const fs::path& directory) const {
  std::error_code error;
  fs::create_directories(directory, error);
  require(!error, "tokenizer: cannot create folder {}: {}", directory.string(), error.message());

  write_file(directory / kFileName, to_json());
}

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& path) {
  std::error_code ignored;
  const fs::path file = fs::is_directory(path, ignored) ? path / kFileName : path;
  require(fs::is_regular_file(file, ignored), "tokenizer: there is no file {}", file.string());
  const std::string text = read_file(file, kMaxBytes);
  if (auto tokenizer = parse_hugging_face(text, file.string())) return tokenizer;
  const Json json = Json::parse(text);
  require(json.is_object(), "tokenizer: {}: not a JSON object", file.string());
  const Json kind = json.value("kind", Json());
  require(json.value("format", Json()) == "nanoformer-tokenizer" && json.value("version", Json()) == 1,
          "tokenizer: {}: neither a tokenizer of ours (\"format\": \"nanoformer-tokenizer\", \"version\": 1) "
          "nor Hugging Face's (\"model\": …)",
          file.string());
  for (const Kind& known : kKinds)
    if (kind == known.name) return known.parse(json, file.string());
  fail("tokenizer: {}: unknown kind {}; known are byte and char", file.string(), printable(kind.dump()));
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& spec, const TrainingText& training_text) {
  if (spec == "byte") return std::make_unique<ByteTokenizer>();
  if (spec == "char" || spec == "character") return make_char(training_text);
  std::error_code ignored;
  require(fs::exists(spec, ignored),
          "tokenizer: '{}' is neither a kind (byte, char) nor a file or folder that exists", printable(spec));
  return load_tokenizer(spec);
}

}  // namespace nf
