#include "tools/data/readers.h"

#include <nf/error.h>
#include <simdjson.h>

#include <algorithm>
#include <cstring>

#include "tools/data/byte_stream.h"
#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBlanks = " \t\r\n";
constexpr size_t kLargestArray = size_t{1} << 30;     // of JSON, read as a whole
constexpr size_t kBlock = size_t{1} << 16;            // bytes read at once
constexpr size_t kLongestPiece = size_t{1} << 20;     // of a text
constexpr size_t kShortestPiece = kLongestPiece / 2;  // where there is a choice

// `offset`: where `bytes` begin in the file.
void check_utf8(std::string_view bytes, size_t offset, const fs::path& file) {
  const auto bad = find_invalid_utf8(bytes);
  if (bad)
    fail("data: {}: invalid UTF-8 at byte {} (0x{:02X}); convert the file to UTF-8", file.string(),
         offset + *bad, static_cast<uint8_t>(bytes[*bad]));
}

// Appends up to `count` bytes of the stream; fewer at its end.
size_t append(std::string& bytes, ByteStream& stream, size_t count) {
  const size_t before = bytes.size();
  bytes.resize(before + count);
  const size_t taken = stream.read(std::span(bytes).subspan(before));
  bytes.resize(before + taken);
  return taken;
}

bool is_visible_ascii(char byte) { return byte > 0x20 && byte < 0x7F; }

// Where to cut a text that is longer than a piece may be; see Document.
size_t piece_length(std::string_view text) {
  for (size_t at = kLongestPiece; at > kShortestPiece; --at)
    if (text[at - 1] == '\n' && is_visible_ascii(text[at - 2]) && is_visible_ascii(text[at])) return at;
  const size_t line_end = text.rfind('\n', kLongestPiece - 1);
  if (line_end != std::string_view::npos && line_end >= kShortestPiece) return line_end + 1;
  size_t at = kLongestPiece;
  while (at > kLongestPiece - 3 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

// Reads a file line by line, keeping count of the place.
class LineReader {
 public:
  explicit LineReader(const fs::path& file) : stream_(open_stream(file)) {}

  // The next line with its line end, if it has one; false at the end.
  bool next() {
    offset_ += line_.size() + skipped_;
    skipped_ = 0;
    line_.clear();
    while (!line_.ends_with('\n')) {
      if (block_.empty()) block_ = std::string_view(buffer_, stream_->read(buffer_));
      if (block_.empty()) break;
      const size_t end = std::min(block_.find('\n'), block_.size() - 1) + 1;
      line_ += block_.substr(0, end);
      block_.remove_prefix(end);
    }
    if (line_.empty()) return false;
    if (number_++ == 0 && line_.starts_with(kByteOrderMark)) {
      line_.erase(0, kByteOrderMark.size());
      skipped_ = kByteOrderMark.size();
    }
    return true;
  }

  std::string& line() { return line_; }
  int64_t number() const { return number_; }            // of the line, from 1
  size_t offset() const { return offset_ + skipped_; }  // of its first byte in the (unpacked) file

 private:
  std::unique_ptr<ByteStream> stream_;
  char buffer_[kBlock];
  std::string_view block_;  // the rest of the buffer
  std::string line_;
  int64_t number_ = 0;
  size_t offset_ = 0, skipped_ = 0;
};

std::string_view without_line_end(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text.ends_with('\r')) text.remove_suffix(1);
  return text;
}

// The strings of a JSON object, and all its fields.
std::string choose_field(const simdjson::dom::object& object, const SourceOptions& options,
                         std::string_view where) {
  std::vector<std::string> strings, all;
  for (const auto& [key, value] : object) {
    all.emplace_back(key);
    if (value.is_string()) strings.emplace_back(key);
  }
  return choose_text_field(options, strings, all, where);
}

// `bytes` get room for the parser, which reads past their end. `where` says the place, if asked.
template <typename Where>
simdjson::dom::element parse_json(simdjson::dom::parser& parser, std::string& bytes, const Where& where) {
  bytes.reserve(bytes.size() + simdjson::SIMDJSON_PADDING);
  simdjson::dom::element document;
  const auto error = parser.parse(bytes.data(), bytes.size(), false).get(document);
  if (error) fail("data: {}: not JSON: {}", where(), simdjson::error_message(error));
  return document;
}

// The text of a record. `field` is where it stands; empty: chosen now.
template <typename Where>
std::string_view text_of(const simdjson::dom::element& record, const SourceOptions& options,
                         const Where& where, std::string& field) {
  simdjson::dom::object object;
  simdjson::dom::element value;
  std::string_view text;
  if (record.get(object) != simdjson::SUCCESS) fail("data: {}: expected a JSON object", where());
  if (field.empty()) field = choose_field(object, options, where());
  if (object.at_key(field).get(value) != simdjson::SUCCESS)
    fail("data: {}: there is no field \"{}\"", where(), field);
  if (value.get(text) != simdjson::SUCCESS) fail("data: {}: field \"{}\" is not a string", where(), field);
  return text;
}

}  // namespace

void visit_text(std::string_view text, const fs::path& file, int64_t line, const DocumentVisitor& visitor) {
  while (text.size() > kLongestPiece) {
    const size_t length = piece_length(text);
    visitor({text.substr(0, length), file, line, true});
    text.remove_prefix(length);
  }
  if (!text.empty()) visitor({text, file, line});
}

std::string choose_text_field(const SourceOptions& options, const std::vector<std::string>& strings,
                              const std::vector<std::string>& all, std::string_view where) {
  const auto has = [&](const std::vector<std::string>& names) {
    return std::find(names.begin(), names.end(), options.text_field) != names.end();
  };
  if (has(strings)) return options.text_field;
  if (has(all)) fail("data: {}: field \"{}\" is not a string", where, options.text_field);
  if (options.text_field == SourceOptions().text_field && strings.size() == 1) return strings.front();
  require(!strings.empty(), "data: {}: there is no field \"{}\", and none of these is a string: {}", where,
          options.text_field, fmt::join(all, ", "));
  fail("data: {}: there is no field \"{}\"; name one with --text-field: {}", where, options.text_field,
       fmt::join(strings, ", "));
}

void read_text(const fs::path& file, const SourceOptions&, const DocumentVisitor& visitor) {
  const auto stream = open_stream(file);
  std::string text;
  append(text, *stream, kBlock);
  size_t offset = 0;  // of `text` in the file
  if (text.starts_with(kByteOrderMark)) {
    text.erase(0, kByteOrderMark.size());
    offset = kByteOrderMark.size();
  }
  do {
    while (text.size() > kLongestPiece) {
      const size_t length = piece_length(text);
      const std::string_view piece = std::string_view(text).substr(0, length);
      check_utf8(piece, offset, file);
      visitor({piece, file, 0, true});
      text.erase(0, length);
      offset += length;
    }
  } while (append(text, *stream, kShortestPiece) > 0);
  check_utf8(text, offset, file);
  if (!text.empty()) visitor({text, file, 0});
}

void read_lines(const fs::path& file, const SourceOptions&, const DocumentVisitor& visitor) {
  for (LineReader reader(file); reader.next();) {
    const std::string_view text = without_line_end(reader.line());
    check_utf8(text, reader.offset(), file);
    visit_text(text, file, reader.number(), visitor);
  }
}

void read_jsonl(const fs::path& file, const SourceOptions& options, const DocumentVisitor& visitor) {
  std::string field;  // chosen at the first record
  simdjson::dom::parser parser;
  for (LineReader reader(file); reader.next();) {
    std::string& line = reader.line();
    if (line.find_first_not_of(kBlanks) == std::string::npos) continue;
    check_utf8(line, reader.offset(), file);
    const auto where = [&] { return fmt::format("{}:{}", file.string(), reader.number()); };
    const simdjson::dom::element record = parse_json(parser, line, where);
    visit_text(text_of(record, options, where, field), file, reader.number(), visitor);
  }
}

void read_json(const fs::path& file, const SourceOptions& options, const DocumentVisitor& visitor) {
  std::string bytes;
  const auto stream = open_stream(file);
  append(bytes, *stream, kBlock);
  const size_t first =
      bytes.find_first_not_of(kBlanks, bytes.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0);
  if (first == std::string::npos || bytes[first] != '[') {
    const std::string_view line = std::string_view(bytes).substr(0, bytes.find('\n'));
    const size_t last = line.find_last_not_of(kBlanks);
    require(
        line.size() == bytes.size() || last == std::string_view::npos || line[last] != '{',
        "data: {}: an object over several lines; a .json file of texts is an array of records, or has one "
        "record per line",
        file.string());
    return read_jsonl(file, options, visitor);
  }
  while (append(bytes, *stream, kBlock) > 0)
    require(bytes.size() <= kLargestArray,
            "data: {}: an array of more than {} MiB; as JSON lines it could have any size", file.string(),
            kLargestArray >> 20);
  bytes.erase(0, first);
  check_utf8(bytes, first, file);
  std::string field;
  simdjson::dom::parser parser;
  simdjson::dom::array records;
  if (parse_json(parser, bytes, [&] { return file.string(); }).get(records) != simdjson::SUCCESS)
    fail("data: {}: expected an array", file.string());
  int64_t number = 0;
  for (const simdjson::dom::element record : records) {
    ++number;
    const auto where = [&] { return fmt::format("{}: record {}", file.string(), number); };
    std::string_view text;
    if (record.get(text) != simdjson::SUCCESS) text = text_of(record, options, where, field);
    visit_text(text, file, number, visitor);
  }
}

void read_fortune(const fs::path& file, const SourceOptions&, const DocumentVisitor& visitor) {
  std::string entry;
  int64_t first_line = 1;
  size_t first_byte = 0;
  const auto finish_entry = [&] {
    check_utf8(entry, first_byte, file);
    visit_text(without_line_end(entry), file, first_line, visitor);
    entry.clear();
  };
  for (LineReader reader(file); reader.next();) {
    if (without_line_end(reader.line()) == "%") {
      finish_entry();
      continue;
    }
    if (entry.empty()) {
      first_line = reader.number();
      first_byte = reader.offset();
    }
    entry += reader.line();
  }
  finish_entry();
}

bool has_fortune_separator(const fs::path& file) {
  constexpr size_t kHead = size_t{1} << 20;
  std::string head;
  const bool cut = append(head, *open_stream(file), kHead) == kHead;
  for (std::string_view rest = head; !rest.empty();) {
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos && cut) return false;  // half a line tells nothing
    if (without_line_end(rest.substr(0, end)) == "%") return true;
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  return false;
}

}  // namespace nf
